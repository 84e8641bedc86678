"""GET /me over HTTP: without authentication, ours, a JWT, fastapi-users; each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import site
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final, Self

import jwt

from benchmarks import workload
from benchmarks.harness import Goal, Line, Setting, interleaved, least, most
from benchmarks.http_server import SECRET
from benchmarks.peers import FastAPIUsers, PeerMissing

TOKENS: Final = 1000
REQUESTS: Final = 1500
PEER_REQUESTS: Final = 300
CALLERS: Final = 32
BARE, STRICT, CACHED, JWT = "no authentication", "ours, strict", "ours, cached", "PyJWT HS256"
BOUND: Final = 5
_HERE: Final = Path(__file__).parents[1]


class Server:
    """One process that serves, and connections to it that stay open."""

    def __init__(self, kind: str, tokens: Sequence[str], requests: int, given: dict[str, Any], python: str) -> None:
        self._requests = [
            f"GET /me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode() for token in tokens
        ]
        self._count = requests
        self._process = subprocess.Popen(
            [python, _HERE / "http_server.py", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()
        self._port = int(self._process.stdout.readline())
        asyncio.run(self._asked(1))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def wall(self) -> float:
        """Seconds a request, with so many callers at once."""
        return asyncio.run(self._asked(CALLERS))[0]

    def cpu(self) -> float:
        """Seconds of the server's processor time a request, with one caller."""
        return asyncio.run(self._asked(1))[1]

    async def _asked(self, callers: int) -> tuple[float, float]:
        connections = [await asyncio.open_connection("127.0.0.1", self._port) for _ in range(callers)]
        share = self._count // callers
        before = await self._cpu(*connections[0])
        clock = asyncio.get_running_loop().time
        started = clock()
        await asyncio.gather(*(self._caller(*connection, share) for connection in connections))
        taken = clock() - started
        used = await self._cpu(*connections[0]) - before
        for _, writer in connections:
            writer.close()
        return taken / (share * callers), used / (share * callers)

    async def _caller(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: int) -> None:
        for request in workload.picked(self._requests, count):
            writer.write(request)
            await answer(reader)

    async def _cpu(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        writer.write(b"GET /cpu HTTP/1.1\r\nHost: x\r\n\r\n")
        return float(await answer(reader))


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Read one answer, which must be a good one."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert head.startswith(b"http/1.1 200 "), head
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return await reader.readexactly(length)


def measure(setting: Setting) -> Iterator[Line]:
    path, keys = setting.folder / "tokens.db", setting.folder / "keys"
    setting.keys.save(keys)
    tokens = workload.issued(path, TOKENS, setting.rows, setting.keys)
    claims = {"sub": "user-0000001", "aud": "orders", "exp": 4_000_000_000, "scope": "orders:read"}
    ours: dict[str, Any] = {"url": workload.url(path), "keys": str(keys)}
    kinds: dict[str, tuple[str, Sequence[str], dict[str, Any]]] = {
        BARE: ("none", tokens, {}),
        STRICT: ("issued", tokens, ours | {"max_staleness": 0}),
        CACHED: ("issued", tokens, ours | {"max_staleness": BOUND}),
        JWT: ("jwt", [jwt.encode(claims, SECRET, algorithm="HS256")], {}),
    }
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(Server(kind, held, REQUESTS, given, sys.executable))
            for name, (kind, held, given) in kinds.items()
        }
        missing = with_peer(setting, servers, stack)
        cpu = interleaved({name: server.cpu for name, server in servers.items()}, runs=setting.runs)
        wall = interleaved({name: server.wall for name, server in servers.items()}, runs=setting.runs)
    goals: dict[str, Goal | None] = {STRICT: most(1.8), CACHED: most(1.5), JWT: None}
    for name, goal in goals.items():
        yield cpu.cost(f"GET /me, {name}: server CPU", name, BARE, goal)
    for name, goal in {STRICT: least(5), CACHED: least(7)}.items():
        work = f"GET /me, {name}, {CALLERS} callers"
        yield wall.cost(work, name, BARE)
        yield (
            Line(work=work, peer=FastAPIUsers.NAME, goal=goal, note=missing)
            if missing
            else wall.gain(work, name, FastAPIUsers.NAME, goal)
        )


def with_peer(setting: Setting, servers: dict[str, Server], stack: ExitStack) -> str:
    """Add fastapi-users, served as ours are, or return why it is missing."""
    try:
        setting.peer.fill(setting.rows)
        python = setting.peer._installed()
    except PeerMissing as error:
        return str(error)
    database = setting.peer._folder / "peer.db"
    with closing(sqlite3.connect(database)) as connection:
        tokens = [row[0] for row in connection.execute("SELECT token FROM accesstoken LIMIT ?", (TOKENS,))]
    given = {"database": str(database), "path": site.getsitepackages()}
    servers[FastAPIUsers.NAME] = stack.enter_context(Server("fastapi-users", tokens, PEER_REQUESTS, given, str(python)))
    return ""
