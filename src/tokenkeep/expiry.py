"""When a token ends: policies as frozen values, and the rule that renewing early must gain something.

Every policy answers `expires_at(now, new_token=None)` with an aware UTC time strictly after `now`, or `None`
when it cannot tell. Without `new_token` the answer is the end that a token acquired at `now` can be expected
to have. A naive `now` is a `ValueError`.
"""

from __future__ import annotations

import base64
import difflib
import json
import re
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Protocol
from zoneinfo import ZoneInfo, available_timezones

from tokenkeep import _checking
from tokenkeep.model import NewToken

_CLOCK_TIME: Final = re.compile(r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?")

_MAX_JWT: Final = 65_536
"""Characters. A longer one fits no HTTP header that a server accepts, so it is not looked at."""

_YEAR_10000: Final = 253_402_300_800
"""Seconds since 1970 at which `datetime` stops."""


class _Policy(Protocol):
    """What `Earliest` takes; `tokenkeep.ports.ExpiryPolicy` holds the contract, one floor up."""

    def expires_at(self, now: datetime, new_token: NewToken | None = None) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class FixedTime:
    """Tokens end each day at a time on the wall clock of a place: `FixedTime("03:30", tz="Asia/Kolkata")`.

    A day's end is the first instant at which the clocks there show the time, or have passed it. When they are
    put forward over it, it is the instant of the change; when they show it twice, it is the first of the two,
    and the second is none. So each day has one end, and never a later one than the provider could mean.

    Args:
        at: `HH:MM` or `HH:MM:SS`, 24 hours.
        tz: an IANA time zone name.

    Raises:
        ValueError: no such time of day, or no such time zone.
    """

    at: str = field(compare=False)
    tz: str = field(kw_only=True)
    _time: time = field(init=False, repr=False)
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_time", _clock_time(self.at))
        object.__setattr__(self, "_zone", _zone(self.tz))

    def expires_at(self, now: datetime, new_token: NewToken | None = None) -> datetime:  # noqa: ARG002  # the port
        """Return the first end of a day after `now`; at that very instant it is the next day's."""
        now = _checking.instant(now, "now")
        today = now.astimezone(self._zone).date()
        # Clocks put back over midnight show a date that has ended already: hence a day more than two.
        ends = (self._end_of(today + timedelta(days=ahead)) for ahead in range(4))
        return next(end for end in ends if end > now)

    def _end_of(self, day: date) -> datetime:
        wall = datetime.combine(day, self._time)
        late, early = (wall.replace(tzinfo=self._zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if self._wall(late) == wall:
            return late
        # A gap (PEP 495): fold 1 lies before the change and fold 0 after it. Changes fall on whole seconds.
        seconds = range(int((late - early).total_seconds()))
        return early + timedelta(
            seconds=bisect_left(seconds, True, key=lambda after: self._wall(early + timedelta(seconds=after)) >= wall)  # noqa: FBT003  # what is looked for
        )

    def _wall(self, at: datetime) -> datetime:
        return at.astimezone(self._zone).replace(tzinfo=None)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Tokens end a fixed span after they were made.

    Raises:
        ValueError: the span is not positive, or longer than ten years.
    """

    span: timedelta

    def __post_init__(self) -> None:
        _checking.span(self.span, "span")

    def expires_at(self, now: datetime, new_token: NewToken | None = None) -> datetime:  # noqa: ARG002  # the port
        """Return `now` plus the span."""
        return _checking.instant(now, "now") + self.span


@dataclass(frozen=True, slots=True)
class JwtExpiry:
    """A token says itself when it ends, in its `exp` claim (RFC 7519 section 4.1.4).

    Nothing is verified: the token came from the provider, and only its end is to be learnt. `None` when there
    is no token, when it is no JWT, and when `exp` is missing, no number, past, or more than ten years ahead.
    """

    def expires_at(self, now: datetime, new_token: NewToken | None = None) -> datetime | None:
        """Return the `exp` of the access token; fractions of a second are cut off. Never raises on junk."""
        now = _checking.instant(now, "now")
        if new_token is None:
            return None
        exp = _exp(new_token.access_token.reveal())
        if exp is None:
            return None
        end = datetime.fromtimestamp(exp, UTC)
        return end if timedelta(0) < end - now <= _checking.MAX_SPAN else None


@dataclass(frozen=True, slots=True, init=False)
class Earliest:
    """Tokens end when the first of several policies says so; those that cannot tell are passed over."""

    policies: tuple[_Policy, ...]

    def __init__(self, *policies: _Policy) -> None:
        if not policies:
            msg = "Earliest needs at least one policy, for example Earliest(FixedTime(...), JwtExpiry())"
            raise ValueError(msg)
        object.__setattr__(self, "policies", tuple(checked(policy, "a policy") for policy in policies))

    def __repr__(self) -> str:
        return f"Earliest({', '.join(map(repr, self.policies))})"

    def expires_at(self, now: datetime, new_token: NewToken | None = None) -> datetime | None:
        """Return the earliest end that is known; `None` when no policy can tell."""
        now = _checking.instant(now, "now")
        ends = (policy.expires_at(now, new_token) for policy in self.policies)
        return min((end for end in ends if end is not None), default=None)


def checked[P](policy: P, argument: str) -> P:
    """Check, before any token is asked for, that something can tell when it ends."""
    if not callable(getattr(policy, "expires_at", None)):
        msg = f"{argument} must be an expiry policy such as Lifetime(timedelta(hours=1)), not {type(policy).__name__}"
        raise TypeError(msg)
    return policy


def worth_renewing(now: datetime, *, ends: datetime | None, expected: datetime | None, needed: timedelta) -> bool:
    """Tell whether acquiring a token now, while the one in place is still good, gains anything.

    It does when the new one would be good for as long as is needed, or else for at least twice as long as the one
    in place. So a token that dies at 03:30 is not replaced at 02:45 by another that dies at 03:30 too.

    Args:
        now: the present.
        ends: when the token in place ends; `None`: never, and nothing can be gained.
        expected: when a token acquired now would end; `None`: not known, so that only trying can tell.
        needed: how long the caller needs the token to live.
    """
    if ends is None:
        return False
    if expected is None:
        return True
    return expected > ends and expected - now >= min(needed, 2 * (ends - now))


def _clock_time(text: str) -> time:
    if not isinstance(text, str):
        msg = f"at must be a str such as '03:30', not {type(text).__name__}"
        raise TypeError(msg)
    try:
        return time.fromisoformat(_CLOCK_TIME.fullmatch(text)[0])  # type: ignore[index]  # None is caught below
    except (TypeError, ValueError):
        msg = f"at must be a time of day as HH:MM or HH:MM:SS, for example '03:30', not {text!r}"
        raise ValueError(msg) from None


def _zone(name: str) -> ZoneInfo:
    if not isinstance(name, str):
        msg = f"tz must be a str such as 'Asia/Kolkata', not {type(name).__name__}"
        raise TypeError(msg)
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; not a key; a folder of the time zone database
        msg = f"tz must be an IANA time zone name, for example 'Asia/Kolkata', not {name!r}{_hint(name)}"
        raise ValueError(msg) from None


def _hint(name: str) -> str:
    known = {zone.casefold(): zone for zone in available_timezones()}
    if not known:
        return "; this system has no time zone database: pip install tzdata"
    near = difflib.get_close_matches(name[:64].casefold(), known, n=1, cutoff=0.75)
    return f"; did you mean {known[near[0]]!r}?" if near else ""


def _exp(token: str) -> int | None:
    """Return `exp` in whole seconds since 1970, within what `datetime` can hold."""
    if len(token) > _MAX_JWT or token.count(".") != 2:  # noqa: PLR2004  # RFC 7515 section 3.1: three parts
        return None
    payload = token.split(".")[1]
    try:
        claims = json.loads(base64.b64decode(payload + "=" * (-len(payload) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        return None
    exp = claims.get("exp") if isinstance(claims, dict) else None
    if isinstance(exp, bool) or not isinstance(exp, int | float) or not 0 < exp < _YEAR_10000:
        return None
    return int(exp)
