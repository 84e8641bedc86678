"""Partitions of issued tokens: divided once, then looked after day by day."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tokenkeep._stepping import run
from tokenkeep.buckets import start_of
from tokenkeep.cli.moments import moment
from tokenkeep.cli.session import Session, command
from tokenkeep.errors import SchemaMismatch

if TYPE_CHECKING:
    from tokenkeep.stores.sql.partitioning import Partitioning
    from tokenkeep.stores.sql.partitions import Layout

AHEAD: Final = 40
"""Days for which partitions are made ahead: more than refresh tokens live."""


@command
def partition(
    session: Session,
    *,
    days: Annotated[int, typer.Option(help="how many days a partition holds: a fortieth of the longest lifetime")] = 1,
) -> None:
    """Divide the empty table of issued tokens into partitions by the day of their end (PostgreSQL). Safe to repeat."""
    now = datetime.now(UTC)
    with _partitioning(session) as partitioning:
        divided = run(partitioning.divide(days))
        made = run(partitioning.partitions.make_partitions(now, now + timedelta(days=AHEAD)))
    if session.screen.json:
        session.screen.data({"divided": divided, "days": days, "made": made})
    session.screen.say(f"issued tokens are in partitions of {days_of(days)}; {made} made")
    if divided:
        session.screen.note("the table was made anew: run the SQL of `tokenkeep db roles` again where there are roles")


@command
def maintain(
    session: Session,
    *,
    ahead: Annotated[int, typer.Option(help="for how many days from now on partitions are made")] = AHEAD,
    expired_before: Annotated[
        str, typer.Option(help="drop partitions that ended before: a date, a time, or a span ago such as 7d")
    ] = "0s",
) -> None:
    """Make the partitions of the coming days and drop those that are over, of all namespaces. For the owner, daily."""
    now = datetime.now(UTC)
    before = min(now, moment(expired_before, "--expired-before", now=now))
    with _partitioning(session) as partitioning:
        partitions = partitioning.partitions
        made = run(partitions.make_partitions(now, now + timedelta(days=ahead)))
        dropped = run(partitions.drop_ended(None, before=before))
        layout = run(partitions.layout())
    if session.screen.json:
        session.screen.data({"made": made, "tokens": dropped, "partitions": layout and len(layout.partitions)})
    session.screen.facts({"partitions made": made, "tokens dropped": dropped, "issued tokens": told(layout)})


def told(layout: Layout | None) -> str:
    """Say how the table of issued tokens is divided."""
    if layout is None:
        return "in one table"
    if not layout.partitions:
        return "in partitions, of which there are none"
    first, end = layout.partitions[0].first, layout.partitions[-1].end
    width = "partitions" if layout.days is None else f"partitions of {days_of(layout.days)}"
    return f"in {len(layout.partitions)} {width}, from {start_of(first):%Y-%m-%d} to before {start_of(end):%Y-%m-%d}"


def days_of(days: int) -> str:
    """Write a number of days."""
    return "1 day" if days == 1 else f"{days} days"


@contextmanager
def _partitioning(session: Session) -> Iterator[Partitioning]:
    from tokenkeep.stores.sql.direct import open_database  # noqa: PLC0415  # drivers are imported when they are wanted
    from tokenkeep.stores.sql.migrating import Migrations  # noqa: PLC0415  # so is Alembic
    from tokenkeep.stores.sql.partitioning import Partitioning  # noqa: PLC0415  # loads SQLAlchemy

    database, naming = open_database(session.url)
    try:
        partitioning = Partitioning(database, naming)
        state = run(Migrations(database, naming).state())
        if not state.is_newest:
            way_out = "run `tokenkeep db init`" if state.found is None else "see `tokenkeep db current`"
            reason = f"the database holds schema {state.found}, this program needs {state.newest}: {way_out}"
            raise SchemaMismatch(reason, found=state.found, expected=state.newest)
        yield partitioning
    finally:
        run(database.close())
