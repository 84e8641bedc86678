"""The routes of an account: its token, its rejection, what is known of it."""

import logging
import time
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from tokenkeep import _checking
from tokenkeep.errors import ConfigurationError
from tokenkeep.model import AcquiredToken
from tokenkeep.service import callers
from tokenkeep.service.admission import Asked
from tokenkeep.service.parts import Parts
from tokenkeep.service.problems import Problem
from tokenkeep.service.shown import handed_out, known

_LOG: Final = logging.getLogger("tokenkeep.service")

_HISTORY: Final = 10

Kind = Annotated[str, Query(min_length=1, max_length=_checking.MAX_LABEL, pattern=r"^[^\x00]*$")]
Version = Annotated[int, Query(ge=1, le=2**63 - 1)]
MinValidity = Annotated[float, Query(ge=0, le=_checking.MAX_SPAN.total_seconds(), description="Seconds.")]


class Accounts:
    """Serves them."""

    def __init__(self, parts: Parts) -> None:
        self._vault = parts.vault
        self._parts = parts

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(prefix="/accounts/{provider}/{user_id}")
        self._add_token(router)
        self._add_report(router)
        return router

    def _add_token(self, router: APIRouter) -> None:
        mine = Depends(self._parts.admission.on_account(callers.TOKEN))

        @router.get("/token")
        async def get_valid(
            asked: Annotated[Asked, mine], kind: Kind = "access", min_validity: MinValidity = 60
        ) -> Response:
            """Return the token in place. It never logs in; 404 where there is none that lasts so long."""
            return self._answer(asked, await self._in_place(asked, kind, min_validity))

        @router.post("/token")
        async def get_or_create(
            asked: Annotated[Asked, mine], kind: Kind = "access", min_validity: MinValidity = 60
        ) -> Response:
            """Return the token in place, or one that a login brings: one login, however many ask."""
            found = await self._in_place(asked, kind, min_validity)
            return self._answer(asked, found or await self._acquired(asked, kind, min_validity))

        @router.post("/token/reject", status_code=204)
        async def reject(asked: Annotated[Asked, mine], version: Version, kind: Kind = "access") -> None:
            """Say that the provider answered 401 to this version; a newer one is left alone. Safe to repeat."""
            token = await self._in_place(asked, kind, 0)
            if token is not None and token.version == version:
                await self._vault.reject(token)

    async def _in_place(self, asked: Asked, kind: str, min_validity: float) -> AcquiredToken | None:
        needed = timedelta(seconds=min_validity)
        return await self._vault.get_valid(asked.user_id, provider=asked.provider, kind=kind, min_validity=needed)

    async def _acquired(self, asked: Asked, kind: str, min_validity: float) -> AcquiredToken | None:
        """Wait for a login, be it this caller's or one that is under way; `None` where nobody here can log in."""
        began, needed = time.monotonic(), timedelta(seconds=min_validity)
        try:
            token = await self._vault.get_or_create(
                asked.user_id, provider=asked.provider, kind=kind, min_validity=needed
            )
        except ConfigurationError as error:
            _LOG.warning("nobody can log in: %s", error)
            return None
        self._parts.metrics.waited(asked.provider, time.monotonic() - began)
        return token

    def _answer(self, asked: Asked, token: AcquiredToken | None) -> Response:
        if token is None:
            return Problem(404, "There is no such token, and nobody logged in for one.", error="NoToken")
        self._parts.metrics.handed_out(asked.provider)
        self._parts.watched.add(*asked)
        return JSONResponse(handed_out(token, self._parts.clock.now()))

    def _add_report(self, router: APIRouter) -> None:
        @router.get("")
        async def report(
            asked: Annotated[Asked, Depends(self._parts.admission.on_account(callers.REPORT))],
        ) -> dict[str, Any]:
            """Tell what is known of the account, without a secret: figures, and the newest tokens."""
            provider, user_id = asked
            figures = await self._vault.statistics(user_id, provider=provider)
            tokens = await self._vault.history(user_id, provider=provider, limit=_HISTORY)
            return {"statistics": figures, "tokens": [known(info) for info in tokens]}
