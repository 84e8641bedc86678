"""The command `demo`: the main road, on a local Upstox, in about a minute."""

from __future__ import annotations

import shlex
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenkeep.cli import exits
from tokenkeep.cli.session import Session, command
from tokenkeep.errors import ConfigurationError

if TYPE_CHECKING:
    from tokenkeep.cli.demo.stage import Stage


@command
def demo(
    session: Session,
    *,
    folder: Annotated[
        Path | None, typer.Option(help="where its files go; default: a new temporary folder", show_default=False)
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="no pauses for reading between the scenes")] = False,
) -> int:
    """Watch many processes share one login at a local Upstox, and one process succeed another. About a minute."""
    from tokenkeep.cli.demo.stage import set_up  # noqa: PLC0415  # what no other command needs to load

    started = time.monotonic()
    place = _made(folder)
    session.screen.say(f"tokenkeep demo; its files are in {place}", style="bold")
    try:
        with set_up(place, session.screen, quick=quick) as stage:
            _play(stage)
            _end(stage, time.monotonic() - started)
    except KeyboardInterrupt:
        session.screen.note(f"interrupted; every process of the demo has ended, its files stay in {place}")
        return exits.INTERRUPTED
    return exits.OK


def _made(folder: Path | None) -> Path:
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="tokenkeep-demo-"))
    if folder.exists() and any(folder.iterdir()):
        msg = f"{folder} is not empty; the demo wants a folder of its own"
        raise ConfigurationError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


def _play(stage: Stage) -> None:
    from tokenkeep.cli.demo import books, shared_login, succession  # noqa: PLC0415  # see above

    with shared_login.play(stage) as crew:
        succession.play(stage, crew)
    books.play(stage)
    books.play_issuing(stage)


def _end(stage: Stage, seconds: float) -> None:
    stage.heading(f"Done in {seconds:.0f} s. Look around:")
    for line in (
        f"export TOKENKEEP_URL={shlex.quote(stage.url)}",
        "tokenkeep list",
        "tokenkeep audit bob",
        "tokenkeep get alice --no-login",
        "tokenkeep keys rotate --add --drop-unused",
    ):
        stage.screen.say(f"  {line}")
    stage.screen.say()
    stage.screen.say(f"The database is {stage.database}, its key {stage.key_file}. The local Upstox has stopped.")
    stage.screen.say("With your own account: docs/quickstart.md")
