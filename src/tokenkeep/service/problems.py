"""What went wrong, as `application/problem+json` (RFC 9457). No word of a provider's, no secret, no address."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tokenkeep.errors import SealingError, StoreError, TokenKeepError
from tokenkeep.fastapi.answers import RETRY_AFTER
from tokenkeep.fastapi.provider_tokens import provider_trouble

_LOG: Final = logging.getLogger("tokenkeep.service")

UNSERVED: Final = "The service failed; its log says where."


class Problem(JSONResponse):
    """The answer to a request that is not served.

    Args:
        status: of the answer.
        detail: a sentence for people.
        error: the name of our error, for programs; `None` where there is none.
    """

    media_type = "application/problem+json"

    def __init__(
        self, status: int, detail: str, *, error: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        told = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
        super().__init__(told if error is None else {**told, "error": error}, status, headers=headers)


def answer_problems(app: FastAPI) -> None:
    """Let an application answer everything that goes wrong in this form."""

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Problem:
        return Problem(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Problem:
        flaws = [f"{'.'.join(map(str, flaw['loc'][1:])) or 'body'}: {flaw['msg']}" for flaw in error.errors()]
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(flaws)[:500])  # never what was sent

    @app.exception_handler(TokenKeepError)
    async def failed(_: Request, error: TokenKeepError) -> Problem:
        _LOG.warning("%s: %s", type(error).__name__, error)
        return _of(error)

    @app.exception_handler(Exception)
    async def broken(_: Request, __: Exception) -> Problem:
        return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, UNSERVED)


def _of(error: TokenKeepError) -> Problem:
    name = type(error).__name__
    if isinstance(error, StoreError):
        headers = {"Retry-After": str(int(RETRY_AFTER.total_seconds()))}
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), error=name, headers=headers)
    if isinstance(error, SealingError):
        return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, str(error), error=name)
    told = provider_trouble(error)
    return Problem(told.status_code, str(told.detail), error=name, headers=told.headers)
