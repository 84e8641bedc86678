"""What a tier asks of a cache."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from tokenkeep.model import Account

RECORDS = b"R"
"""First byte of a value that holds sealed records."""

MARK = b"T"
"""First byte of a mark: a reader is fetching the records."""

HOLD = b"H"
"""First byte of a hold: a writer is changing them."""


class CacheFailed(Exception):
    """The cache did not answer as it should.

    Attributes:
        reason: a few words for `status()`, without an address.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class RecordCache(Protocol):
    """One value for each account, for a limited time. Each method is one round trip and may raise `CacheFailed`."""

    @property
    def name(self) -> str:
        """What `status()` calls it."""

    async def get(self, account: Account) -> bytes | None:
        """Return the value: records, a mark or a hold; `None` when there is none."""

    async def mark(self, account: Account, mark: bytes, lives: timedelta) -> bool:
        """Put a mark where nothing is; `False` when something is there."""

    async def fill(self, account: Account, mark: bytes, value: bytes, lives: timedelta) -> bool:
        """Put records in place of exactly this mark, until it would have ended or for `lives`, what is sooner."""

    async def hold(self, account: Account, hold: bytes, lives: timedelta) -> None:
        """Put a hold in place of whatever is there; where there is no room for it, remove what is there."""

    async def clear(self, account: Account, hold: bytes) -> None:
        """Remove whatever is there, but for the hold of another writer."""

    async def ping(self) -> None:
        """Return when the cache answers."""

    async def close(self) -> None:
        """Close what was opened. Safe to repeat."""

    def forget(self) -> None:
        """Let go of every connection without closing it: after a fork they are the parent's."""
