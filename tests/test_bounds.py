"""Bounds that hold under load and over processes: caches, slow answers, changes of keys, limits."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from crowd_control import Workers
from tokenkeep import AsyncTokenIssuer, KeyRing, TokenIssuer, TokenVault
from tokenkeep.leases import LEASE
from tokenkeep.testing import FakeClock, FakeProvider
from tokenkeep.testing.conformance.issuing import bearer

HOUR = timedelta(hours=1)
BOUND = 0.4


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/tokens.db"


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    ring = KeyRing.generate()
    ring.save(tmp_path / "keys")
    return ring


# --- the cache of verified tokens ------------------------------------------------------------------------


@pytest.mark.requirement("C1")
@pytest.mark.requirement("K1")
def test_no_process_takes_a_revoked_token_for_good_past_the_bound(url: str, keys: KeyRing, tmp_path: Path) -> None:
    with TokenIssuer.open(url, lifetime=HOUR, keys=keys) as issuer, Workers() as workers:
        crowd = [workers.start("bound_workers.py", url=url, keys=str(tmp_path / "keys"), bound=BOUND) for _ in range(3)]
        for number in range(5):
            issued = issuer.issue("alice")
            for worker in crowd:
                worker.tell(json.dumps({"number": number, "token": bearer(issued)}))
            for worker in crowd:
                worker.hear(good=number)
            issuer.revoke(issued)
            revoked = time.monotonic()  # one clock for all processes
            last = [worker.hear(refused=number)["last_good"] for worker in crowd]
            assert all(began < revoked + BOUND for began in last)
        for worker in crowd:
            worker.leave()


@pytest.mark.requirement("C6")
def test_of_a_crowd_on_one_miss_one_thread_asks(url: str, keys: KeyRing, statements: list[str]) -> None:
    with TokenIssuer.open(url, lifetime=HOUR, keys=keys, max_staleness=HOUR) as issuer:
        token = bearer(issuer.issue("alice"))
        together = threading.Barrier(50)

        def verify(_: int) -> bool:
            together.wait(20)
            return issuer.verify(token) is not None

        statements.clear()
        with ThreadPoolExecutor(50) as threads:
            assert all(threads.map(verify, range(50)))
        assert len([one for one in statements if "tokenkeep_issued" in one]) == 1


@pytest.mark.requirement("C6")
async def test_of_a_crowd_on_one_miss_one_task_asks(url: str, keys: KeyRing, statements: list[str]) -> None:
    async with AsyncTokenIssuer.open(url, lifetime=HOUR, keys=keys, max_staleness=HOUR) as issuer:
        token = bearer(await issuer.issue("alice"))
        statements.clear()
        found = await asyncio.gather(*(issuer.verify(token) for _ in range(500)))
        assert all(one is not None for one in found)
        assert len([one for one in statements if "tokenkeep_issued" in one]) == 1


# --- a provider's slow answer ----------------------------------------------------------------------------


@pytest.mark.requirement("R8")
def test_a_slow_answer_of_a_provider_never_takes_the_place_of_a_newer_token(url: str, keys: KeyRing) -> None:
    slow, quick, clock = FakeProvider(), FakeProvider(), FakeClock()
    with (
        TokenVault.open(url, providers=[slow], keys=keys, clock=clock) as late,
        TokenVault.open(url, providers=[quick], keys=keys, clock=clock) as soon,
        ThreadPoolExecutor(1) as threads,
    ):
        with slow.held() as gate:
            waiting = threads.submit(late.acquire, "alice")
            gate.wait_for_a_caller()
            clock.advance(2 * LEASE)  # whoever held it is given up
            newer = soon.acquire("alice")
        answered = waiting.result(20)
        read = soon.get_valid("alice")
        assert read is not None
        assert read.id == newer.id == answered.id
        assert [info.id for info in soon.history("alice")] == [newer.id]
        assert slow.granted[0] not in {read.access_token, answered.access_token}


# --- a change of keys under load -------------------------------------------------------------------------


@pytest.fixture
def busy() -> Iterator[threading.Event]:
    stop = threading.Event()
    yield stop
    stop.set()


@pytest.mark.requirement("S3")
def test_keys_are_changed_twice_under_load_and_nobody_is_refused(
    url: str, keys: KeyRing, busy: threading.Event
) -> None:
    first = keys.key_id
    refused: list[str] = []
    rounds = threading.Semaphore(0)
    with TokenIssuer.open(url, lifetime=HOUR, keys=keys) as issuer, ThreadPoolExecutor(4) as threads:
        tokens = [bearer(issuer.issue("alice")) for _ in range(8)]

        def verify() -> None:
            while not busy.is_set():
                refused.extend(token for token in tokens if issuer.verify(token) is None)
                fresh = bearer(issuer.issue("bob"))
                refused.extend([] if issuer.verify(fresh) is not None else [fresh])
                rounds.release()

        work = [threads.submit(verify) for _ in range(3)]
        for _ in range(2):
            for _ in range(6):
                assert rounds.acquire(timeout=20)
            keys.add()
        for _ in range(9):
            assert rounds.acquire(timeout=20)
        busy.set()
        for one in work:
            one.result(20)
        assert refused == []
        assert all(issuer.verify(token) is not None for token in tokens)
        issuer.revoke_all("bob")
        issuer.forget("bob")
        assert issuer.status().key_ids == (keys.key_id,)
    with TokenIssuer.open(url, lifetime=HOUR, keys=keys):
        pass  # a program that is started anew makes the newest key known
    keys.drop(first)
    with TokenIssuer.open(url, lifetime=HOUR, keys=keys) as issuer:
        assert all(issuer.verify(token) is not None for token in tokens)
