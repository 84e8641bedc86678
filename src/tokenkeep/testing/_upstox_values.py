"""The nouns of the local Upstox: steps, accounts, faults, records of logins."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from tokenkeep.providers.upstox import UpstoxCredentials

INTERNAL_REDIRECT: Final = "https://api-v2.upstox.com/login/authorization/redirect"
"""What the client calls itself while it stands in for Upstox's own login page."""


class Step(StrEnum):
    """The requests that the local Upstox answers, in the order of a login."""

    DIALOG = "dialog"
    OTP_GENERATE = "otp_generate"
    OTP_VERIFY = "otp_verify"
    PIN = "pin"
    AUTHORIZE = "authorize"
    TOKEN = "token"  # noqa: S105  # the name of a step
    LOGOUT = "logout"
    PROFILE = "profile"


LOGIN_STEPS: Final = (Step.DIALOG, Step.OTP_GENERATE, Step.OTP_VERIFY, Step.PIN, Step.AUTHORIZE, Step.TOKEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong, for one account or for all. Steps are named by `Step` or by its text.

    Attributes:
        replay_refused: a one-time code is accepted once (RFC 6238 section 5.2). Not a fault but the real thing;
            switch it off to log in several times within 30 seconds.
        wrong_pin: every PIN is wrong, and counts down.
        too_many: 429 with UDAPI10005 at this step.
        retry_after: seconds, sent in `Retry-After` beside `too_many`; `None`: no such header.
        blocked: an HTML page with status 403 at this step.
        broken: status 500 at this step.
        hang_up: the connection is closed when this step's request arrives; nothing is done.
        lost_answer: this step is done, and the connection closed before its answer.
        without: fields that the final answer leaves out, `{"ddpi"}` for Upstox's own sample.
        charset: JSON comes as `application/json; charset=utf-8`.
        delay: seconds that a step waits before it is done.
        one_session: a login ends the tokens of those before it.
    """

    replay_refused: bool = True
    wrong_pin: bool = False
    too_many: str | None = None
    retry_after: int | None = None
    blocked: str | None = None
    broken: str | None = None
    hang_up: str | None = None
    lost_answer: str | None = None
    without: frozenset[str] = frozenset()
    charset: bool = False
    delay: Mapping[str, float] = field(default_factory=dict)
    one_session: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class LocalAccount:
    """An account at the local Upstox, with the application that belongs to it.

    Attributes:
        user_id: the broker's id of the user.
        internal_id: the client id that the dialog hands out for the steps after it.
        extended: whether its logins also yield the extended token.
        faults: what goes wrong for this account alone; `None`: what goes wrong for all.
    """

    base_domain: str
    user_id: str
    username: str
    password: str = field(repr=False)
    pin_code: str = field(repr=False)
    totp_secret: str = field(repr=False)
    client_id: str
    client_secret: str = field(repr=False)
    redirect_uri: str = "https://127.0.0.1:5000/callback"
    internal_id: str = field(default_factory=lambda: f"PW3-{secrets.token_hex(12)}")
    user_name: str = "Asha Rao"
    email: str = "asha@example.com"
    extended: bool = False
    faults: Faults | None = None

    def credentials(self, **changes: str) -> UpstoxCredentials:
        """Return what logs in to this account, with some values changed for the worse."""
        return UpstoxCredentials(**(self._credentials() | changes))

    def environment(self) -> dict[str, str]:
        """Return the variables by which another process logs in to this account."""
        variables = {f"UPSTOX_{name.upper()}": value for name, value in self._credentials().items()}
        return variables | {"TOKENKEEP_UPSTOX_BASE_DOMAIN": self.base_domain}

    def _credentials(self) -> dict[str, str]:
        names = ("username", "password", "pin_code", "totp_secret", "client_id", "client_secret", "redirect_uri")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRecord:
    """One login that was begun.

    Attributes:
        account: the broker's id of the user.
        at: when the first request came, by the clock of the server.
        step: the last step whose request arrived.
        granted: whether it yielded a token.
    """

    account: str
    at: datetime
    step: Step
    granted: bool


def grant(account: LocalAccount, tokens: Mapping[str, str], *, without: frozenset[str]) -> dict[str, Any]:
    """Return the final answer of a login: flat, with the fields of Upstox's documentation."""
    document = {
        "email": account.email,
        "exchanges": ["NSE", "NFO", "BSE", "BFO", "MCX", "CDS"],
        "products": ["D", "CO", "I"],
        "broker": "UPSTOX",
        "user_id": account.user_id,
        "user_name": account.user_name,
        "order_types": ["MARKET", "LIMIT", "SL", "SL-M"],
        "user_type": "individual",
        "poa": False,
        "ddpi": False,
        "is_active": True,
        **tokens,
    }
    return {name: value for name, value in document.items() if name not in without}


def shown(record: LoginRecord) -> dict[str, Any]:
    """Return a record as JSON takes it."""
    return asdict(record) | {"at": record.at.isoformat()}
