"""The schema: made, brought up to date, compared, shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from tokenkeep._stepping import run
from tokenkeep.cli import exits
from tokenkeep.cli.database import tableless
from tokenkeep.cli.database.partitions import told
from tokenkeep.cli.session import Session, command
from tokenkeep.cli.stores import need_database
from tokenkeep.errors import SchemaMismatch

if TYPE_CHECKING:
    from tokenkeep.stores.sql.migrating import Migrations, State


@command
def init(session: Session) -> None:
    """Make the tables or indexes in an empty database. Safe to repeat; an older schema is left to `db upgrade`."""
    if not tableless.has_tables(session):
        tableless.init(session)
        return
    with _migrations(session) as migrations:
        before = run(migrations.state())
        if before.found is not None and not before.is_newest:
            raise _mismatch(before)
        if before.found is None:
            before = run(migrations.upgrade())
    _show(session, before)


@command
def upgrade(session: Session) -> None:
    """Bring the tables up to date while programs go on. Safe to repeat, to interrupt, and to run twice at once."""
    if not tableless.has_tables(session):
        tableless.init(session)
        return
    with _migrations(session) as migrations, session.screen.progress("upgrading"):
        before = run(migrations.upgrade())
    _show(session, before)


@command
def current(session: Session) -> int:
    """Tell which schema the database has, and whether it is the one that this program needs."""
    if not tableless.has_tables(session):
        return tableless.current(session)
    need_database(session)
    with _migrations(session) as migrations:
        state = run(migrations.state())
    session.screen.facts({"schema": state.found, "this program needs": state.newest})
    if session.screen.json:
        session.screen.data({"found": state.found, "needed": state.newest})
    return exits.OK if state.is_newest else exits.STORE


@command
def check(session: Session) -> int:
    """Compare the tables, column by column, or the indexes, with what this program expects."""
    if not tableless.has_tables(session):
        return tableless.check(session)
    need_database(session)
    with _migrations(session) as migrations:
        state = run(migrations.state())
        differences = run(migrations.differences()) if state.found is not None else ["there are no tables yet"]
        layout = run(migrations.layout()) if state.found is not None else None
    if session.screen.json:
        parts = {} if layout is None else {"partitions": len(layout.partitions)}
        session.screen.data({"found": state.found, "needed": state.newest, "differences": differences, **parts})
    for difference in differences:
        session.screen.say(difference)
    if differences or not state.is_newest:
        session.screen.note("the tables are not what this program expects; `tokenkeep db upgrade` does what is missing")
        return exits.STORE
    session.screen.say(f"the tables are those of schema {state.newest}")
    if layout is not None:
        session.screen.say(f"issued tokens are {told(layout)}")
    return exits.OK


@command
def sql(
    session: Session,
    *,
    after: Annotated[int, typer.Option(help="the schema that is there already; 0 for none")] = 0,
) -> None:
    """Print the SQL of `db upgrade` for somebody else to run; nothing is connected."""
    with _migrations(session) as migrations:
        session.screen.raw(migrations.sql(after=after).rstrip())


@contextmanager
def _migrations(session: Session) -> Iterator[Migrations]:
    from tokenkeep.stores.sql.direct import open_database  # noqa: PLC0415  # drivers are imported when they are wanted
    from tokenkeep.stores.sql.migrating import Migrations  # noqa: PLC0415  # so is Alembic

    database, naming = open_database(session.url)
    try:
        yield Migrations(database, naming)
    finally:
        run(database.close())


def _mismatch(state: State) -> SchemaMismatch:
    newer = state.found is not None and state.found > state.newest
    way_out = "upgrade this program" if newer else "run `tokenkeep db upgrade`"
    reason = f"the database holds schema {state.found}, this program needs {state.newest}: {way_out}"
    return SchemaMismatch(reason, found=state.found, expected=state.newest)


def _show(session: Session, before: State) -> None:
    if session.screen.json:
        session.screen.data({"before": before.found, "now": before.newest})
    elif before.is_newest:
        session.screen.say(f"nothing to do: the tables are those of schema {before.newest}")
    else:
        was = "there were no tables" if before.found is None else f"they were those of schema {before.found}"
        session.screen.say(f"the tables are those of schema {before.newest} now; {was}")
