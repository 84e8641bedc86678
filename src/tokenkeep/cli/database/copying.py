"""Moving a whole store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from tokenkeep._stepping import run
from tokenkeep.cli.session import Session, command
from tokenkeep.copying import Copying
from tokenkeep.errors import ConfigurationError, SchemaMismatch
from tokenkeep.opening import open_backend
from tokenkeep.ports import Backend, Transferable


@command
def copy(
    session: Session,
    *,
    source: Annotated[str, typer.Option("--from", help="the URL of the store that is copied", show_default=False)],
    target: Annotated[str, typer.Option("--to", help="the URL of an empty database", show_default=False)],
) -> None:
    """Copy a whole store, all namespaces, sealed as it is, and compare the two. Interrupted, the next call goes on."""
    with _opened(source) as old, _opened(target) as new:
        if run(old.health.schema_version()) is None:
            reason = "there is no tokenkeep at --from: check the URL"
            raise SchemaMismatch(reason, found=None, expected=0)
        run(old.health.prepare())
        run(new.health.prepare())
        with session.screen.progress("copying", total=0) as progress:
            task = progress.task_ids[0]
            copied = run(
                Copying(_transfer(old, "--from"), _transfer(new, "--to")).run(
                    lambda done, total: progress.update(task, completed=done, total=total)
                )
            )
    if session.screen.json:
        session.screen.data({room.value: result for room, result in copied.items()})
    rows = [(room.value, result.rows, result.added, result.digest[:16]) for room, result in copied.items()]
    session.screen.table(("rows of", "in both", "added now", "digest"), rows)
    session.screen.note("the same keys are needed there: copy the key file, or name it in TOKENKEEP_KEY_FILE")


@contextmanager
def _opened(url: str) -> Iterator[Backend]:
    backend = open_backend(url)
    try:
        yield backend
    finally:
        run(backend.health.close())


def _transfer(backend: Backend, option: str) -> Transferable:
    if backend.transfer is None:
        msg = f"the store at {option} cannot be moved by `db copy`: it does not let whole rows in or out"
        raise ConfigurationError(msg)
    return backend.transfer
