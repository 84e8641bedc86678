"""The service as an ASGI application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fastapi import FastAPI

from tokenkeep.api import AsyncTokenIssuer, AsyncTokenVault
from tokenkeep.fastapi import lifespan, oauth_router
from tokenkeep.metrics import Metrics
from tokenkeep.opening import SystemClock
from tokenkeep.ports import Clock
from tokenkeep.service.accounts import Accounts
from tokenkeep.service.admission import Admission, OAuthCaller
from tokenkeep.service.asked_about import AskedAbout
from tokenkeep.service.edge import Edge
from tokenkeep.service.operation import Operation
from tokenkeep.service.parts import Parts
from tokenkeep.service.problems import answer_problems
from tokenkeep.service.watched import Watched

OPEN: Final = frozenset({"/livez", "/readyz"})
"""What is answered to anybody: a word. Everything else wants a caller, and the scope for it."""


def routes(parts: Parts, callers: AsyncTokenIssuer, issued: AsyncTokenIssuer | None) -> FastAPI:
    """Return the routes without what stands around them. They describe themselves to nobody (ASVS 5.0, 13.4.5)."""
    opened = (parts.vault, callers) if issued is None else (parts.vault, callers, issued)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, lifespan=lifespan(*opened))
    answer_problems(app)
    app.include_router(Operation(parts).router())
    app.include_router(Accounts(parts).router())
    if issued is not None:
        app.include_router(oauth_router(AskedAbout(issued, parts.metrics), OAuthCaller(parts.admission)))
    return app


def application(
    vault: AsyncTokenVault,
    callers: AsyncTokenIssuer,
    *,
    issued: AsyncTokenIssuer | None = None,
    metrics: Metrics | None = None,
    watched: Iterable[tuple[str, str]] = (),
    clock: Clock | None = None,
) -> Edge:
    """Return the service; it opens and closes what it is given.

    Args:
        vault: has the tokens that are handed out, and the providers that it may log in at.
        callers: issues the tokens of callers: `open_callers_async`, and nobody else's.
        issued: of the application's own tokens, which resource servers may ask about; `None`: no such route.
        metrics: counts; `None` for new ones. Hand the vault providers that it has `measured`.
        watched: provider and user of accounts that the metrics tell of from the start.
        clock: the time by which tokens end; `None` for this machine's.
    """
    parts = Parts(
        vault=vault,
        admission=Admission(callers),
        metrics=metrics or Metrics(),
        watched=Watched(watched),
        clock=clock or SystemClock(),
    )
    return Edge(routes(parts, callers, issued), parts.metrics)
