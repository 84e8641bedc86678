"""Encryption at rest."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from tokenkeep.model import Account
from tokenkeep.ports.auditing import TrailKeys
from tokenkeep.secret import Secret


class Binding(NamedTuple):
    """Where a sealed value belongs (RFC 5116: the associated data). It opens nowhere else."""

    account: Account
    kind: str
    row: str
    field: str


class Sealer(TrailKeys, Protocol):
    """Encryption at rest, and proofs for the audit trail. Safe to use from several threads."""

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of all keys that can open, oldest first."""

    def seal(self, secret: Secret, binding: Binding) -> bytes:
        """Seal under the newest key, bound to its place."""

    def open(self, sealed: bytes, binding: Binding) -> Secret:
        """Open what `seal` made for the same place.

        Raises:
            UnknownKey: the key is not in the ring.
            SealingError: changed, moved, or not ours.
        """

    def key_id_of(self, sealed: bytes) -> str:
        """Tell under which key a value was sealed, without opening it."""

    def check_value(self, key_id: str) -> bytes:
        """A value that proves possession of a key and reveals nothing of it, to be kept beside the rows."""

    def fingerprint(self, secret: Secret, key_id: str | None = None) -> bytes:
        """A keyed digest (HMAC-SHA256, 32 bytes) by which equal secrets are recognised; `None`: the newest key."""
