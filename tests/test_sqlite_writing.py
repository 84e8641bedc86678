"""Changes to SQLite that wait for each other share a commit, and none suffers for another."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, bindparam, insert, select, update

from tokenkeep import AsyncTokenIssuer, AsyncTokenVault, KeyRing, NewToken, TokenIssuer
from tokenkeep._stepping import run
from tokenkeep.errors import StoreUnavailable
from tokenkeep.stores.sql.database import Transaction
from tokenkeep.stores.sql.errors import Conflict
from tokenkeep.stores.sql.sqlite.database import SqliteDatabase
from tokenkeep.stores.sql.sqlite.writing import Job

METADATA = MetaData()
WORD = Table("word", METADATA, Column("id", Integer, primary_key=True), Column("text", String, unique=True))
ADD = insert(WORD)
ALL = select(WORD.c.text).order_by(WORD.c.id)
ANY_OF = select(WORD.c.text).where(WORD.c.text.in_(bindparam("words", expanding=True)))
RENAME = update(WORD).where(WORD.c.text == bindparam("old")).values(text=bindparam("new"))


def adding(word: str) -> Callable[[Transaction], Any]:
    async def add(transaction: Transaction) -> str:
        await transaction.run(ADD, {"text": word})
        return word

    return add


async def failing(transaction: Transaction) -> None:
    await transaction.run(ADD, {"text": "half"})
    msg = "on purpose"
    raise LookupError(msg)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "words.db")


@pytest.fixture
def database(path: str) -> Iterator[SqliteDatabase]:
    database = SqliteDatabase(path, name="the test", asynchronous=False)
    run(database.write(lambda transaction: transaction.plainly(METADATA.create_all)))
    yield database
    run(database.close())


def words(path: str) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [word for (word,) in connection.execute("SELECT text FROM word ORDER BY id")]


def together(database: SqliteDatabase, *works: Callable[[Transaction], Any]) -> list[Job[Any]]:
    """Let changes lie there until all of them do, and then make them."""
    jobs = [Job[Any](work) for work in works]
    for job in jobs:
        database._writer.lay_down(job)
    database._writer.serve()
    assert all(job.done for job in jobs)
    return jobs


def test_changes_that_wait_at_the_same_moment_share_one_commit(
    database: SqliteDatabase, path: str, statements: list[str]
) -> None:
    database.forget_connections()  # so that the next one is traced
    together(database, *[adding(f"{n}") for n in range(30)])
    assert statements.count("COMMIT") == 1
    assert len(words(path)) == 30
    database._writer._forgotten.close()  # type: ignore[union-attr]  # it was the parent's in the eyes of the database


def test_a_change_that_fails_is_taken_back_alone(database: SqliteDatabase, path: str) -> None:
    first, bad, twice, last = together(database, adding("a"), failing, adding("a"), adding("b"))
    assert (first.value, last.value) == ("a", "b")
    assert isinstance(bad.error, LookupError)
    assert isinstance(twice.error, sqlite3.IntegrityError)
    assert words(path) == ["a", "b"]


def test_when_the_whole_transaction_is_lost_each_change_is_made_by_itself(database: SqliteDatabase, path: str) -> None:
    async def losing(_: Transaction) -> None:
        database._writer._connection.execute("ROLLBACK")  # type: ignore[union-attr]  # what SQLite does when the disk is full
        msg = "database or disk is full"
        raise sqlite3.OperationalError(msg)

    first, lost, last = together(database, adding("a"), losing, adding("b"))
    assert (first.error, last.error) == (None, None)
    assert isinstance(lost.error, sqlite3.OperationalError)
    assert words(path) == ["a", "b"]


def test_a_lock_of_another_process_is_waited_for_once_and_not_by_each(
    database: SqliteDatabase, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins = []
    begun = database._writer._begun

    def counted() -> sqlite3.Connection:
        begins.append(1)
        return begun()

    monkeypatch.setattr(database._writer, "_begun", counted)
    run(database.write(adding("before")))
    database._writer._connection.execute("PRAGMA busy_timeout = 1")  # type: ignore[union-attr]
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begins.clear()
        jobs = together(database, *[adding(f"{n}") for n in range(5)])
        assert len(begins) == 1
        assert all("locked" in str(job.error) for job in jobs)
        with pytest.raises(StoreUnavailable, match="locked by another process"):
            run(database.write(adding("no")))
        other.execute("ROLLBACK")
    run(database.write(adding("after")))
    assert words(path) == ["before", "after"]


def test_errors_come_to_their_own_caller_as_ours(database: SqliteDatabase) -> None:
    run(database.write(adding("a")))
    with pytest.raises(Conflict):
        run(database.write(adding("a")))
    with pytest.raises(LookupError, match="on purpose"):
        run(database.write(failing))
    assert run(database.read(lambda transaction: transaction.rows(ALL))) == [("a",)]


def test_whoever_waits_is_told_when_the_one_who_writes_is_interrupted(database: SqliteDatabase, path: str) -> None:
    async def interrupted(_: Transaction) -> None:
        raise KeyboardInterrupt

    jobs = [Job[Any](work) for work in (adding("a"), interrupted)]
    for job in jobs:
        database._writer.lay_down(job)
    with pytest.raises(KeyboardInterrupt):
        database._writer.serve()
    assert all(isinstance(job.error, StoreUnavailable) for job in jobs)
    assert words(path) == []
    run(database.write(adding("b")))
    assert words(path) == ["b"]


def test_whoever_is_interrupted_after_the_commit_says_that_it_has_happened(
    database: SqliteDatabase, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    jobs = [Job[Any](adding(word)) for word in "ab"]
    for job in jobs:
        database._writer.lay_down(job)
    monkeypatch.setattr(Job, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        database._writer.serve()
    assert [(job.done, job.error) for job in jobs] == [(True, None), (True, None)]
    assert words(path) == ["a", "b"]


def test_a_connection_that_cannot_roll_back_is_dropped_and_everybody_is_told(
    database: SqliteDatabase, path: str
) -> None:
    class Broken:
        in_transaction = True

        def execute(self, statement: str) -> None:
            if statement != "BEGIN IMMEDIATE":
                msg = "disk I/O error"
                raise sqlite3.OperationalError(msg)

        def close(self) -> None:
            pass

    run(database.write(adding("a")))
    sound, database._writer._connection = database._writer._connection, Broken()  # type: ignore[assignment]
    jobs = together(database, adding("b"), adding("c"))
    assert sound is not None
    sound.close()
    assert [job.error for job in jobs] == [None, None]  # on a new connection
    assert words(path) == ["a", "b", "c"]


def test_many_threads_lose_nothing(database: SqliteDatabase, path: str) -> None:
    start = threading.Barrier(16)

    def write(n: int) -> None:
        start.wait()
        for m in range(10):
            assert run(database.write(adding(f"{n} {m}"))) == f"{n} {m}"

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(16)))
    assert len(words(path)) == 160


def test_statements_whose_text_depends_on_their_values_run_too(database: SqliteDatabase) -> None:
    together(database, *[adding(word) for word in "abc"])
    found = run(database.read(lambda transaction: transaction.rows(ANY_OF, {"words": ["a", "c", "x"]})))
    assert [row.text for row in found] == ["a", "c"]
    with pytest.raises(KeyError):
        run(database.write(lambda transaction: transaction.count(RENAME, {"old": "a"})))
    assert run(database.write(lambda transaction: transaction.count(RENAME, {"old": "a", "new": "z"}))) == 1


# --- in an event loop


async def test_a_caller_who_is_cancelled_takes_no_other_with_him(path: str) -> None:
    database = SqliteDatabase(path, name="the test", asynchronous=True)
    await database.write(lambda transaction: transaction.plainly(METADATA.create_all))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = [asyncio.create_task(database.write(adding(f"{n}"))) for n in range(5)]
        await asyncio.sleep(0)
        writing[2].cancel()
        other.execute("ROLLBACK")
    done = await asyncio.gather(*writing, return_exceptions=True)
    assert [type(outcome) for outcome in done] == [str, str, asyncio.CancelledError, str, str]
    await database.close()
    assert len(words(path)) == 5


async def test_uses_that_are_written_while_their_caller_is_cancelled_count_once(tmp_path: Path) -> None:
    path, keys = tmp_path / "tokens.db", KeyRing.generate()
    async with AsyncTokenVault.open(f"sqlite:///{path}", keys=keys) as vault:
        await vault.store("alice", NewToken("t"), provider="p")
        await vault.get_valid("alice", provider="p")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            asking = asyncio.create_task(vault.statistics("alice", provider="p"))
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            other.execute("ROLLBACK")
    async with AsyncTokenVault.open(f"sqlite:///{path}", keys=keys) as vault:
        assert (await vault.statistics("alice", provider="p")).total_usage == 1


async def test_a_transaction_of_the_async_face_is_one_hop_to_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hops: list[object] = []
    submit = ThreadPoolExecutor.submit

    def counted(self: ThreadPoolExecutor, function: Callable[..., Any], *args: Any) -> Any:
        hops.append(function)
        return submit(self, function, *args)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", counted)
    async with AsyncTokenIssuer.open(
        f"sqlite:///{tmp_path}/tokens.db", lifetime=timedelta(hours=1), keys=KeyRing.generate()
    ) as issuer:
        await issuer.issue("alice")
        hops.clear()
        await asyncio.gather(*(issuer.issue(f"user {n}") for n in range(32)))
        assert len(hops) <= 4  # the first who comes writes alone, the others follow him together


def test_an_issuer_that_was_closed_holds_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())

    async def using() -> None:
        url = f"sqlite:///{tmp_path}/tokens.db"
        async with AsyncTokenIssuer.open(url, lifetime=timedelta(hours=1), keys=KeyRing.generate()) as issuer:
            await issuer.issue("alice")

    asyncio.run(using())
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before
    with TokenIssuer.open("sqlite://", lifetime=timedelta(hours=1)) as issuer:
        assert issuer.tokens("alice") == []
