"""What both kinds of token need of a backend: the keys, the health."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Protocol, runtime_checkable

from tokenkeep.model import TierStatus


class KeyUse(NamedTuple):
    """How many tokens a key seals, and how many digests of issued tokens it keys."""

    sealed: int = 0
    digests: int = 0


class KeyStore(Protocol):
    """What the database knows of the keys: ids and check values."""

    async def known_keys(self) -> dict[str, bytes]:
        """Return the check value of each key id that was ever used here."""

    async def remember_key(self, key_id: str, check_value: bytes, at: datetime) -> None:
        """Remember a key that begins to seal. Safe to repeat."""

    async def keys_in_use(self) -> dict[str, KeyUse]:
        """Return what each key is used for. It reads the whole tables: for rotation and for people."""


@runtime_checkable
class Indexed(Protocol):
    """A store whose indexes somebody may have dropped or changed. An extra power of `Health`."""

    async def index(self) -> None:
        """Make the indexes that are missing. Safe to repeat."""

    async def differences(self) -> list[str]:
        """Return a sentence for each index that is missing or is another than this program makes."""


class Health(Protocol):
    """What every store can say of itself."""

    async def prepare(self) -> None:
        """Create the schema in an empty database, or check the one that is there. Safe to repeat.

        Raises:
            SchemaMismatch: it is newer than this program, or the database belongs to somebody else.
        """

    async def tiers(self) -> tuple[TierStatus, ...]:
        """Tell how each tier is, the durable one first; never raises, never shows a data source name."""

    async def schema_version(self) -> int | None:
        """Return the schema version; `None` when it cannot be asked."""

    async def warnings(self) -> tuple[str, ...]:
        """Name settings that would lose acknowledged data."""

    async def close(self) -> None:
        """Close what this store opened. Safe to repeat."""

    def forget(self) -> None:
        """Let go of every connection without closing it: after a fork they are the parent's."""
