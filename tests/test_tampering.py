from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from tokenkeep import KeyRing, TokenIssuer, TokenVault
from tokenkeep.errors import SealingError
from tokenkeep.testing import FakeProvider
from tokenkeep.testing.conformance.issuing import bearer

HOUR = timedelta(hours=1)
SEALED = "SELECT {field} FROM tokenkeep_token WHERE user_id = ? AND kind = ? AND active = 1"
PLANT = "UPDATE tokenkeep_token SET {field} = ? WHERE user_id = ? AND kind = ? AND active = 1"


class Attacker:
    """Somebody who can write to the database and has no key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, user: str, *, kind: str = "access", field: str = "access_sealed") -> bytes:
        with closing(sqlite3.connect(self.path)) as connection:
            [value] = connection.execute(SEALED.format(field=field), (user, kind)).fetchone()
        return bytes(value)

    def plant(self, value: object, user: str, *, kind: str = "access", field: str = "access_sealed") -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            assert connection.execute(PLANT.format(field=field), (value, user, kind)).rowcount == 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.db"


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider(kinds=("access", "extended"), refresh=True)


@pytest.fixture
def vault(path: Path, provider: FakeProvider) -> Iterator[TokenVault]:
    with TokenVault.open(f"sqlite:///{path}", providers=[provider], keys=KeyRing.generate()) as vault:
        for user in ("alice", "mallory"):
            vault.get_or_create(user)
        yield vault


@pytest.fixture
def attacker(path: Path) -> Attacker:
    return Attacker(path)


@pytest.mark.requirement("S4")
def test_two_swapped_rows_give_nobody_the_token_of_another(vault: TokenVault, attacker: Attacker) -> None:
    alices, mallorys = attacker.read("alice"), attacker.read("mallory")
    attacker.plant(alices, "mallory")
    attacker.plant(mallorys, "alice")
    for user in ("alice", "mallory"):
        with pytest.raises(SealingError):
            vault.get_valid(user)


def test_a_sealed_value_opens_in_no_other_kind_or_field(vault: TokenVault, attacker: Attacker) -> None:
    attacker.plant(attacker.read("alice", kind="extended"), "alice")
    with pytest.raises(SealingError):
        vault.get_valid("alice")
    attacker.plant(attacker.read("mallory", field="refresh_sealed"), "mallory")
    with pytest.raises(SealingError):
        vault.get_valid("mallory")


def test_the_sealed_value_of_an_older_version_does_not_come_back(vault: TokenVault, attacker: Attacker) -> None:
    old = attacker.read("alice")
    vault.acquire("alice")
    attacker.plant(old, "alice")
    with pytest.raises(SealingError):
        vault.get_valid("alice")


@pytest.mark.requirement("S4")
def test_no_flipped_byte_goes_unnoticed(vault: TokenVault, attacker: Attacker) -> None:
    whole = attacker.read("alice")
    for place in range(len(whole)):
        attacker.plant(whole[:place] + bytes([whole[place] ^ 0x01]) + whole[place + 1 :], "alice")
        with pytest.raises(SealingError):
            vault.get_valid("alice")
    attacker.plant(whole, "alice")
    assert vault.get_valid("alice") is not None


@pytest.mark.parametrize(
    "planted", [b"", b"plain-token", b"\x00" * 200, "plain-token"], ids=["empty", "plain", "zeros", "text"]
)
def test_a_planted_plain_text_is_refused(vault: TokenVault, attacker: Attacker, planted: object) -> None:
    attacker.plant(planted, "alice")
    with pytest.raises(SealingError):
        vault.get_valid("alice")


def test_what_cannot_be_opened_is_not_silently_replaced_by_a_login(
    vault: TokenVault, attacker: Attacker, provider: FakeProvider
) -> None:
    attacker.plant(b"broken", "alice")
    before = provider.logins
    with pytest.raises(SealingError):
        vault.get_or_create("alice")
    assert provider.logins == before
    assert vault.acquire("alice").version == 2
    assert vault.get_valid("alice") is not None


def test_an_error_about_a_broken_row_shows_nothing_of_it(vault: TokenVault, attacker: Attacker) -> None:
    attacker.plant(b"plain-token-that-was-planted", "alice")
    with pytest.raises(SealingError) as refused:
        vault.get_valid("alice")
    assert "planted" not in f"{refused.value} {refused.value!r} {refused.value.__cause__!r}"


@pytest.mark.requirement("S2")
def test_nothing_that_stands_in_the_table_of_issued_tokens_works_as_a_token(tmp_path: Path) -> None:
    path = tmp_path / "issued.db"
    with TokenIssuer.open(f"sqlite:///{path}", lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        issued = issuer.issue("alice", name="laptop", client="Firefox")
        with closing(sqlite3.connect(path)) as connection:
            [row] = connection.execute("SELECT * FROM tokenkeep_issued").fetchall()
        for value in row:
            shown = value.hex() if isinstance(value, bytes) else str(value)
            for candidate in (shown, f"tk_{shown}"):
                assert issuer.verify(candidate) is None
        assert issuer.verify(bearer(issued)) is not None


@pytest.mark.requirement("S3")
def test_a_row_written_without_the_key_forges_no_token(tmp_path: Path) -> None:
    path = tmp_path / "issued.db"
    keys = KeyRing.generate()
    with TokenIssuer.open(f"sqlite:///{path}", lifetime=HOUR, keys=keys) as issuer:
        mine, other = issuer.issue("mallory"), issuer.issue("admin")
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "UPDATE tokenkeep_issued SET digest = (SELECT digest FROM tokenkeep_issued WHERE user_id = 'mallory')"
                " WHERE user_id = 'admin'"
            )
        assert issuer.verify(bearer(other)) is None
        assert issuer.verify(bearer(mine)) is not None
