"""Register, log in, me, log out, and one's sessions: `python examples/fastapi_sessions/app.py`."""

import argparse
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from users import Users

from tokenkeep import AsyncTokenIssuer, IssuedToken
from tokenkeep.fastapi import Bearer, SessionCookie, Sessions, lifespan, token_answer

HERE = Path(__file__).parent


class Login(BaseModel):
    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")
    password: str = Field(min_length=8, max_length=128)


class Person(BaseModel):
    name: str


def application(database: str) -> FastAPI:
    issuer = AsyncTokenIssuer.open(
        f"sqlite:///{database}", lifetime=timedelta(hours=12), idle=timedelta(hours=1), prefix="demo"
    )
    users = Users(database)
    by_cookie = Sessions(Bearer(issuer, cookie=SessionCookie(plain_loopback=True)))
    by_header = Sessions(Bearer(issuer))
    bearer = Bearer(issuer, cookie=SessionCookie(plain_loopback=True))
    app = FastAPI(title="Sessions", lifespan=lifespan(issuer))
    app.include_router(by_cookie.router())

    async def known(login: Login) -> str:
        if not await run_in_threadpool(users.authenticate, login.name, login.password):
            raise HTTPException(401, "The name or the password is wrong.")
        return login.name

    @app.post("/register", status_code=201)
    def register(login: Login) -> Person:
        if not users.register(login.name, login.password):
            raise HTTPException(409, "This name is taken.")
        return Person(name=login.name)

    @app.post("/login")
    async def login(name: Annotated[str, Depends(known)], request: Request, response: Response) -> Person:
        """Begin a session of this browser."""
        await by_cookie.begin(request, response, name)
        return Person(name=name)

    @app.post("/token")
    async def token(name: Annotated[str, Depends(known)], request: Request, response: Response) -> Response:
        """Begin a session of a program, which sends the token in a header."""
        return token_answer(await by_header.begin(request, response, name))

    @app.get("/me")
    async def me(mine: Annotated[IssuedToken, Depends(bearer)]) -> Person:
        return Person(name=mine.user_id)

    @app.post("/logout", status_code=204)
    async def logout(
        mine: Annotated[IssuedToken, Depends(by_cookie.current)], request: Request, response: Response
    ) -> None:
        await by_cookie.end(request, response, mine)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        headers = {"Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'"}
        return FileResponse(HERE / "page.html", headers=headers)

    @app.get("/page.js", include_in_schema=False)
    async def script() -> FileResponse:
        return FileResponse(HERE / "page.js")

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--database", default="sessions.db")
    options = parser.parse_args()
    # proxy_headers=False: who the client is, tokenkeep decides (Sessions(trusted_proxies=...))
    uvicorn.run(application(options.database), host="127.0.0.1", port=options.port, proxy_headers=False)


if __name__ == "__main__":
    main()
