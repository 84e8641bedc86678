from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect, text

from tokenkeep import KeyRing, NewToken, TokenVault
from tokenkeep._stepping import run
from tokenkeep.errors import ConfigurationError, SchemaMismatch
from tokenkeep.stores.sql.direct import open_database
from tokenkeep.stores.sql.migrating import HERE, Migrations, State, compare_type
from tokenkeep.stores.sql.naming import LONGEST_PREFIX, Naming
from tokenkeep.stores.sql.schema import SCHEMA_VERSION, Tables

KEYS = KeyRing.generate()

LATER = """
import time
from alembic import op
from sqlalchemy import Column, Integer, inspect

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    if "colour" not in {column["name"] for column in inspect(op.get_bind()).get_columns("tokenkeep_token")}:
        op.add_column("tokenkeep_token", Column("colour", Integer))
    print("half-way", flush=True)
    time.sleep(LATERS)
"""


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/t.db"
    found: str = request.getfixturevalue({"postgresql": "postgres_url", "mariadb": "mariadb_url"}[request.param])
    return found


@pytest.fixture
def newer(tmp_path: Path) -> list[Path]:
    """The revisions of this program, and one that a newer program might bring."""
    return with_a_later_revision(tmp_path, seconds=0)


def with_a_later_revision(tmp_path: Path, *, seconds: float) -> list[Path]:
    folder = tmp_path / "newer"
    folder.mkdir(exist_ok=True)
    (folder / "r0004_colour.py").write_text(LATER.replace("LATERS", str(seconds)))
    return [HERE / "versions", folder]


@contextmanager
def migrations(url: str, versions: list[Path] | None = None) -> Iterator[Migrations]:
    database, naming = open_database(url)
    try:
        yield Migrations(database, naming, versions=versions or ())
    finally:
        run(database.close())


DRIVERS = {"postgresql": "postgresql+psycopg", "mariadb": "mariadb+pymysql"}


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    scheme, _, where = url.partition("://")
    engine = create_engine(f"{DRIVERS.get(scheme, scheme)}://{where}")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def use(url: str) -> None:
    """What a program does: keep a token, and read it again."""
    with TokenVault.open(url, keys=KEYS) as vault:
        vault.store("alice", NewToken("t", expires_in=3600), provider="p")
        assert vault.get_valid("alice", provider="p") is not None


def test_the_revisions_lead_to_what_the_program_expects(url: str) -> None:
    with migrations(url) as found:
        assert found.newest == SCHEMA_VERSION
        assert run(found.upgrade()) == State(None, SCHEMA_VERSION)
        assert run(found.differences()) == []
        assert run(found.state()).is_newest
    use(url)


def test_a_database_that_a_program_made_is_taken_over(url: str) -> None:
    use(url)
    with migrations(url) as found:
        assert run(found.differences()) == []
        assert run(found.upgrade()) == State(SCHEMA_VERSION, SCHEMA_VERSION)
    use(url)


def test_a_table_that_was_changed_by_hand_is_noticed(url: str) -> None:
    use(url)
    with connected(url) as connection:
        connection.execute(text("ALTER TABLE tokenkeep_token ADD COLUMN colour INTEGER"))
        connection.execute(text("DROP TABLE tokenkeep_step"))
    with migrations(url) as found:
        differences = run(found.differences())
    assert len(differences) == 2
    assert any("colour" in difference for difference in differences)
    assert any("tokenkeep_step" in difference for difference in differences)


def test_upgrading_twice_does_nothing_the_second_time(url: str, newer: list[Path]) -> None:
    use(url)
    with migrations(url, newer) as found:
        assert run(found.upgrade()) == State(3, 4)
        assert run(found.upgrade()) == State(4, 4)


@pytest.mark.requirement("D9")
def test_an_older_program_refuses_a_newer_schema(url: str, newer: list[Path]) -> None:
    use(url)
    with migrations(url, newer) as found:
        run(found.upgrade())
    with pytest.raises(SchemaMismatch, match="newer tokenkeep; upgrade this program"):
        use(url)
    with migrations(url) as older, pytest.raises(SchemaMismatch, match="upgrade this program"):
        run(older.upgrade())


@pytest.mark.requirement("D9")
def test_programs_go_on_while_the_tables_are_upgraded(url: str, newer: list[Path]) -> None:
    with TokenVault.open(url, keys=KEYS) as vault:
        vault.store("alice", NewToken("t", expires_in=3600), provider="p")
        with ThreadPoolExecutor(1) as threads, migrations(url, newer) as found:
            upgraded = threads.submit(lambda: run(found.upgrade()))
            for number in range(20):
                vault.store("bob", NewToken(f"t{number}", expires_in=3600), provider="p")
            assert upgraded.result() == State(3, 4)
        assert vault.get_valid("alice", provider="p") is not None
        assert len(vault.history("bob", provider="p", limit=50)) == 20


WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'tokenkeep_token'::regclass")


@pytest.mark.requirement("D9")
def test_traffic_does_not_queue_behind_an_upgrade_that_waits_for_a_table(postgres_url: str, newer: list[Path]) -> None:
    use(postgres_url)
    with ThreadPoolExecutor(1) as threads, migrations(postgres_url, newer) as found:
        with connected(postgres_url) as slow, TokenVault.open(postgres_url, keys=KEYS) as vault:
            slow.execute(text("SELECT 1 FROM tokenkeep_token"))  # a transaction that stays open, as a report does
            upgraded = threads.submit(lambda: run(found.upgrade()))
            with connected(postgres_url) as watcher:
                while not watcher.execute(WAITING).scalar():
                    assert not upgraded.done()
            assert vault.get_valid("alice", provider="p") is not None  # within the three seconds of patience
            assert not upgraded.done()
        assert upgraded.result() == State(3, 4)


def test_several_upgrades_at_once_are_one(url: str, newer: list[Path]) -> None:
    def upgrade(_: int) -> State:
        with migrations(url, newer) as found:
            return run(found.upgrade())

    with ThreadPoolExecutor(4) as threads:
        states = list(threads.map(upgrade, range(4)))
    assert sorted(state.found or 0 for state in states) == [0, 4, 4, 4]


UPGRADE = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_migrations import migrations, run
with migrations({url!r}, [Path(p) for p in {versions!r}]) as found:
    run(found.upgrade())
"""


@pytest.mark.requirement("D9")
def test_an_upgrade_that_was_killed_half_way_is_finished_by_the_next(url: str, tmp_path: Path) -> None:
    use(url)
    versions = [str(folder) for folder in with_a_later_revision(tmp_path, seconds=60)]
    script = UPGRADE.format(tests=str(Path(__file__).parent), url=url, versions=versions)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "half-way\n"
        os.kill(child.pid, signal.SIGKILL)
    with migrations(url) as found:
        assert run(found.state()).found == 3
    use(url)  # what was there goes on
    versions_again = with_a_later_revision(tmp_path, seconds=0)
    with migrations(url, versions_again) as found:
        assert run(found.upgrade()) == State(3, 4)
        assert run(found.upgrade()) == State(4, 4)


def test_a_creation_that_stopped_between_a_table_and_its_index_is_finished(mariadb_url: str) -> None:
    use(mariadb_url)
    with connected(mariadb_url) as connection:
        connection.execute(text("DROP INDEX tokenkeep_token_active ON tokenkeep_token"))
        connection.execute(text("DELETE FROM tokenkeep_meta"))
    use(mariadb_url)
    with migrations(mariadb_url) as found:
        assert run(found.differences()) == []


def test_the_sql_can_be_run_by_somebody_else(url: str) -> None:
    with migrations(url) as found:
        script = found.sql()
    with connected(url) as connection:
        for statement in statements_of(script):
            connection.execute(text(statement.replace(":", r"\:")))
    with migrations(url) as found:
        assert run(found.differences()) == []
        assert run(found.state()).is_newest
    use(url)


def statements_of(script: str) -> list[str]:
    lines = [line for line in script.splitlines() if not line.startswith(("--", "BEGIN", "COMMIT"))]
    return [part for part in "\n".join(lines).split(";") if part.strip()]


def test_a_library_user_takes_our_tables_into_his_own_alembic(url: str) -> None:
    ours = Tables().metadata
    with connected(url) as connection:
        ours.create_all(connection)  # what his own revision does
    with connected(url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": compare_type})
        assert compare_metadata(context, ours) == []
    use(url)


class TestNames:
    @pytest.mark.requirement("D2")
    @pytest.mark.parametrize(
        "name",
        [
            'a";drop table x--', "a`", "a'b", "a b", "", "1a", "a-b", "a.b", "a\x00", "naïve", "таблица", "a\n",
            "x" * 64, "a%00", "$x",
        ],
    )  # fmt: skip
    def test_a_name_that_is_none_is_refused(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match="letters, digits or underscores"):
            Naming(name)
        with pytest.raises(ConfigurationError, match="letters, digits or underscores"):
            Naming(schema=name)

    @pytest.mark.requirement("D2")
    def test_a_name_that_is_refused_is_not_repeated(self) -> None:
        with pytest.raises(ConfigurationError) as refused:
            Naming(schema="pg_secret-canary")
        assert "canary" not in str(refused.value)

    @pytest.mark.requirement("D2")
    @pytest.mark.parametrize("prefix", ["select", "table_", "x" * LONGEST_PREFIX])
    def test_a_prefix_may_be_a_reserved_word_or_long(self, url: str, prefix: str) -> None:
        prefixed = f"{url}?table_prefix={prefix}"
        use(prefixed)
        with migrations(prefixed) as found:
            assert run(found.differences()) == []
            run(found.upgrade())
        with connected(url) as connection:
            names = inspect(connection).get_table_names()
        assert all(name.startswith(prefix) for name in names)
        assert len(names) == 9

    @pytest.mark.requirement("D2")
    @pytest.mark.parametrize("schema", ["select", "User", "x" * 63])
    def test_a_schema_may_be_a_reserved_word_or_long(self, postgres_url: str, schema: str) -> None:
        url = f"{postgres_url}?schema={schema}&table_prefix=t_"
        use(url)
        with migrations(url) as found:
            assert run(found.differences()) == []
        with connected(postgres_url) as connection:
            assert inspect(connection).get_table_names() == []
            assert "t_token" in inspect(connection).get_table_names(schema=schema)

    def test_two_prefixes_live_in_one_database(self, url: str) -> None:
        use(f"{url}?table_prefix=one_")
        use(f"{url}?table_prefix=two_")
        with TokenVault.open(f"{url}?table_prefix=one_", keys=KEYS) as vault:
            assert len(vault.history("alice", provider="p")) == 1


def test_without_alembic_the_error_names_the_extra() -> None:
    script = textwrap.dedent("""
        import sys
        sys.modules["alembic"] = None
        from tokenkeep.errors import ConfigurationError
        try:
            import tokenkeep.stores.sql.migrating
        except ConfigurationError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert 'pip install "tokenkeep[postgres]"' in done.stdout
