from __future__ import annotations

from collections.abc import Iterator

import pytest

from servers.common import Database
from servers.mariadb import MariaDB
from sql_emptying import used_in_mariadb
from tokenkeep.testing.conformance import ChainedIssuerConformance, ChainedVaultConformance
from trail_tampering import SqlTamper


@pytest.fixture(scope="module")
def database(mariadb_server: MariaDB) -> Iterator[Database]:
    database = mariadb_server.database()
    yield database
    mariadb_server.drop(database)


class OnMariaDB:
    """By PyMySQL and by asyncmy."""

    @pytest.fixture
    def tamper(self, url: str) -> SqlTamper:
        return SqlTamper(url)

    @pytest.fixture
    def url(self, mariadb_server: MariaDB, database: Database) -> Iterator[str]:
        yield from used_in_mariadb(mariadb_server, database)


class TestVault(OnMariaDB, ChainedVaultConformance):
    pass


class TestIssuer(OnMariaDB, ChainedIssuerConformance):
    pass
