"""Commands on keys. They show ids; a key itself goes into a file and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenkeep.algorithms import ALGORITHMS
from tokenkeep.cli.session import Session, command
from tokenkeep.cli.stores import database_exists, key_file, key_ring, need_database, open_vault
from tokenkeep.keyring import FILE_VARIABLE, KeyRing
from tokenkeep.model import Rotated

if TYPE_CHECKING:
    from rich.progress import Progress


@command
def new(
    session: Session,
    *,
    file: Annotated[
        Path | None, typer.Option(help="the key file; default: the one of this database", show_default=False)
    ] = None,
) -> None:
    """Make a key file with one key, or add a newest key to the one that is there."""
    path = key_file(session) if file is None else file
    made = not path.exists()
    ring = KeyRing.generate() if made else KeyRing.from_file(path)
    key_id = ring.key_id if made else ring.add()
    ring.save(path, replace=not made)
    if session.screen.json:
        session.screen.data({"file": str(path), "key_id": key_id, "made": made})
        return
    session.screen.say(f"made {path} with key {key_id}" if made else f"added key {key_id} to {path}")
    session.screen.say("next: keep a copy apart from the database; without the key nobody can read the tokens")
    if made:
        session.screen.say(f"      unless it stands beside its database, name it: export {FILE_VARIABLE}={path}")
    else:
        session.screen.say("      restart every process that uses the file: the others cannot read what is new")
        session.screen.say("      tokenkeep keys rotate --drop-unused    seals every row under it, and drops the old")


@command
def listed(session: Session) -> None:
    """Show the ids of the keys: which seals, which are in use."""
    ring = key_ring(session)
    in_use: tuple[str, ...] = ()
    if database_exists(session):
        with open_vault(session, keys=ring) as vault:
            in_use = vault.status().key_ids
    keys = [
        {"key_id": key_id, "seals": key_id == ring.key_id, "in_use": key_id in in_use}
        for key_id in reversed(ring.key_ids)
    ]
    if session.screen.json:
        session.screen.data(keys)
    session.screen.table(("key", "seals", "in use"), [tuple(key.values()) for key in keys])


@command
def algorithms(session: Session) -> None:
    """Show which algorithm is used for what, and how strong it is."""
    if session.screen.json:
        session.screen.data([one._asdict() for one in ALGORITHMS])
    session.screen.table(("for", "algorithm", "bits", "source"), list(ALGORITHMS))


@command
def rotate(
    session: Session,
    *,
    add: Annotated[bool, typer.Option("--add", help="add a new key to the key file first")] = False,
    drop_unused: Annotated[
        bool, typer.Option("--drop-unused", help="then drop from the file the keys that nothing is sealed under")
    ] = False,
) -> None:
    """Seal every row anew under the newest key. Interrupted, the next call goes on."""
    need_database(session)
    path = key_file(session) if add or drop_unused else None
    ring = key_ring(session)
    with open_vault(session, keys=ring) as vault:
        if add and path is not None:
            ring.add()
            ring.save(path)  # on disk before anything is sealed under it
        with session.screen.progress("sealing anew", total=0) as progress:
            rotated = vault.rotate_keys(_advance(progress))
    dropped = _dropped(ring, rotated, path) if drop_unused and path is not None else ()
    kept = tuple(key_id for key_id in ring.key_ids if key_id != rotated.key_id)
    _show(session, rotated, dropped, kept)


def _advance(progress: Progress) -> Callable[[int, int], None]:
    def advance(done: int, total: int) -> None:
        progress.update(progress.task_ids[0], completed=done, total=total)

    return advance


def _dropped(ring: KeyRing, rotated: Rotated, path: Path) -> tuple[str, ...]:
    """Drop what seals nothing any more, and only that."""
    for key_id in rotated.unused:
        ring.drop(key_id)
    if rotated.unused:
        ring.save(path)
    return rotated.unused


def _show(session: Session, rotated: Rotated, dropped: tuple[str, ...], kept: tuple[str, ...]) -> None:
    unused = tuple(key_id for key_id in rotated.unused if key_id not in dropped)
    needed = tuple(key_id for key_id in kept if key_id not in unused)
    told = {"key_id": rotated.key_id, "resealed": rotated.resealed, "dropped": dropped, "unused": unused}
    if session.screen.json:
        session.screen.data(told | {"still_in_use": needed})
        return
    session.screen.facts(
        {
            "newest key": rotated.key_id,
            "rows sealed anew": rotated.resealed,
            "keys dropped": dropped,
            "keys unused": unused,
            "keys still in use": needed,
        }
    )
    if needed:
        session.screen.note(f"kept {', '.join(needed)}: tokens were issued under it that have not been purged yet")
    if unused:
        session.screen.say("`tokenkeep keys rotate --drop-unused` drops what is unused")
