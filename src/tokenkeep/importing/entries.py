"""What a file of tokens holds: the noun that every kind of file is read into, and when its tokens end."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from tokenkeep.errors import TokenKeepError
from tokenkeep.expiry import JwtExpiry
from tokenkeep.model import NewToken
from tokenkeep.ports import ExpiryPolicy

_LONG_DEAD: Final = timedelta(days=3650)


class Unreadable(TokenKeepError):
    """A file cannot be imported. Nothing of it has been."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A live token of a file.

    Attributes:
        place: where it stands, for people: `entry 3`, `row 7`.
        made_at: when it was made, as far as the file says.
    """

    place: str
    user_id: str
    token: NewToken
    made_at: datetime | None


@dataclass(slots=True, kw_only=True)
class Contents:
    """What was read.

    Attributes:
        skipped: places and reasons of what will not be stored, oldest first.
        left_out: names of fields that are not kept, because nobody knows whether they are secret.
        remedy: how to remove the tokens from the file.
    """

    remedy: str
    entries: list[Entry] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)

    def skip(self, place: str, reason: str) -> None:
        """Note what will not be stored, and why."""
        self.skipped.append((place, reason))


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What an import knows beside the file.

    Attributes:
        user: whose the tokens are, where the file does not say or says it otherwise.
        policy: when tokens of this provider end; `None` when that is not known.
        saved_at: when the file was written last: no token in it is younger.
    """

    provider: str
    user: str | None
    policy: ExpiryPolicy | None
    now: datetime
    saved_at: datetime

    def end_of(self, token: NewToken, made_at: datetime | None, stated: datetime | None) -> datetime | None:
        """Return the earliest of what the file says, what the token says, and what the provider is known to do."""
        made = min(made_at or self.saved_at, self.now)
        ends = [stated, self._own_end(token)]
        if self.policy is not None and token.kind == "access":
            ends.append(self.policy.expires_at(made, token))
        return min((end for end in ends if end is not None), default=None)

    def _own_end(self, token: NewToken) -> datetime | None:
        """Return what the token says itself; the policy passes over an end that is past, which is what matters here."""
        own = JwtExpiry()
        return own.expires_at(self.now, token) or own.expires_at(self.now - _LONG_DEAD, token)


def local_or_utc(naive: datetime) -> datetime:
    """Read a time without a zone as the earlier of what it could mean here: a token's end must not be late."""
    return min(naive.astimezone(UTC), naive.replace(tzinfo=UTC))
