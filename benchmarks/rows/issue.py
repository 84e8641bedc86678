"""issue, durable, 32 callers: what returns survives a power cut."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Final

from benchmarks import workload
from benchmarks.harness import Contestant, Line, Setting, interleaved, least, per_call
from benchmarks.peers import FastAPIUsers, PeerMissing
from tokenkeep import AsyncTokenIssuer, TokenIssuer

CALLERS: Final = 32
EACH: Final = 20
ONE_BY_ONE: Final = 200
PEER_EACH: Final = 2
TASKS, THREADS, ALONE, RAW = "ours, 32 tasks", "ours, 32 threads", "ours, one caller", "raw INSERT, one by one"


def measure(setting: Setting) -> Iterator[Line]:
    path = setting.folder / "tokens.db"
    raw, _ = workload.raw(setting.folder / "raw.db", 1, 1)
    where = workload.url(path)
    with (
        closing(raw),
        asyncio.Runner() as runner,
        ThreadPoolExecutor(CALLERS) as pool,
        TokenIssuer.open(where, lifetime=workload.LIFETIME, keys=setting.keys) as issuer,
    ):
        asynchronous = AsyncTokenIssuer.open(where, lifetime=workload.LIFETIME, keys=setting.keys)
        contestants: dict[str, Contestant] = {
            TASKS: lambda: runner.run(by_tasks(asynchronous)),
            THREADS: lambda: by_threads(issuer, pool),
            ALONE: lambda: per_call(issuer.issue, ["alice"] * ONE_BY_ONE),
            RAW: lambda: per_call(
                lambda key: raw.execute(workload.RAW_INSERT, (key, "alice", workload.RAW_END)),
                [secrets.token_bytes(32) for _ in range(ONE_BY_ONE)],
            ),
        }
        try:
            setting.peer.fill(1000)
            contestants[FastAPIUsers.NAME] = lambda: setting.peer.write(CALLERS * PEER_EACH, callers=CALLERS)
            missing = ""
        except PeerMissing as error:
            missing = str(error)
        rounds = interleaved(contestants, runs=setting.runs)
        runner.run(asynchronous.close())
    yield rounds.gain("issue, durable, 32 tasks", TASKS, RAW, least(2), "ours writes an audit event with each")
    yield rounds.gain("issue, durable, 32 threads", THREADS, RAW, least(2), "ours writes an audit event with each")
    yield rounds.gain("issue, durable, one caller", ALONE, RAW)
    if missing:
        yield Line(work="issue, durable, 32 tasks", peer=FastAPIUsers.NAME, goal=least(25), note=missing)
    else:
        yield rounds.gain("issue, durable, 32 tasks", TASKS, FastAPIUsers.NAME, least(25))
        yield rounds.gain("issue, durable, 32 threads", THREADS, FastAPIUsers.NAME, least(25))


async def by_tasks(issuer: AsyncTokenIssuer) -> float:
    async def caller() -> None:
        for _ in range(EACH):
            await issuer.issue("alice")

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return (time.perf_counter() - started) / (CALLERS * EACH)


def by_threads(issuer: TokenIssuer, pool: ThreadPoolExecutor) -> float:
    def caller(_: int) -> None:
        for _ in range(EACH):
            issuer.issue("alice")

    started = time.perf_counter()
    list(pool.map(caller, range(CALLERS)))
    return (time.perf_counter() - started) / (CALLERS * EACH)
