from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from store_copies import (
    EVERYTHING,
    HOUR,
    KEYS,
    Interrupted,
    check_that_programs_go_on,
    copied,
    fill,
    fill_all,
    opened,
    read,
)
from tokenkeep import AsyncTokenVault, KeyRing, NewToken, TokenIssuer, TokenVault
from tokenkeep._stepping import run
from tokenkeep.cli import exits, main
from tokenkeep.copying import BATCH
from tokenkeep.errors import ProviderUnavailable, StoreError, UnknownKey
from tokenkeep.ports import Room
from tokenkeep.testing import FakeClock, RevokingProvider

FIXTURES = {"postgresql": "postgres_url", "mariadb": "mariadb_url", "mongodb": "mongo_url", "redis": "redis_url"}


@pytest.fixture(params=["sqlite", "postgresql", "mariadb", "mongodb", "redis"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return database(request, tmp_path, request.param)


def database(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> str:
    """An empty database of this kind."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/there.db"
    url: str = request.getfixturevalue(FIXTURES[kind])
    return url


@pytest.fixture
def here(tmp_path: Path) -> str:
    """A SQLite store in which everything occurs."""
    url = f"sqlite:///{tmp_path}/here.db"
    fill(url)
    return url


def test_a_whole_store_arrives(here: str, there: str) -> None:
    found = copied(here, there)
    assert {room: result.rows for room, result in found.items()} == {
        Room.KEYS: 1, Room.STEPS: 0, Room.LEASES: 2, Room.TOKENS: 4, Room.ISSUED: 3, Room.AUDIT: 7,
        Room.HEADS: 3,
    }  # fmt: skip
    with TokenVault.open(here, keys=KEYS) as old, TokenVault.open(there, keys=KEYS) as new:
        assert new.history("alice", provider="p") == old.history("alice", provider="p")
        assert new.audit_trail("alice") == old.audit_trail("alice")
        token, before = (vault.get_valid("alice", provider="p") for vault in (new, old))
        assert token is not None
        assert before is not None
        assert token.access_token.reveal() == "access-2"
        assert token.profile == before.profile


def test_what_arrived_goes_on(here: str, there: str) -> None:
    copied(here, there)
    with TokenVault.open(there, keys=KEYS) as vault:
        before = vault.audit_trail("alice")
        token = vault.store("alice", NewToken("next", expires_in=3600), provider="p")
        assert token.version == 4
        assert vault.audit_trail("alice")[-len(before) :] == before


def test_it_arrives_back_where_it_came_from(here: str, there: str, tmp_path: Path) -> None:
    first = copied(here, there)
    second = copied(there, f"sqlite:///{tmp_path}/back.db")
    assert first == second


def test_an_issued_token_is_good_in_the_new_place(tmp_path: Path, there: str) -> None:
    here = f"sqlite:///{tmp_path}/here.db"
    with TokenIssuer.open(here, lifetime=HOUR, keys=KEYS) as issuer:
        token = issuer.issue("bob").token
    copied(here, there)
    with TokenIssuer.open(there, lifetime=HOUR, keys=KEYS) as issuer:
        assert token is not None
        assert issuer.verify(token) is not None


def test_other_keys_are_refused_in_the_new_place(here: str, there: str) -> None:
    copied(here, there)
    with pytest.raises(UnknownKey):
        TokenVault.open(there, keys=KeyRing.generate())


def test_a_copy_that_was_interrupted_goes_on(tmp_path: Path, there: str) -> None:
    here = f"sqlite:///{tmp_path}/here.db"
    with TokenIssuer.open(here, lifetime=HOUR, keys=KEYS) as issuer:
        for _ in range(BATCH + 20):
            issuer.issue("bob")
    with pytest.raises(Interrupted):
        copied(here, there, batches=2)  # the keys, and the first batch of tokens
    found = copied(here, there)
    assert found[Room.ISSUED].added == 20
    assert found[Room.ISSUED].rows == BATCH + 20


@pytest.mark.parametrize("there", ["sqlite", "postgresql", "mariadb"], indirect=True)
def test_of_rows_some_of_which_are_there_the_others_are_added(tmp_path: Path, there: str) -> None:
    here = f"sqlite:///{tmp_path}/here.db"
    fill_all(here)
    target = opened(there)
    assert target.transfer is not None
    try:
        for room in Room:
            rows = read(here, room)
            assert run(target.transfer.add_rows(room, rows[1:2])) == len(rows[1:2])
            assert run(target.transfer.add_rows(room, rows)) == len(rows) - len(rows[1:2])
            assert run(target.transfer.add_rows(room, rows)) == 0
    finally:
        run(target.health.close())
    assert {result.added for result in copied(here, there).values()} == {0}
    check_that_programs_go_on(there)


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+asyncpg"])
async def test_the_async_face_adds_whole_rows_too(here: str, postgres_url: str, driver: str) -> None:
    rows = {room: read(here, room) for room in Room}
    url = postgres_url.replace("postgresql", driver)
    async with AsyncTokenVault.open(url, keys=KEYS) as vault:
        await vault.status()
        transfer = vault._opened._backend.transfer
        assert transfer is not None
        for room in Room:
            already = await transfer.count_rows(room)
            assert await transfer.add_rows(room, rows[room]) == len(rows[room]) - already
    assert {result.added for result in copied(here, postgres_url).values()} == {0}
    check_that_programs_go_on(postgres_url)


def test_a_copy_twice_adds_nothing(here: str, there: str) -> None:
    copied(here, there)
    assert {result.added for result in copied(here, there).values()} == {0}


def test_a_target_with_rows_of_its_own_is_refused(here: str, there: str) -> None:
    fill(there)
    with TokenVault.open(there, keys=KEYS) as vault:
        vault.store("carol", NewToken("c", expires_in=60), provider="p")
    with pytest.raises(StoreError, match="copy into an empty database"):
        copied(here, there)


def test_a_row_that_differs_is_noticed_at_the_end(here: str, there: str) -> None:
    copied(here, there)
    with TokenIssuer.open(there, lifetime=HOUR, keys=KEYS) as issuer:
        issuer.revoke_all("bob")
    with TokenIssuer.open(here, lifetime=HOUR, keys=KEYS) as issuer:
        for _ in range(3):
            issuer.issue("somebody")
    with pytest.raises(StoreError, match="stop every program that writes"):
        copied(here, there)


def test_nothing_is_unsealed(here: str, tmp_path: Path) -> None:
    """The copy runs without any key, and every sealed value is the same there."""
    target = f"sqlite:///{tmp_path}/there.db"
    copied(here, target)
    old, new = opened(here), opened(target)
    try:
        assert old.transfer is not None
        assert new.transfer is not None
        rows = [run(store.read_rows(Room.TOKENS, after=None, limit=BATCH)) for store in (old.transfer, new.transfer)]
        assert [row["access_sealed"] for row in rows[0]] == [row["access_sealed"] for row in rows[1]]
        assert any(row["access_sealed"] for row in rows[0])
    finally:
        run(old.health.close())
        run(new.health.close())


# --- stores without tables -------------------------------------------------------------------------------


@pytest.fixture(params=["mongo_url", "redis_url"])
def tableless(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/tokens.db"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tokenkeep_issued SET usage_count = 'many'",
        "UPDATE tokenkeep_issued SET name = x'00'",
        "UPDATE tokenkeep_token SET active = 2 WHERE active = 1",
        "UPDATE tokenkeep_token SET profile = '[]'",
        "UPDATE tokenkeep_audit SET actor = x'00'",
    ],
)
def test_a_row_that_was_edited_by_hand_is_refused(tableless: str, sqlite_url: str, tmp_path: Path, change: str) -> None:
    fill(sqlite_url)
    with closing(sqlite3.connect(tmp_path / "tokens.db")) as connection, connection:
        connection.execute(change)
    with pytest.raises(StoreError, match="in the source holds what tokenkeep never wrote"):
        copied(sqlite_url, tableless)


def test_lone_surrogates_move_too(tableless: str, sqlite_url: str) -> None:
    with TokenVault.open(tableless, keys=KEYS) as vault:
        vault.store("alice", NewToken("t", expires_in=3600, profile={"odd\ud800": "\udfff"}), provider="p")
    copied(tableless, sqlite_url)
    with TokenVault.open(sqlite_url, keys=KEYS) as vault:
        token = vault.get_valid("alice", provider="p")
        assert token is not None
        assert token.profile == {"odd\ud800": "\udfff"}


def test_it_is_read_in_small_parts_as_in_one(tableless: str) -> None:
    fill_all(tableless)
    for room in Room:
        whole = read(tableless, room)
        assert len(whole) == EVERYTHING[room]
        assert read(tableless, room, limit=1) == read(tableless, room, limit=2) == whole


def test_another_reader_goes_on_behind_any_row(tableless: str) -> None:
    fill_all(tableless)
    for room in Room:
        whole = read(tableless, room)
        backend = opened(tableless)
        assert backend.transfer is not None
        try:
            for number, row in enumerate(whole, 1):
                assert run(backend.transfer.read_rows(room, after=row, limit=100)) == whole[number:]
        finally:
            run(backend.health.close())


def test_a_copy_out_of_it_goes_on_and_repeats(tableless: str, sqlite_url: str) -> None:
    fill_all(tableless)
    with pytest.raises(Interrupted):
        copied(tableless, sqlite_url, batches=6)  # all but the heads
    found = copied(tableless, sqlite_url)
    assert [room for room, result in found.items() if result.added] == [Room.HEADS]
    assert sum(result.added for result in copied(tableless, sqlite_url).values()) == 0


def test_the_command_moves_it_both_ways(
    sqlite_url: str, tableless: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(sqlite_url)
    for source, target in ((sqlite_url, tableless), (tableless, f"sqlite:///{tmp_path}/back.db")):
        with pytest.raises(SystemExit) as ended:
            main(["db", "copy", "--from", source, "--to", target])
        assert ended.value.code == exits.OK
        assert "audit_head" in capsys.readouterr().out


@pytest.mark.requirement("K7")
def test_what_waits_for_its_provider_moves_along_and_is_told_in_the_new_place(
    mongo_url: str, redis_url: str, tmp_path: Path
) -> None:
    provider, clock = RevokingProvider(refresh=True), FakeClock()
    provider.script_revocations(ProviderUnavailable("503"))
    first, last = f"sqlite:///{tmp_path}/first.db", f"sqlite:///{tmp_path}/last.db"
    with TokenVault.open(first, providers=[provider], keys=KEYS, clock=clock) as vault:
        token = vault.get_or_create("alice")
        vault.revoke("alice")
    way = [first, mongo_url, redis_url, last]
    for here, there in pairwise(way):
        copied(here, there)
    clock.advance(timedelta(minutes=1))
    for url in way[1:]:
        with TokenVault.open(url, providers=[provider], keys=KEYS, clock=clock) as vault:
            assert vault.status().awaiting_revocation == 1
            assert vault.get_valid("alice") is None
            assert vault.purge().provider_revoked == 1
            assert vault.status().awaiting_revocation == 0
    assert provider.revoked == (token.access_token,) * 3
