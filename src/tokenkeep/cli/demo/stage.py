"""What the scenes of the demo share: the folder, the local Upstox, two accounts, and how it is told."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress

from tokenkeep.cli.screen import Screen
from tokenkeep.keyring import KeyRing
from tokenkeep.testing.upstox import LocalAccount, LocalUpstox

ALICE: Final = "alice"
BOB: Final = "bob"

PROVIDER: Final = "upstox"

_FIELDS: Final = ("username", "password", "pin_code", "totp_secret", "client_id", "client_secret", "redirect_uri")
_BEAT: Final = 0.7
"""Seconds between two scenes at a terminal, for the reader's eyes."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The demo's surroundings."""

    folder: Path
    server: LocalUpstox
    accounts: dict[str, LocalAccount]
    keys: KeyRing
    screen: Screen
    quick: bool

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / "tokens.db"

    @property
    def key_file(self) -> Path:
        """The key file, where every program looks for it that opens the database."""
        return self.folder / "tokens.db.key"

    @property
    def url(self) -> str:
        """The database, as a URL."""
        return f"sqlite:///{self.database}"

    def settings(self) -> dict[str, Any]:
        """Return what a worker process needs."""
        accounts = {user: {name: getattr(account, name) for name in _FIELDS} for user, account in self.accounts.items()}
        return {
            "url": self.url,
            "key_file": str(self.key_file),
            "accounts": accounts,
            "base_domain": self.server.base_domain,
        }

    def granted(self, user: str) -> int:
        """Return how many logins of a user the server has granted."""
        account = self.accounts[user].user_id
        return sum(record.granted for record in self.server.logins if record.account == account)

    def secrets(self) -> list[str]:
        """Return what must stand in no file: what the accounts log in with."""
        return [
            getattr(account, name)
            for account in self.accounts.values()
            for name in ("password", "pin_code", "totp_secret", "client_secret")
        ]

    def heading(self, title: str, *words: str) -> None:
        """Begin a scene."""
        if self.screen.rich and not self.quick:
            time.sleep(_BEAT)
        self.screen.say()
        self.screen.say(title, style="bold cyan")
        for line in words:
            self.screen.say(line, style="dim")

    def fact(self, *facts: str) -> None:
        """Tell what was just shown to hold."""
        for line in facts:
            self.screen.say(f"  ✓ {line}", style="green")


@contextmanager
def set_up(folder: Path, screen: Screen, *, quick: bool) -> Iterator[Stage]:
    """Start the local Upstox with an account each for Alice and Bob, and make the key file."""
    with LocalUpstox() as server:
        accounts = {ALICE: server.account, BOB: server.add_account(user_name="Bela Nair", email="bela@example.com")}
        keys = KeyRing.kept_in(folder / "tokens.db.key")
        yield Stage(folder, server, accounts, keys, screen, quick)


class Ticker:
    """Says what is waited for: anew in one place at a terminal, each thing once in a pipe."""

    def __init__(self, stage: Stage, progress: Progress) -> None:
        self._stage = stage
        self._progress = progress
        self._told = ""

    def show(self, what: str, left: float | None = None) -> None:
        """Say what is waited for, and for how many seconds at most."""
        more = "" if left is None else f" ({max(left, 0):.0f} s)"
        self._progress.update(self._progress.task_ids[0], description=what + more)
        if what != self._told and not self._stage.screen.rich:
            self._stage.screen.say(f"  … {what}")
        self._told = what


@contextmanager
def waiting(stage: Stage, what: str) -> Iterator[Ticker]:
    """Show that and what is waited for."""
    with stage.screen.progress(what) as progress:
        ticker = Ticker(stage, progress)
        ticker.show(what)
        yield ticker


def plural(count: int, word: str) -> str:
    """Return `1 login`, `2 logins`."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def distinct(answers: Sequence[dict[str, Any]]) -> set[str]:
    """Return the digests of all tokens that the processes got."""
    return {digest for answer in answers for digest in answer["tokens"]}
