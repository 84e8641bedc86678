"""Redis as the store itself: one server, a cluster, Valkey."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Iterator

import pytest

from one_face import OnTheAsyncFace, OnTheSyncFace
from servers.redis_groups import Cluster
from tokenkeep.testing import faces
from tokenkeep.testing.conformance import DurableIssuerConformance, DurableVaultConformance


class TestVaultInRedis(DurableVaultConformance):
    @pytest.fixture
    def url(self, redis_url: str) -> str:
        return redis_url


class TestIssuerInRedis(DurableIssuerConformance):
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


class TestVaultInACluster(InACluster, OnTheAsyncFace, DurableVaultConformance):
    pass


class TestIssuerInACluster(InACluster, OnTheSyncFace, DurableIssuerConformance):
    pass


class TestVaultInValkey(OnTheSyncFace, DurableVaultConformance):
    @pytest.fixture
    def url(self, valkey_url: str) -> str:
        return valkey_url


class TestIssuerInValkey(OnTheAsyncFace, DurableIssuerConformance):
    @pytest.fixture
    def url(self, valkey_url: str) -> str:
        return valkey_url
