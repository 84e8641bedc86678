"""A crowd asks for one account, through the real client and the local Upstox: one login."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from crowd_control import Workers, rows
from tokenkeep import AsyncTokenVault, KeyRing, TokenVault
from tokenkeep.providers.upstox import UpstoxProvider
from tokenkeep.testing import FakeClock
from tokenkeep.testing.upstox import Faults, LocalUpstox

pytest.importorskip("upstox_totp", reason="the extra [upstox] is not installed")

INDIA = ZoneInfo("Asia/Kolkata")

PROCESSES = 8
CALLERS = 100

LONGEST = 20.0
"""Seconds in which all have their answer; it takes about two on a quiet machine."""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "tokens.db"


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    ring = KeyRing.generate()
    ring.save(tmp_path / "keys")
    return ring


@pytest.fixture
def server() -> Iterator[LocalUpstox]:
    with LocalUpstox() as server:
        yield server


@pytest.mark.requirement("R7")
@pytest.mark.parametrize("face", ["threads", "tasks"])
def test_eight_processes_of_a_hundred_callers_on_a_cold_key_share_one_real_login(
    server: LocalUpstox, database: Path, keys: KeyRing, face: str
) -> None:
    all_ask = threading.Event()
    server.on_step = lambda _account, _step: assert_soon(all_ask)
    options = {
        "face": face,
        "url": f"sqlite:///{database}",
        "keys": str(database.with_name("keys")),
        "callers": CALLERS,
        "base_domain": server.base_domain,
        "accounts": {"alice": server.account._credentials()},
    }
    with Workers() as workers:
        crowd = [workers.start("crowd_workers.py", **options) for _ in range(PROCESSES)]
        for worker in crowd:
            worker.hear(ready=True)
        began = time.monotonic()
        for worker in crowd:
            worker.tell("alice")
        for worker in crowd:
            worker.hear(asking="alice")
        all_ask.set()
        answers = [worker.hear(answered="alice") for worker in crowd]
        took = time.monotonic() - began
        for worker in crowd:
            worker.leave()
    assert [(login.step, login.granted) for login in server.logins] == [("token", True)]
    assert [answer["errors"] for answer in answers] == [[]] * PROCESSES
    assert sum(answer["count"] for answer in answers) == PROCESSES * CALLERS
    assert [answer["tokens"] for answer in answers] == [answers[0]["tokens"]] * PROCESSES
    assert len(answers[0]["tokens"]) == 1
    assert took < LONGEST
    [token] = rows(database, "SELECT id, active FROM tokenkeep_token")
    assert (token["id"], token["active"]) == (answers[0]["tokens"][0][0], 1)
    with TokenVault.open(f"sqlite:///{database}", keys=keys, providers=[provider_of(server)]) as vault:
        assert vault.statistics("alice").total_usage == PROCESSES * CALLERS


def assert_soon(event: threading.Event) -> None:
    assert event.wait(LONGEST), "the crowd never gathered"


def provider_of(server: LocalUpstox) -> UpstoxProvider:
    return UpstoxProvider(server.credentials(), base_domain=server.base_domain)


async def test_at_a_quarter_to_three_nobody_renews_a_token_that_would_die_at_half_past_as_well(
    database: Path, keys: KeyRing
) -> None:
    clock = FakeClock(datetime(2026, 1, 5, 10, 0, tzinfo=INDIA))
    hour = timedelta(hours=1)
    url = f"sqlite:///{database}"
    with LocalUpstox(clock=clock) as server:
        server.faults = Faults(replay_refused=False)  # both logins are in one real time step
        with TokenVault.open(url, keys=keys, providers=[provider_of(server)], clock=clock) as vault:
            yesterdays = await asyncio.to_thread(vault.get_or_create, "alice")
        provider = provider_of(server)  # that of a process which was started since
        async with AsyncTokenVault.open(url, keys=keys, providers=[provider], clock=clock) as tasks:
            with (
                TokenVault.open(url, keys=keys, providers=[provider], clock=clock) as threads,
                ThreadPoolExecutor(50) as pool,
            ):

                async def ask() -> set[str]:
                    """Ask with a hundred callers for a token that lasts for an hour, and return what they got."""
                    by_thread = [
                        asyncio.wrap_future(pool.submit(threads.get_or_create, "alice", min_validity=hour))
                        for _ in range(50)
                    ]
                    by_task = (tasks.get_or_create("alice", min_validity=hour) for _ in range(50))
                    return {token.id for token in await asyncio.gather(*by_thread, *by_task)}

                for now in ("02:45", "03:00", "03:29:59.999999"):
                    clock.set(datetime.fromisoformat(f"2026-01-06T{now}").replace(tzinfo=INDIA))
                    assert await ask() == {yesterdays.id}
                    assert len(server.logins) == 1
                clock.set(datetime(2026, 1, 6, 3, 30, tzinfo=INDIA))
                todays = await ask()
                clock.advance(hour)
                assert await ask() == todays
        assert len(todays) == 1
        assert yesterdays.id not in todays
        assert [login.granted for login in server.logins] == [True, True]
