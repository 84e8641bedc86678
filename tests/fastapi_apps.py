"""What the tests of tokenkeep.fastapi share: a client of an application in this process, and a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from tokenkeep import IssuedToken

SITE = "https://app.example.org"


def client(app: FastAPI, *, address: str = "203.0.113.7", base_url: str = SITE, **options: Any) -> httpx.AsyncClient:
    """Return a client at an address, without a network."""
    transport = httpx.ASGITransport(app=app, client=(address, 50_000), raise_app_exceptions=True)
    return httpx.AsyncClient(transport=transport, base_url=base_url, **options)


def plain(issued: IssuedToken) -> str:
    assert issued.token is not None
    return issued.token.reveal()


def bearing(issued: IssuedToken) -> dict[str, str]:
    return {"Authorization": f"Bearer {plain(issued)}"}


class Served(uvicorn.Server):
    """A server in a thread, which leaves the signals alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def served(app: Any, **options: Any) -> Iterator[str]:
    """Serve on a free port of the loopback; yield the address."""
    server = Served(uvicorn.Config(app, host="127.0.0.1", port=0, **({"log_level": "warning"} | options)))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server did not start in time"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
