"""get_valid with unsealing: the token of an account, opened."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks import workload
from benchmarks.harness import MILLISECOND, Line, Setting, interleaved, most, per_call, percentile, quiet
from benchmarks.page import PageStorage
from tokenkeep import KeyRing, NewToken, TokenVault

USERS: Final = [f"user-{n:04}" for n in range(200)]
TOKEN: Final = "eyJ" + "a" * 297
HOUR: Final = 3600
CALLS: Final = 4000
PAGE_CALLS: Final = 500
THREADS: Final = 8
EACH: Final = 1000
OURS, PAGE = "ours", "the page's class"
OUR_ROW, SMALL_ROW = "SELECT of our row + AES-GCM", "SELECT of 2 columns + AES-GCM"

_IN_PLACE: Final = (
    "SELECT id, namespace, provider, user_id, kind, version, access_sealed, refresh_sealed, key_id, token_type, scope, "
    "created_at, expires_at, last_used_at, usage_count, rejected_at, profile, metadata FROM tokenkeep_token "
    "WHERE namespace = 'default' AND provider = 'p' AND user_id = ? AND kind = 'access' AND active = 1"
)


def measure(setting: Setting) -> Iterator[Line]:
    path = setting.folder / "tokens.db"
    page = filled_page(setting.folder / "page.db")
    small = filled_small(setting.folder / "small.db")
    with TokenVault.open(workload.url(path), keys=setting.keys) as vault:
        for user in USERS:
            vault.store(user, NewToken(TOKEN, expires_in=24 * HOUR), provider="p")
        get = getting(vault)
        with closing(sqlite3.connect(path)) as raw, closing(sqlite3.connect(setting.folder / "small.db")) as two:
            rounds = interleaved(
                {
                    OURS: lambda: per_call(get, workload.picked(USERS, CALLS)),
                    OUR_ROW: lambda: per_call(small.opening(raw, _IN_PLACE), workload.picked(USERS, CALLS)),
                    SMALL_ROW: lambda: per_call(small.opening(two, small.SELECT), workload.picked(USERS, CALLS)),
                    PAGE: lambda: per_call(page.get_valid, workload.picked(USERS, PAGE_CALLS)),
                },
                runs=setting.runs,
            )
    work = "get_valid, sync, one caller"
    yield rounds.cost(work, OURS, OUR_ROW, most(2))
    yield rounds.cost(work, OURS, SMALL_ROW)
    yield rounds.gain(work, OURS, PAGE)
    yield from with_threads(path, setting.keys, small, page, setting.runs)


def getting(vault: TokenVault) -> Callable[[str], object]:
    return lambda user: vault.get_valid(user, provider="p")


class SmallTable:
    """The least that holds a sealed token, and a cipher that is kept."""

    SELECT: Final = "SELECT sealed, expires_at FROM token WHERE user_id = ?"

    def __init__(self) -> None:
        self._cipher = AESGCM(AESGCM.generate_key(256))
        self._nonce = bytes(12)
        self.sealed = self._cipher.encrypt(self._nonce, TOKEN.encode(), None)

    def opening(self, connection: sqlite3.Connection, sql: str) -> Callable[[str], object]:
        """Select a row, then open as many bytes as there are in a sealed token."""
        execute, decrypt, nonce, sealed = connection.execute, self._cipher.decrypt, self._nonce, self.sealed

        def opened(user: str) -> str:
            assert execute(sql, (user,)).fetchone() is not None
            return decrypt(nonce, sealed, None).decode()

        return opened


def filled_small(path: Path) -> SmallTable:
    small = SmallTable()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE token (user_id TEXT PRIMARY KEY, sealed BLOB, expires_at INTEGER)")
        connection.executemany("INSERT INTO token VALUES (?, ?, ?)", [(user, small.sealed, 0) for user in USERS])
        connection.commit()
    return small


def filled_page(path: Path) -> PageStorage:
    page = PageStorage(path)
    for user in USERS:
        page.store(user, TOKEN)
    assert page.get_valid(USERS[0]) is not None
    return page


def with_threads(path: Path, keys: KeyRing, small: SmallTable, page: PageStorage, runs: int) -> Iterator[Line]:
    """8 threads that ask without a pause, as many times each; then count the uses."""
    user = "counted"
    figures: dict[str, list[float]] = {OURS: [], OUR_ROW: [], PAGE: []}
    with TokenVault.open(workload.url(path), keys=keys) as vault:
        vault.store(user, NewToken(TOKEN, expires_in=24 * HOUR), provider="p")
        local = threading.local()

        def raw(name: str) -> object:
            if not hasattr(local, "get"):
                local.get = small.opening(sqlite3.connect(path, check_same_thread=False), _IN_PLACE)
            return local.get(name)

        for _ in range(runs):
            figures[OURS].append(p99(getting(vault), [user]))
            figures[OUR_ROW].append(p99(raw, USERS))
            figures[PAGE].append(p99(page.get_valid, USERS, each=EACH // 5))
        counted = vault.statistics(user, provider="p").total_usage
    ours = median(figures[OURS])
    yield Line(
        work="get_valid, sync, 8 threads: p99",
        peer=f"{OUR_ROW}; {PAGE}",
        theirs=f"{median(figures[OUR_ROW]) / MILLISECOND:.2f} ms; {median(figures[PAGE]) / MILLISECOND:.2f} ms",
        figure=ours / MILLISECOND,
        unit="ms",
        goal=most(1, "ms"),
    )
    lost = THREADS * EACH * runs - counted
    yield Line(work="get_valid, 8 threads: uses not counted", figure=lost, unit="uses", goal=most(0, "uses"))


def p99(get: Callable[[str], Any], users: list[str], *, each: int = EACH) -> float:
    start = threading.Barrier(THREADS)

    def caller(_: int) -> list[float]:
        chosen = workload.picked(users, each)
        times = []
        start.wait()
        for user in chosen:
            started = time.perf_counter()
            get(user)
            times.append(time.perf_counter() - started)
        return times

    with quiet(), ThreadPoolExecutor(THREADS) as pool:
        return percentile((taken for times in pool.map(caller, range(THREADS)) for taken in times), 99)
