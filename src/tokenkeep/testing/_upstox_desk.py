"""What the local Upstox does: checks a login step by step, grants tokens and ends them. No HTTP here."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from tokenkeep.expiry import FixedTime
from tokenkeep.ports import Clock
from tokenkeep.testing._upstox_values import (
    INTERNAL_REDIRECT,
    LOGIN_STEPS,
    Faults,
    LocalAccount,
    LoginRecord,
    Step,
    grant,
)

ATTEMPTS: Final = 5
"""Wrong codes and PINs in a row until the account is locked."""

TIME_STEP: Final = 30
"""Seconds (RFC 6238 section 5.2)."""

YEAR: Final = timedelta(days=365)

COOKIE: Final = "upstox_login"

_DAY_ENDS: Final = FixedTime("03:30", tz="Asia/Kolkata")


class Refused(Exception):
    """The answer is no."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message
        super().__init__(code, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a step reads of an HTTP request; `data` is the form, or what stands under `data` in the JSON."""

    query: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    cookie: str = ""
    bearer: str = ""


@dataclass(slots=True)
class _Login:
    account: LocalAccount
    at: datetime
    step: Step = Step.DIALOG
    done: Step | None = None
    granted: bool = False
    otp_token: str = field(default_factory=lambda: secrets.token_urlsafe(32))


@dataclass(frozen=True, slots=True)
class _Token:
    account: LocalAccount
    ends: datetime
    extended: bool


class Desk:
    """Accounts, logins under way, codes and tokens. Every method may be called from any thread."""

    def __init__(self, clock: Clock, seconds: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._seconds = seconds
        self._lock = threading.RLock()
        self._accounts: dict[str, LocalAccount] = {}
        self._logins: dict[str, _Login] = {}
        self._codes: dict[str, _Login] = {}
        self._tokens: dict[str, _Token] = {}
        self._spent: set[tuple[str, int]] = set()
        self._failures: dict[str, int] = {}
        self._key = secrets.token_bytes(32)
        self._doers = {
            Step.OTP_GENERATE: self._generate_otp,
            Step.OTP_VERIFY: self._verify_otp,
            Step.PIN: self._take_pin,
            Step.AUTHORIZE: self._authorize,
        }

    def add(self, account: LocalAccount) -> None:
        """Open an account; its client id must be new."""
        with self._lock:
            if account.client_id in self._accounts:
                msg = f"client_id {account.client_id!r} is taken"
                raise ValueError(msg)
            self._accounts[account.client_id] = account

    @property
    def records(self) -> list[LoginRecord]:
        """The logins that were begun, oldest first."""
        with self._lock:
            return [
                LoginRecord(account=login.account.user_id, at=login.at, step=login.step, granted=login.granted)
                for login in self._logins.values()
            ]

    def arrived(self, step: Step, request: Request) -> LocalAccount | None:
        """Note that a step's request is here, and tell whose it is; `None` when it cannot be told."""
        with self._lock:
            if step is Step.DIALOG:
                return self._accounts.get(request.query.get("client_id", ""))
            if step in {Step.LOGOUT, Step.PROFILE}:
                token = self._tokens.get(request.bearer)
                return token.account if token else None
            login = self._under_way(step, request)
            if login is None:
                return None
            login.step = step
            return login.account

    def _under_way(self, step: Step, request: Request) -> _Login | None:
        if step is Step.TOKEN:
            return self._codes.get(request.data.get("code", ""))
        return self._logins.get(request.cookie)

    # --- the six steps of a login ---------------------------------------------------------------------

    def begin(self, request: Request) -> tuple[str, str]:
        """Step 1. Return the cookie of a new login, and the query of the page that the dialog leads to."""
        with self._lock:
            account = self._accounts.get(request.query.get("client_id", ""))
            if account is None or request.query.get("redirect_uri") != account.redirect_uri:
                message = "Check your 'client_id' and 'redirect_uri'; one or both are incorrect."
                raise Refused(401, "UDAPI100068", message)
            cookie = secrets.token_urlsafe(24)
            self._logins[cookie] = _Login(account, self._clock.now(), done=Step.DIALOG)
            page = {"user_id": account.user_id, "client_id": account.internal_id, "user_type": "individual"}
            return cookie, urlencode(page)

    def proceed(self, step: Step, request: Request, faults: Faults) -> dict[str, Any]:
        """Steps 2 to 5: the same cookie throughout, each after the one before it."""
        with self._lock:
            login = self._logins.get(request.cookie)
            before = LOGIN_STEPS[LOGIN_STEPS.index(step) - 1]
            if login is None or login.done is not before:
                raise Refused(401, "UDAPI100500", "Your session has ended. Please log in again.")
            data = self._doers[step](login, request, faults)
            login.done = step
            return {"success": True, "data": data}

    def _generate_otp(self, login: _Login, request: Request, faults: Faults) -> dict[str, Any]:
        del faults
        account = login.account
        if (request.data.get("mobileNumber"), request.data.get("userId")) != (account.username, account.user_id):
            raise Refused(400, "UDAPI100500", "Please enter the mobile number that belongs to this account.")
        return {
            "message": "OTP has been sent",
            "validateOTPToken": login.otp_token,
            "nextRequestInterval": TIME_STEP,
            "userType": "individual",
            "isTotpEnabled": True,
        }

    def _verify_otp(self, login: _Login, request: Request, faults: Faults) -> dict[str, Any]:
        account = login.account
        self._refuse_locked(account)
        counter = self._counter(account, str(request.data.get("otp")))
        replayed = (account.totp_secret, counter) in self._spent and faults.replay_refused
        if counter is None or replayed or request.data.get("validateOtpToken") != login.otp_token:
            raise self._counted(account, "Invalid OTP")
        self._spent.add((account.totp_secret, counter))
        first, _, last = account.user_name.partition(" ")
        return {
            "message": "OTP verified",
            "userType": "individual",
            "isSecretPinSet": True,
            "userProfile": {"profileId": 1, "userId": account.user_id, "firstName": first, "lastName": last},
        }

    def _counter(self, account: LocalAccount, otp: str) -> int | None:
        """Return the time step that a code belongs to: this one, or the one before (RFC 6238 section 5.2)."""
        import pyotp  # noqa: PLC0415  # comes with the extra [upstox]

        now = int(self._seconds()) // TIME_STEP
        codes = pyotp.TOTP(account.totp_secret)
        matching = (step for step in (now, now - 1) if hmac.compare_digest(codes.generate_otp(step), otp))
        return next(matching, None)

    def _take_pin(self, login: _Login, request: Request, faults: Faults) -> dict[str, Any]:
        account = login.account
        self._refuse_locked(account)
        self._check_internal(account, request)
        pin = base64.b64encode(account.pin_code.encode()).decode()
        given = (request.data.get("twoFAMethod"), request.data.get("inputText"))
        if faults.wrong_pin or given != ("SECRET_PIN", pin):
            raise self._counted(account, "Invalid PIN")
        self._failures.pop(account.client_id, None)
        return {
            "userType": "individual",
            "customerStatus": "ACTIVE",
            "refreshTokenExpiry": 86_400,
            "isPlusPlanFastWebsocketEnabled": False,
            "isNewRefreshTokenCreated": True,
            "isExternalClientOAuthApp": True,
        }

    def _authorize(self, login: _Login, request: Request, faults: Faults) -> dict[str, Any]:
        del faults
        self._check_internal(login.account, request)
        approved = request.data.get("userOAuthApproval") is True and request.query.get("response_type") == "code"
        if not approved or not request.query.get("requestId", "").startswith("WPRO-"):
            raise Refused(400, "UDAPI100500", "The application was not approved.")
        code = secrets.token_urlsafe(6)
        self._codes[code] = login
        return {"redirectUri": f"{login.account.redirect_uri}?{urlencode({'code': code})}", "isApproved": True}

    def exchange(self, request: Request, faults: Faults) -> dict[str, Any]:
        """Step 6: the code is spent by being shown, whatever comes of it (RFC 6749 section 4.1.2)."""
        with self._lock:
            form = request.data
            login = self._codes.pop(form.get("code", ""), None)
            if login is None or form.get("grant_type") != "authorization_code":
                raise Refused(401, "UDAPI100057", "Invalid Auth code")
            account = login.account
            given = tuple(form.get(name) for name in ("client_id", "client_secret", "redirect_uri"))
            if given != (account.client_id, account.client_secret, account.redirect_uri):
                raise Refused(401, "UDAPI100016", "Invalid Credentials")
            if faults.one_session:
                self._end_tokens(account)
            login.granted = True
            return grant(account, self._granted(account), without=faults.without)

    def _refuse_locked(self, account: LocalAccount) -> None:
        if self._failures.get(account.client_id, 0) >= ATTEMPTS:
            raise Refused(403, "UDAPI100500", "Your account is locked. 0 attempts left.")

    def _counted(self, account: LocalAccount, what: str) -> Refused:
        failures = self._failures[account.client_id] = self._failures.get(account.client_id, 0) + 1
        return Refused(400, "UDAPI100500", f"{what}. You have {ATTEMPTS - failures} attempts left.")

    @staticmethod
    def _check_internal(account: LocalAccount, request: Request) -> None:
        given = (request.query.get("client_id"), request.query.get("redirect_uri"))
        if given != (account.internal_id, INTERNAL_REDIRECT):
            raise Refused(400, "UDAPI100500", "Unknown client.")

    # --- tokens ---------------------------------------------------------------------------------------

    def _granted(self, account: LocalAccount) -> dict[str, str]:
        now = self._clock.now()
        tokens = {"access_token": self._token(account, now, _DAY_ENDS.expires_at(now), extended=False)}
        if account.extended:
            tokens["extended_token"] = self._token(account, now, now + YEAR, extended=True)
        return tokens

    def _token(self, account: LocalAccount, now: datetime, ends: datetime, *, extended: bool) -> str:
        claims = {
            "sub": account.user_id,
            "jti": secrets.token_hex(12),
            "isMultiClient": False,
            "isExtended": extended,
            "iat": int(now.timestamp()),
            "iss": "udapi-gateway-service",
            "exp": int(ends.timestamp()),
        }
        signed = f"{_part({'typ': 'JWT', 'kid': 'local', 'alg': 'HS256'})}.{_part(claims)}"
        signature = hmac.digest(self._key, signed.encode(), hashlib.sha256)
        token = f"{signed}.{_base64url(signature)}"
        self._tokens[token] = _Token(account, ends, extended)
        return token

    def _end_tokens(self, account: LocalAccount) -> None:
        for text in [text for text, token in self._tokens.items() if token.account is account and not token.extended]:
            del self._tokens[text]

    def log_out(self, request: Request) -> dict[str, Any]:
        """End the token of the request."""
        with self._lock:
            self._live(request)
            del self._tokens[request.bearer]
            return {"status": "success", "data": True}

    def profile(self, request: Request) -> dict[str, Any]:
        """Answer a live token with what a grant says of the user, without the tokens."""
        with self._lock:
            data = grant(self._live(request).account, {}, without=frozenset())
            return {"status": "success", "data": data}

    def _live(self, request: Request) -> _Token:
        token = self._tokens.get(request.bearer)
        if token is None or token.ends <= self._clock.now().astimezone(UTC):
            raise Refused(401, "UDAPI100050", "Invalid token used to access API")
        return token


def _part(claims: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(claims, separators=(",", ":")).encode())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
