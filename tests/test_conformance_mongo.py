from __future__ import annotations

import pytest

from tokenkeep.testing.conformance import ChainedIssuerConformance, ChainedVaultConformance
from trail_tampering import MongoTamper


class TestVaultInMongo(ChainedVaultConformance):
    @pytest.fixture
    def tamper(self, url: str) -> MongoTamper:
        return MongoTamper(url)

    @pytest.fixture
    def url(self, mongo_url: str) -> str:
        return mongo_url


class TestIssuerInMongo(ChainedIssuerConformance):
    @pytest.fixture
    def url(self, mongo_url: str) -> str:
        return mongo_url
