from __future__ import annotations

from collections.abc import Iterator

import pytest

from servers.common import Database
from servers.postgres import Postgres
from sql_emptying import used_in_postgres
from tokenkeep.testing import faces
from tokenkeep.testing.conformance import ChainedIssuerConformance, ChainedVaultConformance
from trail_tampering import SqlTamper


@pytest.fixture(scope="module")
def database(postgres_server: Postgres) -> Iterator[Database]:
    database = postgres_server.database()
    yield database
    postgres_server.drop(database)


class WithPsycopg:
    """Both faces."""

    @pytest.fixture
    def tamper(self, url: str) -> SqlTamper:
        return SqlTamper(url)

    @pytest.fixture
    def url(self, postgres_server: Postgres, database: Database) -> Iterator[str]:
        yield from used_in_postgres(postgres_server, database)


class WithAsyncpg(WithPsycopg):
    """The async face only: asyncpg has no other."""

    @pytest.fixture
    def url(self, postgres_server: Postgres, database: Database) -> Iterator[str]:
        asyncpg = database.url.replace("postgresql://", "postgresql+asyncpg://")
        yield from used_in_postgres(postgres_server, database._replace(url=asyncpg))

    @pytest.fixture(params=["async"])
    def face(self, request: pytest.FixtureRequest) -> faces.Face:
        face: faces.Face = request.param
        return face


class TestVaultByPsycopg(WithPsycopg, ChainedVaultConformance):
    pass


class TestIssuerByPsycopg(WithPsycopg, ChainedIssuerConformance):
    pass


class TestVaultByAsyncpg(WithAsyncpg, ChainedVaultConformance):
    test_the_two_faces_share_one_store = None  # type: ignore[assignment]  # the sync face takes psycopg only


class TestIssuerByAsyncpg(WithAsyncpg, ChainedIssuerConformance):
    pass
