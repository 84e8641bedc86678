"""`db init`, `upgrade`, `current` and `check` where there are no tables: MongoDB and Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tokenkeep._stepping import run
from tokenkeep.cli import exits
from tokenkeep.cli.session import Session
from tokenkeep.opening import STORES, open_backend
from tokenkeep.ports import Backend, Indexed


def has_tables(session: Session) -> bool:
    """Tell whether a session's store is a SQL database, or none that is known."""
    scheme = session.url.partition("://")[0]
    where, _ = STORES.get(scheme) or STORES.get(scheme.partition("+")[0]) or ("tokenkeep.stores.sql.", "")
    return where.startswith("tokenkeep.stores.sql.")


def init(session: Session) -> None:
    """Do what a program does at its first opening, and make the indexes that have gone missing since."""
    with _opened(session) as backend:
        before = run(backend.health.schema_version())
        run(backend.health.prepare())
        if isinstance(backend.health, Indexed):
            run(backend.health.index())
        now = run(backend.health.schema_version())
    if session.screen.json:
        session.screen.data({"before": before, "now": now})
    elif before == now:
        session.screen.say(f"nothing to do: the store is of schema {now}")
    else:
        session.screen.say(f"the store is of schema {now} now; it was empty")


def current(session: Session) -> int:
    """Tell which schema the store has; one that this program does not know is an error."""
    with _opened(session) as backend:
        found = run(backend.health.schema_version())
        if found is not None:
            run(backend.health.prepare())
    session.screen.facts({"schema": found})
    if session.screen.json:
        session.screen.data({"found": found})
    return exits.STORE if found is None else exits.OK


def check(session: Session) -> int:
    """Name what differs from what this program makes."""
    with _opened(session) as backend:
        found = run(backend.health.schema_version())
        differences = ["the store is empty yet"] if found is None else []
        if found is not None and isinstance(backend.health, Indexed):
            differences = run(backend.health.differences())
    if session.screen.json:
        session.screen.data({"found": found, "differences": differences})
    for difference in differences:
        session.screen.say(difference)
    if differences:
        session.screen.note("the store is not what this program expects; `tokenkeep db init` makes what is missing")
        return exits.STORE
    session.screen.say(f"the store is of schema {found}, and its indexes are there")
    return exits.OK


@contextmanager
def _opened(session: Session) -> Iterator[Backend]:
    backend = open_backend(session.url)
    try:
        yield backend
    finally:
        run(backend.health.close())
