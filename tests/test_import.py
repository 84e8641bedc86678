from __future__ import annotations

import base64
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest

from tokenkeep import AcquiredToken, NewToken, TokenVault
from tokenkeep.cli import exits, main
from tokenkeep.expiry import FixedTime
from tokenkeep.testing import Canary


class Result(NamedTuple):
    code: int
    out: str
    err: str


type Run = Callable[..., Result]

INDIA = ZoneInfo("Asia/Kolkata")

TABLE = """
CREATE TABLE upstox_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, access_token TEXT NOT NULL, user_name TEXT,
    email TEXT, broker TEXT, user_type TEXT, products TEXT, exchanges TEXT, is_active BOOLEAN DEFAULT TRUE,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, expires_at TIMESTAMP NOT NULL, metadata TEXT
)
"""

POOLED = """
CREATE TABLE upstox_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, access_token TEXT NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, expires_at TIMESTAMP NOT NULL, is_active BOOLEAN DEFAULT TRUE
)
"""


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKENKEEP_URL", f"sqlite:///{tmp_path}/vault/t.db")
    (tmp_path / "vault").mkdir()
    return tmp_path / "vault" / "t.db"


@pytest.fixture
def run(database: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    del database

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["import", *map(str, arguments)])
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def in_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def move(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


def kept(database: Path, user: str, provider: str = "upstox", kind: str = "access") -> AcquiredToken | None:
    with TokenVault.open(f"sqlite:///{database}") as vault:
        return vault.get_valid(user, provider=provider, kind=kind, min_validity=timedelta(0))


def found(database: Path, user: str, provider: str = "upstox", kind: str = "access") -> AcquiredToken:
    token = kept(database, user, provider, kind)
    assert token is not None
    return token


def written(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def seed(path: Path, *rows: dict[str, Any], table: str = TABLE) -> Path:
    """Write rows as the storage classes of the seed page do."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(table)
        for row in rows:
            names = ", ".join(row)
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO upstox_tokens ({names}) VALUES ({marks})", list(row.values()))  # noqa: S608  # our own names
    return path


def row(user: str, token: str, *, made: datetime | None = None, **more: Any) -> dict[str, Any]:
    made = made or datetime.now(UTC)
    local_end = (made.astimezone() + timedelta(hours=24)).replace(tzinfo=None)
    created = made.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return {"user_id": user, "access_token": token, "created_at": created, "expires_at": str(local_end), **more}


def jwt(end: datetime) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'HS256'})}.{part({'exp': int(end.timestamp())})}.c2lnbmF0dXJl"


def soon(**span: float) -> datetime:
    return datetime.now(UTC) + timedelta(**span)


# --- the table of the seed page ---


def test_a_table_of_the_seed_page_is_imported(run: Run, database: Path, tmp_path: Path) -> None:
    made = datetime.now(UTC)
    old = seed(
        tmp_path / "upstox.db",
        row("UP1", "replaced-token", is_active=False),
        row(
            "UP1",
            "live-token-of-one",
            made=made,
            user_name="Asha Rao",
            broker="UPSTOX",
            products='["D", "CO"]',
            exchanges='["NSE"]',
            metadata='{"generation_method": "upstox_totp_sdk"}',
        ),
        row("UP2", "live-token-of-two"),
        row("UP3", "dead-token", made=made - timedelta(days=2)),
    )
    before = old.read_bytes()
    result = run(old)
    assert result.code == 0
    assert "2 stored, 0 already in place" in result.out
    assert "1 skipped: not active" in result.out
    assert "1 skipped: expired" in result.out
    token = found(database, "UP1")
    assert token.access_token.reveal() == "live-token-of-one"
    assert token.expires_at == FixedTime("03:30", tz="Asia/Kolkata").expires_at(made)
    assert token.profile["user_id"] == "UP1"
    assert token.profile["products"] == ["D", "CO"]
    assert token.metadata == {"generation_method": "upstox_totp_sdk"}
    assert kept(database, "UP3") is None
    assert old.read_bytes() == before
    assert "still holds 4 tokens in clear" in result.err
    assert str(old) in result.err


def test_a_repeated_import_stores_nothing_twice(run: Run, database: Path, tmp_path: Path) -> None:
    old = seed(tmp_path / "upstox.db", row("UP1", "live-token"))
    run(old)
    assert "0 stored, 1 already in place" in run(old).out
    assert found(database, "UP1").version == 1


def test_the_table_of_the_pooled_class_has_fewer_columns(run: Run, database: Path, tmp_path: Path) -> None:
    assert run(seed(tmp_path / "pooled.db", row("UP1", "pooled-token"), table=POOLED)).code == 0
    assert found(database, "UP1").access_token.reveal() == "pooled-token"


def test_of_two_active_rows_the_newer_is_taken(run: Run, database: Path, tmp_path: Path) -> None:
    made = datetime.now(UTC)
    old = seed(
        tmp_path / "upstox.db",
        row("UP1", "newer-token", made=made),
        row("UP1", "older-token", made=made - timedelta(seconds=5)),
    )
    assert "a newer row of the same user" in run(old).out
    assert found(database, "UP1").access_token.reveal() == "newer-token"


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/New_York"])
def test_no_token_of_the_table_outlives_its_day_in_india(
    run: Run, database: Path, tmp_path: Path, zone: str, in_zone: Callable[[str], None]
) -> None:
    in_zone(zone)
    made = datetime.now(UTC) - timedelta(minutes=1)
    run(seed(tmp_path / "upstox.db", row("UP1", "live-token", made=made)))
    token = kept(database, "UP1")
    end = FixedTime("03:30", tz="Asia/Kolkata").expires_at(made)
    assert token is None if end <= datetime.now(UTC) else (token is not None and token.expires_at == end)


def test_a_local_end_that_is_earlier_counts(
    run: Run, database: Path, tmp_path: Path, in_zone: Callable[[str], None]
) -> None:
    in_zone("America/New_York")
    end = datetime.now().replace(microsecond=0) + timedelta(minutes=20)  # noqa: DTZ005  # as the class does
    run(seed(tmp_path / "upstox.db", row("UP1", "live-token") | {"expires_at": str(end)}))
    day_ends = FixedTime("03:30", tz="Asia/Kolkata").expires_at(datetime.now(UTC))
    assert found(database, "UP1").expires_at == min(end.astimezone(UTC), day_ends)


def test_the_table_of_one_user_may_be_given_another_name(run: Run, database: Path, tmp_path: Path) -> None:
    run(seed(tmp_path / "one.db", row("UP1", "live-token")), "--user", "alice")
    assert found(database, "alice").profile["user_id"] == "UP1"
    several = seed(tmp_path / "two.db", row("UP1", "live-token"), row("UP2", "other-token"))
    refused = run(several, "--user", "alice")
    assert (refused.code, refused.out) == (exits.FAILED, "")
    assert "several users" in refused.err


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"created_at": "soon"}, "created_at"),
        ({"products": "D, CO"}, "products"),
        ({"metadata": "[]"}, "metadata"),
        ({"access_token": ""}, "access_token"),
        ({"user_id": ""}, "user_id"),
    ],
)
def test_a_malformed_row_is_named_and_nothing_is_imported(
    run: Run, database: Path, tmp_path: Path, broken: dict[str, Any], named: str
) -> None:
    old = seed(tmp_path / "upstox.db", row("UP1", "good-token"), row("UP2", "a-token-not-to-be-shown") | broken)
    refused = run(old)
    assert (refused.code, refused.out) == (exits.FAILED, "")
    assert "row 2 of upstox_tokens" in refused.err
    assert named in refused.err
    assert "not-to-be-shown" not in refused.err
    assert len(refused.err.splitlines()) == 1
    assert not database.exists()


def test_another_sqlite_file_is_told_from_one(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE something (id INTEGER)")
    assert "upstox_tokens is not there" in run(other).err
    poor = seed(tmp_path / "poor.db", table="CREATE TABLE upstox_tokens (id INTEGER, user_id TEXT)")
    assert "lacks access_token, created_at" in run(poor).err
    half = tmp_path / "half.db"
    half.write_bytes(seed(tmp_path / "whole.db", row("UP1", "x-token")).read_bytes()[:600])
    assert "cannot be read as a SQLite file" in run(half).err


# --- JSON ---


def test_a_list_an_object_by_user_and_a_single_token(run: Run, database: Path, tmp_path: Path) -> None:
    end = soon(hours=1).isoformat()
    run(written(tmp_path / "list.json", [{"user_id": "a", "access_token": "t-of-a", "expires_at": end}]))
    run(written(tmp_path / "users.json", {"b": {"access_token": "t-of-b"}, "c": {"access_token": "t-of-c"}}))
    run(written(tmp_path / "one.json", {"access_token": "t-of-d"}), "--user", "d")
    run(written(tmp_path / "answer.json", {"success": True, "data": {"access_token": "t-of-e", "user_id": "e"}}))
    assert [found(database, user).access_token.reveal() for user in "abcde"] == [f"t-of-{user}" for user in "abcde"]


def test_everything_that_is_known_of_a_token_is_kept(run: Run, database: Path, tmp_path: Path) -> None:
    entry = {
        "user_id": 42,
        "access_token": "full-token",
        "refresh_token": "its-refresh-token",
        "expires_at": soon(minutes=30).timestamp(),
        "scope": "orders:read orders:write",
        "token_type": "DPoP",
        "profile": {"plan": "gold"},
        "metadata": {"from": "elsewhere"},
        "id_token": "may-be-secret",
    }
    result = run(written(tmp_path / "full.json", entry), "--provider", "acme")
    token = found(database, "42", "acme")
    assert token.refresh_token is not None
    assert token.refresh_token.reveal() == "its-refresh-token"
    assert token.scope == ("orders:read", "orders:write")
    assert (token.token_type, token.profile, token.metadata) == ("DPoP", {"plan": "gold"}, {"from": "elsewhere"})
    assert "left out, for they may be secret: id_token" in result.err
    assert "may-be-secret" not in result.out + result.err


@pytest.mark.parametrize(
    "spell",
    [
        lambda end: end.isoformat(),
        lambda end: end.astimezone(INDIA).isoformat(),
        lambda end: end.isoformat().replace("+00:00", "Z"),
        lambda end: end.timestamp(),
        lambda end: str(int(end.timestamp())),
        lambda end: int(end.timestamp() * 1000),
        lambda end: str(int(end.timestamp() * 1000)),
    ],
)
def test_an_end_may_be_written_in_many_ways(
    run: Run, database: Path, tmp_path: Path, spell: Callable[[datetime], Any]
) -> None:
    end = soon(hours=5).replace(microsecond=0)
    run(written(tmp_path / "t.json", {"a": {"access_token": "a-token", "expires_at": spell(end)}}), "--provider", "x")
    assert found(database, "a", "x").expires_at == end


def test_a_time_without_a_zone_is_read_as_the_earlier(
    run: Run, database: Path, tmp_path: Path, in_zone: Callable[[str], None]
) -> None:
    in_zone("Asia/Kolkata")
    end = (datetime.now(UTC) + timedelta(hours=8)).replace(tzinfo=None, microsecond=0)
    file = written(tmp_path / "t.json", {"a": {"access_token": "a-token", "expires_at": end.isoformat()}})
    run(file, "--provider", "x")
    assert found(database, "a", "x").expires_at == end.replace(tzinfo=INDIA)


def test_a_lifetime_counts_from_when_the_token_was_made_or_the_file_written(
    run: Run, database: Path, tmp_path: Path
) -> None:
    made = soon(minutes=-50).replace(microsecond=0)
    stated = {"a": {"access_token": "a-token", "expires_in": 3600, "created_at": made.isoformat()}}
    run(written(tmp_path / "a.json", stated), "--provider", "x")
    assert found(database, "a", "x").expires_at == made + timedelta(hours=1)
    file = written(tmp_path / "b.json", {"b": {"access_token": "b-token", "expires_in": "3600"}})
    os.utime(file, (made.timestamp(), made.timestamp()))
    run(file, "--provider", "x")
    assert found(database, "b", "x").expires_at == made + timedelta(hours=1)


def test_dead_tokens_are_counted_and_left_out(run: Run, database: Path, tmp_path: Path) -> None:
    tokens = {
        "a": {"access_token": "dead-token", "expires_at": soon(hours=-1).isoformat()},
        "b": {"access_token": jwt(soon(hours=-3))},
        "c": {"access_token": "old-token", "created_at": soon(days=-2).isoformat()},
        "d": {"access_token": jwt(soon(minutes=9)), "expires_at": soon(hours=9).isoformat()},
    }
    result = run(written(tmp_path / "t.json", tokens))
    assert "1 stored" in result.out
    assert "3 skipped: expired" in result.out
    end = found(database, "d").expires_at
    assert end is not None
    assert end < soon(minutes=10)


def test_a_grant_of_upstox_brings_its_extended_token_and_its_profile(run: Run, database: Path, tmp_path: Path) -> None:
    grant = {"user_id": "UP1", "user_name": "Asha Rao", "access_token": "day-token", "extended_token": "year-token"}
    run(written(tmp_path / "grant.json", grant), "--user", "alice")
    assert found(database, "alice").profile == {"user_id": "UP1", "user_name": "Asha Rao"}
    extended = found(database, "alice", kind="extended")
    assert extended.access_token.reveal() == "year-token"
    assert extended.expires_at is not None
    assert extended.expires_at > soon(days=360)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"a": {"access_token": "x"},', "line 1"),
        ('{"a": {"refresh_token": "hidden-token"}}', "entry 'a': there is no access_token"),
        ('{"a": {"access_token": "good"}, "b": "hidden-token"}', "entry 'b'"),
        ('[{"access_token": "hidden-token"}]', "entry 1: nobody knows whose token this is"),
        ('[{"user_id": "a", "access_token": "good"}, {"user_id": "a", "access_token": "hidden-token"}]', "entry 2"),
        ('[{"user_id": "a", "access_token": 7}]', "entry 1: a secret must be a str"),
        ('[{"user_id": "a", "access_token": "hidden-token", "expires_at": "soon"}]', "expires_at"),
        ('[{"user_id": "a", "access_token": "hidden-token", "expires_in": -1}]', "expires_in"),
        ('[{"user_id": "a", "access_token": "hidden-token", "expires_at": 1e400}]', "expires_at"),
        ('[{"user_id": "a", "access_token": "hidden-token", "metadata": []}]', "metadata"),
        ('[{"user_id": "a", "access_token": "hidden-token", "scope": ["a b"]}]', "scope"),
        ('[{"user_id": "", "access_token": "hidden-token"}]', "user_id"),
        ("[]", "holds no token"),
        ("{}", "holds no token"),
        ("null", "entry 1 is no object"),
        ("[" * 100_000, "neither JSON nor a SQLite file"),
        ("\x00\xff", "neither JSON nor a SQLite file"),
    ],
)
def test_a_malformed_file_is_refused_whole(run: Run, database: Path, tmp_path: Path, content: str, named: str) -> None:
    file = tmp_path / "t.json"
    file.write_bytes(content.encode("latin-1"))
    refused = run(file)
    assert (refused.code, refused.out) == (exits.FAILED, "")
    assert named in refused.err
    assert "hidden-token" not in refused.err
    assert len(refused.err.splitlines()) == 1
    assert not database.exists()


def test_a_file_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    missing = run(tmp_path / "missing.json")
    assert missing.code == exits.FAILED
    assert "No such file" in missing.err
    assert run(tmp_path, "--json").code == exits.FAILED


# --- repeating, and what is in place ---


def test_a_token_of_the_vault_that_is_newer_stays(run: Run, database: Path, tmp_path: Path) -> None:
    made, end = soon(hours=-1).isoformat(), soon(hours=1).isoformat()
    file = written(tmp_path / "t.json", {"a": {"access_token": "file-token", "created_at": made, "expires_at": end}})
    with TokenVault.open(f"sqlite:///{database}") as vault:
        vault.store("a", NewToken("newer-token", expires_in=60), provider="x")
    assert "1 older than the vault's" in run(file, "--provider", "x").out
    assert found(database, "a", "x").access_token.reveal() == "newer-token"


def test_a_newer_token_of_the_file_replaces_the_one_in_place(run: Run, database: Path, tmp_path: Path) -> None:
    for text, hours in (("first-token", 1), ("second-token", 2)):
        end = soon(hours=hours).isoformat()
        run(written(tmp_path / "t.json", {"a": {"access_token": text, "expires_at": end}}), "--provider", "x")
    token = found(database, "a", "x")
    assert (token.access_token.reveal(), token.version) == ("second-token", 2)


def test_a_dry_run_changes_nothing(run: Run, database: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "t.json", {"a": {"access_token": "a-token"}})
    dry = run(file, "--dry-run")
    assert "1 would be stored" in dry.out
    assert not database.exists()
    run(file)
    assert "0 would be stored, 1 already in place" in run(file, "--dry-run").out
    other = written(tmp_path / "u.json", {"b": {"access_token": "b-token"}})
    assert "1 would be stored" in run(other, "--dry-run").out
    assert kept(database, "b") is None


def test_the_result_as_json(run: Run, tmp_path: Path) -> None:
    tokens = {"a": {"access_token": "a-token"}, "b": {"access_token": "b-token", "expires_at": 1}}
    result = run(written(tmp_path / "t.json", tokens), "--json")
    told = json.loads(result.out)
    assert told["stored"] == 1
    assert [(token["user_id"], token["outcome"]) for token in told["tokens"]] == [("a", "stored")]
    assert told["skipped"] == [{"place": "entry 'b'", "reason": "expired"}]
    assert all(set(json.loads(line)) == {"note"} for line in result.err.splitlines())


@pytest.mark.requirement("S1")
def test_an_imported_token_is_sealed_and_never_shown(run: Run, database: Path, tmp_path: Path) -> None:
    canary = Canary()
    canary.watch("imported-access-token", "imported-refresh-token")
    entry = {"access_token": "imported-access-token", "refresh_token": "imported-refresh-token"}
    file = written(tmp_path / "t.json", {"a": entry})
    results = [run(file, *words) for words in ((), ("--json",), ("--dry-run",), ("--debug",))]
    assert [result.code for result in results] == [0, 0, 0, 0]
    assert not [finding for result in results for finding in canary.found_in(result.out + result.err)]
    assert found(database, "a").access_token.reveal() == "imported-access-token"
    assert not canary.found_in_files(database.parent)
    assert re.search("shred -u", results[0].err)
