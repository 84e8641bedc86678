from __future__ import annotations

import json
import logging
import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from servers.mongo import Mongo
from servers.postgres import Postgres
from tokenkeep import KeyRing, NewToken, upstox_storage
from tokenkeep.errors import ConfigurationError, ProviderRejected, StoreUnavailable
from tokenkeep.expiry import FixedTime
from tokenkeep.providers import FunctionProvider
from tokenkeep.testing import Canary, FakeClock
from tokenkeep.testing.upstox import LocalUpstox
from tokenkeep.upstox_storage import TokenText, _addresses
from tokenkeep.upstox_storage._storage import Storage
from tokenkeep.upstox_storage._takeover import ERASED

KEYS: Final = KeyRing.generate()

MASK: Final = "'**********'"

METHODS: Final = (
    *("store_token", "get_valid_token", "get_or_create_token", "get_token_history", "cleanup_expired_tokens"),
    *("get_user_statistics", "get_audit_trail", "get_user_dashboard", "get_tokens_by_timeframe", "close"),
    *("cleanup_old_audit_entries", "get_storage_status", "store_token_batch"),
)


class Broker:
    """Logs in anybody but `nobody`, and remembers whom, and what it granted."""

    def __init__(self) -> None:
        self.logins: list[str] = []
        self.granted: list[str] = []
        self.ends_in: timedelta = timedelta(hours=8)
        self.provider = FunctionProvider("upstox", self._log_in)

    def _log_in(self, user_id: str) -> NewToken:
        if user_id == "nobody":
            reason = "no credentials for this user"
            raise ProviderRejected(reason)
        self.logins.append(user_id)
        self.granted.append(f"granted-{len(self.logins)}-{'x' * 40}")
        profile = {
            "user_id": f"B-{user_id}",
            "user_name": f"the person {user_id}",
            "email": "a@example.com",
            "broker": "UPSTOX",
            "user_type": "individual",
            "products": ["D"],
            "exchanges": ["NSE"],
        }
        return NewToken(self.granted[-1], expires_in=self.ends_in, profile=profile)


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture(params=["SQLite", "PostgreSQL", "Mongo", "Hybrid", "Pooled"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime.now(UTC))


@pytest.fixture
def opened(
    kind: str, broker: Broker, clock: FakeClock, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Storage]:
    given: dict[str, Any] = {"upstox": broker.provider, "keys": KEYS, "clock": clock}
    storage: Storage
    if kind == "SQLite":
        storage = upstox_storage.SQLiteUpstoxStorage(tmp_path / "upstox.db", **given)
    elif kind == "Pooled":
        storage = upstox_storage.PooledUpstoxStorage(str(tmp_path / "pooled.db"), pool_size=4, **given)
    elif kind == "PostgreSQL":
        storage = upstox_storage.PostgreSQLUpstoxStorage(request.getfixturevalue("postgres_url"), **given)
    elif kind == "Mongo":
        url = urlsplit(request.getfixturevalue("mongo_url"))
        storage = upstox_storage.MongoUpstoxStorage(f"mongodb://{url.netloc}/", url.path[1:], **given)
    else:
        storage = upstox_storage.HybridUpstoxStorage(
            redis_config(request.getfixturevalue("redis_url")), request.getfixturevalue("postgres_url"), **given
        )
    with storage:
        yield storage


def redis_config(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {"host": parts.hostname, "port": parts.port, "db": int(parts.path[1:])}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalUpstox]:
    with LocalUpstox() as server:
        for variable, value in server.environment().items():
            monkeypatch.setenv(variable, value)
        yield server


# --- what every class does ---------------------------------------------------------------------------

STORED: Final = {
    "SQLite": {"token", "user_id", "expires_at"},
    "PostgreSQL": {"token", "user_id", "token_id", "expires_at"},
    "Mongo": {"token", "user_id", "token_id", "expires_at"},
    "Hybrid": {"token", "user_id", "user_name", "email", "created_at", "expires_at", "usage_count"},
    "Pooled": {"token", "user_id", "expires_at"},
}

VALID: Final = {
    "SQLite": {"token", "user_name", "expires_at"},
    "PostgreSQL": {"token", "user_name", "expires_at", "usage_count"},
    "Mongo": {"token", "user_name", "expires_at", "usage_count"},
    "Hybrid": STORED["Hybrid"],
    "Pooled": {"token", "user_name", "expires_at"},
}


def test_every_class_has_every_method_of_the_page() -> None:
    for name in upstox_storage.__all__:
        found = getattr(upstox_storage, name)
        assert name == "TokenText" or all(callable(getattr(found, method)) for method in METHODS)


def test_storing_and_getting_answer_with_the_keys_of_the_page(opened: Storage, kind: str, broker: Broker) -> None:
    stored = opened.store_token("alice")
    assert set(stored) == STORED[kind]
    assert stored["user_id"] == "alice"
    found = opened.get_valid_token("alice")
    assert found is not None
    assert set(found) == VALID[kind]
    assert found["token"] == stored["token"] == broker.granted[0]
    assert found["user_name"] == "the person alice"
    assert found.get("usage_count", 1) == 1
    assert datetime.fromisoformat(found["expires_at"]) > datetime.now(UTC)
    assert opened.get_valid_token("bob") is None


def test_who_names_nobody_is_found_again_by_the_id_that_was_returned(opened: Storage, broker: Broker) -> None:
    stored = opened.store_token()
    assert stored["user_id"] == "B-default"
    found = opened.get_valid_token(stored["user_id"])
    assert found is not None
    assert found["token"] == stored["token"]
    assert opened.get_or_create_token()["token"] == stored["token"]
    assert opened.get_or_create_token(stored["user_id"])["token"] == stored["token"]
    assert opened.get_user_dashboard("B-default")["statistics"]["total_tokens"] == 1
    assert len(broker.logins) == 1


def test_getting_or_creating_logs_in_once_for_each_user(opened: Storage, broker: Broker) -> None:
    for _ in range(3):
        assert opened.get_or_create_token("alice")["token"] == broker.granted[0]
    assert opened.get_or_create_token("bob")["token"] == broker.granted[1]
    assert broker.logins == ["alice", "bob"]


def test_storing_logs_in_each_time_and_leaves_one_active(opened: Storage, broker: Broker) -> None:
    for _ in range(3):
        opened.store_token("alice")
    history = opened.get_token_history("alice", limit=2)
    assert [row["is_active"] for row in history] == [True, False]
    assert set(history[0]) == {"created_at", "expires_at", "is_active", "user_name", "email", "broker"}
    statistics = opened.get_user_statistics("alice")
    assert (statistics["total_tokens"], statistics["active_tokens"]) == (3, 1)
    assert broker.logins == ["alice"] * 3


def test_uses_are_counted_and_told(opened: Storage) -> None:
    opened.store_token("alice")
    for _ in range(4):
        opened.get_valid_token("alice")
    statistics = opened.get_user_statistics("alice")
    names = {"total_tokens", "active_tokens", "total_usage", "last_generation", "last_usage", "avg_usage_per_token"}
    assert set(statistics) == names
    assert (statistics["total_usage"], statistics["avg_usage_per_token"]) == (4, 4.0)
    assert opened.get_user_statistics("bob")["total_tokens"] == 0


def test_the_trail_tells_what_was_done(opened: Storage) -> None:
    opened.store_token("alice")
    opened.store_token("alice")
    trail = opened.get_audit_trail("alice")
    assert all(set(row) == {"action", "performed_at", "metadata", "user_id", "token_created"} for row in trail)
    assert [row["action"] for row in trail] == ["created", "created"]
    assert {row["user_id"] for row in trail} == {"alice"}
    assert all(row["token_created"] is not None for row in trail)
    assert len(opened.get_audit_trail("alice", limit=1)) == 1


def test_the_dashboard_is_shaped_like_that_of_the_page(opened: Storage) -> None:
    opened.store_token("alice")
    board = opened.get_user_dashboard("alice")
    assert set(board) == {"user_id", "statistics", "recent_activity", "active_token"}
    assert set(board["statistics"]) >= {"total_tokens", "active_tokens", "total_usage", "avg_usage"}
    assert set(board["statistics"]) >= {"last_generation", "last_usage"}
    assert set(board["recent_activity"][0]) == {"token_id", "user_id", "action", "performed_at", "metadata"}
    assert set(board["active_token"]) == {"exists", "expires_at", "usage_count"}
    assert board["active_token"]["exists"]
    nobody = opened.get_user_dashboard("bob")
    assert nobody["statistics"] == {}
    assert nobody["active_token"] == {"exists": False, "expires_at": None, "usage_count": 0}


def test_a_time_frame_holds_what_was_made_in_it_without_the_tokens(opened: Storage, broker: Broker) -> None:
    opened.store_token("alice")
    now = datetime.now(UTC)
    made = opened.get_tokens_by_timeframe(now - timedelta(hours=1), now)
    assert [document["user_id"] for document in made] == ["alice"]
    assert broker.granted[0] not in str([{name: str(value) for name, value in row.items()} for row in made])
    first = made[0]["created_at"]
    assert len(opened.get_tokens_by_timeframe(first, first)) == 1, "both ends are included"
    naive = now.replace(tzinfo=None)
    assert len(opened.get_tokens_by_timeframe(naive - timedelta(hours=1), naive)) == 1
    assert opened.get_tokens_by_timeframe(now - timedelta(hours=2), now - timedelta(hours=1)) == []


def test_cleaning_up_erases_what_has_ended_and_keeps_the_history(
    opened: Storage, broker: Broker, clock: FakeClock
) -> None:
    opened.store_token("alice")
    broker.ends_in = timedelta(days=200)
    opened.store_token("bob")
    clock.advance(timedelta(days=100))
    assert opened.get_valid_token("alice") is None
    assert opened.cleanup_expired_tokens() == 1
    assert [row["is_active"] for row in opened.get_token_history("alice")] == [False]
    assert opened.get_valid_token("bob") is not None
    assert opened.cleanup_old_audit_entries(days_to_keep=101) == 0
    assert opened.get_audit_trail("bob") != []
    assert opened.cleanup_old_audit_entries() >= 2
    assert opened.get_audit_trail("bob") == []


def test_a_batch_has_a_result_for_each_user(opened: Storage, broker: Broker) -> None:
    good, bad, other = opened.store_token_batch(["alice", "nobody", "bob"])
    assert set(good) == set(other) == {"user_id", "token_id", "success"}
    assert (good["user_id"], good["success"]) == ("alice", True)
    assert bad["user_id"] == "nobody"
    assert not bad["success"]
    assert "no credentials for this user" in bad["error"]
    assert sorted(broker.logins) == ["alice", "bob"]


def test_the_state_names_each_database(opened: Storage, kind: str) -> None:
    names = {"Mongo": {"mongodb"}, "PostgreSQL": {"postgresql"}, "Hybrid": {"redis", "postgresql"}}
    status = opened.get_storage_status()
    assert set(status) == {*names.get(kind, {"sqlite"}), "timestamp"}
    assert {value for name, value in status.items() if name != "timestamp"} == {"healthy"}


def test_closing_may_be_repeated(opened: Storage) -> None:
    opened.close()
    opened.close()
    with pytest.raises(ConfigurationError, match="open it again"):
        opened.get_valid_token("alice")


# --- the token in a dictionary -----------------------------------------------------------------------


def test_a_token_works_as_text_and_is_masked_where_its_dictionary_is_printed() -> None:
    token = TokenText("abcdefghijklmnop")
    assert f"Bearer {token}" == "Bearer abcdefghijklmnop"
    assert token == "abcdefghijklmnop"
    assert hash(token) == hash("abcdefghijklmnop")
    assert json.dumps({"token": token}) == '{"token": "abcdefghijklmnop"}'
    assert token.encode() == b"abcdefghijklmnop"
    for shown in (repr(token), str([token]), f"{ {'token': token} }", "%r" % token, f"{token!r}"):  # noqa: UP031
        assert "abc" not in shown
        assert "**********" in shown


def test_a_piece_of_a_token_is_a_token() -> None:
    piece = TokenText("abcdefghijklmnop")[:4]
    assert piece == "abcd"
    assert f"{piece}..." == "abcd..."
    assert repr(piece) == MASK


def test_nothing_is_in_clear_in_the_file(broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    canary = Canary()
    with upstox_storage.SQLiteUpstoxStorage(tmp_path / "upstox.db", upstox=broker.provider) as storage:
        storage.store_token("alice")
        canary.watch(*broker.granted)
        assert canary.found_in_files(tmp_path) == []
    assert canary.found_in_records(caplog.records) == []


# --- the account of the environment ------------------------------------------------------------------


def test_without_an_account_what_is_stored_can_be_read(broker: Broker, tmp_path: Path) -> None:
    with upstox_storage.SQLiteUpstoxStorage(tmp_path / "upstox.db", upstox=broker.provider) as storage:
        storage.store_token("alice")
    with upstox_storage.SQLiteUpstoxStorage(tmp_path / "upstox.db") as storage:
        found = storage.get_valid_token("alice")
        assert found is not None
        assert storage.get_or_create_token("alice")["token"] == broker.granted[0]
        assert len(storage.get_token_history("alice")) == 1
        logging_in: list[Callable[[], object]] = [
            storage.store_token,
            lambda: storage.get_or_create_token("bob"),
            lambda: storage.store_token_batch(["bob"]),
        ]
        for log_in in logging_in:
            with pytest.raises(ConfigurationError, match=r"UPSTOX_PIN_CODE.*UPSTOX_REDIRECT_URI"):
                log_in()


def test_one_account_serves_one_user_of_a_batch(environment: LocalUpstox, tmp_path: Path) -> None:
    with upstox_storage.PooledUpstoxStorage(tmp_path / "upstox.db") as storage:
        results = storage.store_token_batch(["first", "second", "third"])
    assert [result["success"] for result in results] == [True, False, False]
    assert "these credentials are for 'first'" in results[1]["error"]
    assert len(environment.logins) == 1


# --- many at once ------------------------------------------------------------------------------------


def test_fifty_batches_at_once_are_never_told_that_the_database_is_locked(broker: Broker, tmp_path: Path) -> None:
    users = [f"user{number}" for number in range(4)]
    with (
        upstox_storage.PooledUpstoxStorage(tmp_path / "p.db", 10, upstox=broker.provider, keys=KEYS) as storage,
        ThreadPoolExecutor(50) as threads,
    ):
        batches = list(threads.map(lambda _: storage.store_token_batch(users), range(50)))
        assert all(result["success"] for batch in batches for result in batch)
        for user in users:
            assert storage.get_user_statistics(user)["active_tokens"] == 1


def test_a_redis_that_is_down_costs_no_answer(broker: Broker, postgres_url: str) -> None:
    with upstox_storage.HybridUpstoxStorage(
        {"host": "127.0.0.1", "port": 1}, postgres_url, upstox=broker.provider, keys=KEYS
    ) as storage:
        storage.store_token("alice")
        found = storage.get_valid_token("alice")
        assert found is not None
        assert found["token"] == broker.granted[0]
        status = storage.get_storage_status()
        assert status["redis"].startswith("error: ")
        assert status["postgresql"] == "healthy"


# --- addresses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("postgresql://u:p@h:5432/d?sslmode=require", "postgresql://u:p@h:5432/d?sslmode=require"),
        ("postgres://u:p@h/d", "postgresql://u:p@h/d"),
        ("host=h port=5433 dbname=d user=u password='p@ /'", "postgresql://u:p%40%20%2F@h:5433/d"),
        ("dbname=d user=u", "postgresql://u@/d"),
        ("host=/run/pg dbname=d", "postgresql:///d?host=%2Frun%2Fpg"),
    ],
)
def test_a_connection_string_becomes_a_url(given: str, url: str) -> None:
    assert _addresses.postgresql_url(given) == url


def test_a_connection_string_that_cannot_be_read_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="cannot be read") as refused:
        _addresses.postgresql_url("the-password at=")
    assert "the-password" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("mongodb://localhost:27017/", "mongodb://localhost:27017/upstox_db"),
        ("mongodb://localhost", "mongodb://localhost/upstox_db"),
        ("mongodb://u:p@h/admin?w=1", "mongodb://u:p@h/upstox_db?w=1&authSource=admin"),
        ("mongodb://u:p@h/admin?authSource=x", "mongodb://u:p@h/upstox_db?authSource=x"),
        ("mongodb+srv://h/?tls=true", "mongodb+srv://h/upstox_db?tls=true"),
    ],
)
def test_the_database_comes_into_the_url_of_mongodb(given: str, url: str) -> None:
    assert _addresses.mongo_url(given, "upstox_db") == url


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "redis://localhost:6379/0"),
        ({"host": "h", "port": 1, "db": 2, "password": "p/"}, "redis://:p%2F@h:1/2"),
        ({"host": "::1", "username": "u", "password": "p", "ssl": True}, "rediss://u:p@[::1]:6379/0"),
    ],
)
def test_the_keywords_of_redis_become_a_url(given: dict[str, Any], url: str) -> None:
    assert _addresses.redis_url(given) == url


def test_a_keyword_of_redis_that_a_url_does_not_say_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="and not unix_socket_path"):
        _addresses.redis_url({"unix_socket_path": "/run/redis"})


# --- taking over what the page's own code has left ---------------------------------------------------

SIMPLE: Final = """
CREATE TABLE upstox_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, access_token TEXT NOT NULL, user_name TEXT,
    email TEXT, broker TEXT, user_type TEXT, products TEXT, exchanges TEXT, is_active BOOLEAN DEFAULT TRUE,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, expires_at TIMESTAMP NOT NULL, metadata TEXT
);
"""

POOLED: Final = """
CREATE TABLE upstox_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, access_token TEXT NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, expires_at TIMESTAMP NOT NULL, is_active BOOLEAN DEFAULT TRUE
);
"""

INSERT: Final = "INSERT INTO upstox_tokens (user_id, access_token, expires_at, is_active) VALUES (?, ?, ?, ?)"

LIVE: Final = "an-old-live-token-of-forty-characters-12"
DEAD: Final = "an-old-dead-token-of-forty-characters-34"
DROPPED: Final = "an-old-token-whose-row-was-deleted-000056"


def in_a_day() -> str:
    """What the page writes: naive local time."""
    return str(datetime.now() + timedelta(hours=24))  # noqa: DTZ005


@pytest.fixture(params=[SIMPLE, POOLED], ids=["simple", "pooled"])
def old_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "upstox.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(request.param)
        connection.execute(INSERT, ("AB1234", DROPPED, in_a_day(), True))
        connection.execute("DELETE FROM upstox_tokens")
        connection.execute(INSERT, ("AB1234", DEAD, "2025-01-01 10:00:00", False))
        connection.execute(INSERT, ("AB1234", LIVE, in_a_day(), True))
        connection.commit()
    return path


def rows_of(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT user_id, access_token, is_active FROM upstox_tokens").fetchall()


def left_in_clear(folder: Path) -> list[str]:
    canary = Canary()
    canary.watch(LIVE, DEAD, DROPPED)
    return canary.found_in_files(folder, but=list(folder.glob("*.backup*")))


def test_an_old_file_is_taken_over_and_sealed(old_file: Path, broker: Broker) -> None:
    with upstox_storage.SQLiteUpstoxStorage(old_file, upstox=broker.provider) as storage:
        found = storage.get_valid_token("AB1234")
        assert found is not None
        assert found["token"] == LIVE
        assert storage.get_or_create_token("AB1234")["token"] == LIVE
        assert broker.logins == []
    assert rows_of(old_file) == [("AB1234", ERASED, False), ("AB1234", ERASED, False)]
    assert left_in_clear(old_file.parent) == []


def test_a_taken_over_token_ends_when_upstox_ends_it(old_file: Path, environment: LocalUpstox) -> None:
    with upstox_storage.SQLiteUpstoxStorage(old_file) as storage:
        found = storage.get_valid_token("AB1234")
    assert found is not None
    assert datetime.fromisoformat(found["expires_at"]) == FixedTime("03:30", tz="Asia/Kolkata").expires_at(
        datetime.now(UTC)
    )
    assert environment.logins == []


def test_the_one_person_of_an_old_file_is_the_account_of_the_environment(
    old_file: Path, environment: LocalUpstox
) -> None:
    with upstox_storage.SQLiteUpstoxStorage(old_file) as storage:
        assert storage.get_or_create_token()["token"] == LIVE
        assert storage.get_or_create_token()["user_id"] == "AB1234"
        assert storage.get_or_create_token("AB1234")["token"] == LIVE
    assert environment.logins == []


def test_a_backup_stands_beside_the_file_for_its_owner_alone(
    old_file: Path, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "tokenkeep"):
        upstox_storage.SQLiteUpstoxStorage(old_file, upstox=broker.provider).close()
    backup = old_file.with_name("upstox.db.backup")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert [row[1] for row in rows_of(backup)] == [DEAD, LIVE]
    assert "took over 1 live tokens, erased 2 in clear; upstox.db.backup holds them" in caplog.text
    assert LIVE not in caplog.text


def test_taking_over_is_repeated_only_for_what_came_since(old_file: Path, broker: Broker) -> None:
    for _ in range(2):
        upstox_storage.SQLiteUpstoxStorage(old_file, upstox=broker.provider).close()
    assert [path.name for path in old_file.parent.glob("*.backup*")] == ["upstox.db.backup"]
    with closing(sqlite3.connect(old_file)) as connection:  # the old program still runs somewhere
        connection.execute(INSERT, ("CD5678", LIVE[::-1], in_a_day(), True))
        connection.commit()
    with upstox_storage.SQLiteUpstoxStorage(old_file, upstox=broker.provider) as storage:
        assert [storage.get_or_create_token(user)["token"] for user in ("AB1234", "CD5678")] == [LIVE, LIVE[::-1]]
    assert len(list(old_file.parent.glob("*.backup*"))) == 2


def test_an_interrupted_take_over_is_finished_by_the_next_opening(
    old_file: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("tokenkeep.upstox_storage._old_sqlite._Opened.erase", killed)
        with pytest.raises(Killed):
            upstox_storage.SQLiteUpstoxStorage(old_file, upstox=broker.provider)
    assert [row[1] for row in rows_of(old_file)] == [DEAD, LIVE]
    with upstox_storage.SQLiteUpstoxStorage(old_file, upstox=broker.provider) as storage:
        assert storage.get_or_create_token("AB1234")["token"] == LIVE
        assert len(storage.get_token_history("AB1234")) == 1
    assert left_in_clear(old_file.parent) == []


def test_several_may_take_over_at_once(old_file: Path, broker: Broker) -> None:
    def token(_: int) -> str:
        with upstox_storage.SQLiteUpstoxStorage(old_file, upstox=broker.provider, keys=KEYS) as storage:
            return str(storage.get_or_create_token("AB1234")["token"])

    with ThreadPoolExecutor(6) as threads:
        assert set(threads.map(token, range(6))) == {LIVE}
    assert broker.logins == []
    assert {row[1] for row in rows_of(old_file)} == {ERASED}
    assert left_in_clear(old_file.parent) == []


def test_a_newer_token_of_the_vault_stays(old_file: Path, broker: Broker) -> None:
    with closing(sqlite3.connect(old_file)) as connection:
        connection.execute("UPDATE upstox_tokens SET created_at = datetime('now', '-1 hour')")
        connection.execute("ALTER TABLE upstox_tokens RENAME TO hidden")
        connection.commit()
    with upstox_storage.SQLiteUpstoxStorage(old_file, upstox=broker.provider) as storage:
        newer = storage.store_token("AB1234")["token"]
    with closing(sqlite3.connect(old_file)) as connection:
        connection.execute("ALTER TABLE hidden RENAME TO upstox_tokens")
        connection.commit()
    with upstox_storage.SQLiteUpstoxStorage(old_file, upstox=broker.provider) as storage:
        assert storage.get_or_create_token("AB1234")["token"] == newer
    assert left_in_clear(old_file.parent) == []


def test_a_malformed_row_stops_nobody_and_is_erased(
    old_file: Path, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(old_file)) as connection:
        connection.execute(INSERT, ("AB1234", LIVE[::-1], "no time", True))
        connection.commit()
    with upstox_storage.SQLiteUpstoxStorage(old_file, upstox=broker.provider) as storage:
        assert storage.get_or_create_token("AB1234")["token"] == LIVE
    assert "row 4 of upstox_tokens is malformed" in caplog.text
    assert {row[1] for row in rows_of(old_file)} == {ERASED}


def test_a_file_that_somebody_writes_to_is_left_as_it_is(
    old_file: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstox_storage.SQLiteUpstoxStorage(old_file.with_name("other.db"), upstox=broker.provider).close()
    monkeypatch.setattr("tokenkeep.upstox_storage._old_sqlite.BUSY_SECONDS", 0.1)
    from tokenkeep.upstox_storage._old_sqlite import SQLiteTable  # noqa: PLC0415

    with SQLiteTable(old_file)() as old:
        rows = old.rows()
    with closing(sqlite3.connect(old_file, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match="nothing is lost"), SQLiteTable(old_file)() as old:
            old.erase(rows)
        writer.execute("ROLLBACK")
    assert [row[1] for row in rows_of(old_file)] == [DEAD, LIVE]


POSTGRESQL: Final = """
CREATE TABLE upstox_tokens (
    id SERIAL PRIMARY KEY, user_id VARCHAR(50) NOT NULL, access_token TEXT NOT NULL, user_name VARCHAR(100),
    email VARCHAR(100), broker VARCHAR(20), user_type TEXT, products JSONB, exchanges JSONB,
    is_active BOOLEAN DEFAULT TRUE, created_at TIMESTAMPTZ DEFAULT CURRENT_TIMESTAMP, expires_at TIMESTAMPTZ NOT NULL,
    metadata JSONB DEFAULT '{}'::jsonb, last_used_at TIMESTAMPTZ, usage_count INTEGER DEFAULT 0
);
CREATE TABLE upstox_token_backup (
    id SERIAL PRIMARY KEY, user_id VARCHAR(50) NOT NULL, access_token TEXT NOT NULL, user_data JSONB,
    created_at TIMESTAMPTZ DEFAULT CURRENT_TIMESTAMP, expires_at TIMESTAMPTZ NOT NULL, is_active BOOLEAN DEFAULT TRUE
);
INSERT INTO upstox_tokens (user_id, access_token, user_name, products, expires_at)
    VALUES ('AB1234', 'the-live-token-of-the-table', 'Asha', '["D"]', now() + interval '1 day');
INSERT INTO upstox_token_backup (user_id, access_token, user_data, expires_at)
    VALUES ('CD5678', 'the-live-token-of-the-backup', '{"user_name": "Ravi", "products": ["D"], "is_active": true}',
            now() + interval '1 day'),
           ('CD5678', 'an-ended-token-of-the-backup', '{}', now() - interval '1 day');
"""


def test_old_tables_of_postgresql_are_taken_over(postgres_server: Postgres, postgres_url: str, broker: Broker) -> None:
    with postgres_server.connect(postgres_url.rpartition("/")[2]) as connection:
        connection.execute(POSTGRESQL)
        for _ in range(2):
            with upstox_storage.PostgreSQLUpstoxStorage(postgres_url, upstox=broker.provider, keys=KEYS) as storage:
                table, backup = storage.get_valid_token("AB1234"), storage.get_valid_token("CD5678")
                assert table is not None
                assert (table["token"], table["user_name"]) == ("the-live-token-of-the-table", "Asha")
                assert backup is not None
                assert (backup["token"], backup["user_name"]) == ("the-live-token-of-the-backup", "Ravi")
                assert len(storage.get_token_history("CD5678")) == 1
        for name in ("upstox_tokens", "upstox_token_backup"):
            rows = connection.execute(f"SELECT access_token, is_active FROM {name}").fetchall()  # noqa: S608
            assert set(rows) == {(ERASED, False)}
    assert broker.logins == []


def test_an_old_collection_of_mongodb_is_taken_over(mongo_server: Mongo, mongo_url: str, broker: Broker) -> None:
    url = urlsplit(mongo_url)
    now = datetime.now(UTC).replace(tzinfo=None)
    document = {
        "user_id": "AB1234",
        "access_token": "the-live-token-of-mongodb",
        "user_name": "Asha",
        "products": ["D"],
        "is_active": True,
        "created_at": now,
        "expires_at": now + timedelta(hours=24),
        "metadata": {"generation_method": "upstox_totp_sdk"},
    }
    with mongo_server.connect() as client:
        tokens = client[url.path[1:]].tokens
        tokens.insert_many([document, {"access_token": "somebody-else's", "user_id": "x"}])
        for _ in range(2):
            with upstox_storage.MongoUpstoxStorage(
                f"mongodb://{url.netloc}/", url.path[1:], upstox=broker.provider, keys=KEYS
            ) as storage:
                found = storage.get_valid_token("AB1234")
                assert found is not None
                assert (found["token"], found["user_name"]) == ("the-live-token-of-mongodb", "Asha")
        kept = {row["user_id"]: row["access_token"] for row in tokens.find()}
        assert kept == {"AB1234": ERASED, "x": "somebody-else's"}
