"""Where acquired tokens come from."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

from tokenkeep.model import (
    AcquiredToken,
    NewToken,
)
from tokenkeep.secret import Secret


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
        begin_within: how soon after its claim on a code the login begins; later, it claims another.
        lead: how long after the claim the code may be sent at the latest.
    """

    account: str
    period: timedelta
    begin_within: timedelta
    lead: timedelta


@runtime_checkable
class OneTimeCodes(Protocol):
    """A provider whose logins use a code that is good for one login in each time step."""

    def code_window(self, user_id: str) -> CodeWindow:
        """Tell which code the next login of this user will use. May raise `ProviderRejected`; no I/O."""
