"""PgBouncer in transaction mode: each transaction may have another connection."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from servers.common import Database
from servers.pgbouncer import PgBouncer
from servers.postgres import Postgres
from servers_plugin import started
from sql_emptying import EMPTY
from sql_ways import WAYS, Way, shown
from tokenkeep import KeyRing, TokenVault
from tokenkeep.errors import StoreUnavailable
from tokenkeep.testing import FakeProvider, faces
from tokenkeep.testing.conformance.durable import Sharing
from tokenkeep.testing.conformance.ending import Ending, IssuersSharing

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def bouncer(postgres_server: Postgres) -> Iterator[PgBouncer]:
    yield from started(PgBouncer(postgres_server))


@pytest.fixture(scope="module")
def database(bouncer: PgBouncer) -> Iterator[Database]:
    database = bouncer.database()
    yield database
    bouncer.drop(database)


def emptied(server: Postgres, database: Database) -> None:
    """Empty the tables, past PgBouncer, whose connections stay."""
    with server.connect(database.name) as connection:
        if connection.execute("SELECT to_regclass('tokenkeep_meta')").fetchone() != (None,):
            connection.execute("; ".join(EMPTY).encode())


class ThroughPgBouncer:
    """By psycopg on both faces."""

    driver = "postgresql"

    @pytest.fixture
    def url(self, bouncer: PgBouncer, database: Database) -> Iterator[str]:
        yield f"{database.url.replace('postgresql', self.driver, 1)}?prepare=off"
        emptied(bouncer.behind, database)


class ByAsyncpg(ThroughPgBouncer):
    """The async face only: asyncpg has no other."""

    driver = "postgresql+asyncpg"

    @pytest.fixture(params=["async"])
    def face(self, request: pytest.FixtureRequest) -> faces.Face:
        face: faces.Face = request.param
        return face


class TestVaultByPsycopg(ThroughPgBouncer, Sharing):
    """A part of the suite: what two openings share. The rest asks in the same ways, and passes too."""


class TestIssuerByPsycopg(ThroughPgBouncer, Ending, IssuersSharing):
    pass


class TestVaultByAsyncpg(ByAsyncpg, Sharing):
    test_the_two_faces_share_one_store = None  # type: ignore[assignment]  # the sync face takes psycopg only


class TestIssuerByAsyncpg(ByAsyncpg, Ending, IssuersSharing):
    pass


WAYS_IN = [way for way in WAYS if way[1].startswith("postgresql")]


@pytest.mark.parametrize("way", WAYS_IN, ids="-".join)
async def test_without_the_option_the_error_names_it(way: Way, bouncer: PgBouncer) -> None:
    face, driver = way
    database = bouncer.database()
    url = database.url.replace("postgresql", driver, 1)

    async def work() -> None:
        async with faces.open_issuer(face, url, lifetime=HOUR) as issuer:
            issued = await issuer.issue("alice")
            await issuer.verify(shown(issued))
            with bouncer.connect(database.name) as other, other.transaction():
                other.execute("SELECT 1")  # takes the connection that the statement was prepared on
                await issuer.verify(shown(issued))

    with pytest.raises(StoreUnavailable, match="prepare=off"):
        await work()
    bouncer.drop(database)


def test_a_cold_database_is_prepared_once_however_many_open_it_through_three_connections(bouncer: PgBouncer) -> None:
    database = bouncer.database()
    url, keys, provider = f"{database.url}?prepare=off", KeyRing.generate(), FakeProvider()

    def ask(_: int) -> str:
        with TokenVault.open(url, keys=keys, providers=[provider]) as vault:
            return vault.get_or_create("alice").id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1
    assert provider.calls == ("alice",)
    bouncer.drop(database)
