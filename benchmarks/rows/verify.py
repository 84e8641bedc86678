"""verify, strict: every verification asks the database."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Final

from benchmarks import workload
from benchmarks.harness import Contestant, Line, Setting, interleaved, least, most, per_call, quiet
from benchmarks.peers import FastAPIUsers, PeerMissing
from tokenkeep import AsyncTokenIssuer, TokenIssuer

TOKENS: Final = 10_000
HOT: Final = 500
CALLS: Final = 5000
PEER_CALLS: Final = 200
OURS, OURS_SYNC, HOT_TOKENS, RAW, OUR_ROW = (
    "ours, async",
    "ours, sync",
    "ours, async, 500 tokens",
    "raw sqlite3",
    "raw sqlite3, our row",
)


def measure(setting: Setting) -> Iterator[Line]:
    path = setting.folder / "tokens.db"
    tokens = workload.issued(path, TOKENS, setting.rows, setting.keys)
    raw, keys = workload.raw(setting.folder / "raw.db", TOKENS, setting.rows)
    with (
        closing(raw),
        closing(sqlite3.connect(path)) as ours_raw,
        asyncio.Runner() as runner,
        TokenIssuer.open(workload.url(path), lifetime=workload.LIFETIME, keys=setting.keys) as issuer,
    ):
        asynchronous = AsyncTokenIssuer.open(workload.url(path), lifetime=workload.LIFETIME, keys=setting.keys)
        ids = [bytes(row[0]) for row in ours_raw.execute("SELECT id FROM tokenkeep_issued LIMIT ?", (TOKENS,))]
        contestants: dict[str, Contestant] = {
            OURS: lambda: per_await(runner, asynchronous, workload.picked(tokens, CALLS)),
            OURS_SYNC: lambda: per_call(issuer.verify, workload.picked(tokens, CALLS)),
            HOT_TOKENS: lambda: per_await(runner, asynchronous, workload.picked(tokens[:HOT], CALLS)),
            RAW: lambda: per_call(selecting(raw, workload.RAW_SELECT), workload.picked(keys, CALLS)),
            OUR_ROW: lambda: per_call(
                selecting(ours_raw, "SELECT * FROM tokenkeep_issued WHERE id = ?"), workload.picked(ids, CALLS)
            ),
        }
        missing = with_peer(setting, contestants)
        rounds = interleaved(contestants, runs=setting.runs)
        runner.run(asynchronous.close())
        calls = python_calls(partial(issuer.verify, tokens[-1]))
    work = f"verify, strict, {setting.rows:,} rows"
    yield rounds.cost(f"{work}, async", OURS, RAW, most(2))
    yield rounds.cost(f"{work}, async, 500 tokens in use", HOT_TOKENS, RAW, most(2))
    yield rounds.cost(f"{work}, async", OURS, OUR_ROW)
    yield rounds.cost(f"{work}, sync", OURS_SYNC, RAW, most(2))
    yield Line(work="verify, strict: Python calls", figure=calls, unit="calls", goal=most(120, "calls"))
    if missing:
        yield Line(work=work, peer=FastAPIUsers.NAME, goal=least(100), note=missing)
    else:
        yield rounds.gain(f"{work}, async", OURS, FastAPIUsers.NAME, least(100))


def with_peer(setting: Setting, contestants: dict[str, Contestant]) -> str:
    """Add fastapi-users, or return why it is missing."""
    try:
        setting.peer.fill(setting.rows)
    except PeerMissing as error:
        return str(error)
    contestants[FastAPIUsers.NAME] = lambda: setting.peer.read(PEER_CALLS)
    return ""


def per_await(runner: asyncio.Runner, issuer: AsyncTokenIssuer, tokens: list[str]) -> float:
    async def verifying() -> float:
        clock = asyncio.get_running_loop().time
        started = clock()
        for token in tokens:
            await issuer.verify(token)
        return (clock() - started) / len(tokens)

    return runner.run(verifying())


def selecting(connection: sqlite3.Connection, sql: str) -> Callable[[bytes], object]:
    """A SELECT by key, which the driver keeps prepared."""
    execute = connection.execute
    return lambda key: execute(sql, (key,)).fetchone()


def python_calls(function: Callable[[], object]) -> int:
    """How many calls of Python functions one call makes; those of C functions are not among them."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    function()
    with quiet():
        sys.setprofile(count)
        try:
            function()
        finally:
            sys.setprofile(None)
    return calls
