from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pymongo
import pytest

from servers.postgres import Postgres
from tokenkeep import KeyRing, NewToken, TokenVault
from tokenkeep.cli import exits, main
from tokenkeep.stores.mongo.schema import SCHEMA_VERSION as MONGO_SCHEMA
from tokenkeep.stores.redis.store.health import SCHEMA_VERSION as REDIS_SCHEMA
from tokenkeep.stores.sql.schema import SCHEMA_VERSION

SEEDS = """
CREATE TYPE user_type_enum AS ENUM ('individual', 'corporate');
CREATE TABLE upstox_tokens (
    id SERIAL PRIMARY KEY, user_id VARCHAR(50) NOT NULL, access_token TEXT NOT NULL, user_name VARCHAR(100),
    email VARCHAR(100), broker VARCHAR(20), user_type user_type_enum, products JSONB, exchanges JSONB,
    is_active BOOLEAN DEFAULT TRUE, created_at TIMESTAMP WITH TIME ZONE DEFAULT CURRENT_TIMESTAMP,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL, metadata JSONB DEFAULT '{}'::jsonb,
    last_used_at TIMESTAMP WITH TIME ZONE, usage_count INTEGER DEFAULT 0
);
CREATE TABLE upstox_token_audit (
    id SERIAL PRIMARY KEY, token_id INTEGER REFERENCES upstox_tokens(id), action VARCHAR(20) NOT NULL,
    performed_at TIMESTAMP WITH TIME ZONE DEFAULT CURRENT_TIMESTAMP, metadata JSONB DEFAULT '{}'::jsonb
);
CREATE TABLE upstox_token_backup (
    id SERIAL PRIMARY KEY, user_id VARCHAR(50) NOT NULL, access_token TEXT NOT NULL, user_data JSONB,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT CURRENT_TIMESTAMP, expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    is_active BOOLEAN DEFAULT TRUE
);
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


type Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["db", *map(str, arguments)])
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, captured.out, captured.err)

    return run


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/t.db"
    found: str = request.getfixturevalue({"postgresql": "postgres_url", "mariadb": "mariadb_url"}[request.param])
    return found


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyRing:
    """A key ring, named in the environment."""
    ring = KeyRing.generate()
    ring.save(tmp_path / "ring.key")
    monkeypatch.setenv("TOKENKEEP_KEY_FILE", str(tmp_path / "ring.key"))
    return ring


# --- the schema --------------------------------------------------------------------------------------


def test_init_makes_the_tables_and_says_so(run: Run, url: str) -> None:
    first, second = run("init", "--url", url), run("init", "--url", url)
    assert (first.code, second.code) == (exits.OK, exits.OK)
    assert first.out == f"the tables are those of schema {SCHEMA_VERSION} now; there were no tables\n"
    assert second.out == f"nothing to do: the tables are those of schema {SCHEMA_VERSION}\n"


def test_upgrade_current_and_check_agree(run: Run, url: str) -> None:
    assert run("upgrade", "--json", "--url", url).json == {"before": None, "now": SCHEMA_VERSION}
    assert run("upgrade", "--json", "--url", url).json == {"before": SCHEMA_VERSION, "now": SCHEMA_VERSION}
    assert run("current", "--json", "--url", url).json == {"found": SCHEMA_VERSION, "needed": SCHEMA_VERSION}
    assert run("check", "--json", "--url", url).json == {
        "found": SCHEMA_VERSION,
        "needed": SCHEMA_VERSION,
        "differences": [],
    }
    assert run("check", "--url", url).out == f"the tables are those of schema {SCHEMA_VERSION}\n"


def test_an_empty_server_is_told_apart(run: Run, postgres_url: str) -> None:
    assert run("current", "--url", postgres_url).code == exits.STORE
    checked = run("check", "--url", postgres_url)
    assert checked.code == exits.STORE
    assert "there are no tables yet" in checked.out
    assert "tokenkeep db upgrade" in checked.err


def test_a_table_that_differs_is_told(run: Run, postgres_url: str) -> None:
    run("init", "--url", postgres_url)
    with psycopg.connect(postgres_url) as connection:
        connection.execute("DROP INDEX tokenkeep_token_active")
    checked = run("check", "--url", postgres_url)
    assert checked.code == exits.STORE
    assert "tokenkeep_token_active" in checked.out


def test_a_missing_file_is_not_made_by_looking(run: Run, tmp_path: Path) -> None:
    assert run("current", "--url", f"sqlite:///{tmp_path}/no.db").code == exits.STORE
    assert not (tmp_path / "no.db").exists()


@pytest.mark.parametrize("scheme", ["postgresql", "mariadb"])
def test_sql_and_roles_connect_to_nothing(run: Run, scheme: str) -> None:
    url = f"{scheme}://user:pw-canary@nowhere.invalid/db?table_prefix=t_"
    script, roles = run("sql", "--url", url), run("roles", "--url", url)
    assert "CREATE TABLE t_token" in script.out
    assert "t_verifier" in roles.out
    assert "canary" not in script.out + roles.out
    assert run("sql", "--after", SCHEMA_VERSION, "--url", url).out.count("CREATE TABLE") == 0


def test_roles_of_a_named_dialect_need_no_url(run: Run) -> None:
    assert "SECURITY DEFINER" in run("roles", "--dialect", "postgresql").out
    assert "SQL SECURITY DEFINER" in run("roles", "--dialect", "mariadb").out
    refused = run("roles")
    assert refused.code == exits.FAILED
    assert "rights of the file" in refused.err


def test_a_store_without_tables_is_refused(run: Run) -> None:
    refused = run("sql", "--url", "mongodb://h/db")
    assert refused.code == exits.FAILED
    assert "for databases with tables" in refused.err


# --- partitions --------------------------------------------------------------------------------------


def test_the_table_of_issued_tokens_is_divided_and_looked_after(run: Run, postgres_url: str) -> None:
    early = run("partition", "--url", postgres_url)
    assert early.code == exits.STORE
    assert "tokenkeep db init" in early.err
    run("init", "--url", postgres_url)
    assert run("partition", "--days", 7, "--json", "--url", postgres_url).json["divided"] is True
    again = run("partition", "--days", 7, "--url", postgres_url)
    assert "in partitions of 7 days; 0 made" in again.out
    assert run("partition", "--url", postgres_url).code == exits.FAILED
    made = run("maintain", "--ahead", 80, "--json", "--url", postgres_url).json
    assert made["made"] >= 5
    assert made["tokens"] == 0
    assert re.search(r"in 1\d partitions of 7 days, from ", run("maintain", "--url", postgres_url).out)
    assert re.search(r"issued tokens are in 1\d partitions of 7 days", run("check", "--url", postgres_url).out)
    assert run("check", "--json", "--url", postgres_url).json["partitions"] == made["partitions"]


def test_partitions_are_for_postgresql(run: Run, tmp_path: Path) -> None:
    for name in ("partition", "maintain"):
        refused = run(name, "--url", f"sqlite:///{tmp_path}/t.db")
        assert refused.code == exits.FAILED
        assert "for PostgreSQL" in refused.err


def test_maintaining_one_table_does_nothing(run: Run, postgres_url: str) -> None:
    run("init", "--url", postgres_url)
    assert run("maintain", "--json", "--url", postgres_url).json == {"made": 0, "tokens": 0, "partitions": None}
    assert "in one table" in run("maintain", "--url", postgres_url).out


# --- copying -----------------------------------------------------------------------------------------


def test_copy_tells_counts_and_digests(run: Run, url: str, tmp_path: Path, keys: KeyRing) -> None:
    here = f"sqlite:///{tmp_path}/here.db"
    with TokenVault.open(here, keys=keys) as vault:
        vault.store("alice", NewToken("t", expires_in=3600), provider="p")
    told = run("copy", "--json", "--from", here, "--to", url).json
    assert told["token"]["rows"] == told["token"]["added"] == 1
    again = run("copy", "--json", "--from", here, "--to", url).json
    assert again["token"] == {**told["token"], "added": 0}
    assert "rows of" in run("copy", "--from", here, "--to", url).out
    with TokenVault.open(url, keys=keys) as vault:
        assert vault.get_valid("alice", provider="p") is not None


def test_copying_from_nothing_is_refused(run: Run, postgres_url: str, tmp_path: Path) -> None:
    for source in (postgres_url, f"sqlite:///{tmp_path}/no.db"):
        refused = run("copy", "--from", source, "--to", f"sqlite:///{tmp_path}/there.db")
        assert refused.code == exits.STORE
        assert "there is no tokenkeep at --from" in refused.err


# --- importing ---------------------------------------------------------------------------------------


class Old:
    """A database with the tables of the documentation's storage classes."""

    def __init__(self, url: str) -> None:
        self.url = url
        with psycopg.connect(url) as connection:
            connection.execute(SEEDS.encode())

    def add(self, user: str, token: str, *, active: bool = True, age: timedelta = timedelta(0)) -> int:
        made = datetime.now(UTC) - age
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                "INSERT INTO upstox_tokens (user_id, access_token, user_name, user_type, products, is_active, "
                "created_at, expires_at) VALUES (%s, %s, 'A', 'individual', '[\"I\"]', %s, %s, %s) RETURNING id",
                (user, token, active, made, made + timedelta(days=1)),
            ).fetchone()
            assert row is not None
            connection.execute(
                "INSERT INTO upstox_token_audit (token_id, action, performed_at) VALUES (%s, 'created', %s)",
                (row[0], made),
            )
        return int(row[0])

    def back_up(self, user: str, token: str) -> None:
        made = datetime.now(UTC)
        with psycopg.connect(self.url) as connection:
            connection.execute(
                "INSERT INTO upstox_token_backup (user_id, access_token, user_data, expires_at) "
                'VALUES (%s, %s, \'{"email": "b@example.org", "is_active": true}\', %s)',
                (user, token, made + timedelta(days=1)),
            )

    def note(self, row: int, action: str) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute("INSERT INTO upstox_token_audit (token_id, action) VALUES (%s, %s)", (row, action))


@pytest.fixture
def old(postgres_url: str) -> Old:
    return Old(postgres_url)


def test_the_tokens_and_the_trail_of_the_old_tables_arrive(
    run: Run, old: Old, tmp_path: Path, keys: KeyRing, postgres_server: Postgres
) -> None:
    old.add("ALICE1", "stale", active=False)
    row = old.add("ALICE1", "alice-token-canary")
    old.back_up("BOB1", "bob-token-canary")
    old.note(row, "used")
    old.note(row, "mystery")
    vault_url = f"sqlite:///{tmp_path}/new.db"
    told = run("import", "--json", "--from", old.url, "--url", vault_url).json
    assert told == {
        "dry_run": False, "stored": 2, "in_place": 0, "kept": 0, "events": 3, "skipped": {"not active": 1},
    }  # fmt: skip
    with TokenVault.open(vault_url, keys=keys) as vault:
        bob = vault.get_valid("BOB1", provider="upstox")
        alice = vault.get_valid("ALICE1", provider="upstox")
        trail = [(event.action, event.detail.get("token_row")) for event in vault.audit_trail("ALICE1")]
    assert bob is not None
    assert alice is not None
    assert bob.access_token.reveal() == "bob-token-canary"
    assert bob.profile["email"] == "b@example.org"
    assert alice.profile["products"] == ["I"]
    assert trail == [("stored", None), ("used", row), ("created", row), ("created", 1)]
    assert b"token-canary" not in (tmp_path / "new.db").read_bytes()
    assert postgres_server.password not in json.dumps(told)


@pytest.mark.usefixtures("keys")
def test_an_import_goes_on_where_it_stopped_and_adds_nothing_twice(run: Run, old: Old, tmp_path: Path) -> None:
    row = old.add("ALICE1", "a")
    vault_url = f"sqlite:///{tmp_path}/new.db"
    assert run("import", "--json", "--from", old.url, "--url", vault_url).json["events"] == 1
    old.note(row, "used")
    old.add("BOB1", "b")
    second = run("import", "--json", "--from", old.url, "--url", vault_url).json
    assert (second["stored"], second["in_place"], second["events"]) == (1, 1, 2)
    third = run("import", "--json", "--from", old.url, "--url", vault_url).json
    assert (third["stored"], third["in_place"], third["events"]) == (0, 2, 0)


def test_a_dry_run_writes_nothing(run: Run, old: Old, tmp_path: Path) -> None:
    old.add("ALICE1", "a")
    old.add("ALICE1", "older", age=timedelta(minutes=1))
    told = run("import", "--dry-run", "--from", old.url, "--url", f"sqlite:///{tmp_path}/new.db")
    assert "1 would be stored" in told.out
    assert "1 skipped: a newer row of the same user is active too" in told.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("keys")
def test_your_own_name_is_for_tables_of_one_user(run: Run, old: Old, tmp_path: Path) -> None:
    old.add("ALICE1", "a")
    vault_url = f"sqlite:///{tmp_path}/new.db"
    assert run("import", "--user", "alice", "--from", old.url, "--url", vault_url).code == exits.OK
    old.add("BOB1", "b")
    refused = run("import", "--user", "alice", "--from", old.url, "--url", vault_url)
    assert refused.code == exits.FAILED
    assert "several users" in refused.err


def test_a_database_without_those_tables_is_refused(run: Run, postgres_url: str, tmp_path: Path) -> None:
    vault_url = f"sqlite:///{tmp_path}/new.db"
    refused = run("import", "--from", postgres_url, "--url", vault_url)
    assert "no table upstox_tokens" in refused.err
    assert "takes the URL of a PostgreSQL database" in run("import", "--from", "sqlite://", "--url", vault_url).err


@pytest.fixture(params=["mongodb", "redis"])
def tableless(request: pytest.FixtureRequest) -> str:
    """A store without tables."""
    found: str = request.getfixturevalue({"mongodb": "mongo_url", "redis": "redis_url"}[request.param])
    return found


def test_a_store_without_tables_is_made_told_of_and_checked(run: Run, tableless: str) -> None:
    assert run("current", "--url", tableless).code == exits.STORE
    assert run("check", "--url", tableless).code == exits.STORE
    made = run("init", "--url", tableless)
    assert (made.code, made.err) == (exits.OK, "")
    assert "it was empty" in made.out
    for again in ("init", "upgrade"):
        assert "nothing to do" in run(again, "--url", tableless).out
    known = run("current", "--url", tableless, "--json").json
    assert known == {"found": {"redis": REDIS_SCHEMA, "mongodb": MONGO_SCHEMA}[tableless.partition(":")[0]]}
    assert run("check", "--url", tableless, "--json").json == {**known, "differences": []}
    assert run("check", "--url", tableless).code == exits.OK


def test_an_index_of_mongodb_that_was_dropped_is_named_and_made_again(run: Run, mongo_url: str) -> None:
    run("init", "--url", mongo_url)
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        database = client.get_default_database()
        database["tokenkeep_history"].drop_index("created")
        database["tokenkeep_audit"].drop_index("user")
        database["tokenkeep_audit"].create_index([("namespace", 1)], name="user")
        checked = run("check", "--url", mongo_url)
        assert checked.code == exits.STORE
        assert "the index created of tokenkeep_history is missing; `tokenkeep db init` makes it" in checked.out
        assert "the index user of tokenkeep_audit is another than tokenkeep's; drop it" in checked.out
        database["tokenkeep_audit"].drop_index("user")
    run("init", "--url", mongo_url)
    assert run("check", "--url", mongo_url).code == exits.OK
