from __future__ import annotations

import pytest

from tokenkeep.testing.conformance import DurableIssuerConformance, DurableVaultConformance


class TestVaultInMongo(DurableVaultConformance):
    @pytest.fixture
    def url(self, mongo_url: str) -> str:
        return mongo_url


class TestIssuerInMongo(DurableIssuerConformance):
    @pytest.fixture
    def url(self, mongo_url: str) -> str:
        return mongo_url
