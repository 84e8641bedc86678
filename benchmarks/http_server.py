"""A process that serves `GET /me`: `http_server.py KIND`, with the rest as JSON on its first line of input.

It prints its port when it is ready, and ends when its input does. `GET /cpu` tells the seconds of processor time
that it has used.
"""

# ruff: noqa: PLC0415  # each kind imports only what it needs: the peer has packages of its own

import json
import os
import socket
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI

SECRET = "0123456789abcdef0123456789abcdef"


def bare(_: dict[str, Any]) -> FastAPI:
    app = FastAPI()

    @app.get("/me")
    async def me() -> dict[str, str]:
        return {"user": "user-0000001"}

    return app


def issued(given: dict[str, Any]) -> FastAPI:
    from tokenkeep import AsyncTokenIssuer, IssuedToken, KeyRing
    from tokenkeep.fastapi import Bearer, lifespan

    issuer = AsyncTokenIssuer.open(
        given["url"],
        lifetime=timedelta(hours=12),
        max_staleness=timedelta(seconds=given["max_staleness"]),
        keys=KeyRing.from_file(given["keys"]),
    )
    app = FastAPI(lifespan=lifespan(issuer))
    bearer = Bearer(issuer)

    @app.get("/me")
    async def me(mine: Annotated[IssuedToken, Depends(bearer)]) -> dict[str, str]:
        return {"user": mine.user_id}

    return app


def signed(_: dict[str, Any]) -> FastAPI:
    import jwt
    from fastapi import HTTPException
    from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

    app = FastAPI()

    async def user(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
        try:
            claims = jwt.decode(credentials.credentials, SECRET, algorithms=["HS256"], audience="orders")
        except jwt.InvalidTokenError:
            raise HTTPException(401) from None
        return str(claims["sub"])

    @app.get("/me")
    async def me(mine: Annotated[str, Depends(user)]) -> dict[str, str]:
        return {"user": mine}

    return app


def fastapi_users(given: dict[str, Any]) -> FastAPI:
    import http_peer  # type: ignore[import-not-found]  # it stands beside this script, and needs the peer's packages

    app: FastAPI = http_peer.application(given["database"])
    return app


KINDS = {"none": bare, "issued": issued, "jwt": signed, "fastapi-users": fastapi_users}


def main() -> None:
    given = json.loads(sys.stdin.readline())
    sys.path.extend(given.get("path", ()))  # where the peer finds the same server as we
    app = KINDS[sys.argv[1]](given)

    @app.get("/cpu")
    async def cpu() -> float:
        return time.process_time()

    import uvicorn

    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    # named by its protocol: only then asyncio switches off the algorithm of Nagle, which costs 40 ms an answer
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        print(listening.getsockname()[1], flush=True)
        server = uvicorn.Server(uvicorn.Config(app, http="h11", loop="asyncio", log_level="critical", access_log=False))
        server.run(sockets=[listening])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
