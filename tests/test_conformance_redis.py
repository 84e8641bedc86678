"""Every durable store behind the Redis tier: one server, a cluster, sentinels, Valkey."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from one_face import OnTheAsyncFace, OnTheSyncFace
from servers.common import Database
from servers.mariadb import MariaDB
from servers.postgres import Postgres
from servers.redis_groups import Cluster, Watched
from sql_emptying import used_in_mariadb, used_in_postgres
from tokenkeep.testing import faces
from tokenkeep.testing.conformance import DurableVaultConformance
from tokenkeep.testing.conformance.changing import Changing
from tokenkeep.testing.conformance.durable import Sharing
from tokenkeep.testing.conformance.revoking import Revoking


@pytest.fixture(scope="module")
def postgres_database(postgres_server: Postgres) -> Iterator[Database]:
    database = postgres_server.database()
    yield database
    postgres_server.drop(database)


@pytest.fixture(scope="module")
def mariadb_database(mariadb_server: MariaDB) -> Iterator[Database]:
    database = mariadb_server.database()
    yield database
    mariadb_server.drop(database)


class Tier:
    """Opens every vault of a suite with `cache=`."""

    @pytest.fixture
    def cache(self, redis_url: str) -> str:
        return redis_url

    @pytest.fixture(autouse=True)
    def behind_the_tier(self, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(faces, "open_vault", partial(faces.open_vault, cache=cache))


class Behind(Tier, DurableVaultConformance):
    """The whole suite."""


class BehindInShort(Tier, Changing, Revoking, Sharing):
    """What a tier could spoil, where the rest runs elsewhere: on this store without it, and on SQLite behind it."""


class TestSqliteBehindRedis(Behind):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/tokens.db"


class TestPostgresBehindRedis(OnTheAsyncFace, BehindInShort):
    @pytest.fixture
    def url(self, postgres_server: Postgres, postgres_database: Database) -> Iterator[str]:
        yield from used_in_postgres(postgres_server, postgres_database)


class TestMariaDBBehindRedis(OnTheSyncFace, BehindInShort):
    @pytest.fixture
    def url(self, mariadb_server: MariaDB, mariadb_database: Database) -> Iterator[str]:
        yield from used_in_mariadb(mariadb_server, mariadb_database)


class TestMongoBehindRedis(OnTheAsyncFace, BehindInShort):
    @pytest.fixture
    def url(self, mongo_url: str) -> str:
        return mongo_url


# On a busy machine redis-py's asynchronous cluster client drops a connection that timed out and does not close it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("dropped")
class TestSqliteBehindACluster(OnTheAsyncFace, Behind):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/tokens.db"

    @pytest.fixture
    def cache(self, redis_cluster: Cluster) -> str:
        return f"{redis_cluster.url}?prefix={uuid.uuid4().hex}"


class TestSqliteBehindSentinels(OnTheSyncFace, Behind):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/tokens.db"

    @pytest.fixture
    def cache(self, redis_sentinels: Watched) -> str:
        return f"{redis_sentinels.url}&prefix={uuid.uuid4().hex}"


class TestSqliteBehindValkey(OnTheAsyncFace, BehindInShort):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/tokens.db"

    @pytest.fixture
    def cache(self, valkey_url: str) -> str:
        return valkey_url
