"""Where a request has its token: in one header, in one cookie, never in the URL (RFC 6750 section 2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping
from enum import Enum, auto
from typing import Any, Final, NamedTuple

_IN_URL: Final = re.compile(rb"(?i)((?:^|[&;])access(?:_|%5f)token=)[^&;]*")


class Transport(Enum):
    """How a token came."""

    HEADER = auto()
    COOKIE = auto()


class Presented(NamedTuple):
    """A token that a request brought, not verified yet."""

    token: str
    transport: Transport


class Ambiguous(ValueError):
    """A request that brings its token in more than one way, or in the URL; the message may be shown."""


def presented(scope: MutableMapping[str, Any], cookie: bytes | None) -> Presented | None:
    """Return what the request brings; `None` for nothing.

    Args:
        scope: of the ASGI connection. A token in its query is struck out, so that no access log has it.
        cookie: the name of the cookie; `None` when none is accepted.

    Raises:
        Ambiguous: two tokens, two headers, or one in the URL.
    """
    headers: list[bytes] = []
    cookies: list[bytes] = []
    for name, value in scope["headers"]:
        if name == b"authorization":
            headers.append(value)
        elif name == b"cookie" and cookie is not None:
            cookies.extend(cookie_values(value, cookie))
    if scope["query_string"] and strike_out(scope):
        msg = "An access token in the URL is not accepted: send it in the Authorization header."
        raise Ambiguous(msg)
    if len(headers) > 1 or len(cookies) > 1:
        msg = "The request holds more than one access token."
        raise Ambiguous(msg)
    bearer = _bearer(headers[0]) if headers else None
    if bearer is not None and cookies:
        msg = "The request brings an access token in two ways."
        raise Ambiguous(msg)
    if bearer is not None:
        return Presented(bearer, Transport.HEADER)
    return Presented(cookies[0].decode("latin-1"), Transport.COOKIE) if cookies else None


def _bearer(header: bytes) -> str | None:
    """Return the credentials of the scheme Bearer, whatever its case; `None` for another scheme."""
    scheme, _, credentials = header.strip(b" \t").partition(b" ")
    return credentials.lstrip(b" ").decode("latin-1") if scheme.lower() == b"bearer" else None


def cookie_values(header: bytes, name: bytes) -> Iterable[bytes]:
    """Yield each value that a Cookie header has for a name; a browser that was tampered with sends several."""
    for part in header.split(b";"):
        key, equals, value = part.strip(b" \t").partition(b"=")
        if equals and key == name:
            yield value


def strike_out(scope: MutableMapping[str, Any]) -> bool:
    """Take the token out of the query in place, so that servers log the URL without it. Tell whether there was one."""
    struck, count = _IN_URL.subn(rb"\1[removed]", scope["query_string"])
    scope["query_string"] = struck
    return bool(count)
