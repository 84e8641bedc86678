from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tokenkeep import AsyncTokenVault, KeyRing, TokenVault
from tokenkeep.model import Account
from tokenkeep.ports import LeaseState
from tokenkeep.testing import FakeClock, FakeProvider

WORKERS = Path(__file__).with_name("workers.py")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "tokens.db"


@pytest.fixture
def url(database: Path) -> str:
    return f"sqlite:///{database}"


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    ring = KeyRing.generate()
    ring.save(tmp_path / "keys")
    return ring


def start(work: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error::ResourceWarning", str(WORKERS), work, json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("TOKENKEEP_")},
    )


def answer(worker: subprocess.Popen[str]) -> Any:
    out, errors = worker.communicate(timeout=60)
    assert worker.returncode == 0, errors
    assert errors == ""
    return json.loads(out)


def rows(database: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(statement).fetchall()


def active_rows(database: Path) -> int:
    [(count,)] = rows(database, "SELECT count(*) FROM tokenkeep_token WHERE active = 1")
    return int(count)


def until(condition: Any, patience: float = 20) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.005)


def test_a_hundred_threads_on_a_cold_key_share_one_login(url: str, keys: KeyRing, database: Path) -> None:
    provider = FakeProvider()
    with (
        TokenVault.open(url, providers=[provider], keys=keys) as vault,
        ThreadPoolExecutor(100) as pool,
        provider.held() as gate,
    ):
        callers = [pool.submit(vault.get_or_create, "alice") for _ in range(100)]
        gate.wait_for_a_caller()
        gate.open()
        tokens = [caller.result(timeout=20) for caller in callers]
        assert vault.statistics("alice").total_usage == 100
    assert provider.logins == 1
    assert len({token.id for token in tokens}) == 1
    assert active_rows(database) == 1


async def test_two_hundred_tasks_on_a_cold_key_share_one_login(url: str, keys: KeyRing, database: Path) -> None:
    provider = FakeProvider()
    async with AsyncTokenVault.open(url, providers=[provider], keys=keys) as vault:
        tokens = await asyncio.gather(*(vault.get_or_create("alice") for _ in range(200)))
    assert provider.logins == 1
    assert len({token.id for token in tokens}) == 1
    assert active_rows(database) == 1


@pytest.mark.requirement("R7")
def test_eight_processes_of_25_threads_on_a_cold_key_share_one_login(
    url: str, keys: KeyRing, database: Path, tmp_path: Path
) -> None:
    (tmp_path / "asking").touch()
    options = {"url": url, "keys": str(tmp_path / "keys"), "folder": str(tmp_path), "threads": 25, "processes": 8}
    answers = [answer(worker) for worker in [start("crowd", **options) for _ in range(8)]]
    assert len((tmp_path / "journal").read_text().splitlines()) == 1
    assert len({json.dumps(tokens) for tokens in answers}) == 1
    assert [len(tokens) for tokens in answers] == [1] * 8
    assert active_rows(database) == 1
    with TokenVault.open(url, keys=keys, providers=[FakeProvider()]) as vault:
        assert vault.statistics("alice").total_usage == 200


@pytest.mark.requirement("R7")
def test_a_leader_that_is_killed_is_succeeded_when_its_lease_ends(
    url: str, keys: KeyRing, database: Path, tmp_path: Path
) -> None:
    leader = start("stuck_leader", url=url, keys=str(tmp_path / "keys"), folder=str(tmp_path))
    until((tmp_path / "journal").exists)
    leader.send_signal(signal.SIGKILL)
    leader.communicate(timeout=20)
    clock, provider = FakeClock(), FakeProvider()
    clock.advance(timedelta(seconds=11))
    with TokenVault.open(url, providers=[provider], keys=keys, clock=clock) as vault:
        token = vault.get_or_create("alice")
    assert token.access_token == provider.granted[0]
    assert provider.logins == 1
    assert active_rows(database) == 1


def test_a_login_slower_than_its_lease_is_not_done_twice(url: str, keys: KeyRing, database: Path) -> None:
    clock, provider = FakeClock(), FakeProvider()
    with (
        TokenVault.open(url, providers=[provider], keys=keys, clock=clock) as leading,
        TokenVault.open(url, providers=[provider], keys=keys, clock=clock) as following,
        ThreadPoolExecutor(2) as pool,
        provider.held() as gate,
    ):
        leader = pool.submit(leading.get_or_create, "alice")
        gate.wait_for_a_caller()

        def lease_ends_at() -> int:
            return int(rows(database, "SELECT until FROM tokenkeep_lease")[0][0])

        first = lease_ends_at()
        clock.advance(timedelta(seconds=8))
        until(lambda: lease_ends_at() > first)
        clock.advance(timedelta(seconds=8))
        follower = pool.submit(following.get_or_create, "alice")
        assert not follower.done()
        gate.open()
        assert leader.result(timeout=20).id == follower.result(timeout=20).id
    assert provider.logins == 1


async def test_a_waiter_that_is_cancelled_disturbs_neither_the_leader_nor_the_other_waiters(
    url: str, keys: KeyRing
) -> None:
    provider = FakeProvider()
    async with AsyncTokenVault.open(url, providers=[provider], keys=keys) as vault:
        with provider.held() as gate:
            leader = asyncio.create_task(vault.get_or_create("alice"))
            await asyncio.to_thread(gate.wait_for_a_caller)
            waiters = [asyncio.create_task(vault.get_or_create("alice")) for _ in range(10)]
            await asyncio.sleep(0.05)
            for waiter in waiters[::2]:
                waiter.cancel()
            cancelled = await asyncio.gather(*waiters[::2], return_exceptions=True)
            gate.open()
            tokens = await asyncio.gather(leader, *waiters[1::2])
    assert all(isinstance(result, asyncio.CancelledError) for result in cancelled)
    assert len({token.id for token in tokens}) == 1
    assert provider.logins == 1


async def test_the_login_of_a_leader_that_is_cancelled_still_lands(url: str, keys: KeyRing) -> None:
    provider = FakeProvider()
    async with AsyncTokenVault.open(url, providers=[provider], keys=keys) as vault:
        with provider.held() as gate:
            leader = asyncio.create_task(vault.get_or_create("alice"))
            await asyncio.to_thread(gate.wait_for_a_caller)
            waiter = asyncio.create_task(vault.get_or_create("alice"))
            leader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(leader, timeout=5)
            gate.open()
            token = await asyncio.wait_for(waiter, timeout=20)
    assert token.access_token == provider.granted[0]
    assert provider.logins == 1


async def test_closing_waits_for_a_login_whose_caller_has_gone(url: str, keys: KeyRing) -> None:
    provider = FakeProvider()
    with provider.held() as gate:
        async with AsyncTokenVault.open(url, providers=[provider], keys=keys) as vault:
            leader = asyncio.create_task(vault.get_or_create("alice"))
            await asyncio.to_thread(gate.wait_for_a_caller)
            leader.cancel()
            asyncio.get_running_loop().call_later(0.05, gate.open)
    async with AsyncTokenVault.open(url, providers=[provider], keys=keys) as vault:
        assert (await vault.get_or_create("alice")).access_token == provider.granted[0]
    assert provider.logins == 1


async def test_vaults_in_loops_of_their_own_share_one_login(tmp_path: Path, keys: KeyRing) -> None:
    provider = FakeProvider()

    async def use() -> str:
        async with AsyncTokenVault.open(f"sqlite:///{tmp_path}/tokens.db", providers=[provider], keys=keys) as vault:
            return (await vault.get_or_create("alice")).id

    ids = {await asyncio.to_thread(asyncio.run, use()) for _ in range(3)}
    assert len(ids) == 1
    assert provider.logins == 1


def test_two_explicit_logins_at_once_leave_one_active_row(url: str, keys: KeyRing, database: Path) -> None:
    provider = FakeProvider()
    with (
        TokenVault.open(url, providers=[provider], keys=keys) as one,
        TokenVault.open(url, providers=[provider], keys=keys) as other,
        ThreadPoolExecutor(8) as pool,
    ):
        tokens = list(pool.map(lambda number: (one, other)[number % 2].acquire("alice"), range(8)))
    versions = rows(database, "SELECT version, active FROM tokenkeep_token ORDER BY version")
    assert versions[-1] == (len(versions), 1)
    assert [active for _, active in versions[:-1]] == [None] * (len(versions) - 1)
    assert max(token.version for token in tokens) == len(versions) == provider.logins


@pytest.mark.parametrize("work", ["leave_without_closing", "leave_a_loop_without_closing"])
def test_an_interpreter_that_ends_without_closing_loses_no_use(
    url: str, keys: KeyRing, tmp_path: Path, work: str
) -> None:
    assert answer(start(work, url=url, keys=str(tmp_path / "keys"), uses=5)) == 5
    with TokenVault.open(url, keys=keys, providers=[FakeProvider()]) as vault:
        assert vault.statistics("alice").total_usage == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_uses_the_vault_and_counts_nothing_twice(url: str, keys: KeyRing, tmp_path: Path) -> None:
    assert answer(start("fork", url=url, keys=str(tmp_path / "keys"))) == [0, "made-in-the-child"]
    with TokenVault.open(url, keys=keys, providers=[FakeProvider()]) as vault:
        assert vault.statistics("alice").total_usage == 6
        assert vault.statistics("alice").total_tokens == 1


def test_the_callers_who_waited_in_one_process_read_the_new_token_once(url: str, statements: list[str]) -> None:
    callers, waiting = 20, threading.Semaphore(0)

    class Slow(FakeProvider):
        def acquire(self, user_id: str) -> Any:
            for _ in range(callers):
                waiting.acquire(timeout=30)
            statements.clear()
            return super().acquire(user_id)

    with TokenVault.open(url, providers=[Slow()], keys=KeyRing.generate()) as vault:
        flight = vault._opened.core._flight
        lease_state = flight._leases.lease_state

        async def counted(account: Account) -> LeaseState:
            state = await lease_state(account)
            waiting.release()
            return state

        flight._leases.lease_state = counted  # type: ignore[method-assign]
        with ThreadPoolExecutor(callers) as pool:
            tokens = list(pool.map(lambda _: vault.get_or_create("alice"), range(callers)))
    assert len({token.id for token in tokens}) == 1
    read = [statement for statement in statements if "FROM tokenkeep_token" in statement and "kind =" in statement]
    assert len(read) <= 3
