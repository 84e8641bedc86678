"""Least privilege: the SQL for it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tokenkeep._stepping import run
from tokenkeep.cli.session import Session, command


class Dialect(StrEnum):
    """The databases that have roles."""

    POSTGRESQL = "postgresql"
    MARIADB = "mariadb"


@command
def roles(
    session: Session,
    *,
    dialect: Annotated[
        Dialect | None, typer.Option(help="for which database; default: that of --url", show_default=False)
    ] = None,
) -> None:
    """Print the SQL for an owner, a writer, a verifier and an auditor; nothing is connected."""
    from tokenkeep.stores.sql.direct import open_database  # noqa: PLC0415  # drivers are imported when they are wanted
    from tokenkeep.stores.sql.naming import Naming  # noqa: PLC0415  # the same
    from tokenkeep.stores.sql.roles import role_statements  # noqa: PLC0415  # the same

    scheme = session.url.partition("://")[0].partition("+")[0].replace("mysql", "mariadb")
    naming = Naming()
    if dialect is None or dialect == scheme:
        database, naming = open_database(session.url)
        run(database.close())
    session.screen.raw(role_statements(dialect or scheme, naming).rstrip())
