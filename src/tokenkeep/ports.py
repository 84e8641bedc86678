"""What the core asks of the world: small Protocols, one round trip a method.

The contract stands here; a backend repeats nothing. Every store method may raise `StoreUnavailable`, and
then nothing of what was asked has happened unless the method says otherwise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, runtime_checkable

from tokenkeep.model import (
    Account,
    AcquiredToken,
    Action,
    AuditEvent,
    EndReason,
    NewToken,
    Statistics,
    TierStatus,
    TokenInfo,
)
from tokenkeep.secret import Secret

# --- time, waiting, work: what a face fills in -------------------------------------------------------


class Clock(Protocol):
    """Where time comes in."""

    def now(self) -> datetime:
        """Return the present as an aware UTC datetime."""


class Wait(Protocol):
    """How a face lets time pass and takes turns."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""

    def turn(self, key: Hashable) -> AbstractAsyncContextManager[None]:
        """Let the callers of this process pass one at a time for each key. Cancelling one disturbs none."""


class Work(Protocol):
    """How a face runs what blocks, what must not be interrupted, and what goes side by side."""

    async def call[T](self, function: Callable[..., T | Awaitable[T]], *args: object) -> T:
        """Call foreign code, blocking or asynchronous, off the event loop where there is one."""

    async def finish[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end even when the caller is cancelled meanwhile."""

    def beating(
        self, beat: Callable[[], Coroutine[Any, Any, bool]], every: timedelta
    ) -> AbstractAsyncContextManager[None]:
        """Run `beat` each interval while the block runs; stop when it returns `False` or raises."""

    async def each[T](self, jobs: Sequence[Callable[[], Coroutine[Any, Any, T]]], *, concurrency: int) -> list[T]:
        """Run the jobs, at most `concurrency` at once, and return their results in the order given."""

    def later(self, job: Callable[[], Coroutine[Any, Any, None]], delay: timedelta) -> None:
        """Run `job` once after `delay`, beside everything else. It is forgotten when the face closes."""


# --- providers ---------------------------------------------------------------------------------------


class ExpiryPolicy(Protocol):
    """When a token made now will end."""

    def expires_at(self, now: datetime, new_token: NewToken | None = None) -> datetime | None:
        """Return the end as aware UTC, strictly after `now`; `None` when this policy cannot tell.

        Without `new_token` it is the end that a token acquired at `now` could be expected to have.
        """


class Provider(Protocol):
    """Where acquired tokens come from. Its methods may block or be asynchronous; both faces take both.

    They raise only `ProviderRejected`, `ProviderUnavailable` or `AcquireInDoubt`; anything else that
    escapes is treated as `AcquireInDoubt`, because a token may have been granted.
    """

    @property
    def name(self) -> str:
        """The name its tokens are filed under."""

    @property
    def expiry(self) -> ExpiryPolicy | None:
        """When its tokens end; `None` when only each token tells."""

    def acquire(self, user_id: str) -> Sequence[NewToken] | Awaitable[Sequence[NewToken]]:
        """Log in and return the tokens of this one login, at most one of each kind. Never repeat inside."""


@runtime_checkable
class Renewing(Protocol):
    """A provider that trades a refresh token for new tokens (RFC 6749 section 6)."""

    def renew(self, user_id: str, refresh_token: Secret) -> Sequence[NewToken] | Awaitable[Sequence[NewToken]]:
        """Spend the refresh token. A result without a new one means that the old one stays good."""


@runtime_checkable
class Revoking(Protocol):
    """A provider that can be told to end a token (RFC 7009)."""

    def revoke(self, token: AcquiredToken) -> Awaitable[None] | None:
        """End the token at the provider. Safe to repeat: a token that is dead already is no error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeWindow:
    """The one-time code that a login will use (RFC 6238 section 5.2: a code is accepted once).

    Attributes:
        account: what the codes belong to, whatever user id it is kept under; it is digested before it is stored.
        period: the time step.
        lead: how long after the start of a login the code may be computed at the latest.
    """

    account: str
    period: timedelta
    lead: timedelta


@runtime_checkable
class OneTimeCodes(Protocol):
    """A provider whose logins use a code that is good for one login in each time step."""

    def code_window(self, user_id: str) -> CodeWindow:
        """Tell which code the next login of this user will use. May raise `ProviderRejected`; no I/O."""


# --- sealing -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Where a sealed value belongs (RFC 5116: the associated data). It opens nowhere else."""

    account: Account
    kind: str
    row: str
    field: str


class Sealer(Protocol):
    """Encryption at rest. Safe to use from several threads."""

    @property
    def key_id(self) -> str:
        """The id of the key that seals now."""

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


# --- acquired tokens ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A row of the token table: an acquired token in its sealed form.

    Attributes:
        access_sealed: `None` once the secret has been erased.
        key_id: the key that both sealed fields are under.
        rejected: the provider refused this version; only its refresh token is still of use.
    """

    id: str
    account: Account
    kind: str
    version: int
    access_sealed: bytes | None
    refresh_sealed: bytes | None
    key_id: str
    token_type: str
    scope: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = None
    usage_count: int = 0
    rejected: bool = False
    profile: Mapping[str, Any]
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An audit event on its way into the trail; the store adds the token's id where it makes the row."""

    action: Action
    at: datetime
    token_id: str | None = None
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Use:
    """So many uses of one token, the last of them at `last_used_at`."""

    token_id: str
    count: int
    last_used_at: datetime


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


class TokenStore(Protocol):
    """Acquired tokens, sealed. At most one in place for each (account, kind), by a constraint."""

    async def load(self, account: Account, kind: str) -> TokenRecord | None:
        """Return the token in place, ended or not; `None` when there is none. The hot path."""

    async def loaded(self, account: Account) -> list[TokenRecord]:
        """Return the tokens in place of every kind."""

    async def versions(self, account: Account) -> dict[str, int]:
        """Return the highest version ever written for each kind."""

    async def replace(self, records: Sequence[TokenRecord], lease: Lease, entries: Sequence[Entry]) -> bool:
        """Put new tokens of one account in place of the old and give the lease back, in one transaction.

        The replaced ones lose their secrets and stay as history. `False`, and nothing is written, when
        the lease was lost or a version is taken. Repeating it after an error is safe: the same rows are
        recognised by their ids, and the answer is then `True`.
        """

    async def reject(self, token_id: str, account: Account, entry: Entry) -> bool:
        """Mark exactly this token as refused by the provider; `False` when it is no longer in place."""

    async def end(
        self, account: Account, reason: EndReason, entry: Callable[[str], Entry], *, kind: str | None = None
    ) -> int:
        """End what is in place (`kind=None`: every kind), erase the secrets, note each; return how many."""

    async def history(self, account: Account, *, now: datetime, limit: int) -> list[TokenInfo]:
        """Return what was made for an account, newest first."""

    async def created_between(
        self, namespace: str, start: datetime, end: datetime, *, user_id: str | None, now: datetime, limit: int
    ) -> list[TokenInfo]:
        """Return what was made from `start` (included) to `end` (excluded), newest first."""

    async def statistics(self, account: Account, *, kind: str | None, now: datetime) -> Statistics:
        """Count over the tokens of an account."""

    async def count_uses(self, uses: Sequence[Use]) -> None:
        """Add uses that were summed in the process, in one statement or one transaction."""

    async def purge(
        self, namespace: str, *, expired_before: datetime, ended_before: datetime, limit: int
    ) -> tuple[int, int]:
        """Work on one batch; return how many secrets were erased and how many rows deleted; (0, 0): done.

        Secrets go of tokens that ended before `expired_before` (but a refresh token in place stays), rows
        of those that ended before `ended_before`.
        """

    async def sealed_under(self, key_ids: Sequence[str], *, after: str, limit: int) -> list[TokenRecord]:
        """Return rows of any namespace sealed under one of these keys, ordered by id, past `after`."""

    async def reseal(self, old: TokenRecord, new: TokenRecord) -> bool:
        """Swap the sealed fields of one row if they are still the old ones."""


class AuditStore(Protocol):
    """The trail. Changes write theirs in their own transaction; this is for reading, and for events alone."""

    async def note(self, account: Account, entry: Entry) -> None:
        """Append an event that no change carries (a read, a failed call at the provider)."""

    async def audit_trail(self, namespace: str, user_id: str, *, limit: int) -> list[AuditEvent]:
        """Return events newest first."""

    async def purge_audit(self, namespace: str, before: datetime, *, limit: int) -> int:
        """Delete one batch of events older than `before`; return how many."""


class KeyStore(Protocol):
    """What the database knows of the keys: ids and check values."""

    async def known_keys(self) -> dict[str, bytes]:
        """Return the check value of each key id that was ever used here."""

    async def remember_key(self, key_id: str, check_value: bytes, at: datetime) -> None:
        """Remember a key that begins to seal. Safe to repeat."""

    async def keys_in_use(self) -> dict[str, int]:
        """Return how many rows each key seals."""


class Health(Protocol):
    """What every store can say of itself."""

    async def prepare(self) -> None:
        """Create the schema in an empty database, or check the one that is there. Safe to repeat.

        Raises:
            SchemaMismatch: it is newer than this program, or the database belongs to somebody else.
        """

    async def tiers(self) -> tuple[TierStatus, ...]:
        """Tell how each tier is; never raises, never shows a data source name."""

    async def schema_version(self) -> int | None:
        """Return the schema version; `None` when it cannot be asked."""

    async def warnings(self) -> tuple[str, ...]:
        """Name settings that would lose acknowledged data."""

    async def close(self) -> None:
        """Close what this store opened. Safe to repeat."""


# --- issued tokens -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedRecord:
    """A row of the table of issued tokens. It holds a digest, never the token.

    Attributes:
        id: 16 bytes derived one-way from the token: the primary key and the public id.
        digest: 32 bytes, compared in constant time.
        key_id: the key of the digest; `None` for a plain SHA-256.
    """

    id: bytes
    digest: bytes
    key_id: str | None
    namespace: str
    user_id: str
    name: str | None
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime
    client: str | None
    metadata: Mapping[str, Any]
    last_used_at: datetime | None = None
    usage_count: int = 0
    revoked_at: datetime | None = None


class IssuedStore(Protocol):
    """Issued tokens, as digests."""

    async def add(self, records: Sequence[IssuedRecord], entries: Sequence[Entry]) -> None:
        """Insert new tokens, durable when it returns; one entry for each, in the same transaction."""

    async def find(self, token_id: bytes) -> IssuedRecord | None:
        """Return the row, whatever its state. The hot path: one statement."""

    async def end_issued(self, namespace: str, token_id: bytes, entry: Entry) -> bool:
        """Revoke one token; `False` when it is unknown or was revoked before."""

    async def end_all_issued(
        self, namespace: str, user_id: str, *, keep: bytes | None, at: datetime, detail: Mapping[str, Any]
    ) -> int:
        """Revoke all of a user's tokens but one, each with its event; return how many."""

    async def issued(self, namespace: str, user_id: str, *, now: datetime, limit: int) -> list[IssuedRecord]:
        """Return the user's tokens that are neither expired nor revoked, newest first."""

    async def count_issued_uses(self, uses: Sequence[tuple[bytes, int, datetime]]) -> None:
        """Add uses; a revoked token is left alone, and `last_used_at` never moves backwards."""

    async def redigest(self, token_id: bytes, old: bytes, new: bytes, key_id: str | None) -> bool:
        """Put a digest under a newer key in place of `old`."""

    async def purge_issued(self, namespace: str, *, before: datetime, limit: int) -> int:
        """Delete one batch of rows that expired or were revoked before; return how many."""

    async def issued_statistics(self, namespace: str, user_id: str, *, now: datetime) -> Statistics:
        """Count over the tokens of a user."""


# --- a whole backend ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """The rooms of one backend, opened and closed together."""

    tokens: TokenStore
    leases: LeaseStore
    issued: IssuedStore
    audit: AuditStore
    keys: KeyStore
    health: Health
