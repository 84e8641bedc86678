"""The token of a vault on each request of httpx, or of httpx2, its successor; whichever is installed.

with httpx.Client(auth=VaultAuth(vault, "alice")) as client:
    client.get("https://api.example.org/orders")
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Collection, Generator
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from tokenkeep.api import AsyncTokenVault, TokenVault
from tokenkeep.model import AcquiredToken

__all__ = ["VaultAuth"]

COOL_DOWN: Final = timedelta(seconds=60)
"""After a token was refused although it was new: before then no further login is spent on a 401."""

_UNAUTHORIZED: Final = 401


class _Request(Protocol):
    """What the requests of httpx and httpx2 have in common."""

    url: Any
    headers: Any

    @property
    def content(self) -> bytes: ...


class _Response(Protocol):
    """Likewise for responses."""

    status_code: int
    request: Any


if TYPE_CHECKING:
    from httpx import Auth as _Auth
else:

    def _bases() -> tuple[type, ...]:
        """Return the class by which each client that is installed knows what authenticates."""
        found = []
        for name in ("httpx", "httpx2"):
            try:
                found.append(import_module(name).Auth)
            except ModuleNotFoundError:
                continue
        if not found:
            msg = 'tokenkeep.httpx needs a client: pip install "tokenkeep[httpx]", or install httpx2'
            raise ModuleNotFoundError(msg, name="httpx")
        return tuple(found)

    _Auth = type("_Auth", _bases(), {})


class VaultAuth(_Auth):
    """Puts the user's token on each request, and on 401 rejects exactly that token and tries once more.

    A `TokenVault` serves a `Client`, an `AsyncTokenVault` an `AsyncClient`. A body that cannot be sent twice (a
    stream, a file) is not: the 401 is returned, and the next request has a new token. When the new token is refused
    too, the fault lies elsewhere, and for a minute no further login is spent on it.

    A token never follows a redirect to another origin; the client takes it off.

    Args:
        vault: where the token is kept; it stays open, and is yours to close.
        user_id: whose token it is.
        provider: `None` means the only one registered.
        kind: which of the provider's tokens.
        origins: the token goes to these only, such as `https://api.example.org`; without any, wherever the
            request goes.
        monotonic: seconds of a clock that is never set.

    Raises:
        ValueError: an origin is not written like `https://api.example.org`.

    The requests raise what `get_or_create` raises.
    """

    def __init__(  # the fixed public signature
        self,
        vault: TokenVault | AsyncTokenVault,
        user_id: str,
        *,
        provider: str | None = None,
        kind: str = "access",
        origins: Collection[str] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vault = vault
        self._user_id = user_id
        self._provider = provider
        self._kind = kind
        self._origins = frozenset(_origin(origin) for origin in origins)
        self._monotonic = monotonic
        self._refused_new: tuple[str, float] | None = None

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Send it, and once more with a new token if the first was refused."""
        vault = self._vault
        if not isinstance(vault, TokenVault):
            msg = "a Client needs a TokenVault; use an AsyncClient with an AsyncTokenVault"
            raise TypeError(msg)
        if not self._wanted(request):
            yield request
            return
        token = vault.get_or_create(self._user_id, provider=self._provider, kind=self._kind)
        response = yield _with(request, token)
        if not self._refused(request, response, token):
            return
        vault.reject(token)
        if not _repeatable(request):
            return
        token = vault.get_or_create(self._user_id, provider=self._provider, kind=self._kind)
        self._note(request, (yield _with(request, token)), token)

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Send it, and once more with a new token if the first was refused."""
        vault = self._vault
        if not isinstance(vault, AsyncTokenVault):
            msg = "an AsyncClient needs an AsyncTokenVault; use a Client with a TokenVault"
            raise TypeError(msg)
        if not self._wanted(request):
            yield request
            return
        token = await vault.get_or_create(self._user_id, provider=self._provider, kind=self._kind)
        response = yield _with(request, token)
        if not self._refused(request, response, token):
            return
        await vault.reject(token)
        if not _repeatable(request):
            return
        token = await vault.get_or_create(self._user_id, provider=self._provider, kind=self._kind)
        self._note(request, (yield _with(request, token)), token)

    def _wanted(self, request: _Request) -> bool:
        return not self._origins or _origin_of(request) in self._origins

    def _refused(self, request: _Request, response: _Response, token: AcquiredToken) -> bool:
        """Tell whether it was the token that was refused, and a new one might not be."""
        if not _unauthorized(request, response):
            return False
        refused = self._refused_new
        return refused is None or refused[0] != token.id or self._monotonic() >= refused[1]

    def _note(self, request: _Request, response: _Response, token: AcquiredToken) -> None:
        """Remember a new token that was refused at once."""
        if _unauthorized(request, response):
            self._refused_new = (token.id, self._monotonic() + COOL_DOWN.total_seconds())


def _with(request: Any, token: AcquiredToken) -> Any:
    request.headers["Authorization"] = f"Bearer {token.access_token.reveal()}"
    return request


def _unauthorized(request: _Request, response: _Response) -> bool:
    """Tell whether the origin that was given the token answered 401; another one has not seen it."""
    return response.status_code == _UNAUTHORIZED and _origin_of(response.request) == _origin_of(request)


def _repeatable(request: _Request) -> bool:
    """Tell whether the body is held in memory; a stream is gone once it was sent."""
    try:
        _ = request.content
    except RuntimeError:  # RequestNotRead
        return False
    return True


def _origin_of(request: _Request) -> str:
    return _origin(f"{request.url.scheme}://{request.url.netloc.decode('ascii')}")


def _origin(text: str) -> str:
    """Return an origin without the port that its scheme implies."""
    parts = urlsplit(text.lower())
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or text.lower() != f"{parts.scheme}://{parts.netloc}"
    ):
        msg = f"an origin is written like https://api.example.org, not {text!r}"
        raise ValueError(msg)
    implied = {"http": 80, "https": 443}[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or implied}"
