"""What keeping house has done: frozen values, without I/O."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What a purge removed: secrets that were erased, rows of tokens and of the audit trail deleted.

    Attributes:
        provider_revoked: tokens revoked here earlier, of which their providers were told now.
    """

    secrets: int = 0
    tokens: int = 0
    audit_events: int = 0
    provider_revoked: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What `forget` removed of a user.

    Attributes:
        tokens: rows that were deleted, of tokens and of their history.
        awaiting_revocation: rows that stay, sealed, until their provider has been told: forget once more then.
    """

    tokens: int
    awaiting_revocation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """What a key rotation did.

    Attributes:
        key_id: the key that seals every row now.
        resealed: how many rows this sweep moved to it.
        unused: key ids of the ring that seal nothing any more, sorted; they may be dropped.
    """

    key_id: str
    resealed: int
    unused: tuple[str, ...]
