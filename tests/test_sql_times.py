"""The same instant comes back, whatever time zone server, session and process are in."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from servers.mariadb import MariaDB
from servers.postgres import Postgres
from sql_ways import WAYS, Way
from tokenkeep import KeyRing, NewToken
from tokenkeep._stepping import run
from tokenkeep.model import Account
from tokenkeep.testing import FakeClock, FakeProvider, faces

MOMENTS = {
    "an hour that New York skips": datetime(2026, 3, 8, 7, 30, 0, 1, tzinfo=UTC),
    "an hour that Paris skips": datetime(2026, 3, 29, 1, 30, 0, 999_999, tzinfo=UTC),
    "02:30 in Paris on the morning of the change": datetime(2026, 3, 29, 2, 30, tzinfo=UTC),
    "an hour that New York has twice, the first": datetime(2026, 11, 1, 5, 30, tzinfo=UTC),
    "an hour that New York has twice, the second": datetime(2026, 11, 1, 6, 30, tzinfo=UTC),
    "half past three in India": datetime(2026, 11, 22, 22, 0, tzinfo=UTC),
    "after 2038": datetime(2041, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC),
}


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture
def face(way: Way) -> faces.Face:
    return way[0]


@pytest.fixture(scope="module")
def postgres_in_india() -> Iterator[Postgres]:
    with Postgres.running("-c", "timezone=Asia/Kolkata") as server:
        yield server


@pytest.fixture(scope="module")
def mariadb_in_india() -> Iterator[MariaDB]:
    with MariaDB.running("--default-time-zone=+05:30") as server:
        yield server


@pytest.fixture
def process_in_paris(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Paris")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
    assert os.environ.get("TZ") != "Europe/Paris"


@pytest.fixture
def url(request: pytest.FixtureRequest, way: Way, process_in_paris: None) -> str:  # noqa: ARG001  # it is set
    scheme = way[1]
    if scheme == "mariadb":
        mariadb: MariaDB = request.getfixturevalue("mariadb_in_india")
        return mariadb.database().url
    postgres: Postgres = request.getfixturevalue("postgres_in_india")
    database = postgres.database()
    with postgres.connect(database.name) as connection:  # what every session of this database begins with
        connection.execute(f"ALTER DATABASE {database.name} SET timezone TO 'America/New_York'".encode())
    return database.url.replace("postgresql", scheme)


@pytest.mark.requirement("X4")
async def test_the_same_instants_come_back(face: faces.Face, url: str) -> None:
    keys, clock = KeyRing.generate(), FakeClock()
    async with faces.open_vault(face, url, providers=[FakeProvider()], keys=keys, clock=clock) as vault:
        for words, moment in sorted(MOMENTS.items(), key=lambda item: item[1]):
            clock.set(moment)
            stored = await vault.store(words, NewToken("t", expires_at=moment + timedelta(hours=1)))
            read = await vault.get_valid(words)
            assert read is not None
            assert (stored.created_at, read.created_at) == (moment, moment), words
            assert read.expires_at == moment + timedelta(hours=1)
            assert read.created_at.tzinfo is UTC
            [info] = await vault.history(words)
            assert (info.created_at, info.expires_at) == (moment, moment + timedelta(hours=1))
            assert [event.at for event in await vault.audit_trail(words)] == [moment]
            [found] = await vault.created_between(moment, moment + timedelta(microseconds=1))
            assert found.user_id == words
            assert await vault.created_between(moment - timedelta(minutes=1), moment) == []
            clock.set(moment + timedelta(hours=1))
            assert await vault.get_valid(words, min_validity=timedelta(0)) is None
    async with faces.open_issuer(face, url, lifetime=timedelta(hours=2), keys=keys, clock=clock) as issuer:
        moment = max(MOMENTS.values()) + timedelta(days=1)
        clock.set(moment)
        issued = await issuer.issue("alice")
        assert issued.token is not None
        who = await issuer.verify(issued.token)
        assert who is not None
        assert (who.created_at, who.expires_at) == (moment, moment + timedelta(hours=2))


async def test_a_lease_is_timed_by_the_server_in_whatever_zone(face: faces.Face, url: str) -> None:
    """With no clock handed in; a lease that began hours ago or ends in hours would block or duplicate the login."""
    provider = FakeProvider()
    async with faces.open_vault(face, url, providers=[provider], keys=KeyRing.generate()) as vault:
        with provider.held() as gate:
            login = asyncio.ensure_future(vault.get_or_create("alice"))
            await asyncio.to_thread(gate.wait_for_a_caller)
            opened = vault._face._opened if isinstance(vault, faces.Threaded) else vault._opened
            asking = opened._backend.leases.lease_state(Account("default", "fake", "alice"))
            state = await asking if face == "async" else await asyncio.to_thread(run, asking)
            assert 1 < state.held_for <= 10
            gate.open()
            await login
