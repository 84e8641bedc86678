"""A session in a cookie that no script reads and no other site uses (OWASP ASVS 5.0, 3.3.1 to 3.3.5)."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, Literal

from fastapi import Response
from starlette.requests import HTTPConnection

from tokenkeep.fastapi.answers import NO_STORE
from tokenkeep.fastapi.origins import Origins, from_this_machine
from tokenkeep.model import IssuedToken

LONGEST: Final = 4096
"""Bytes of name and value together that every browser keeps (RFC 6265 section 6.1)."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SessionCookie:
    """The cookie `__Host-<name>`: `Secure`, `HttpOnly`, `SameSite`, `Path=/` and no `Domain`.

    Args:
        name: its name after the prefix.
        samesite: `lax` also comes along when a link from elsewhere is followed, `strict` does not.
        trusted_origins: other origins whose pages may send requests with it, such as `https://app.example.org`.
        plain_loopback: for development: over plain http, from this machine to a loopback address, and only
            there, the cookie is called `<name>` and is not `Secure`.

    Raises:
        ValueError: the name has other characters than letters, digits, `_` and `-`, or an origin is none.
    """

    def __init__(
        self,
        name: str = "session",
        *,
        samesite: Literal["lax", "strict"] = "lax",
        trusted_origins: Collection[str] = (),
        plain_loopback: bool = False,
    ) -> None:
        if not _NAME.fullmatch(name):
            msg = "a cookie's name has 1 to 64 letters, digits, underscores and hyphens"
            raise ValueError(msg)
        if samesite not in {"lax", "strict"}:
            msg = "samesite is 'lax' or 'strict': a session is not for other sites"
            raise ValueError(msg)
        self.name = f"__Host-{name}"
        self.origins = Origins(trusted_origins)
        self._plain_name = name
        self._samesite = samesite
        self._plain_loopback = plain_loopback

    def name_on(self, connection: HTTPConnection) -> str:
        """Return what the cookie is called on this connection."""
        return self._plain_name if self._plain(connection) else self.name

    def put(self, connection: HTTPConnection, response: Response, issued: IssuedToken) -> None:
        """Set the cookie, which ends with the token; the answer is not to be kept by any cache.

        Raises:
            ValueError: the token was not issued just now, or name and value are too long for a browser.
        """
        if issued.token is None:
            msg = "only a token that was issued just now can be put into a cookie"
            raise ValueError(msg)
        name, value = self.name_on(connection), issued.token.reveal()
        if len(name) + len(value) > LONGEST:
            msg = f"a cookie holds at most {LONGEST} bytes"
            raise ValueError(msg)
        response.set_cookie(
            name,
            value,
            max_age=int((issued.expires_at - issued.created_at).total_seconds()),
            path="/",
            secure=not self._plain(connection),
            httponly=True,
            samesite=self._samesite,
        )
        response.headers.update(NO_STORE)

    def drop(self, connection: HTTPConnection, response: Response) -> None:
        """Tell the browser to forget it."""
        response.delete_cookie(
            self.name_on(connection),
            path="/",
            secure=not self._plain(connection),
            httponly=True,
            samesite=self._samesite,
        )

    def _plain(self, connection: HTTPConnection) -> bool:
        return self._plain_loopback and from_this_machine(connection)
