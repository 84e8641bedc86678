"""One login, and one logout, through the real `upstox-totp` client, whose habits are not ours.

The client keeps its HTTP session in the open. A watch stands before it, sees every request and response, and decides
by them alone: what the client raises has no common base, and its words may hold secrets.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from tokenkeep.errors import ConfigurationError, ProviderError, ProviderRejected, ProviderUnavailable
from tokenkeep.providers import _upstox_answers as answers
from tokenkeep.providers._upstox_answers import Response, Step
from tokenkeep.providers._upstox_credentials import UpstoxCredentials
from tokenkeep.secret import Secret

TIMEOUT: Final = 30.0
"""Seconds for each request: the client's own default, set so that it stays."""

TIME_STEP: Final = 30
"""Seconds that a one-time code is good for (RFC 6238 section 5.2)."""

SLOWEST_CODE: Final = 10.0
"""Seconds from the start of a login after which its one-time code is not sent: it may be of a step not claimed."""

BROWSER: Final = "chrome131"
"""What the client impersonates; the logout does the same."""

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})

_NOT_SENT: Final = frozenset(
    {
        *("COULDNT_RESOLVE_PROXY", "COULDNT_RESOLVE_HOST", "COULDNT_CONNECT"),
        *("SSL_CONNECT_ERROR", "PEER_FAILED_VERIFICATION", "UNSUPPORTED_PROTOCOL", "URL_MALFORMAT"),
    }
)
"""Curl's names for what fails before a request is on its way."""


class SpentCodes:
    """The last one-time code that was sent for each account by this process; such a code dies in a minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, Secret] = {}

    def spend(self, account: str, code: Secret) -> bool:
        """Take a code; `False` when it was taken before."""
        with self._lock:
            if self._last.get(account) == code:
                return False
            self._last[account] = code
            return True


class Login:
    """One login, from the first request to the grant. Use it once.

    Attributes:
        granted: what holds the access token, as Upstox sent it, `None` before; it is kept when the client's
            own model refuses it (`ddpi` is required there, and missing from Upstox's sample).
    """

    def __init__(
        self, credentials: UpstoxCredentials, *, base_domain: str | None, spent: SpentCodes, started: float
    ) -> None:
        self.granted: dict[str, Any] | None = None
        self._credentials = credentials
        self._base_domain = base_domain
        self._spent = spent
        self._latest = started + SLOWEST_CODE
        self._asked: str | None = None

    def run(self) -> dict[str, Any]:
        """Log in and return the grant.

        The errors raised here have neither cause nor context nor the client's frames: those hold secrets.
        """
        _load()
        failure = self._failure()
        if self.granted is not None:
            return self.granted
        raise failure

    def _failure(self) -> ProviderError:
        try:
            with self._client() as client:
                client.app_token.get_access_token()
        except ProviderError as error:
            return error.with_traceback(None)
        except Exception as error:  # noqa: BLE001  # the client's errors share no base; a grant may be in hand
            return self._misread(type(error).__name__)
        return self._misread("no error")

    def _misread(self, what: str) -> ProviderError:
        if self._asked is None:
            return ProviderRejected(f"upstox-totp does not take these credentials ({what}); check them")
        return answers.misread(answers.step_of(self._asked), what)

    def _client(self) -> Any:
        from upstox_totp import UpstoxTOTP  # noqa: PLC0415  # a driver, loaded when it is needed

        known = self._credentials
        client = UpstoxTOTP(
            username=known.username,
            password=known.password.reveal(),
            pin_code=known.pin_code.reveal(),
            totp_secret=known.totp_secret.reveal(),
            client_id=known.client_id,
            client_secret=known.client_secret.reveal(),
            redirect_uri=known.redirect_uri,
        )
        if self._base_domain is not None:
            client.base_domain = self._base_domain
            client.config.sleep_time = 0  # after construction: the argument is ignored
        self._watch(client)
        return client

    def _watch(self, client: Any) -> None:
        session, send = client.session, client.session.request
        session.timeout = TIMEOUT
        session.curl_options = _options(client.base_domain)

        def request(**arguments: Any) -> Any:
            self._asked = str(arguments["url"])
            step = answers.step_of(self._asked)
            if step is Step.OTP_VERIFY:
                self._check_code(arguments)
            response = _sent(send, step, arguments)
            failure = answers.trouble(step, response, self._hidden())
            if failure is not None:
                raise failure
            self._take(step, response, client)
            return response

        session.request = request

    def _check_code(self, arguments: dict[str, Any]) -> None:
        left = TIME_STEP - time.time() % TIME_STEP
        if time.monotonic() > self._latest:
            reason = (
                f"the one-time code was not sent: it took the login over {SLOWEST_CODE:.0f} s to get there; try again"
            )
            raise ProviderUnavailable(reason)
        if not self._spent.spend(self._credentials.username, Secret(arguments["json"]["data"]["otp"])):
            reason = "the one-time code of this time step is spent, and was not sent again; wait for the next"
            raise ProviderUnavailable(reason, retry_after=timedelta(seconds=left))

    def _take(self, step: Step | None, response: Any, client: Any) -> None:
        document = answers.document_of(response)
        if document is None:
            return
        response.headers["Content-Type"] = "application/json"  # the client reads JSON only if nothing follows
        if step is Step.TOKEN:
            self.granted = answers.grant_in(document)
            client.config.sleep_time = 0  # the token is in hand: nothing to wait for

    def _hidden(self) -> tuple[str, ...]:
        known = self._credentials
        secrets = (known.password, known.pin_code, known.totp_secret, known.client_secret)
        encoded = base64.b64encode(known.pin_code.reveal().encode()).decode()
        return (known.username, encoded, *(secret.reveal() for secret in secrets))


def log_out(token: Secret, *, base_domain: str) -> None:
    """End a token at Upstox; one that is dead already is no error. Safe to repeat."""
    _load()
    from curl_cffi.requests import Session  # noqa: PLC0415  # comes with the client

    with Session(impersonate=BROWSER, timeout=TIMEOUT, allow_redirects=False) as session:
        session.curl_options = _options(base_domain)
        headers = {"Authorization": f"Bearer {token.reveal()}", "Accept": "application/json"}
        url = base_domain.format(stage="api") + Step.LOGOUT
        failure = _log_out_failure(session.request, {"method": "DELETE", "url": url, "headers": headers}, token)
    del headers
    if failure is not None:
        raise failure


def _log_out_failure(send: Any, arguments: dict[str, Any], token: Secret) -> ProviderError | None:
    try:
        response: Response = _sent(send, Step.LOGOUT, arguments)
    except ProviderError as error:
        return error.with_traceback(None)
    said = answers.error_in(answers.document_of(response))
    if said is not None and said[0] == answers.DEAD_TOKEN:
        return None
    return answers.trouble(Step.LOGOUT, response, (token.reveal(),))


def _sent(send: Any, step: Step | None, arguments: dict[str, Any]) -> Any:
    """Send a request, at most once.

    Raises:
        ProviderUnavailable: there is no response; AcquireInDoubt: nor will it ever be known what came of it.
    """
    from curl_cffi.requests.exceptions import RequestException  # noqa: PLC0415  # comes with the client

    try:
        return send(**arguments)
    except RequestException as error:
        what = _name_of(error.code)
    raise answers.unreachable(step, what, sent=what not in _NOT_SENT)


def _name_of(code: int) -> str:
    from curl_cffi.const import CurlECode  # noqa: PLC0415  # comes with the client

    try:
        return CurlECode(code).name
    except ValueError:
        return f"curl error {code}"


def _options(base_domain: str) -> dict[Any, Any]:
    """Return options for curl.

    It sends a request again by itself when a connection that was kept open turns out to be dead. A code is spent
    once and a wrong PIN is counted, so each request has a connection of its own. Nothing on this machine is asked
    for by way of a proxy.
    """
    from curl_cffi.const import CurlOpt  # noqa: PLC0415  # comes with the client

    options: dict[Any, Any] = {CurlOpt.FRESH_CONNECT: 1}
    if urlsplit(base_domain.format(stage="api")).hostname in _LOOPBACK:
        options[CurlOpt.NOPROXY] = "*"
    return options


def _load() -> None:
    """Import the client and silence it, each time anew: it logs secrets, and brings a handler of its own.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import upstox_totp  # noqa: F401, PLC0415  # a driver, loaded when it is needed
    except ImportError as error:
        missing = error.name or "upstox_totp"
    else:
        _silence(logging.getLogger("upstox-totp"))
        return
    msg = f'logging in to Upstox needs the client upstox-totp ({missing} is missing): pip install "tokenkeep[upstox]"'
    raise ConfigurationError(msg)


def _silence(logger: logging.Logger) -> None:
    logger.addFilter(_nothing)  # holds whatever level, handler or propagation an application sets; added once
    for handler in logger.handlers[:]:
        if type(handler) is logging.StreamHandler:
            logger.removeHandler(handler)


def _nothing(record: logging.LogRecord) -> bool:
    del record
    return False
