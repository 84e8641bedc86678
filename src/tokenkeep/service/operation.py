"""The routes for whoever runs the service: is it alive, is it ready, how is the store, the metrics, the page."""

import asyncio
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from tokenkeep.api import AsyncTokenVault
from tokenkeep.errors import TokenKeepError
from tokenkeep.fastapi.answers import challenge
from tokenkeep.model import IssuedToken, TokenInfo
from tokenkeep.service import callers, page
from tokenkeep.service.admission import REALM
from tokenkeep.service.parts import Parts

TRUSTED_FOR: Final = 1.0
"""Seconds for which an answer of the store stands: whoever asks without credentials cannot keep it busy."""

PATIENCE: Final = 5.0
"""Seconds after which a silent store is not ready."""

SHOWN: Final = timedelta(days=7)
LISTED: Final = 1000

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_POLICY: Final = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    f"style-src 'sha256-{b64encode(sha256(page.STYLE.encode()).digest()).decode()}'"
)
PAGE_HEADERS: Final = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}


class Pulse:
    """Whether the store answers, asked at most once a second.

    It is asked for the token of nobody: one look-up by key, where the tokens are.
    """

    def __init__(self, vault: AsyncTokenVault, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._vault = vault
        self._monotonic = monotonic
        self._turn = asyncio.Lock()
        self._felt: tuple[float, bool] | None = None

    async def beats(self) -> bool:
        """Ask the store, or trust what it has just said."""
        async with self._turn:
            if self._felt is None or self._monotonic() - self._felt[0] > TRUSTED_FOR:
                self._felt = (self._monotonic(), await self._asked())
            return self._felt[1]

    async def _asked(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._vault.get_valid("nobody", provider="readyz")
        except (TimeoutError, TokenKeepError):
            return False
        return True


class Operation:
    """Serves them."""

    def __init__(self, parts: Parts) -> None:
        self._vault = parts.vault
        self._parts = parts
        self._pulse = Pulse(parts.vault)

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        self._add_health(router)
        self._add_numbers(router)
        self._add_page(router)
        return router

    def _add_health(self, router: APIRouter) -> None:
        @router.get("/livez")
        async def alive() -> dict[str, str]:
            """Say that the process serves; nothing is asked of the store."""
            return {"status": "alive"}

        @router.get("/readyz")
        async def ready() -> JSONResponse:
            """Say whether the store answers."""
            up = await self._pulse.beats()
            return JSONResponse({"status": "ready" if up else "not ready"}, 200 if up else 503)

    def _add_numbers(self, router: APIRouter) -> None:
        @router.get("/status", dependencies=[Depends(self._parts.admission.to(callers.STATUS))])
        async def status() -> dict[str, Any]:
            """Tell how the store is: tiers, schema, keys in use, warnings."""
            found = await self._vault.status()
            return {
                "healthy": found.healthy,
                "tiers": found.tiers,
                "schema_version": found.schema_version,
                "key_ids": found.key_ids,
                "warnings": found.warnings,
            }

        @router.get("/metrics", dependencies=[Depends(self._parts.admission.even_without_store(callers.METRICS))])
        async def metrics() -> Response:
            """Return the numbers in Prometheus' text format. What cannot be read of the store is left out."""
            up = await self._pulse.beats()
            left = await self._left() if up else {}
            self._parts.metrics.store_answers(up=up)
            self._parts.metrics.accounts(left)
            return Response(self._parts.metrics.text(), media_type=CONTENT_TYPE)

    async def _left(self) -> dict[str, list[timedelta | None]]:
        try:
            return await self._parts.watched.left(self._vault, self._parts.clock.now())
        except TokenKeepError:
            return {}

    def _add_page(self, router: APIRouter) -> None:
        @router.get("/", response_class=HTMLResponse)
        async def board(request: Request) -> HTMLResponse:
            """Show people the accounts that they may see, without a secret; name and token by HTTP Basic."""
            who = await self._parts.admission.by_password(request)
            if who is None:
                headers = {"WWW-Authenticate": challenge("Basic", {"realm": REALM, "charset": "UTF-8"})}
                raise HTTPException(401, "This needs the name and the token of a caller.", headers=headers)
            status = await self._vault.status() if callers.may(who, callers.STATUS) else None
            told = page.board(await self._made_for(who), status, self._parts.clock.now())
            return HTMLResponse(told, headers=PAGE_HEADERS)

    async def _made_for(self, who: IssuedToken) -> list[TokenInfo]:
        now = self._parts.clock.now()
        infos = await self._vault.created_between(now - SHOWN, now + timedelta(seconds=1), limit=LISTED)
        return [info for info in infos if callers.may_on(who, callers.REPORT, info.provider, info.user_id)]
