from __future__ import annotations

import pytest

from tokenkeep.testing.conformance import DurableIssuerConformance, DurableVaultConformance
from trail_tampering import MongoTamper


class TestVaultInMongo(DurableVaultConformance):
    @pytest.fixture
    def tamper(self, url: str) -> MongoTamper:
        return MongoTamper(url)

    @pytest.fixture
    def url(self, mongo_url: str) -> str:
        return mongo_url


class TestIssuerInMongo(DurableIssuerConformance):
    @pytest.fixture
    def url(self, mongo_url: str) -> str:
        return mongo_url
