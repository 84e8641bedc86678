from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import psycopg
import pymysql
import pytest

from servers.common import Database
from servers.mariadb import MariaDB
from servers.postgres import Postgres
from tokenkeep import KeyRing, NewToken, TokenIssuer, TokenVault
from tokenkeep.digest import TokenForm, token_id
from tokenkeep.errors import ConfigurationError, StoreError
from tokenkeep.stores.sql.naming import Naming
from tokenkeep.stores.sql.roles import ROLES, role_statements
from tokenkeep.testing import faces
from tokenkeep.testing.conformance import IssuerConformance, VaultConformance

PASSWORD: Final = "role-pw-canary"
KEYS: Final = KeyRing.generate()
FORM: Final = TokenForm("tk", keys=KEYS)
TABLES: Final = ("meta", "key", "token", "lease", "step", "audit", "audit_head", "issued")


class Users:
    """A prepared database, and a URL for a user in each role."""

    def __init__(self, server: Postgres | MariaDB, database: Database) -> None:
        self.server = server
        self.database = database

    def url(self, role: str) -> str:
        own = f"{self.server.user}:{self.server.password}@"
        return self.database.url.replace(own, f"{self.user(role)}:{PASSWORD}@")

    def user(self, role: str) -> str:
        return f"{role}_of_{self.database.name}"


@pytest.fixture
def users(postgres_server: Postgres) -> Iterator[Users]:
    """PostgreSQL, with the roles made twice: the script may be repeated."""
    database = postgres_server.database()
    made = Users(postgres_server, database)
    prepare(database.url)
    with postgres_server.connect(database.name) as connection:
        for _ in range(2):
            connection.execute(role_statements("postgresql", Naming()).encode())
        for role in ROLES:
            connection.execute(f"CREATE USER {made.user(role)} PASSWORD '{PASSWORD}' IN ROLE tokenkeep_{role}".encode())
    yield made
    postgres_server.drop(database)
    with postgres_server.connect() as connection:
        for role in ROLES:
            connection.execute(f"DROP USER {made.user(role)}".encode())


@pytest.fixture
def mariadb_users(mariadb_server: MariaDB) -> Iterator[Users]:
    database = mariadb_server.database()
    made = Users(mariadb_server, database)
    prepare(database.url)
    with contextlib.closing(mariadb_server.connect(database.name)) as connection, connection.cursor() as cursor:
        for _ in range(2):
            for statement in statements_of(role_statements("mariadb", Naming())):
                cursor.execute(statement)
        for role in ROLES:
            user = f"'{made.user(role)}'@'127.0.0.1'"
            cursor.execute(f"CREATE USER {user} IDENTIFIED BY '{PASSWORD}'")
            cursor.execute(f"GRANT tokenkeep_{role} TO {user}")
            cursor.execute(f"SET DEFAULT ROLE tokenkeep_{role} FOR {user}")
        yield made
        mariadb_server.drop(database)
        for role in ROLES:
            cursor.execute(f"DROP USER '{made.user(role)}'@'127.0.0.1'")


def prepare(url: str) -> None:
    """Make the tables, with a token in each of them."""
    with TokenVault.open(url, keys=KEYS) as vault:
        vault.store("alice", NewToken("acquired-canary", expires_in=3600), provider="p")


def statements_of(script: str) -> list[str]:
    lines = [line for line in script.splitlines() if not line.startswith("--")]
    return [part for part in "\n".join(lines).split(";") if part.strip()]


def asked(users: Users, role: str, statement: str, *parameters: Any) -> list[Any]:
    """Run one statement on PostgreSQL as a role."""
    with psycopg.connect(users.url(role), autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []


def mariadb_asked(users: Users, role: str, statement: str, *parameters: Any) -> Any:
    """Run one statement on MariaDB as a role."""
    connection = pymysql.connect(
        host=users.server.host, port=users.server.port, user=users.user(role), password=PASSWORD,
        database=users.database.name, autocommit=True,
    )  # fmt: skip
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()


def issued(url: str) -> str:
    with TokenIssuer.open(url, lifetime=timedelta(hours=1), keys=KEYS) as issuer:
        token = issuer.issue("alice", scopes={"orders:read"}).token
        assert token is not None
        return token.reveal()


def presented(token: str) -> tuple[bytes, bytes]:
    return token_id(token), FORM.digest(token, KEYS.key_id)


READS: Final = [f"SELECT 1 FROM tokenkeep_{table}" for table in TABLES]  # noqa: S608  # names of our own


class TestTheVerifierOnPostgreSQL:
    @pytest.mark.requirement("S12")
    @pytest.mark.parametrize("statement", READS)
    def test_reads_no_table(self, users: Users, statement: str) -> None:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            asked(users, "verifier", statement)

    @pytest.mark.requirement("S12")
    def test_learns_whose_a_good_token_is(self, users: Users) -> None:
        token = issued(users.url("writer"))
        [row] = asked(users, "verifier", "SELECT user_id, scopes FROM tokenkeep_verify(%s, %s)", *presented(token))
        assert row == ("alice", "orders:read")

    def test_learns_nothing_of_a_token_that_was_revoked_or_is_another(self, users: Users) -> None:
        token, other = issued(users.url("writer")), issued(users.url("writer"))
        with TokenIssuer.open(users.url("writer"), lifetime=timedelta(hours=1), keys=KEYS) as issuer:
            issuer.revoke(other)
        mixed = (presented(token)[0], presented(other)[1])
        for pair in (presented(other), mixed, (b"", b"")):
            assert asked(users, "verifier", "SELECT * FROM tokenkeep_verify(%s, %s)", *pair) == []

    def test_is_not_led_astray_by_a_table_of_the_same_name(self, users: Users) -> None:
        token = issued(users.url("writer"))
        with psycopg.connect(users.url("verifier")) as connection:
            connection.execute("CREATE TEMP TABLE tokenkeep_issued (LIKE pg_class)")
            cursor = connection.execute("SELECT user_id FROM tokenkeep_verify(%s, %s)", presented(token))
            assert cursor.fetchall() == [("alice",)]

    @pytest.mark.parametrize("role", ["writer", "auditor"])
    def test_alone_calls_the_function(self, users: Users, role: str) -> None:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            asked(users, role, "SELECT * FROM tokenkeep_verify('', '')")


class TestTheTrailOnPostgreSQL:
    @pytest.mark.parametrize("role", ["writer", "auditor"])
    @pytest.mark.parametrize(
        "statement",
        ["UPDATE tokenkeep_audit SET user_id = 'eve'", "DELETE FROM tokenkeep_audit", "TRUNCATE tokenkeep_audit"],
    )
    def test_is_changed_by_nobody_who_writes_it(self, users: Users, role: str, statement: str) -> None:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            asked(users, role, statement)

    def test_is_added_to_and_read_by_the_auditor(self, users: Users) -> None:
        asked(
            users, "auditor",
            "INSERT INTO tokenkeep_audit (namespace, user_id, action, at, actor, detail) "
            "VALUES ('default', 'alice', 'stored', now(), 'auditor', '{}')",
        )  # fmt: skip
        actors = [row[0] for row in asked(users, "auditor", "SELECT actor FROM tokenkeep_audit ORDER BY id")]
        assert actors[-1] == "auditor"
        assert len(actors) == 2

    @pytest.mark.parametrize("statement", [read for read in READS if "audit" not in read])
    def test_is_all_that_the_auditor_reads(self, users: Users, statement: str) -> None:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            asked(users, "auditor", statement)

    def test_is_not_purged_by_the_application(self, users: Users) -> None:
        with TokenVault.open(users.url("writer"), keys=KEYS) as vault:
            [event] = vault.audit_trail("alice")
            with pytest.raises(StoreError):
                vault.purge(audit_before=event.at + timedelta(days=1))
            assert vault.audit_trail("alice") == [event]


def test_the_writer_changes_no_table(users: Users) -> None:
    for statement in ("ALTER TABLE tokenkeep_token ADD COLUMN x int", "DROP TABLE tokenkeep_token"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            asked(users, "writer", statement)


def test_the_owner_changes_tables(users: Users) -> None:
    asked(users, "owner", "ALTER TABLE tokenkeep_token ADD COLUMN x int")
    asked(users, "owner", "ALTER TABLE tokenkeep_token DROP COLUMN x")


class AsWriter:
    """The suites of every store, as the role that the application has."""

    @pytest.fixture
    def url(self, users: Users) -> str:
        with users.server.connect(users.database.name) as connection:
            for table in ("token", "lease", "step", "audit", "audit_head", "issued", "key"):
                connection.execute(f"TRUNCATE tokenkeep_{table}".encode())
        return users.url("writer")

    @pytest.fixture(params=["sync"])
    def face(self, request: pytest.FixtureRequest) -> faces.Face:
        face: faces.Face = request.param
        return face


class TestTheWholeVaultAsWriter(AsWriter, VaultConformance):
    test_the_trail_outlives_the_token_and_goes_when_asked = None  # type: ignore[assignment]  # only the owner deletes from the trail


class TestTheWholeIssuerAsWriter(AsWriter, IssuerConformance):
    pass


class TestMariaDB:
    @pytest.mark.parametrize("statement", READS)
    def test_the_verifier_reads_no_table(self, mariadb_users: Users, statement: str) -> None:
        with pytest.raises(pymysql.err.OperationalError, match="denied"):
            mariadb_asked(mariadb_users, "verifier", statement)

    def test_the_verifier_learns_whose_a_good_token_is(self, mariadb_users: Users) -> None:
        token = issued(mariadb_users.url("writer"))
        [row] = mariadb_asked(mariadb_users, "verifier", "CALL tokenkeep_verify(%s, %s)", *presented(token))
        assert row[:4] == ("default", "alice", None, "orders:read")
        wrong = (presented(token)[0], bytes(32))
        assert mariadb_asked(mariadb_users, "verifier", "CALL tokenkeep_verify(%s, %s)", *wrong) == ()

    @pytest.mark.parametrize("role", ["writer", "auditor"])
    @pytest.mark.parametrize(
        "statement",
        ["UPDATE tokenkeep_audit SET user_id = 'eve'", "DELETE FROM tokenkeep_audit", "TRUNCATE tokenkeep_audit"],
    )
    def test_the_trail_is_changed_by_nobody_who_writes_it(
        self, mariadb_users: Users, role: str, statement: str
    ) -> None:
        with pytest.raises(pymysql.err.OperationalError, match="denied"):
            mariadb_asked(mariadb_users, role, statement)

    def test_the_writer_runs_the_vault(self, mariadb_users: Users) -> None:
        with TokenVault.open(mariadb_users.url("writer"), keys=KEYS) as vault:
            vault.store("bob", NewToken("t", expires_in=3600), provider="p")
            token = vault.get_valid("bob", provider="p")
            assert token is not None
            vault.reject(token)
            assert vault.revoke("bob", provider="p")
            assert vault.purge().audit_events == 0
            assert len(vault.audit_trail("bob")) == 3


def test_names_are_quoted_wherever_they_stand() -> None:
    script = role_statements("postgresql", Naming("select_", "User"))
    assert '"User"."select_issued"' in script
    assert 'TO "select_owner"' in script
    assert "'select_owner'" in script
    assert "{{" not in script
    script = role_statements("mariadb", Naming("select_", "User_1"))
    assert r"ON `User\_1`.* TO `select_owner`" in script
    assert "`User_1`.`select_issued`" in script
    assert "{{" not in script


def test_a_database_without_roles_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="rights of the file"):
        role_statements("sqlite", Naming())
