"""Did one of our own pages send this? The defence of cookies against forged requests (OWASP ASVS 5.0, 3.5.1)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""They must change nothing. A WebSocket has no method and is not safe."""

_OWN: Final = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site: our own page, or the person's own doing (an address typed, a bookmark)."""


class Origins:
    """Tells requests of this site's pages from those of others, by what the browser says of itself.

    Args:
        trusted: further origins whose pages may send requests, such as `https://app.example.org`.

    Raises:
        ValueError: one of them is no origin.
    """

    def __init__(self, trusted: Collection[str] = ()) -> None:
        if isinstance(trusted, str):
            msg = "trusted_origins must be a collection of str"
            raise TypeError(msg)
        self._trusted = frozenset(_checked(origin) for origin in trusted)

    def own(self, connection: HTTPConnection, *, silence: bool) -> bool:
        """Tell whether the request comes from a page of this site.

        `silence` is the answer when it does not say where it comes from, as every browser does.
        """
        headers = connection.headers
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and origin.lower() in self._trusted:
            return True
        if site is not None:
            return site in _OWN
        return silence if origin is None else _same_host(origin, headers, connection.scope)


def _same_host(origin: str, headers: Headers, scope: Mapping[str, Any]) -> bool:
    """Compare with the address asked for. A plain page does not speak for a site on TLS."""
    scheme, _, host = origin.lower().partition("://")
    downgraded = scheme == "http" and scope.get("scheme") in {"https", "wss"}
    return bool(host) and host == headers.get("host", "").lower() and not downgraded


def _checked(origin: str) -> str:
    parts = urlsplit(origin)
    if parts.scheme not in {"http", "https"} or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
        msg = f"a trusted origin is written like https://app.example.org, not {origin!r}"
        raise ValueError(msg)
    return origin.lower()


def from_this_machine(connection: HTTPConnection) -> bool:
    """Tell whether it is plain http, asked for at a loopback address, and by this machine."""
    scope = connection.scope
    if scope.get("scheme") not in {"http", "ws"} or scope.get("client") is None:
        return False
    host = urlsplit(f"//{connection.headers.get('host', '')}").hostname or ""
    return (host == "localhost" or _loopback(host)) and _loopback(scope["client"][0])


def _loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
