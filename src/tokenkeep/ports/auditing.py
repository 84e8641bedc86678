"""The audit trail, and the chains that prove it complete.

Each user of a namespace has a chain: numbered events, each with a digest of itself and of the one before. Beside
them stands one head a chain. `tokenkeep.trail` makes the links and checks them; a store only keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from tokenkeep.model import Account, Action
from tokenkeep.ports.reporting import AuditReports


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An audit event on its way into the trail; the store adds the token's id where it makes the row."""

    action: Action
    at: datetime
    token_id: str | None = None
    detail: Mapping[str, Any]


class TrailKeys(Protocol):
    """What a key ring does for the trail."""

    @property
    def key_id(self) -> str:
        """The id of the newest key."""

    def trail_proof(self, message: bytes, key_id: str) -> bytes:
        """HMAC-SHA256 under a key of the ring (32 bytes); raises `UnknownKey`."""


class Proof(NamedTuple):
    """What a key of the ring says of an event or of a place in a chain; both are `None` where there was no key."""

    code: bytes | None = None
    key_id: str | None = None


UNPROVED: Final = Proof()
"""What was written without a key."""


class Mark(NamedTuple):
    """A place in a chain: the number of an event, which counts from 1, and its digest (32 bytes)."""

    sequence: int
    digest: bytes


START: Final = Mark(0, bytes(32))
"""The place before the first event."""


class Link(NamedTuple):
    """An event as it stands in its chain.

    Attributes:
        account: its provider is empty where the event has none.
        mark: its place in the chain; `None` for an event that is in none.
        place: where the store has it, to go on from.
        beside: it is in no chain, and younger than the first that is; `False` where the order of the events tells.
    """

    account: Account
    entry: Entry
    actor: str
    mark: Mark | None
    proof: Proof = UNPROVED
    place: int = 0
    beside: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What is known of a chain beside its events.

    Attributes:
        head: the last event; `None` where no head is kept although there are events.
        vouched: the last event up to which a rotation of keys found the chain whole; `START` where none did.
        vouched_proof: what the key of that rotation says of it.
        purged: the last event that a purge deleted; `START` when none was.
        purged_proof: what a key says of that.
    """

    head: Mark | None
    vouched: Mark = START
    vouched_proof: Proof = UNPROVED
    purged: Mark = START
    purged_proof: Proof = UNPROVED


class AuditStore(AuditReports, Protocol):
    """The trail. Changes write theirs in their own transaction; this is for reading, and for events alone."""

    async def note(self, account: Account, entry: Entry) -> None:
        """Append an event that no change carries (a failed call at the provider)."""

    async def note_each(self, noted: Sequence[tuple[Account, Entry]]) -> None:
        """Append such events of any accounts, durable when it returns; in one transaction where the store can."""

    async def purge_audit(self, namespace: str, before: datetime, *, limit: int) -> int:
        """Delete one batch of events older than `before`; return how many."""


@runtime_checkable
class ChainedAudit(AuditStore, Protocol):
    """A trail with chains. An extra power of an `AuditStore`.

    Whoever appends to a chain holds its head until the transaction ends, so no two events follow the same one. What
    others undo is tried again, as all contention. A purge deletes the oldest events of a chain only, up to the first
    that is not older than asked for, and leaves a proved mark of the last one that went; a chain that has been
    tampered with keeps its flaw.
    """

    def use_keys(self, keys: TrailKeys | None) -> None:
        """Prove events under these keys from now on. Called once, before anything is written."""

    async def count_audit(self, namespace: str) -> int:
        """Return how many events there are."""

    async def audited_users(self, namespace: str, *, after: str, limit: int) -> list[str]:
        """Return the next users who have a chain or an event, in the store's own order, past `after` ("": all)."""

    async def chain(self, namespace: str, user_id: str) -> Chain:
        """Return what is known of a user's chain beside its events."""

    async def links(self, namespace: str, user_id: str, *, after: int, limit: int) -> list[Link]:
        """Return the next events of a user, past the place `after` (0: from the start), in the order of the chain.

        Those from before the chain began come first.

        Raises:
            ValueError: a row holds what no event does.
        """

    async def unvouched(self, key_id: str, *, after: tuple[str, str], limit: int) -> list[tuple[str, str, Chain]]:
        """Return the next (namespace, user, chain) for which this key does not vouch yet, past `after`."""

    async def vouch(self, namespace: str, user_id: str, chain: Chain) -> bool:
        """Put the marks of `chain` in place of older ones; `False` when a purge went on meanwhile."""
