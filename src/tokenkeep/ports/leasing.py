"""Single-flight."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from tokenkeep.model import (
    Account,
)
from tokenkeep.ports.auditing import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to log in for one account, until it ends.

    Attributes:
        owner: who holds it.
        fence: counts up with each taking; a write under an older fence is refused.
        unfinished: the fence of an attempt that was begun and never ended; `None` when all ended.
        fingerprint: of the refresh token which that attempt was about to spend; `None` when it spent none.
        failures: how many attempts have failed in a row.
    """

    account: Account
    owner: str
    fence: int
    unfinished: int | None
    fingerprint: bytes | None
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unheld:
    """The right to write for an account whose lease nobody holds and no attempt has left unfinished.

    It is looked for in the transaction that writes; an attempt that began before cannot land after it.
    """

    account: Account


type Right = Lease | Unheld
"""What a write of tokens has to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseState:
    """What others see of a lease.

    Attributes:
        fence: of the newest attempt; 0 before the first.
        held_for: seconds until the present lease ends; 0 when nobody holds it.
        failed_fence: the attempt that the failure belongs to; `None` when the last one succeeded.
        failure: the name of the error class of that failure.
        reason: its sentence.
        retry_in: seconds until an attempt may be repeated by itself; `None` for never.
    """

    fence: int = 0
    held_for: float = 0.0
    failed_fence: int | None = None
    failure: str | None = None
    reason: str = ""
    retry_in: float | None = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How an attempt failed, for those who waited for it.

    Attributes:
        retry_in: seconds until it may be repeated by itself; `None` for never.
    """

    failure: str
    reason: str
    retry_in: float | None


class LeaseStore(Protocol):
    """Single-flight: one row an account, changed only by conditional writes, timed by one clock.

    Lease times are compared in the database's own clock, so hosts may disagree about the time; a store
    that was handed a clock uses that instead.
    """

    async def lease_state(self, account: Account) -> LeaseState:
        """Read the lease without touching it."""

    async def take_lease(self, account: Account, owner: str, ttl: timedelta) -> Lease | None:
        """Take a lease that nobody holds, or whose holder let it end. `None` when somebody holds it."""

    async def keep_lease(self, lease: Lease, ttl: timedelta) -> bool:
        """Extend a lease that is still ours; `False` when it was lost."""

    async def note_intent(self, lease: Lease, fingerprint: bytes | None) -> bool:
        """Put on disk that a login is about to begin, and which refresh token it will spend; `False` when lost."""

    async def drop_lease(self, lease: Lease, failure: Failure | None, entry: Entry | None) -> bool:
        """Give the lease back, with the failure for those who wait, and its audit entry in the same transaction.

        With no failure nothing was attempted, and an unfinished attempt stays noted. `False` when it was lost.
        """

    async def claim_step(self, key: bytes, *, after: int, upto: int) -> bool:
        """Claim the one-time codes of the time steps `after` + 1 to `upto` in one conditional write.

        `False`, and nothing is written, when a step later than `after` was claimed before.
        """
