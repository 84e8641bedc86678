from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tokenkeep import AsyncTokenVault, KeyRing, NewToken, TokenIssuer, TokenVault
from tokenkeep.testing import FakeClock, FakeProvider
from tokenkeep.testing.conformance.asking import CALLS, REFUSED
from tokenkeep.testing.conformance.issuing import MALFORMED, bearer, damaged

HOUR = timedelta(hours=1)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/tokens.db"


@pytest.mark.requirement("T3")
def test_a_malformed_bearer_costs_no_query(url: str, statements: list[str]) -> None:
    with TokenIssuer.open(url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        token = bearer(issuer.issue("alice"))
        statements.clear()
        for malformed in [*MALFORMED.values(), *damaged(token)]:
            assert issuer.verify(malformed) is None
            assert issuer.revoke(malformed) is False
        assert statements == []
        assert issuer.verify(token) is not None
        assert statements != []


def test_a_verification_costs_one_statement(url: str, statements: list[str]) -> None:
    with TokenIssuer.open(url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        token = bearer(issuer.issue("alice"))
        for _ in range(2):
            issuer.verify(token)
        statements.clear()
        for _ in range(10):
            assert issuer.verify(token) is not None
        assert len(statements) == 10


@pytest.mark.requirement("X2")
def test_an_idle_lifetime_costs_a_write_now_and_then_and_not_for_each_use(url: str, statements: list[str]) -> None:
    clock = FakeClock()
    with TokenIssuer.open(url, lifetime=timedelta(days=1), idle=HOUR, keys=KeyRing.generate(), clock=clock) as issuer:
        token = bearer(issuer.issue("alice"))
        statements.clear()
        for _ in range(600):
            clock.advance(timedelta(seconds=1))
            assert issuer.verify(token) is not None
        writes = [statement for statement in statements if statement.startswith("UPDATE")]
        assert len(writes) <= 11


def test_a_bad_user_id_costs_no_statement_of_the_issuer(url: str, statements: list[str]) -> None:
    with TokenIssuer.open(url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        statements.clear()
        for user in REFUSED.values():
            with pytest.raises(ValueError, match="user_id"):
                issuer.issue(user)
        assert statements == []


@pytest.mark.requirement("V7")
async def test_a_bad_user_id_costs_no_statement_of_the_vault(url: str, statements: list[str]) -> None:
    async with AsyncTokenVault.open(url, providers=[FakeProvider()], keys=KeyRing.generate()) as vault:
        statements.clear()
        for name, call in CALLS.items():
            for user in REFUSED.values():
                with pytest.raises(ValueError, match="user_id"):
                    await call(vault, user)
                assert statements == [], name


def test_reading_a_token_costs_one_statement_and_no_write(url: str, statements: list[str]) -> None:
    with TokenVault.open(url, providers=[FakeProvider()], keys=KeyRing.generate()) as vault:
        vault.store("alice", NewToken("token"))
        for _ in range(2):
            vault.get_valid("alice")
        statements.clear()
        for _ in range(50):
            assert vault.get_or_create("alice") is not None
        assert len(statements) == 50
        assert {statement.split()[0] for statement in statements} <= {"SELECT", "PRAGMA"}
