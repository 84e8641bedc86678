from __future__ import annotations

from pathlib import Path

import pytest

from tokenkeep.testing.conformance import (
    DurableIssuerConformance,
    DurableVaultConformance,
    IssuerConformance,
    VaultConformance,
)
from trail_tampering import SqlTamper


class TestVaultInAFile(DurableVaultConformance):
    @pytest.fixture
    def tamper(self, url: str) -> SqlTamper:
        return SqlTamper(url)

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/tokens.db"


class TestVaultInMemory(VaultConformance):
    @pytest.fixture
    def url(self) -> str:
        return "sqlite://"


class TestIssuerInAFile(DurableIssuerConformance):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/tokens.db"


class TestIssuerInMemory(IssuerConformance):
    @pytest.fixture
    def url(self) -> str:
        return "sqlite://"
