"""`tokenkeep db`: commands on the database itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import typer

from tokenkeep.cli import adopting
from tokenkeep.cli.database import copying, partitions, roles, schema, seeds

COMMANDS: Final = (
    ("init", schema.init),
    ("upgrade", schema.upgrade),
    ("current", schema.current),
    ("check", schema.check),
    ("sql", schema.sql),
    ("roles", roles.roles),
    ("partition", partitions.partition),
    ("maintain", partitions.maintain),
    ("copy", copying.copy),
    ("import", seeds.import_tables),
    ("adopt-fastapi-users", adopting.adopt_fastapi_users),
)
"""In the order in which the help shows them."""


def group(options: Mapping[str, Any]) -> typer.Typer:
    """Make the group; the options are those of every group of the command."""
    made = typer.Typer(help="The database itself: its schema, its roles, moving it.", **options)
    for name, function in COMMANDS:
        made.command(name)(function)
    return made
