"""`tokenkeep db import`: what the storage classes of the upstox-totp documentation left in PostgreSQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tokenkeep._stepping import run
from tokenkeep.cli.accounts import policy_of
from tokenkeep.cli.session import Session, command
from tokenkeep.cli.stores import database_exists, key_ring, open_vault
from tokenkeep.errors import ConfigurationError
from tokenkeep.importing.entries import Contents, Origin
from tokenkeep.importing.landing import Outcome, land
from tokenkeep.model import Account
from tokenkeep.opening import open_backend
from tokenkeep.ports import Backend, ChainedAudit

if TYPE_CHECKING:
    from tokenkeep.importing.seed_server import SeedServer


@command
def import_tables(
    session: Session,
    *,
    source: Annotated[str, typer.Option("--from", help="the PostgreSQL URL of the old tables", show_default=False)],
    user: Annotated[
        str | None, typer.Option(help="your name for the account, for tables of one user", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only tell what would be done")] = False,
) -> None:
    """Seal the live tokens of upstox_tokens and upstox_token_backup, and take over upstox_token_audit.

    Interrupted, the next call goes on; repeated, it adds nothing. The old tables are left as they are.
    """
    now = datetime.now(UTC)
    origin = Origin(provider=session.provider, user=user, policy=policy_of(session.provider), now=now, saved_at=now)
    with _server(source) as server:
        contents = run(server.read(origin))
        events = 0 if dry_run else _take_over_events(session, server, origin)
    outcomes = _land(session, contents, dry=dry_run)
    _show(session, contents, Counter(outcomes), events, dry=dry_run)


@contextmanager
def _server(url: str) -> Iterator[SeedServer]:
    from sqlalchemy import make_url  # noqa: PLC0415  # takes its time

    from tokenkeep.importing.seed_server import SeedServer  # noqa: PLC0415  # the same
    from tokenkeep.stores.sql.direct import open_database  # noqa: PLC0415  # the same

    if url.partition("://")[0].partition("+")[0] != "postgresql":
        msg = "--from takes the URL of a PostgreSQL database; `tokenkeep import FILE` reads SQLite files"
        raise ConfigurationError(msg)
    database, _ = open_database(url)
    try:
        yield SeedServer(database, str(make_url(url).database))
    finally:
        run(database.close())


def _take_over_events(session: Session, server: SeedServer, origin: Origin) -> int:
    """Bring the old trail in before the tokens, so that what is stored now comes after it."""
    with open_vault(session, create=True):
        pass  # makes the tables, and a key where one is made
    backend = open_backend(session.url)
    if isinstance(backend.audit, ChainedAudit):
        backend.audit.use_keys(key_ring(session))
    account = Account(session.namespace, session.provider, "")
    try:
        return run(_events(session, server, origin, backend, account))
    finally:
        run(backend.health.close())


async def _events(session: Session, server: SeedServer, origin: Origin, backend: Backend, account: Account) -> int:
    from tokenkeep.importing.seed_server import last_event, take_over  # noqa: PLC0415  # loads SQLAlchemy

    if backend.transfer is None:
        session.screen.note("the old trail stays where it is: this store takes none over")
        return 0
    after, taken = await last_event(backend.transfer, account, server.name), 0
    with session.screen.progress("taking over the trail", total=await server.count_events(after)) as progress:
        async for user, event in server.events(after, origin):
            if event is not None:
                await take_over(backend.audit, account, user, event)
                taken += 1
            progress.advance(progress.task_ids[0])
    return taken


def _land(session: Session, contents: Contents, *, dry: bool) -> list[Outcome]:
    if dry and not database_exists(session):
        return [Outcome.STORED for _ in contents.entries]
    total = len(contents.entries)
    with open_vault(session, create=True) as vault, session.screen.progress("sealing", total=total) as progress:
        task = progress.task_ids[0]
        return land(vault, session.provider, contents.entries, dry=dry, advance=lambda: progress.advance(task))


def _show(session: Session, contents: Contents, counts: Counter[Outcome], events: int, *, dry: bool) -> None:
    stored, in_place, kept = (counts[outcome] for outcome in Outcome)
    skipped = Counter(reason for _, reason in contents.skipped)
    if session.screen.json:
        told = {"dry_run": dry, "stored": stored, "in_place": in_place, "kept": kept, "events": events}
        session.screen.data(told | {"skipped": dict(skipped)})
    done = "would be stored" if dry else "stored"
    session.screen.say(f"{stored} {done}, {in_place} already in place, {kept} older than the vault's")
    for reason, count in skipped.items():
        session.screen.say(f"{count} skipped: {reason}")
    if not dry:
        session.screen.say(f"{events} events taken over into the trail")
        held = sum(counts.values()) + len(contents.skipped)
        session.screen.note(f"the old tables still hold {held} tokens in clear; {contents.remedy}")
