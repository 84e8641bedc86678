"""What every request passes, whatever it asks for: bounds, headers, the access log, the last resort."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from traceback import extract_tb
from typing import Final

from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenkeep.metrics import Metrics
from tokenkeep.service.problems import UNSERVED, Problem

LONGEST_BODY: Final = 16 * 1024
"""Bytes; no request of ours has so many."""

LONGEST_HEAD: Final = 16 * 1024
"""Bytes of a request's address and headers together."""

_DIGITS: Final = 9

CALLER: Final = "caller"
"""The key in the state of a request under which its caller's name is put, for the access log."""

_ACCESS: Final = logging.getLogger("tokenkeep.service.access")
_LOG: Final = logging.getLogger("tokenkeep.service")

_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""On every answer: most hold a token, or what is true for a moment (RFC 6749 section 5.1)."""

_NOWHERE: Final = "-"


class _TooLong(Exception):  # it leaves this module never
    """The body goes on past its bound."""


class Edge:
    """Wraps the application.

    A path is handed on as it was sent, with its escapes: `%2F` in a user id is no end of a part.

    Args:
        app: the application.
        metrics: is told of each request, by route and never by path.
        monotonic: seconds of a clock that is never set.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._metrics = metrics
        self._monotonic = monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["path"] = scope["raw_path"].decode("latin-1")
        scope.setdefault("state", {})
        began, answer = self._monotonic(), _Answer(send)
        try:
            await self._served(scope, receive, answer)
        finally:
            self._tell(scope, answer.status, self._monotonic() - began)

    async def _served(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        if _head(scope) > LONGEST_HEAD:
            await answer.otherwise(
                Problem(431, f"A request's headers have at most {LONGEST_HEAD} bytes."), scope, receive
            )
            return
        bounded = _Bounded(scope, receive)
        try:
            if bounded.too_long:
                raise _TooLong  # noqa: TRY301  # the same end as a body that was not announced
            await self._app(scope, bounded, answer)
        except _TooLong:
            await answer.otherwise(Problem(413, f"A request has at most {LONGEST_BODY} bytes."), scope, receive)
        except Exception as error:  # noqa: BLE001  # the last resort; the words of an unknown error may hold anything
            _LOG.error("a defect: %s at %s; please report it", type(error).__name__, _place(error))
            await answer.otherwise(Problem(500, UNSERVED), scope, receive)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        method, route = scope["method"], scope.get("route")
        known, asked = _NOWHERE, _NOWHERE
        if isinstance(route, APIRoute) and method in (route.methods or ()):  # other words may say anything
            known, asked = f"{method} {route.path_format}", f"{method} {scope['path']}"
        self._metrics.answered(known, status, seconds)
        caller, peer = scope["state"].get(CALLER, _NOWHERE), (scope.get("client") or (_NOWHERE,))[0]
        _ACCESS.info("%s %r %s %d %.0f ms", peer, caller, asked, status, seconds * 1000)


class _Answer:
    """Sends an answer with our headers, and knows how far it has come."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 500
        self._begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun, self.status = True, message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
        await self._send(message)

    async def otherwise(self, response: Problem, scope: Scope, receive: Receive) -> None:
        """Send this where nothing was sent yet."""
        if not self._begun:
            await response(scope, receive, self)


class _Bounded:
    """Hands on a body up to its bound."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._left = LONGEST_BODY
        length: bytes = dict(scope["headers"]).get(b"content-length", b"0")
        self.too_long = len(length) > _DIGITS or (length.isdigit() and int(length) > LONGEST_BODY)

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _TooLong
        return message


def _head(scope: Scope) -> int:
    """Measure what came before the body. uvicorn stops what has no end, and lets a little too much pass."""
    sizes = (len(name) + len(value) for name, value in scope["headers"])
    return sum(sizes, len(scope["raw_path"]) + len(scope["query_string"]))


def _place(error: Exception) -> str:
    """Name the line where it was raised, without its words."""
    frames = extract_tb(error.__traceback__)
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "an unknown place"
