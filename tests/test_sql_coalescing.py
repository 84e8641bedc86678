"""Look-ups that share a query, on a real server and on lanes that a test holds open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from servers.postgres import Postgres
from tokenkeep import AsyncTokenIssuer, AsyncTokenVault, KeyRing, NewToken, TokenIssuer
from tokenkeep.stores.sql.wire.coalescing import Coalescer, Key, Row
from tokenkeep.testing import FakeProvider

HOUR = timedelta(hours=1)


class Lane:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[list[Key]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, _question: str, keys: Sequence[Key]) -> Sequence[Row]:
        self.asked.append(list(keys))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [(key[0],) for key in keys]


async def asking(coalescer: Coalescer[str], *names: str) -> list[asyncio.Task[Row]]:
    tasks = [asyncio.ensure_future(coalescer.find("question", (name,))) for name in names]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


@pytest.mark.requirement("C6")
async def test_who_comes_while_a_query_is_under_way_joins_the_next_one_and_never_that() -> None:
    lane = Lane()
    coalescer = Coalescer[str]([lane])
    tasks = await asking(coalescer, "a")
    tasks += await asking(coalescer, "b", "c", "a")
    assert lane.asked == [[("a",)]]
    lane.gate.set()
    assert await asyncio.gather(*tasks) == [("a",), ("b",), ("c",), ("a",)]
    assert lane.asked == [[("a",)], [("b",), ("c",), ("a",)]]
    await coalescer.finish()


async def test_an_error_goes_to_all_who_shared_the_query_and_to_nobody_else() -> None:
    lane = Lane()
    coalescer = Coalescer[str]([lane])
    first = await asking(coalescer, "a")
    shared = await asking(coalescer, "b", "c")
    lane.error = OSError("gone")
    lane.gate.set()
    results = await asyncio.gather(*first, *shared, return_exceptions=True)
    assert [type(result) for result in results] == [OSError] * 3
    assert len(lane.asked) == 2
    lane.error = None
    assert await coalescer.find("question", ("d",)) == ("d",)
    await coalescer.finish()


async def test_the_cancellation_of_one_disturbs_none() -> None:
    lane = Lane()
    coalescer = Coalescer[str]([lane])
    leader = (await asking(coalescer, "a"))[0]
    waiting = await asking(coalescer, "b", "c", "d")
    waiting[1].cancel()
    leader.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    waiting[2].cancel()  # its query is under way
    lane.gate.set()
    assert await waiting[0] == ("b",)
    assert lane.asked[1] == [("b",), ("d",)]
    assert await coalescer.find("question", ("e",)) == ("e",)
    await coalescer.finish()


@pytest.fixture(params=["postgresql", "postgresql+asyncpg"])
def url(request: pytest.FixtureRequest, postgres_url: str) -> str:
    return postgres_url.replace("postgresql", request.param)


async def test_a_crowd_asks_on_two_connections_and_each_gets_his_own(url: str, postgres_server: Postgres) -> None:
    async with (
        AsyncTokenIssuer.open(url, lifetime=HOUR, keys=None) as issuer,
        AsyncTokenVault.open(url, providers=[FakeProvider()], keys=KeyRing.generate()) as vault,
    ):
        issued = [await issuer.issue(f"user {number}") for number in range(40)]
        bearers = [token.token for token in issued if token.token is not None]
        before = connections(postgres_server, url)
        for _ in range(3):
            found = await asyncio.gather(*(issuer.verify(bearer) for bearer in bearers * 5))
            assert [who.user_id for who in found if who is not None] == [f"user {n}" for n in range(40)] * 5
        assert connections(postgres_server, url) - before <= 2
        for number in range(20):
            await vault.store(f"user {number}", NewToken(f"token {number}", metadata={"n": number, "NUL": "\x00"}))
        tokens = await asyncio.gather(*(vault.get_valid(f"user {number}") for number in range(25)))
        assert [None if token is None else token.access_token.reveal() for token in tokens] == [
            *(f"token {number}" for number in range(20)), *[None] * 5,
        ]  # fmt: skip
        assert [token.metadata for token in tokens if token] == [{"n": n, "NUL": "\x00"} for n in range(20)]


async def test_a_revocation_is_seen_by_every_look_up_that_comes_after_it(url: str) -> None:
    async with AsyncTokenIssuer.open(url, lifetime=HOUR, keys=None) as issuer:
        for _ in range(10):
            issued = await issuer.issue("alice")
            assert issued.token is not None
            noise = [asyncio.ensure_future(issuer.verify(issued.token)) for _ in range(20)]
            await issuer.revoke(issued)
            after = await asyncio.gather(*(issuer.verify(issued.token) for _ in range(20)))
            assert after == [None] * 20
            await asyncio.gather(*noise)


async def test_callers_that_are_cancelled_leak_no_connection(url: str, postgres_server: Postgres) -> None:
    async with AsyncTokenIssuer.open(url, lifetime=HOUR, keys=None) as issuer:
        issued = await issuer.issue("alice")
        assert issued.token is not None
        for turn in range(60):
            tasks = [asyncio.ensure_future(issuer.verify(issued.token)) for _ in range(5)]
            await asyncio.sleep(0.0005 * (turn % 5))
            for task in tasks[turn % 2 :: 2]:
                task.cancel()
            results: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(
                isinstance(result, asyncio.CancelledError) or (result is not None and result.user_id == "alice")
                for result in results
            )
        assert await issuer.verify(issued.token) is not None
        await asyncio.sleep(0.1)
        assert connections(postgres_server, url) <= 10


def test_threads_ask_on_a_few_connections(postgres_url: str, postgres_server: Postgres) -> None:
    with TokenIssuer.open(postgres_url, lifetime=HOUR, keys=None) as issuer, ThreadPoolExecutor(16) as pool:
        issued = issuer.issue("alice")
        assert issued.token is not None
        bearer = issued.token
        before = connections(postgres_server, postgres_url)
        found = list(pool.map(lambda _: issuer.verify(bearer), range(300)))
        assert all(found)
        assert connections(postgres_server, postgres_url) - before <= 4


def connections(server: Postgres, url: str) -> int:
    with server.connect(url.rpartition("/")[2]) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    assert row is not None
    return int(row[0])
