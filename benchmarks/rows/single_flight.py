"""get_or_create on a cold key: 8 processes with 100 callers each, and a login that takes half a second."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import workload
from benchmarks.harness import MILLISECOND, Line, Setting, most
from tokenkeep import AsyncTokenVault, KeyRing, TokenVault
from tokenkeep.providers import FunctionProvider

PROCESSES: Final = 8
CALLERS: Final = 100
LOGIN_SECONDS: Final = 0.5
ROUNDS: Final = 3


def measure(setting: Setting) -> Iterator[Line]:
    for face, callers in (("threads", by_threads), ("tasks", by_tasks)):
        logins, late = [], []
        for number in range(min(ROUNDS, setting.runs)):
            folder = setting.folder / f"{face}-{number}"
            folder.mkdir()
            setting.keys.save(folder / "keys")
            with TokenVault.open(workload.url(folder / "tokens.db"), keys=setting.keys):
                pass  # makes the file
            with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
                last = max(pool.map(partial(callers, folder), range(PROCESSES)))
            ends = [float(line) for line in (folder / "logins").read_text().split()]
            logins.append(len(ends))
            late.append((last - max(ends)) / MILLISECOND)
        work = f"get_or_create, cold, 8 processes x 100 {face}"
        yield Line(work=f"{work}: logins", figure=max(logins), unit="login", goal=most(1, "login"))
        yield Line(
            work=f"{work}: last return after the login", figure=median(late), unit="ms", goal=most(100, "ms"),
            spread=(max(late) - min(late)) / 2 / median(late),
        )  # fmt: skip


def login(folder: Path, _user: str) -> str:
    """The clock that counts from the machine's start is the same in every process."""
    time.sleep(LOGIN_SECONDS)
    with (folder / "logins").open("a") as file:
        file.write(f"{time.monotonic()}\n")
    return "token"


def wait_for_all(folder: Path, number: int) -> None:
    """Wait until every process has imported what it needs and opened its vault."""
    (folder / f"ready-{number}").touch()
    while len(list(folder.glob("ready-*"))) < PROCESSES:
        time.sleep(0.005)


def by_threads(folder: Path, number: int) -> float:
    provider = FunctionProvider("p", partial(login, folder))
    start = threading.Event()
    with (
        ThreadPoolExecutor(CALLERS) as pool,
        TokenVault.open(
            workload.url(folder / "tokens.db"), providers=[provider], keys=KeyRing.from_file(folder / "keys")
        ) as vault,
    ):

        def caller(_: int) -> float:
            start.wait()
            assert vault.get_or_create("alice").access_token.reveal() == "token"
            return time.monotonic()

        returns = pool.map(caller, range(CALLERS))
        wait_for_all(folder, number)
        start.set()
        return max(returns)


def by_tasks(folder: Path, number: int) -> float:
    return asyncio.run(_by_tasks(folder, number))


async def _by_tasks(folder: Path, number: int) -> float:
    provider = FunctionProvider("p", partial(login, folder))
    async with AsyncTokenVault.open(
        workload.url(folder / "tokens.db"), providers=[provider], keys=KeyRing.from_file(folder / "keys")
    ) as vault:

        async def caller() -> float:
            token = await vault.get_or_create("alice")
            assert token.access_token.reveal() == "token"
            return time.monotonic()

        wait_for_all(folder, number)
        return max(await asyncio.gather(*(caller() for _ in range(CALLERS))))
