"""Fixtures for the real servers: one of each for the whole run, started on first use, and a database for each test."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from servers.common import Missing, Server
from servers.mariadb import MariaDB
from servers.mongo import Mongo
from servers.postgres import Postgres
from servers.redis_groups import Cluster, Watched
from servers.redis_server import Redis, Valkey


def started[S: Server](server: S) -> Iterator[S]:
    """Run a server to the end of the fixture; one that is missing fails in CI and skips elsewhere."""
    try:
        server.start()
    except Missing as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(str(reason))
        pytest.skip(str(reason))
    yield server
    server.stop()


def database_of(server: Server) -> Iterator[str]:
    """Make a database, give its URL, drop it."""
    database = server.database()
    yield database.url
    server.drop(database)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    yield from started(Postgres())


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    yield from started(MariaDB())


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    yield from started(Redis())


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    yield from started(Valkey())


@pytest.fixture(scope="session")
def redis_cluster(redis_server: Redis) -> Iterator[Cluster]:  # noqa: ARG001  # where one runs, six do
    with Cluster.running() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_sentinels(redis_server: Redis) -> Iterator[Watched]:  # noqa: ARG001  # likewise
    with Watched.running() as watched:
        yield watched


@pytest.fixture(scope="session")
def mongo_server() -> Iterator[Mongo]:
    yield from started(Mongo())


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    yield from database_of(postgres_server)


@pytest.fixture
def mariadb_url(mariadb_server: MariaDB) -> Iterator[str]:
    yield from database_of(mariadb_server)


@pytest.fixture
def redis_url(redis_server: Redis) -> Iterator[str]:
    yield from database_of(redis_server)


@pytest.fixture
def valkey_url(valkey_server: Valkey) -> Iterator[str]:
    yield from database_of(valkey_server)


@pytest.fixture
def mongo_url(mongo_server: Mongo) -> Iterator[str]:
    yield from database_of(mongo_server)


@pytest.fixture(scope="class")
def dropped() -> Iterator[None]:
    """Find what the tests of a class dropped while the class's own filter of warnings is in force."""
    yield
    gc.collect()
