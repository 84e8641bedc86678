"""Every durable store behind the Redis tier: one server, a cluster, sentinels, Valkey."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from one_face import OnTheAsyncFace, OnTheSyncFace
from servers.redis_groups import Cluster, Watched
from tokenkeep.testing import faces
from tokenkeep.testing.conformance import DurableVaultConformance


class Behind(DurableVaultConformance):
    """Opens every vault of the suite with `cache=`."""

    @pytest.fixture
    def cache(self, redis_url: str) -> str:
        return redis_url

    @pytest.fixture(autouse=True)
    def behind_the_tier(self, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(faces, "open_vault", partial(faces.open_vault, cache=cache))


class TestSqliteBehindRedis(Behind):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/tokens.db"


class TestPostgresBehindRedis(Behind):
    @pytest.fixture
    def url(self, postgres_url: str) -> str:
        return postgres_url


class TestMariaDBBehindRedis(OnTheAsyncFace, Behind):
    @pytest.fixture
    def url(self, mariadb_url: str) -> str:
        return mariadb_url


class TestMongoBehindRedis(OnTheSyncFace, Behind):
    @pytest.fixture
    def url(self, mongo_url: str) -> str:
        return mongo_url


# On a busy machine redis-py's asynchronous cluster client drops a connection that timed out and does not close it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestSqliteBehindACluster(Behind):
    @pytest.fixture(autouse=True)
    def collected(self, face: faces.Face) -> Iterator[None]:
        """Let what was dropped be found in the test that dropped it."""
        yield
        if face == "async":
            gc.collect(1)

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/tokens.db"

    @pytest.fixture
    def cache(self, redis_cluster: Cluster) -> str:
        return f"{redis_cluster.url}?prefix={uuid.uuid4().hex}"


class TestSqliteBehindSentinels(Behind):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/tokens.db"

    @pytest.fixture
    def cache(self, redis_sentinels: Watched) -> str:
        return f"{redis_sentinels.url}&prefix={uuid.uuid4().hex}"


class TestSqliteBehindValkey(OnTheAsyncFace, Behind):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/tokens.db"

    @pytest.fixture
    def cache(self, valkey_url: str) -> str:
        return valkey_url
