"""What the tests of the service share: one in this process, its callers, and a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from fastapi_apps import SITE, plain
from tokenkeep import AsyncTokenIssuer, AsyncTokenVault, KeyRing, NewToken
from tokenkeep.metrics import Metrics
from tokenkeep.ports import Clock
from tokenkeep.providers import FunctionProvider
from tokenkeep.service.application import application
from tokenkeep.service.callers import KEPT_UNDER, open_callers_async
from tokenkeep.service.edge import Edge


def basic(name: str, token: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{name}:{token}'.encode()).decode()}"}


def token_of(user_id: str) -> str:
    """What the provider of these tests gives a user: nobody else's token looks like it."""
    return f"the broker's token of {user_id!r}"


@dataclass(frozen=True, kw_only=True)
class Service:
    """One in this process, and what it is made of."""

    url: str
    keys: KeyRing
    app: Edge
    vault: AsyncTokenVault
    callers: AsyncTokenIssuer
    issued: AsyncTokenIssuer
    metrics: Metrics

    async def token(self, *scopes: str, name: str = "bot") -> str:
        return plain(await self.callers.issue(KEPT_UNDER, scopes=scopes, name=name))

    def client(self, token: str | None = None, **options: Any) -> httpx.AsyncClient:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=True)
        return httpx.AsyncClient(transport=transport, base_url=SITE, **({"headers": headers} | options))

    @asynccontextmanager
    async def asking(self, *scopes: str) -> AsyncIterator[httpx.AsyncClient]:
        """A client that may do this."""
        async with self.client(await self.token(*scopes)) as http:
            yield http


@asynccontextmanager
async def in_process(
    url: str, *, keys: KeyRing | None = None, clock: Clock | None = None, watched: Collection[tuple[str, str]] = ()
) -> AsyncIterator[Service]:
    """Open a service whose provider `broker` gives everybody a token of their own."""
    keys, metrics = keys or KeyRing.generate(), Metrics()

    def log_in(user_id: str) -> NewToken:
        return NewToken(token_of(user_id), refresh_token="never shown", expires_in=3600, profile={"email": "a@b.c"})

    provider = metrics.measured(FunctionProvider("broker", log_in))
    async with (
        AsyncTokenVault.open(url, providers=[provider], keys=keys, clock=clock) as vault,
        open_callers_async(url, "default", keys=keys) as callers,
        AsyncTokenIssuer.open(url, lifetime=timedelta(hours=1), keys=keys) as issued,
    ):
        app = application(vault, callers, issued=issued, metrics=metrics, watched=watched, clock=clock)
        yield Service(url=url, keys=keys, app=app, vault=vault, callers=callers, issued=issued, metrics=metrics)


# --- a process of its own ---

COMMAND = [sys.executable, "-c", "from tokenkeep.cli import main; main()"]


@dataclass(frozen=True, kw_only=True)
class Process:
    """`tokenkeep serve` in a folder."""

    folder: Path
    process: subprocess.Popen[bytes]
    address: str

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        ours: dict[str, Any] = {"base_url": self.address, "headers": headers, "trust_env": False, "timeout": 60}
        return httpx.Client(**(ours | options))


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith("TOKENKEEP_")}, **more}


@contextmanager
def serving(folder: Path, *arguments: str, **environment: str) -> Iterator[Process]:
    """Start `tokenkeep serve` on a free port, wait until it serves, end it."""
    log = folder / "log"
    with (
        log.open("wb") as written,
        subprocess.Popen(
            [*COMMAND, "serve", "--port", "0", *arguments],
            cwd=folder,
            env=_environment(environment),
            stdout=written,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while not (found := re.search(r'serving on ([^\s"]+)', log.read_text())):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            yield Process(folder=folder, process=process, address=found[1])
        finally:
            process.terminate()
            process.wait(60)
