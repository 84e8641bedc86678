"""Issued tokens in partitions by the day of their end, on PostgreSQL."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from servers.common import Database
from servers.postgres import Postgres
from sql_emptying import used_in_postgres
from tokenkeep import IssuedToken, KeyRing, TokenIssuer
from tokenkeep._stepping import run
from tokenkeep.buckets import day_of, first_id
from tokenkeep.copying import Copying
from tokenkeep.digest import token_id
from tokenkeep.errors import ConfigurationError, StoreUnavailable
from tokenkeep.opening import open_backend
from tokenkeep.ports import Room
from tokenkeep.stores.sql.direct import open_database
from tokenkeep.stores.sql.migrating import Migrations
from tokenkeep.stores.sql.naming import Naming
from tokenkeep.stores.sql.partitioning import Partitioning
from tokenkeep.stores.sql.roles import role_statements
from tokenkeep.stores.sql.wire.question import Question
from tokenkeep.testing import FakeClock
from tokenkeep.testing.conformance import IssuerConformance

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
KEYS = KeyRing.generate()
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

PARTS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'tokenkeep_issued'::regclass ORDER BY 1"

type Open = Callable[..., TokenIssuer]


def divide(url: str, days: int = 1) -> bool:
    """What `tokenkeep db init` and `tokenkeep db partition` do."""
    database, naming = open_database(url)
    try:
        run(Migrations(database, naming).upgrade())
        return run(Partitioning(database, naming).divide(days))
    finally:
        run(database.close())


@pytest.fixture(scope="module")
def database(postgres_server: Postgres) -> Iterator[Database]:
    database = postgres_server.database()
    divide(database.url)
    yield database
    postgres_server.drop(database)


@pytest.fixture
def url(postgres_server: Postgres, database: Database) -> Iterator[str]:
    with postgres_server.connect(database.name) as connection:
        for (part,) in connection.execute(PARTS).fetchall():
            connection.execute(psycopg.sql.SQL("DROP TABLE {}").format(psycopg.sql.Identifier(part)))
    yield from used_in_postgres(postgres_server, database)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def open_issuer(url: str, clock: FakeClock) -> Iterator[Open]:
    opened = []

    def open_one(at: str = url, **options: Any) -> TokenIssuer:
        issuer = TokenIssuer.open(at, **{"lifetime": HOUR, "keys": KEYS, "clock": clock, **options})
        opened.append(issuer)
        return issuer.__enter__()

    yield open_one
    for issuer in opened:
        issuer.close()


def bearer(issued: IssuedToken) -> str:
    assert issued.token is not None
    return issued.token.reveal()


def parts(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [name.removeprefix("tokenkeep_issued_") for (name,) in connection.execute(PARTS).fetchall()]


class TestIssuerInPartitions(IssuerConformance):
    """The suite of every issuer, in both faces; each test makes its partitions as it goes."""

    @pytest.fixture
    def url(self, postgres_server: Postgres, database: Database) -> Iterator[str]:
        yield from used_in_postgres(postgres_server, database)


# --- making


def test_a_token_whose_partition_is_not_there_is_issued_nevertheless(url: str, open_issuer: Open) -> None:
    issuer = open_issuer()
    issued = issuer.issue("alice", lifetime=400 * DAY, refresh=True)
    assert issuer.verify(bearer(issued)) is not None
    assert parts(url) == ["20270405"], "both its rows end on that day"


def test_several_that_need_the_same_partition_at_once_make_it_once(url: str, open_issuer: Open) -> None:
    issuers = [open_issuer() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        issued = list(threads.map(lambda issuer: issuer.issue("alice", lifetime=DAY), issuers))
    assert all(issuers[0].verify(bearer(token)) is not None for token in issued)
    assert parts(url) == ["20260302"]


def test_a_refresh_makes_the_partition_of_its_successor(url: str, open_issuer: Open, clock: FakeClock) -> None:
    issuer = open_issuer()
    first = issuer.issue("alice", refresh=True)
    clock.advance(2 * DAY)
    assert first.refresh_token is not None
    second = issuer.refresh(first.refresh_token)
    assert second is not None
    assert issuer.verify(bearer(second)) is not None
    assert parts(url) == ["20260301", "20260303", "20260331"]


def test_a_purge_makes_the_partitions_of_the_next_forty_days(url: str, open_issuer: Open) -> None:
    open_issuer().purge()
    made = parts(url)
    assert (len(made), made[0], made[-1]) == (41, "20260301", "20260410")


@pytest.mark.parametrize("days", [7, 30])
def test_a_partition_may_hold_more_days(postgres_url: str, clock: FakeClock, days: int) -> None:
    assert divide(postgres_url, days) is True
    assert divide(postgres_url, days) is False
    with TokenIssuer.open(postgres_url, lifetime=HOUR, keys=KEYS, clock=clock) as issuer:
        tokens = [bearer(issuer.issue("alice", lifetime=n * DAY)) for n in (1, 29, 58, 365)]
        assert all(issuer.verify(token) is not None for token in tokens)
        names = [f"{datetime(1970, 1, 1, tzinfo=UTC) + day * DAY:%Y%m%d}" for day in _starts(tokens, days)]
        assert parts(postgres_url) == names
        clock.advance(60 * DAY)
        assert issuer.purge().tokens == 3
        assert issuer.verify(tokens[-1]) is not None


def _starts(tokens: list[str], days: int) -> list[int]:
    numbers = [int.from_bytes(token_id(token)[:2]) for token in tokens]
    return sorted({number - number % days for number in numbers})


# --- looking up


MANY_ROWS = """
INSERT INTO tokenkeep_issued (id, digest, namespace, user_id, scopes, created_at, expires_at, usage_count)
SELECT substr(first_id, 1, 2) || substr(sha256(i::text::bytea), 1, 14), sha256(i::text::bytea), 'ns', 'user', '', now(),
       now(), 0
FROM unnest(%s::bytea[]) AS first_id, generate_series(1, 2000) AS i
"""


@pytest.mark.requirement("D5")
def test_a_look_up_touches_exactly_one_partition(url: str, open_issuer: Open) -> None:
    issuer = open_issuer()
    issuer.purge()
    backend = open_backend(url)
    question = Question.of(backend.issued._access_token, backend.health._database.dialect)  # type: ignore[attr-defined]  # SQL's
    run(backend.health.close())
    near, far = (token_id(bearer(issuer.issue("alice", lifetime=days * DAY))) for days in (10, 20))
    with psycopg.connect(url) as connection:
        connection.execute(MANY_ROWS, ([first_id(day_of(NOW) + day) for day in range(41)],))
        connection.execute("ANALYZE tokenkeep_issued")
        connection.execute(f"PREPARE one AS {question.one.replace('::BYTEA', '::bytea')}".encode())
        for _ in range(8):  # from the sixth on a plan for any key would do
            plan = _plan(connection, "EXECUTE one", near)
            assert _touched(plan) == ["20260311"]
            assert "Index Scan" in plan
        connection.execute(f"PREPARE many AS {question.many}".encode())
        assert sorted(_touched(_plan(connection, "EXECUTE many", [near, far]))) == ["20260311", "20260321"]


def _plan(connection: psycopg.Connection[Any], statement: str, key: Any) -> str:
    values = psycopg.sql.Literal(key).as_string(connection)
    rows = connection.execute(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {statement}({values})".encode()).fetchall()
    return "\n".join(line for (line,) in rows)


def _touched(plan: str) -> list[str]:
    """The partitions of which something was read."""
    return re.findall(r" on tokenkeep_issued_(\d{8}) .*\(actual rows", plan)


# --- dropping


@pytest.mark.requirement("S11")
def test_a_purge_drops_what_is_over_and_counts_it(url: str, open_issuer: Open, clock: FakeClock) -> None:
    issuer = open_issuer()
    for days in (0, 0, 0, 1, 1, 3):
        issuer.issue("alice", lifetime=days * DAY + HOUR)
    clock.advance(3 * DAY)
    living = bearer(issuer.issue("alice"))
    assert issuer.purge().tokens == 5
    assert parts(url)[0] == "20260304"
    assert issuer.verify(living) is not None
    assert len(issuer.audit_trail("alice", limit=100)) == 7
    assert issuer.purge().tokens == 0
    clock.advance(2 * HOUR)
    assert issuer.purge().tokens == 2, "of today, by rows"


def test_a_partition_with_tokens_of_other_namespaces_stays_until_they_are_purged_too(
    url: str, open_issuer: Open, clock: FakeClock
) -> None:
    red, blue = open_issuer(namespace="red"), open_issuer(namespace="blue")
    for issuer in (red, blue, blue):
        issuer.issue("alice")
    clock.advance(2 * DAY)
    assert red.purge().tokens == 1
    assert "20260301" in parts(url)
    assert blue.purge(expired_before=NOW).tokens == 0
    assert blue.purge().tokens == 2
    assert "20260301" not in parts(url)


@pytest.mark.requirement("D4")
def test_a_row_that_outlives_its_partition_keeps_it(url: str, open_issuer: Open, clock: FakeClock) -> None:
    issuer = open_issuer()
    token = bearer(issuer.issue("alice"))
    issuer.issue("alice")
    with psycopg.connect(url) as connection:  # what only somebody with rights to the table can do
        longer = "UPDATE tokenkeep_issued SET expires_at = %s WHERE id = %s"
        connection.execute(longer, (NOW + 9 * DAY, token_id(token)))
    clock.advance(3 * DAY)
    assert issuer.purge().tokens == 1
    assert issuer.verify(token) is not None


@pytest.mark.requirement("R1")
@pytest.mark.requirement("K8")
def test_the_use_of_an_old_refresh_token_is_noticed_after_partitions_were_dropped(
    open_issuer: Open, clock: FakeClock
) -> None:
    issuer = open_issuer()
    first = issuer.issue("alice", refresh=True)
    assert first.refresh_token is not None
    second = issuer.refresh(first.refresh_token)
    assert second is not None
    clock.advance(5 * DAY)
    assert issuer.purge().tokens == 2, "the access tokens"
    assert second.refresh_token is not None
    third = issuer.refresh(second.refresh_token)
    assert third is not None
    assert issuer.refresh(first.refresh_token) is None
    assert issuer.verify(bearer(third)) is None, "the whole family has ended"


@pytest.mark.requirement("D4")
def test_traffic_does_not_queue_behind_a_drop_and_what_cannot_be_dropped_is_deleted(
    url: str, open_issuer: Open, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenkeep.stores.sql.repeating.CONTENDED", 3)
    issuer, other = open_issuer(), open_issuer()
    for _ in range(3):
        issuer.issue("alice")
    clock.advance(2 * DAY)
    token = bearer(issuer.issue("alice"))
    with psycopg.connect(url) as slow, ThreadPoolExecutor(1) as threads:
        slow.execute("SELECT 1 FROM tokenkeep_issued")  # a transaction that stays open, as a backup does
        purged, longest = threads.submit(issuer.purge), 0.0
        while not purged.done():
            started = time.monotonic()
            assert other.verify(token) is not None
            longest = max(longest, time.monotonic() - started)
        assert purged.result().tokens == 3
        assert longest < 3, "it queues for as long as the lock is waited for, which is 50 ms"
    assert "20260301" in parts(url)
    issuer.purge()
    assert "20260301" not in parts(url)


@pytest.mark.requirement("D4")
@pytest.mark.parametrize("divided", [True, False], ids=["partitions", "one table"])
def test_purges_at_once_take_each_dead_token_once_and_none_that_lives(
    postgres_url: str, clock: FakeClock, divided: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenkeep.issuer._SWEPT_BESIDE", 5)
    if divided:
        divide(postgres_url)
    with ExitStack() as stack:
        issuers = [
            stack.enter_context(TokenIssuer.open(postgres_url, lifetime=HOUR, keys=KEYS, clock=clock)) for _ in range(4)
        ]
        for number in range(60):
            issuers[0].issue("alice", lifetime=(number % 5) * DAY + HOUR)
        clock.advance(4 * DAY)
        tokens = [bearer(issuers[0].issue("alice")) for _ in range(10)]
        clock.advance(HOUR - timedelta(seconds=1))
        with ThreadPoolExecutor(5) as threads:
            purges = [threads.submit(issuer.purge) for issuer in issuers]
            while not all(purge.done() for purge in purges):
                assert issuers[0].verify(tokens[0]) is not None
        assert sum(purge.result().tokens for purge in purges) == 48
        assert all(issuers[0].verify(token) is not None for token in tokens)
        assert issuers[0].statistics("alice").total_tokens == 22


# --- rights


def test_a_writer_issues_and_purges_and_the_owner_makes_and_drops(
    postgres_server: Postgres, postgres_url: str, clock: FakeClock
) -> None:
    divide(postgres_url)
    name = postgres_url.rpartition("/")[2]
    with postgres_server.connect(name) as connection:
        connection.execute(role_statements("postgresql", Naming()).encode())
        for role in ("writer", "owner"):
            connection.execute(f"CREATE USER {role}_{name} PASSWORD 'pw' IN ROLE tokenkeep_{role}".encode())
    try:
        writer, owner = (_as(postgres_url, f"{role}_{name}", role) for role in ("writer", "owner"))
        with TokenIssuer.open(writer, lifetime=HOUR, keys=KEYS, clock=clock) as issuer:
            with pytest.raises(StoreUnavailable, match="`tokenkeep db maintain` as the owner of the") as told:
                issuer.issue("alice")
            assert "2026-03-01" in str(told.value)
            _maintained(owner, clock.now())
            token = bearer(issuer.issue("alice"))
            clock.advance(2 * DAY)
            assert issuer.verify(token) is None
            assert issuer.purge().tokens == 1, "by rows: a writer drops no table"
            assert "20260301" in parts(postgres_url)
            issuer.issue("alice")
        with postgres_server.connect(name) as connection:  # the roles may be made again
            connection.execute(role_statements("postgresql", Naming()).encode())
        assert _maintained(owner, clock.now() + 2 * DAY) == 1
        assert parts(postgres_url)[0] == "20260305"
    finally:
        with postgres_server.connect(name) as connection:
            for role in ("writer", "owner"):
                connection.execute(f"DROP USER {role}_{name}".encode())


def _as(url: str, user: str, role: str) -> str:
    changed = re.sub(r"//[^@]+@", f"//{user}:pw@", url)
    return f"{changed}?options=-crole%3Dtokenkeep_owner" if role == "owner" else changed


def _maintained(url: str, now: datetime) -> int:
    """What `tokenkeep db maintain` does; return how many tokens were dropped."""
    database, naming = open_database(url)
    try:
        partitions = Partitioning(database, naming).partitions
        run(partitions.make_partitions(now, now + 3 * DAY))
        return run(partitions.drop_ended(None, before=now))
    finally:
        run(database.close())


# --- the layout


def test_a_table_that_holds_tokens_or_is_divided_otherwise_is_refused(postgres_url: str, clock: FakeClock) -> None:
    with TokenIssuer.open(postgres_url, lifetime=HOUR, keys=KEYS, clock=clock) as issuer:
        issuer.issue("alice")
        with pytest.raises(ConfigurationError, match="not empty"):
            divide(postgres_url)
        assert len(issuer.tokens("alice")) == 1
    with psycopg.connect(postgres_url) as connection:
        connection.execute("DELETE FROM tokenkeep_issued")
    assert divide(postgres_url)
    with pytest.raises(ConfigurationError, match="divided into partitions of 1 day"):
        divide(postgres_url, 2)
    with pytest.raises(ConfigurationError, match="1 to 366 days"):
        divide(postgres_url, 0)


def test_other_databases_have_none() -> None:
    with pytest.raises(ConfigurationError, match="for PostgreSQL"):
        Partitioning(*open_database("sqlite://"))


def test_a_check_knows_the_layout_and_names_what_is_foreign_in_it(url: str, open_issuer: Open) -> None:
    open_issuer().issue("alice")
    database, naming = open_database(url)
    try:
        migrations = Migrations(database, naming)
        assert run(migrations.differences()) == []
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE foreigner PARTITION OF tokenkeep_issued DEFAULT")
        [fault] = run(migrations.differences())
        assert "foreigner" in fault
    finally:
        run(database.close())


def test_a_store_is_copied_in_and_out(url: str, tmp_path: Path, clock: FakeClock) -> None:
    one, other = f"sqlite:///{tmp_path}/one.db", f"sqlite:///{tmp_path}/other.db"
    with TokenIssuer.open(one, lifetime=HOUR, keys=KEYS, clock=clock) as issuer:
        token = bearer([issuer.issue("alice", lifetime=n * 3 * DAY, refresh=True) for n in range(1, 20)][-1])
    first = _copied(one, url)
    assert first[Room.ISSUED].rows == 38
    assert _copied(url, other) == first
    with TokenIssuer.open(url, lifetime=HOUR, keys=KEYS, clock=clock) as issuer:
        assert issuer.verify(token) is not None


def _copied(source: str, target: str) -> Any:
    old, new = open_backend(source), open_backend(target)
    try:
        for backend in (old, new):
            run(backend.health.prepare())
        assert old.transfer is not None
        assert new.transfer is not None
        return run(Copying(old.transfer, new.transfer).run())
    finally:
        run(old.health.close())
        run(new.health.close())


def test_the_bounds_of_a_partition_are_those_of_its_days(url: str, open_issuer: Open) -> None:
    open_issuer().issue("alice", lifetime=DAY)
    with psycopg.connect(url) as connection:
        bounds = connection.execute(
            "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relispartition"
        ).fetchall()
    day = day_of(NOW + DAY)
    wanted = rf"FOR VALUES FROM ('\x{first_id(day).hex()}') TO ('\x{first_id(day + 1).hex()}')"
    assert (wanted,) in bounds


def test_dividing_one_database_divides_no_other_of_the_process(
    postgres_server: Postgres, request: pytest.FixtureRequest
) -> None:
    """The tables are described once a process."""
    first, second = postgres_server.database(), postgres_server.database()
    for database in (first, second):
        request.addfinalizer(partial(postgres_server.drop, database))
    assert divide(first.url)
    with TokenIssuer.open(second.url, lifetime=HOUR, keys=KEYS) as issuer:
        assert issuer.issue("alice").token is not None
    with psycopg.connect(second.url) as connection:
        assert connection.execute(PARTS).fetchall() == []
