"""What the vault knows of a broker's account, for its operator: `python examples/broker_dashboard/app.py`."""

import argparse
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta
from hmac import compare_digest
from typing import Annotated, Any

import httpx
import uvicorn
from fastapi import Depends, FastAPI, Form, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from page import dashboard_page, login_page

from tokenkeep import AcquiredToken, AsyncTokenIssuer, AsyncTokenVault, IssuedToken
from tokenkeep.fastapi import Bearer, ProviderToken, SessionCookie, Sessions, lifespan
from tokenkeep.httpx import VaultAuth
from tokenkeep.providers.upstox import UpstoxCredentials, UpstoxProvider
from tokenkeep.testing.upstox import LocalUpstox

OPERATOR = "operator"
UPSTOX = "https://{stage}.upstox.com"
POLICY = {"Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'"}


def application(database: str, password: str, credentials: UpstoxCredentials | None, base_domain: str) -> FastAPI:
    url = f"sqlite:///{database}"
    issuer = AsyncTokenIssuer.open(url, lifetime=timedelta(hours=12), idle=timedelta(minutes=30), prefix="desk")
    vault = AsyncTokenVault.open(url, providers=[UpstoxProvider(credentials, base_domain=base_domain)])
    bearer = Bearer(issuer, cookie=SessionCookie(samesite="strict", plain_loopback=True))
    sessions = Sessions(bearer)
    broker = base_domain.format(stage="api")

    @asynccontextmanager
    async def client(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        auth = VaultAuth(vault, OPERATOR, origins=[broker.removesuffix("/api")])
        async with httpx.AsyncClient(auth=auth, base_url=broker, timeout=30) as http:
            yield {"http": http}

    app = FastAPI(title="Broker dashboard", lifespan=lifespan(issuer, vault, inner=client))

    @app.get("/", response_class=HTMLResponse)
    async def index(request: Request) -> HTMLResponse:
        brought = bearer.presented(request)
        who = None if brought is None else await bearer.verified(brought.token)
        if who is None:
            return HTMLResponse(login_page(), headers=POLICY)
        return HTMLResponse(
            dashboard_page(await vault.dashboard(OPERATOR)), headers=POLICY | {"Cache-Control": "no-store"}
        )

    @app.post("/login")
    async def login(request: Request, given: Annotated[str, Form(alias="password", max_length=128)]) -> Response:
        if not compare_digest(given.encode(), password.encode()):
            raise HTTPException(401, "The password is wrong.")
        response = RedirectResponse("/", 303)
        await sessions.begin(request, response, OPERATOR)
        return response

    @app.post("/logout")
    async def logout(mine: Annotated[IssuedToken, Depends(sessions.current)], request: Request) -> Response:
        response = RedirectResponse("/", 303)
        await sessions.end(request, response, mine)
        return response

    @app.post("/renew")
    async def renew(token: Annotated[AcquiredToken, Depends(ProviderToken(vault, bearer))]) -> Response:
        """Log in where there is no good token; the dependency has done it."""
        return RedirectResponse("/", 303, headers={"X-Token-Version": str(token.version)})

    @app.post("/revoke")
    async def revoke(_: Annotated[IssuedToken, Depends(sessions.require_fresh(timedelta(minutes=15)))]) -> Response:
        await vault.revoke(OPERATOR)
        return RedirectResponse("/", 303)

    @app.get("/profile")
    async def profile(_: Annotated[IssuedToken, Depends(sessions.current)], request: Request) -> dict[str, Any]:
        """Ask the broker. The token is put on the request, and replaced if the broker refuses it."""
        answer = await request.state.http.get("/v2/user/profile")
        if answer.is_error:
            raise HTTPException(502, "The broker did not answer.")
        data: dict[str, Any] = answer.json()["data"]
        return {name: data.get(name) for name in ("user_id", "user_name", "broker", "exchanges")}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--database", default="dashboard.db")
    options = parser.parse_args()
    password = os.environ.get("DASHBOARD_PASSWORD") or secrets.token_urlsafe(12)
    print(f"the password is {password}", flush=True)
    with nullcontext() if "UPSTOX_USERNAME" in os.environ else LocalUpstox() as local:
        app = application(
            options.database,
            password,
            None if local is None else local.credentials(),
            UPSTOX if local is None else local.base_domain,
        )
        uvicorn.run(app, host="127.0.0.1", port=options.port, proxy_headers=False)


if __name__ == "__main__":
    main()
