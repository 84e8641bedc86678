"""Redis as the store itself: one server, a cluster, Valkey."""

from __future__ import annotations

import uuid

import pytest

from one_face import OnTheAsyncFace, OnTheSyncFace
from servers.redis_groups import Cluster
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
@pytest.mark.usefixtures("dropped")
class InACluster:
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
