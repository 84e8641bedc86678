"""Upstox, through the `upstox-totp` client (extra `[upstox]`), which is loaded at the first login."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tokenkeep import _checking
from tokenkeep.errors import ConfigurationError, ProviderError, ProviderRejected, ProviderUnavailable, TokenKeepError
from tokenkeep.expiry import Earliest, FixedTime, JwtExpiry
from tokenkeep.model import AcquiredToken, NewToken
from tokenkeep.ports import CodeWindow
from tokenkeep.providers._upstox_answers import is_token
from tokenkeep.providers._upstox_credentials import UpstoxCredentials
from tokenkeep.providers._upstox_login import SLOWEST_CODE, TIME_STEP, Login, SpentCodes, log_out

__all__ = ["UpstoxCredentials", "UpstoxProvider"]

BASE_DOMAIN: Final = "https://{stage}.upstox.com"

BASE_DOMAIN_VARIABLE: Final = "TOKENKEEP_UPSTOX_BASE_DOMAIN"

YEAR: Final = timedelta(days=365)
"""How long Upstox's extended token lives, when it does not say so itself."""

PROFILE: Final = (
    *("user_id", "user_name", "email", "exchanges", "products", "order_types"),
    *("user_type", "broker", "poa", "ddpi", "is_active"),
)
"""What a grant says of the broker's user; a field that Upstox left out is `None`."""

_CLAIMING: Final = timedelta(seconds=2)
"""What may pass between a vault's look at the clock and the start of the login."""

type Credentials = UpstoxCredentials | Mapping[str, UpstoxCredentials] | Callable[[str], UpstoxCredentials]


class UpstoxProvider:
    """Log in to Upstox unattended; one login yields `access`, and `extended` where the account has it.

    An access token ends at 03:30 Asia/Kolkata, whenever it was made; an extended one after a year. A login takes
    six seconds or more, because the client pauses between its requests. Safe to share between threads.

    Args:
        credentials: one account, for the first user who is asked for and nobody else; or accounts by user id;
            or a function that returns the account of a user id (it may be called several times a login);
            `None`: the account in the environment, read now.
        name: what its tokens are filed under.
        base_domain: where Upstox is, with `{stage}` for its two hosts; `None`: what
            `TOKENKEEP_UPSTOX_BASE_DOMAIN` says, else Upstox itself. With one's own the client does not pause.

    Raises:
        ConfigurationError: the environment lacks a variable, or the base domain is none.
    """

    def __init__(
        self, credentials: Credentials | None = None, *, name: str = "upstox", base_domain: str | None = None
    ) -> None:
        self.name = _checking.name(name, "name")
        self.expiry = Earliest(JwtExpiry(), FixedTime("03:30", tz="Asia/Kolkata"))
        self._credentials = UpstoxCredentials.from_env() if credentials is None else credentials
        self._base_domain = _base_domain(base_domain)
        self._spent = SpentCodes()
        self._lock = threading.Lock()
        self._sole_user: str | None = None

    def __repr__(self) -> str:
        return f"UpstoxProvider(name={self.name!r})"

    def acquire(self, user_id: str) -> Sequence[NewToken]:
        """Log in with a client of its own, and block until it is done.

        Raises:
            ProviderRejected: wrong credentials, or none for this user; repeating it may lock the account.
            ProviderUnavailable: no token was granted, and a later attempt may succeed.
            AcquireInDoubt: the exchange for the token was sent, and its answer is lost.
            ConfigurationError: the extra [upstox] is not installed.
        """
        started = time.monotonic()
        with self._named(user_id):
            credentials = self._credentials_of(user_id)
            login = Login(credentials, base_domain=self._base_domain, spent=self._spent, started=started)
            return _tokens(login.run())

    def revoke(self, token: AcquiredToken) -> None:
        """End the token at Upstox; one that is dead already is no error."""
        with self._named(token.user_id):
            log_out(token.access_token, base_domain=self._base_domain or BASE_DOMAIN)

    def code_window(self, user_id: str) -> CodeWindow:
        """Tell which one-time code the next login of this user will use: that of the account's own 30 s step."""
        with self._named(user_id):
            credentials = self._credentials_of(user_id)
        lead = timedelta(seconds=SLOWEST_CODE) + _CLAIMING
        return CodeWindow(
            account=f"upstox:{credentials.username}",
            period=timedelta(seconds=TIME_STEP),
            begin_within=_CLAIMING,
            lead=lead,
        )

    def _credentials_of(self, user_id: str) -> UpstoxCredentials:
        if isinstance(self._credentials, UpstoxCredentials):
            self._serve_only(user_id)
            return self._credentials
        found = self._looked_up(user_id)
        if not isinstance(found, UpstoxCredentials):
            msg = f"no Upstox credentials for this user; give UpstoxProvider an UpstoxCredentials for {user_id!r}"
            raise ProviderRejected(msg)
        return found

    def _serve_only(self, user_id: str) -> None:
        """Refuse to file one account's tokens under a second user: each login would end the other's token."""
        with self._lock:
            self._sole_user = self._sole_user or user_id
        if self._sole_user != user_id:
            msg = f"these credentials are for {self._sole_user!r}; give UpstoxProvider a mapping of users to accounts"
            raise ProviderRejected(msg)

    def _looked_up(self, user_id: str) -> object:
        look_up = self._credentials.get if isinstance(self._credentials, Mapping) else self._credentials
        try:
            return look_up(user_id)  # type: ignore[operator]  # one account has been dealt with
        except LookupError:
            return None
        except TokenKeepError:
            raise
        except Exception as error:  # noqa: BLE001  # the caller's own function; its words may hold secrets
            what = type(error).__name__
        msg = f"the function that gives the Upstox credentials failed ({what}); see to it and try again"
        raise ProviderUnavailable(msg)

    @contextmanager
    def _named(self, user_id: str) -> Iterator[None]:
        """Put the provider's name and the user on the errors that pass."""
        try:
            yield
        except ProviderError as error:
            error.provider, error.user_id = self.name, user_id
            raise


def _tokens(granted: Mapping[str, Any]) -> list[NewToken]:
    profile = {field: granted.get(field) for field in PROFILE}
    tokens = [NewToken(granted["access_token"], profile=profile)]
    if is_token(granted.get("extended_token")):
        tokens.append(_extended(granted["extended_token"], profile))
    return tokens


def _extended(text: str, profile: Mapping[str, Any]) -> NewToken:
    """Return the one-year token with an end of its own; the policy is that of access tokens."""
    end = JwtExpiry().expires_at(datetime.now(UTC), NewToken(text))
    span = YEAR if end is None else None
    return NewToken(text, kind="extended", expires_at=end, expires_in=span, profile=profile)


def _base_domain(given: str | None) -> str | None:
    base_domain = given or os.environ.get(BASE_DOMAIN_VARIABLE) or None
    if base_domain is None:
        return None
    if not base_domain.startswith(("https://", "http://")) or base_domain.count("{stage}") != 1:
        msg = f"base_domain ({BASE_DOMAIN_VARIABLE}) must be a URL with {{stage}} in it, such as {BASE_DOMAIN}"
        raise ConfigurationError(msg)
    return base_domain.rstrip("/")
