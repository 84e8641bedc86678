from __future__ import annotations

import pytest

from tokenkeep.testing.conformance import DurableIssuerConformance, DurableVaultConformance


class TestVault(DurableVaultConformance):
    @pytest.fixture
    def url(self, mariadb_url: str) -> str:
        return mariadb_url


class TestIssuer(DurableIssuerConformance):
    @pytest.fixture
    def url(self, mariadb_url: str) -> str:
        return mariadb_url
