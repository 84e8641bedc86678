"""Errors as the OAuth standards have them: `{"error": …}` (RFC 6749 section 5.2)."""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel

from tokenkeep.fastapi.answers import NO_STORE, RETRY_AFTER, challenge

_HEADERS: Final = {
    401: {"WWW-Authenticate": challenge("Basic", {"realm": "oauth"})},
    503: {"Retry-After": str(int(RETRY_AFTER.total_seconds()))},
}


class OAuthError(BaseModel):
    """Why a request was not served."""

    error: str


class OAuthRefusal(Exception):
    """A request that is not served; `error` is the word for it."""

    def __init__(self, status: int, error: str) -> None:
        self.status = status
        self.error = error
        super().__init__(error)

    def answer(self) -> Response:
        """Return what the client is told."""
        return JSONResponse({"error": self.error}, self.status, headers=NO_STORE | _HEADERS.get(self.status, {}))


class OAuthRoute(APIRoute):
    """A route whose refusals are answered in the form of OAuth, also those of its dependencies."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with refusals turned into answers."""
        handle = super().get_route_handler()

        async def answering(request: Request) -> Response:
            try:
                return await handle(request)
            except OAuthRefusal as refusal:
                return refusal.answer()

        return answering
