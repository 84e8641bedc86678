"""A whole backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tokenkeep.ports.acquired import TokenStore
from tokenkeep.ports.auditing import AuditStore
from tokenkeep.ports.common import Health, KeyStore
from tokenkeep.ports.issued import IssuedStore
from tokenkeep.ports.leasing import LeaseStore
from tokenkeep.ports.partitions import Partitions
from tokenkeep.ports.revoking import WishStore
from tokenkeep.ports.transfer import Transferable
from tokenkeep.ports.watching import Bell


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """The rooms of one backend, opened and closed together.

    Attributes:
        transfer: `None` where whole stores cannot be moved from or to.
        bell: `None` where nobody tells of changes.
        one_writer: whether a transaction that writes keeps all others from writing, as on SQLite.
        partitions: `None` where issued tokens are never in partitions.
    """

    tokens: TokenStore
    wishes: WishStore
    leases: LeaseStore
    issued: IssuedStore
    audit: AuditStore
    keys: KeyStore
    health: Health
    transfer: Transferable | None = None
    bell: Bell | None = None
    partitions: Partitions | None = None
    one_writer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedStore:
    """What an opener makes of a URL.

    Attributes:
        path: the file that the database is, beside which a key file may stand; `None` for a server or memory.
        in_memory: it is gone when it is closed, so its keys need not be kept either.
    """

    backend: Backend
    path: Path | None = None
    in_memory: bool = False


class LentEngine(Protocol):
    """A SQLAlchemy `Engine` or `AsyncEngine` that belongs to the caller and is never closed here."""

    @property
    def dialect(self) -> Any:
        """The database that it speaks to."""

    def dispose(self, close: bool = True) -> Any:  # noqa: FBT001, FBT002  # SQLAlchemy's own
        """End its connections."""


type Source = str | LentEngine
"""What leads to a store: a URL, or what the caller has already opened."""
