"""Who tells that tokens may have changed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from tokenkeep.model import Account


class Ear(Protocol):
    """An open way on which news come in, of one thread or event loop."""

    async def heard(self, seconds: float) -> Collection[str] | None:
        """Wait for news, at most so long; return their topics, none after silence, `None` when it may be any topic."""

    async def close(self) -> None:
        """Close it."""


class Bell(Protocol):
    """Says soon that a token was put in place. An extra power of a backend.

    Nothing rests on it: a message may be lost, come twice, or mean nothing. Whoever listens reads anew after
    each `listen`, and now and then without being told. Both methods of listening may raise any error: the way is
    broken then, and another one is opened.
    """

    def topic(self, account: Account, kind: str) -> str:
        """Name what is said when a token of this account and kind is put in place."""

    async def listen(self) -> Ear | None:
        """Open a way: what is put in place after this returns is told on it. `None`: here there can be none."""
