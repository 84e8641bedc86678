"""A login that succeeded while the database could not take its token."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from tokenkeep import AcquiredToken, KeyRing, TokenVault
from tokenkeep.errors import StoreUnavailable
from tokenkeep.testing import FakeProvider

type Refusing = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.db"


@pytest.fixture
def keys() -> KeyRing:
    return KeyRing.generate()


@pytest.fixture
def refusing(path: Path) -> Refusing:
    """While the block runs the database takes no token. The trigger asks for a table that is not there."""

    def execute(statement: str) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement)

    @contextmanager
    def block() -> Iterator[None]:
        execute("CREATE TRIGGER refuse BEFORE INSERT ON tokenkeep_token BEGIN DELETE FROM missing; END")
        try:
            yield
        finally:
            execute("DROP TRIGGER refuse")

    return block


@contextmanager
def opened(path: Path, keys: KeyRing, provider: FakeProvider) -> Iterator[TokenVault]:
    with TokenVault.open(f"sqlite:///{path}", providers=[provider], keys=keys) as vault:
        yield vault


def test_the_caller_gets_the_token_and_is_told_that_it_is_not_written(
    path: Path, keys: KeyRing, refusing: Refusing
) -> None:
    provider = FakeProvider()
    with opened(path, keys, provider) as vault:
        with refusing():
            token = vault.get_or_create("alice")
            assert token.persisted is False
            assert token.access_token == provider.granted[0]
        vault.get_or_create("alice")
    assert provider.logins == 1


def test_the_same_vault_serves_the_unwritten_token_without_another_login(
    path: Path, keys: KeyRing, refusing: Refusing
) -> None:
    provider = FakeProvider()
    with opened(path, keys, provider) as vault:
        with refusing():
            tokens: list[AcquiredToken] = [vault.get_or_create("alice") for _ in range(3)]
            assert {token.access_token.reveal() for token in tokens} == {provider.granted[0].reveal()}
        assert provider.logins == 1


def test_it_is_written_as_soon_as_the_database_takes_it_and_the_trail_says_so(
    path: Path, keys: KeyRing, refusing: Refusing
) -> None:
    provider = FakeProvider()
    with opened(path, keys, provider) as vault:
        with refusing():
            vault.get_or_create("alice")
        assert vault.get_or_create("alice").persisted
        trail = vault.audit_trail("alice")
    assert len(trail) == 1
    assert "late" in f"{dict(trail[0].detail)}"
    with opened(path, keys, provider) as again:
        read = again.get_valid("alice")
        assert read is not None
        assert read.access_token == provider.granted[0]
    assert provider.logins == 1


def test_closing_writes_what_was_not_written_yet(path: Path, keys: KeyRing, refusing: Refusing) -> None:
    provider = FakeProvider()
    with opened(path, keys, provider) as vault, refusing():
        vault.get_or_create("alice")
    with opened(path, keys, provider) as again:
        read = again.get_valid("alice")
    assert read is not None
    assert read.access_token == provider.granted[0]


def test_a_database_that_is_locked_keeps_nobody_from_reading_and_refuses_a_store_with_the_way_out(
    path: Path, keys: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenkeep.stores.sql.sqlite.connecting.BUSY_SECONDS", 0.1)
    provider = FakeProvider()
    with opened(path, keys, provider) as vault:
        vault.get_or_create("alice")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert vault.get_valid("alice") is not None
            with pytest.raises(StoreUnavailable, match="locked"):
                vault.revoke("alice")
            other.execute("ROLLBACK")
        assert vault.get_valid("alice") is not None
        assert vault.revoke("alice")


def test_a_failed_store_of_a_handed_over_token_is_an_error_and_leaves_nothing_half_written(
    path: Path, keys: KeyRing, refusing: Refusing
) -> None:
    provider = FakeProvider()
    with opened(path, keys, provider) as vault:
        old = vault.get_or_create("alice")
        with refusing():
            token = vault.acquire("alice")
            assert not token.persisted
        history = vault.history("alice")
        assert sum(info.active for info in history) == 1
        assert history[-1].id == old.id
