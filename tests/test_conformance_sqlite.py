from __future__ import annotations

from pathlib import Path

import pytest

from one_face import OnTheAsyncFace, OnTheSyncFace
from tokenkeep.testing.conformance import (
    ChainedIssuerConformance,
    ChainedVaultConformance,
    IssuerConformance,
    VaultConformance,
)
from trail_tampering import SqlTamper


class TestVaultInAFile(ChainedVaultConformance):
    @pytest.fixture
    def tamper(self, url: str) -> SqlTamper:
        return SqlTamper(url)

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/tokens.db"


class TestVaultInMemory(OnTheSyncFace, VaultConformance):
    @pytest.fixture
    def url(self) -> str:
        return "sqlite://"


class TestIssuerInAFile(ChainedIssuerConformance):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/tokens.db"


class TestIssuerInMemory(OnTheAsyncFace, IssuerConformance):
    @pytest.fixture
    def url(self) -> str:
        return "sqlite://"
