"""A whole backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenkeep.ports.acquired import TokenStore
from tokenkeep.ports.common import AuditStore, Health, KeyStore
from tokenkeep.ports.issued import IssuedStore
from tokenkeep.ports.leasing import LeaseStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """The rooms of one backend, opened and closed together."""

    tokens: TokenStore
    leases: LeaseStore
    issued: IssuedStore
    audit: AuditStore
    keys: KeyStore
    health: Health


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
