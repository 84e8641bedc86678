"""store, and batches: a token put in place, sealed, with its audit event, durable."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from benchmarks import workload
from benchmarks.harness import Line, Setting, interleaved, least, most, per_call
from benchmarks.page import PageStorage
from tokenkeep import NewToken, TokenVault
from tokenkeep.errors import StoreError
from tokenkeep.providers import FunctionProvider

TOKEN: Final = "eyJ" + "a" * 297
DAY: Final = 24 * 3600
CALLS: Final = 30
BATCH: Final = [f"batch-{n:03}" for n in range(100)]
CONCURRENCY: Final = 8
WRITERS: Final = 8
EACH: Final = 10
OURS, PAGE, OURS_BATCH, PAGE_BATCH = "ours", "the page's class", "ours, batch of 100", "100 stores of the page's class"


def measure(setting: Setting) -> Iterator[Line]:
    page = PageStorage(setting.folder / "page.db")
    provider = FunctionProvider("p", lambda _user: NewToken(TOKEN, expires_in=DAY))
    where = workload.url(setting.folder / "tokens.db")
    with TokenVault.open(where, providers=[provider], keys=setting.keys) as vault:
        users = [f"user-{n}" for n in range(CALLS)]

        def batch() -> float:
            started = time.perf_counter()
            results = vault.acquire_many(BATCH, concurrency=CONCURRENCY)
            taken = time.perf_counter() - started
            assert all(result.ok for result in results)
            return taken

        rounds = interleaved(
            {
                OURS: lambda: per_call(lambda user: vault.store(user, NewToken(TOKEN, expires_in=DAY)), users),
                PAGE: lambda: per_call(lambda user: page.store(user, TOKEN), users),
                OURS_BATCH: batch,
                PAGE_BATCH: lambda: per_call(lambda user: page.store(user, TOKEN), BATCH) * len(BATCH),
            },
            runs=setting.runs,
        )
        yield rounds.gain("store, one caller", OURS, PAGE, least(5))
        yield rounds.gain("acquire_many, 100 users, concurrency 8", OURS_BATCH, PAGE_BATCH, least(50))
        yield from writers(vault, page)


def writers(vault: TokenVault, page: PageStorage) -> Iterator[Line]:
    """8 threads store for one user at once."""
    refused = side_by_side(lambda: vault.store("contended", NewToken(TOKEN, expires_in=DAY)), StoreError)
    theirs_refused = side_by_side(lambda: page.store("contended", TOKEN), sqlite3.OperationalError)
    yield Line(
        work="store, 8 threads for one user: active tokens after",
        peer=PAGE,
        theirs=f"{page.active('contended')}",
        figure=vault.statistics("contended").active_tokens,
        unit="token",
        goal=most(1, "token"),
    )
    yield Line(
        work="store, 8 threads for one user: refused (locked)",
        peer=PAGE,
        theirs=f"{theirs_refused}",
        figure=refused,
        unit="stores",
        goal=most(0, "stores"),
    )


def side_by_side(store: Callable[[], object], refusal: type[Exception]) -> int:
    def writer(_: int) -> int:
        refused = 0
        for _ in range(EACH):
            try:
                store()
            except refusal:
                refused += 1
        return refused

    with ThreadPoolExecutor(WRITERS) as pool:
        return sum(pool.map(writer, range(WRITERS)))
