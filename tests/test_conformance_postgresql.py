from __future__ import annotations

import pytest
from servers.postgres import Postgres

from tokenkeep.testing import faces
from tokenkeep.testing.conformance import DurableIssuerConformance, DurableVaultConformance


class WithPsycopg:
    """Both faces; after each test no connection is left open."""

    @pytest.fixture
    def url(self, postgres_url: str) -> str:
        return postgres_url


class WithAsyncpg:
    """The async face only: asyncpg has no other."""

    @pytest.fixture
    def url(self, postgres_url: str) -> str:
        return postgres_url.replace("postgresql://", "postgresql+asyncpg://")

    @pytest.fixture(params=["async"])
    def face(self, request: pytest.FixtureRequest) -> faces.Face:
        face: faces.Face = request.param
        return face


class TestVaultByPsycopg(WithPsycopg, DurableVaultConformance):
    pass


class TestIssuerByPsycopg(WithPsycopg, DurableIssuerConformance):
    pass


class TestVaultByAsyncpg(WithAsyncpg, DurableVaultConformance):
    test_the_two_faces_share_one_store = None  # the other face takes psycopg


class TestIssuerByAsyncpg(WithAsyncpg, DurableIssuerConformance):
    pass
