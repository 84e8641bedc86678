"""Redis as the store itself: one server, a cluster, Valkey."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Iterator

import pytest

from one_face import OnTheAsyncFace, OnTheSyncFace
from servers.redis_groups import Cluster
from tokenkeep.testing import faces
from tokenkeep.testing.conformance import ChainedIssuerConformance, ChainedVaultConformance
from trail_tampering import RedisTamper


class Edited:
    @pytest.fixture
    def tamper(self, url: str) -> RedisTamper:
        return RedisTamper(url)


class TestVaultInRedis(Edited, ChainedVaultConformance):
    @pytest.fixture
    def url(self, redis_url: str) -> str:
        return redis_url


class TestIssuerInRedis(ChainedIssuerConformance):
    @pytest.fixture
    def url(self, redis_url: str) -> str:
        return redis_url


# On a busy machine redis-py's asynchronous cluster client drops a connection that timed out and does not close it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class InACluster:
    @pytest.fixture(autouse=True)
    def collected(self, face: faces.Face) -> Iterator[None]:
        """Let what was dropped be found in the test that dropped it."""
        yield
        if face == "async":
            gc.collect(1)

    @pytest.fixture
    def url(self, redis_cluster: Cluster) -> str:
        return f"{redis_cluster.url}?prefix={uuid.uuid4().hex}"


class TestVaultInACluster(Edited, InACluster, OnTheAsyncFace, ChainedVaultConformance):
    pass


class TestIssuerInACluster(InACluster, OnTheSyncFace, ChainedIssuerConformance):
    pass


class TestVaultInValkey(Edited, OnTheSyncFace, ChainedVaultConformance):
    @pytest.fixture
    def url(self, valkey_url: str) -> str:
        return valkey_url


class TestIssuerInValkey(OnTheAsyncFace, ChainedIssuerConformance):
    @pytest.fixture
    def url(self, valkey_url: str) -> str:
        return valkey_url
