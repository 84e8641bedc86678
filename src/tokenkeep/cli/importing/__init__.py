"""`tokenkeep import`: tokens that another program has kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from tokenkeep.cli.accounts import policy_of
from tokenkeep.cli.importing import json_file
from tokenkeep.cli.session import Session, command
from tokenkeep.cli.stores import database_exists, open_vault
from tokenkeep.importing import seed_page
from tokenkeep.importing.entries import Contents, Origin, Unreadable
from tokenkeep.importing.landing import Outcome, land


@command
def import_file(
    session: Session,
    file: Annotated[Path, typer.Argument(help="JSON, or a SQLite file with a table upstox_tokens", show_default=False)],
    *,
    user: Annotated[
        str | None, typer.Option(help="your name for the account, for a file of one user", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only tell what would be done")] = False,
) -> None:
    """Bring in the live tokens of a file. Safe to repeat; the file is left as it is."""
    contents = _read(session, file, user)
    outcomes = _landed(session, contents, dry=dry_run)
    _show(session, file, contents, outcomes, dry=dry_run)


def _read(session: Session, file: Path, user: str | None) -> Contents:
    try:
        saved_at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        with file.open("rb") as opened:
            is_sqlite = opened.read(len(seed_page.MAGIC)) == seed_page.MAGIC
        reader = seed_page.read if is_sqlite else json_file.read
        return reader(file, _origin(session, user, saved_at))
    except OSError as error:
        msg = f"{file} cannot be read: {error.strerror}"
        raise Unreadable(msg) from None


def _origin(session: Session, user: str | None, saved_at: datetime) -> Origin:
    now = datetime.now(UTC)
    policy = policy_of(session.provider)
    return Origin(provider=session.provider, user=user, policy=policy, now=now, saved_at=saved_at)


def _landed(session: Session, contents: Contents, *, dry: bool) -> list[Outcome]:
    if dry and not database_exists(session):
        return [Outcome.STORED for _ in contents.entries]
    total = len(contents.entries)
    with open_vault(session, create=True) as vault, session.screen.progress("importing", total=total) as progress:
        advance: Callable[[], None] = lambda: progress.advance(progress.task_ids[0])  # noqa: E731  # one task, one word
        return land(vault, session.provider, contents.entries, dry=dry, advance=advance)


def _show(session: Session, file: Path, contents: Contents, outcomes: list[Outcome], *, dry: bool) -> None:
    screen = session.screen
    counts = Counter(outcomes)
    pairs = list(zip(contents.entries, outcomes, strict=True))
    if screen.json:
        tokens = [
            {"user_id": entry.user_id, "kind": entry.token.kind, "expires_at": entry.token.expires_at,
             "place": entry.place, "outcome": outcome.name.lower()}
            for entry, outcome in pairs
        ]  # fmt: skip
        skipped = [{"place": place, "reason": reason} for place, reason in contents.skipped]
        told = {"file": str(file), "dry_run": dry, "stored": counts[Outcome.STORED], "tokens": tokens}
        screen.data(told | {"skipped": skipped, "left_out": sorted(contents.left_out)})
    rows = [(entry.place, entry.user_id, entry.token.kind, entry.token.expires_at, outcome) for entry, outcome in pairs]
    if rows:
        screen.table(("where", "user", "kind", "expires", "would be" if dry else "what"), rows)
    _say(session, file, contents, counts, dry=dry)


def _say(session: Session, file: Path, contents: Contents, counts: Counter[Outcome], *, dry: bool) -> None:
    stored, in_place, kept = (counts[outcome] for outcome in Outcome)
    done = "would be stored" if dry else "stored"
    session.screen.say(f"{stored} {done}, {in_place} already in place, {kept} older than the vault's")
    for reason, count in Counter(reason for _, reason in contents.skipped).items():
        session.screen.say(f"{count} skipped: {reason}")
    if contents.left_out:
        session.screen.note(f"left out, for they may be secret: {', '.join(sorted(contents.left_out))}")
    held = sum(counts.values()) + len(contents.skipped)
    if held and not dry:
        session.screen.note(f"{file} still holds {held} tokens in clear; {contents.remedy}")
