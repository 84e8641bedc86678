"""The nouns: frozen values, without I/O. Times are aware UTC, spans are `timedelta`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from tokenkeep import _checking
from tokenkeep.errors import TokenKeepError
from tokenkeep.secret import Secret


class Account(NamedTuple):
    """Whose login it is: the unit of single-flight. One login may yield several kinds of token."""

    namespace: str
    provider: str
    user_id: str


@dataclass(frozen=True, slots=True, init=False)
class NewToken:
    """What a provider, a webhook or a person hands over: a token that is not stored yet.

    `expires_in` is a number of seconds or a `timedelta`, counted from the moment it is stored (RFC 6749
    section 5.1); give it or `expires_at`, not both. With neither, the provider's expiry policy decides;
    without a policy the token never expires here.

    Raises:
        ValueError: an empty token, a naive `expires_at`, a negative `expires_in`, both ends at once.
    """

    access_token: Secret
    kind: str
    refresh_token: Secret | None
    expires_at: datetime | None
    expires_in: timedelta | None
    token_type: str
    scope: tuple[str, ...]
    profile: Mapping[str, Any]
    metadata: Mapping[str, Any]

    def __init__(  # noqa: PLR0913  # the fixed public signature
        self,
        access_token: str | Secret,
        *,
        kind: str = "access",
        refresh_token: str | Secret | None = None,
        expires_at: datetime | None = None,
        expires_in: float | timedelta | None = None,
        token_type: str = "Bearer",  # noqa: S107  # RFC 6750: the name of a scheme, not a password
        scope: Collection[str] = (),
        profile: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if expires_at is not None and expires_in is not None:
            msg = "give expires_at or expires_in, not both"
            raise ValueError(msg)
        values = {
            "access_token": _token(access_token, "access_token"),
            "kind": _checking.label(kind, "kind"),
            "refresh_token": None if refresh_token is None else _token(refresh_token, "refresh_token"),
            "expires_at": None if expires_at is None else _checking.instant(expires_at, "expires_at"),
            "expires_in": None if expires_in is None else _lifetime(expires_in),
            "token_type": _checking.label(token_type, "token_type"),
            "scope": tuple(_checking.scopes(scope, "scope")),
            "profile": _checking.mapping(profile, "profile"),
            "metadata": _checking.mapping(metadata, "metadata"),
        }
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)


def _token(value: str | Secret, argument: str) -> Secret:
    secret = Secret(value)
    if not secret:
        msg = f"{argument} must not be empty"
        raise ValueError(msg)
    if not _checking.encodable(secret.reveal()):
        msg = f"{argument} must not contain lone surrogates"
        raise ValueError(msg)
    return secret


def _lifetime(value: float | timedelta) -> timedelta:
    if isinstance(value, timedelta):
        return _checking.span(value, "expires_in", zero=True)
    try:
        span = timedelta(seconds=value)
    except (OverflowError, TypeError, ValueError) as error:
        msg = f"expires_in must be a number of seconds or a timedelta: {error}"
        raise ValueError(msg) from None
    return _checking.span(span, "expires_in", zero=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquiredToken:
    """A token that a provider granted, as the vault keeps it.

    Attributes:
        id: the row, unique everywhere.
        version: counts up from 1 for each (namespace, provider, user, kind).
        expires_at: when the provider stops accepting it; `None` when it is not known to end.
        last_used_at: the last time the vault handed it out; `None` when never.
        usage_count: how often the vault handed it out, this time included.
        persisted: `False` when the login succeeded but the database could not take the token yet; the
            write is retried by the vault that holds it.
    """

    id: str
    namespace: str
    provider: str
    user_id: str
    kind: str
    version: int
    access_token: Secret
    refresh_token: Secret | None
    token_type: str
    scope: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    usage_count: int
    profile: Mapping[str, Any]
    metadata: Mapping[str, Any]
    persisted: bool = True

    def is_expired(self, now: datetime, *, leeway: timedelta = timedelta(0)) -> bool:
        """Tell whether the token has ended at `now`, or will within `leeway`. At `expires_at` it has."""
        return self.expires_at is not None and self.expires_at <= now + leeway


class EndReason(StrEnum):
    """Why a token is no longer the active one."""

    REPLACED = "replaced"
    REVOKED = "revoked"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInfo:
    """What is known of a token without its secret; it outlives the secret.

    Attributes:
        active: it is the one that `get_valid` considers: not replaced, revoked, rejected or expired.
        rejected_at: when the provider refused exactly this version; `None` when it never did.
        ended_at: when it was replaced, revoked or purged; `None` while it is in place.
        end_reason: why; `None` while it is in place.
    """

    id: str
    namespace: str
    provider: str
    user_id: str
    kind: str
    version: int
    token_type: str
    scope: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    rejected_at: datetime | None
    ended_at: datetime | None
    end_reason: EndReason | None
    last_used_at: datetime | None
    usage_count: int
    profile: Mapping[str, Any]
    metadata: Mapping[str, Any]
    active: bool

    @property
    def state(self) -> str:
        """A word for it: `active`, `rejected`, `expired`, or why it was ended."""
        if self.active:
            return "active"
        if self.end_reason is not None:
            return self.end_reason.value
        return "rejected" if self.rejected_at is not None else "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedToken:
    """A token that this application handed to one of its users.

    Attributes:
        id: public, stable, safe to show and to revoke by; it is not the token and does not lead to it.
        token: the token itself, only in what `issue` and `refresh` return; `None` ever after.
        refresh_token: likewise; `None` too when none was asked for.
        scopes: what it may do; an empty set is nothing (default deny), `"*"` is everything.
        expires_at: its end, which nothing extends.
        last_used_at: the last use that was recorded, coarser than each request; `None` when never used. What `verify`
            returns may be a minute behind, where no idle lifetime counts; `tokens` is not.
    """

    id: str
    namespace: str
    user_id: str
    name: str | None
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    client: str | None
    metadata: Mapping[str, Any]
    token: Secret | None = None
    refresh_token: Secret | None = None


class Action(StrEnum):
    """What an audit event tells of."""

    CREATED = "created"
    REPLACED = "replaced"
    STORED = "stored"
    USED = "used"
    REJECTED = "rejected"
    REVOKED = "revoked"
    EXPIRED = "expired"
    PROVIDER_REVOKED = "provider_revoked"
    PROVIDER_REVOKE_FAILED = "provider_revoke_failed"
    PROVIDER_REVOKE_ABANDONED = "provider_revoke_abandoned"
    ACQUIRE_FAILED = "acquire_failed"
    ACQUIRE_IN_DOUBT = "acquire_in_doubt"
    REFRESHED = "refreshed"
    REUSED = "reused"
    FORGOTTEN = "forgotten"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """Who did what, when (OWASP ASVS 5.0, 16.2.1). It holds ids and never a secret.

    Attributes:
        token_id: the token it concerns; `None` when it concerns the account (a failed login).
        actor: the process that did it, as `user@host/pid`.
    """

    action: Action
    user_id: str
    token_id: str | None
    at: datetime
    actor: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCheck:
    """What a check of one user's audit trail found.

    Attributes:
        intact: nothing was changed, removed or put in, as far as can be told.
        events: how many events of the chain are good, up to the first that is not.
        proved: how many of them a key proves: all of them, or none where the check had no keys.
        purged: how many a purge deleted, before the first that is there.
        unchained: events from before there were chains: nothing vouches for them.
        first_bad: the number of the first event that is not good; `None` when all are.
        reason: what is wrong with it.
        head: the last good event, as `number:digest`. Kept elsewhere and given to a later check, it shows whether
            the newest events were removed; `None` when there is none.
    """

    user_id: str
    intact: bool
    events: int
    proved: int
    purged: int
    unchained: int
    first_bad: int | None
    reason: str | None
    head: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditChecks:
    """What a check of every user's audit trail found.

    Attributes:
        events, proved, unchained: those of all users together.
        flawed: the users whose trail is not intact.
        heads: the head of each user's chain, for the next check.
    """

    users: int
    events: int
    proved: int
    unchained: int
    flawed: tuple[AuditCheck, ...]
    heads: Mapping[str, str]

    @property
    def intact(self) -> bool:
        """Whether every user's trail is."""
        return not self.flawed


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Counts over the tokens of one user.

    Attributes:
        active_tokens: of these, those that could be handed out now.
        total_usage: how often they were handed out or verified.
        avg_usage_per_token: the mean; 0.0 when there are no tokens.
        last_generation: when the newest was made; `None` when there are none.
        last_usage: when one was last used; `None` when never.
    """

    total_tokens: int
    active_tokens: int
    total_usage: int
    avg_usage_per_token: float
    last_generation: datetime | None
    last_usage: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """What a person wants to see of one user: figures, the ten newest events, the active token."""

    user_id: str
    statistics: Statistics
    recent_activity: list[AuditEvent]
    active_token: TokenInfo | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """One user's result of `acquire_many`: a token or an error, never both."""

    user_id: str
    token: AcquiredToken | None = None
    error: TokenKeepError | None = None

    @property
    def ok(self) -> bool:
        """Whether a token came."""
        return self.token is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What a purge did: secrets erased, rows of tokens and of the trail deleted, providers told of revocations."""

    secrets: int = 0
    tokens: int = 0
    audit_events: int = 0
    provider_revoked: int = 0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TierStatus:
    """One tier of storage: healthy, or the reason why not. Never a data source name."""

    name: str
    healthy: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the store is.

    Attributes:
        schema_version: what the database holds; `None` when it could not be asked.
        key_ids: the keys that seal at least one row, sorted.
        warnings: settings that would lose data or trust, each a sentence.
        awaiting_revocation: tokens that have ended here, in any namespace, and of which the provider has still to be
            told; `None` when it could not be asked.
    """

    tiers: tuple[TierStatus, ...]
    schema_version: int | None
    key_ids: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    awaiting_revocation: int | None = None

    @property
    def healthy(self) -> bool:
        """Whether every tier is."""
        return all(tier.healthy for tier in self.tiers)
