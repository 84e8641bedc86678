"""One form sent to one address that was fixed when the program was written: what can go wrong on the way."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

from tokenkeep.errors import ConfigurationError

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT: Final = 10.0
READ_TIMEOUT: Final = 30.0
"""Seconds: between two pieces of the answer, and for its whole body."""

MAX_BODY: Final = 262_144
"""Bytes. What comes after is not read."""

_MAX_WAIT: Final = timedelta(days=1)
"""The longest `Retry-After` that is believed."""

_URL: Final = re.compile(r"[!-\[\]-~]+")
"""Printable ASCII without space and backslash, on which two URL parsers could disagree."""


class Unsent(Exception):
    """The form did not leave this machine."""


class Cut(Exception):
    """The form may have arrived, and no answer came."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status, at most `MAX_BODY` of the body, and how long the server asks to wait."""

    status: int
    body: bytes
    retry_after: timedelta | None


def require_httpx() -> None:
    """Check that the driver is there.

    Raises:
        ConfigurationError: it is not; the sentence names the extra.
    """
    if find_spec("httpx") is None:
        msg = 'OAuth 2 needs httpx: pip install "tokenkeep[oauth2]"'
        raise ConfigurationError(msg)


def checked_url(url: str, argument: str) -> str:
    """Check an endpoint: https, or http on this machine; no user name, password or fragment (RFC 6749 section 3.2)."""
    if not isinstance(url, str):
        msg = f"{argument} must be a str, not {type(url).__name__}"
        raise TypeError(msg)
    fault = _fault(url)
    if fault:
        msg = f"{argument} must be an address such as https://auth.example.com/token; {fault}"
        raise ValueError(msg)
    return url


def _fault(url: str) -> str:
    """Say what is wrong, without repeating the URL: it can hold a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "this is no URL"
    if not _URL.fullmatch(url) or not parts.hostname or port == 0:
        return "this is no URL with a host"
    if parts.username is not None or parts.password is not None:
        return "it must not hold a user name or password"
    if "#" in url:
        return "it must not have a fragment"
    if parts.scheme not in {"http", "https"} or (parts.scheme == "http" and not _is_loopback(parts)):
        return "it must begin with https:// (http:// is for this machine only)"
    return "it is the link-local address of a machine's metadata" if _is_link_local(parts) else ""


def _is_loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_link_local(parts: SplitResult) -> bool:
    try:
        return ip_address(parts.hostname or "").is_link_local
    except ValueError:
        return False


def post(url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
    """Send the form once, follow nothing, and return whatever answer came.

    The driver's exceptions hold the request with its secrets, so that ours stand in their place, unchained.

    Raises:
        Unsent: it cannot have arrived; repeating it is safe.
        Cut: it may have arrived.
    """
    import httpx  # noqa: PLC0415  # a driver is imported when it is used

    unsent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.InvalidURL)
    try:
        with _client(url) as client, client.stream("POST", url, data=form, headers=_headers(headers)) as response:
            return Answer(response.status_code, _body(response), _retry_after(response.headers))
    except Unsent:
        raise
    except unsent as error:
        failure: Exception = Unsent(f"no connection ({_why(error)})")
    except Exception as error:  # noqa: BLE001  # whatever it is, the form may have arrived
        failure = Cut(f"no complete answer ({type(error).__name__})")
    raise failure  # outside the handler, so that the driver's exception is not its context


def _client(url: str) -> httpx.Client:
    import httpx  # noqa: PLC0415  # a driver is imported when it is used

    try:
        # What goes to this machine in clear must not take the way of a proxy from the environment.
        return httpx.Client(
            timeout=httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT),
            follow_redirects=False,
            trust_env=url.startswith("https:"),
        )
    except Exception as error:  # noqa: BLE001  # a bad proxy, a missing file of certificates: the text can hold a password
        failure = Unsent(f"the HTTP client could not be set up ({type(error).__name__})")
    raise failure


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    # Uncompressed, so that the cap on the body is one on memory too.
    return {"Accept": "application/json", "Accept-Encoding": "identity", **headers}


def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    deadline = time.monotonic() + READ_TIMEOUT
    for piece in response.iter_raw():
        body += piece
        if len(body) > MAX_BODY or time.monotonic() > deadline:
            break
    return bytes(body[:MAX_BODY])


def _why(error: Exception) -> str:
    """Before anything was sent the text is the system's, and cannot repeat what we would have sent."""
    return f"{type(error).__name__}: {str(error)[:200]}" if str(error) else type(error).__name__


def _retry_after(headers: httpx.Headers) -> timedelta | None:
    """Read RFC 9110 section 10.2.3: seconds, or a date, which is compared with the server's own `Date`."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return min(timedelta(seconds=int(value)), _MAX_WAIT)
    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("Date", ""))
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(wait, timedelta(0)), _MAX_WAIT)
