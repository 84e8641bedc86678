"""get_valid behind a Redis tier beside the page's hybrid class, and Redis as the store beside plain redis-py."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import redis
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks import workload
from benchmarks.harness import Line, Setting, interleaved, least, most, per_call, quiet
from tokenkeep import NewToken, TokenIssuer, TokenVault

USERS: Final = [f"user-{n:04}" for n in range(200)]
TOKEN: Final = "eyJ" + "a" * 297
CALLS: Final = 3000
THREADS: Final = 8
EACH: Final = 500
OURS, RAW, PAGE = "ours", "redis-py GET + AES-GCM", "the page's hybrid class"


class PageHybrid:
    """What the page's class does on a hit, told again: the token in clear, its use counted by writing it back."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, decode_responses=True)

    def store(self, user: str) -> None:
        ends = datetime.now() + timedelta(hours=24)  # noqa: DTZ005  # as the page has it
        data = {"token": TOKEN, "user_id": user, "expires_at": ends.isoformat(), "usage_count": 0}
        self._client.setex(f"upstox:token:{user}", 23 * 3600, json.dumps(data))

    def get_valid(self, user: str) -> dict[str, Any] | None:
        found = self._client.get(f"upstox:token:{user}")
        if not found:
            return None
        data: dict[str, Any] = json.loads(str(found))
        ends, now = datetime.fromisoformat(data["expires_at"]), datetime.now()  # noqa: DTZ005  # as the page has it
        if ends <= now + timedelta(hours=1):
            return None
        data["usage_count"] += 1
        self._client.setex(f"upstox:token:{user}", int((ends - now).total_seconds()), json.dumps(data))
        return data


def measure(setting: Setting) -> Iterator[Line]:
    if shutil.which("redis-server") is None:
        yield Line(work="get_valid, Redis hit", note="redis-server is not installed")
        return
    with server(setting.folder) as url:
        page = PageHybrid(url)
        get_raw = filled_raw(url)
        vault = TokenVault.open(
            workload.url(setting.folder / "tokens.db"), keys=setting.keys, cache=f"{url}?max_staleness=600"
        )
        with vault:
            for user in USERS:
                page.store(user)
                vault.store(user, NewToken(TOKEN, expires_in=24 * 3600), provider="p")
                vault.get_valid(user, provider="p")
            rounds = interleaved(
                {
                    OURS: lambda: per_call(getting(vault), workload.picked(USERS, CALLS)),
                    RAW: lambda: per_call(get_raw, workload.picked(USERS, CALLS)),
                    PAGE: lambda: per_call(page.get_valid, workload.picked(USERS, CALLS)),
                },
                runs=setting.runs,
            )
            yield rounds.gain("get_valid, Redis hit, one caller", OURS, PAGE, least(2))
            yield rounds.cost("get_valid, Redis hit, one caller", OURS, RAW)
            yield from with_threads(vault, page, setting.runs)
    with server(setting.folder, "--appendonly", "yes") as url:
        yield from as_the_store(setting, url)


def as_the_store(setting: Setting, url: str) -> Iterator[Line]:
    """What every request asks for, beside a GET of as many bytes and the write of a key."""
    with (
        redis.Redis.from_url(url) as client,
        TokenVault.open(url, keys=setting.keys) as vault,
        TokenIssuer.open(url, lifetime=timedelta(hours=1), keys=setting.keys) as issuer,
    ):
        bearers = []
        for user in USERS:
            client.set(f"raw:{user}", TOKEN)
            vault.store(user, NewToken(TOKEN, expires_in=24 * 3600), provider="p")
            issued = issuer.issue(user).token
            assert issued is not None
            bearers.append(issued.reveal())
        rounds = interleaved(
            {
                "verify": lambda: per_call(issuer.verify, workload.picked(bearers, CALLS)),
                "get_valid": lambda: per_call(getting(vault), workload.picked(USERS, CALLS)),
                "issue": lambda: per_call(issuer.issue, workload.picked(USERS, CALLS // 10)),
                "GET": lambda: per_call(lambda user: client.get(f"raw:{user}"), workload.picked(USERS, CALLS)),
                "SET": lambda: per_call(lambda user: client.set(user, TOKEN), workload.picked(USERS, CALLS // 10)),
            },
            runs=setting.runs,
        )
        yield rounds.cost("verify, Redis as the store", "verify", "GET")
        yield rounds.cost("get_valid, Redis as the store", "get_valid", "GET")
        yield rounds.cost("issue, Redis as the store", "issue", "SET")


def getting(vault: TokenVault) -> Callable[[str], object]:
    return lambda user: vault.get_valid(user, provider="p")


def filled_raw(url: str) -> Callable[[str], object]:
    client, cipher, nonce = redis.Redis.from_url(url), AESGCM(AESGCM.generate_key(256)), bytes(12)
    for user in USERS:
        client.set(f"raw:{user}", cipher.encrypt(nonce, TOKEN.encode(), None))

    def get(user: str) -> str:
        sealed = client.get(f"raw:{user}")
        assert isinstance(sealed, bytes)
        return cipher.decrypt(nonce, sealed, None).decode()

    return get


def with_threads(vault: TokenVault, page: PageHybrid, runs: int) -> Iterator[Line]:
    """8 threads on one user: how fast, and how many uses are lost."""
    user = USERS[0]
    before = vault.statistics(user, provider="p").total_usage
    page.store(user)
    rounds = interleaved(
        {OURS: lambda: crowd(getting(vault), user), PAGE: lambda: crowd(page.get_valid, user)}, runs=runs
    )
    yield rounds.gain("get_valid, Redis hit, 8 threads", OURS, PAGE)
    used = THREADS * EACH * (runs + 1)
    counted = vault.statistics(user, provider="p").total_usage - before
    last = page.get_valid(user)
    assert last is not None
    yield Line(
        work="get_valid, Redis hit, 8 threads: uses not counted",
        peer=PAGE,
        theirs=f"{100 * (1 - (last['usage_count'] - 1) / used):.0f} %",
        figure=used - counted,
        unit="uses",
        goal=most(0, "uses"),
    )


def crowd(get: Callable[[str], object], user: str) -> float:
    start = threading.Barrier(THREADS)

    def caller(_: int) -> float:
        start.wait()
        began = time.perf_counter()
        for _ in range(EACH):
            get(user)
        return time.perf_counter() - began

    with quiet(), ThreadPoolExecutor(THREADS) as pool:
        return median(pool.map(caller, range(THREADS))) / EACH / THREADS


@contextmanager
def server(folder: Path, *options: str) -> Iterator[str]:
    """A Redis of our own that keeps nothing, unless it is told to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as client:
            for _ in range(200):
                try:
                    client.ping()
                except redis.ConnectionError:
                    time.sleep(0.02)
                else:
                    break
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()
