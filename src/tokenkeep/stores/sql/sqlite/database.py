"""Transactions on a SQLite file or memory, on the driver itself."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Dialect, Executable, create_engine
from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy.pool import StaticPool

from tokenkeep.errors import StoreError
from tokenkeep.stores.sql.database import Parameters, Transaction, Values
from tokenkeep.stores.sql.errors import Phase, Place, as_ours, is_of_a_driver
from tokenkeep.stores.sql.repeating import Doubt
from tokenkeep.stores.sql.servers.replica import Replica
from tokenkeep.stores.sql.sqlite.connecting import connect
from tokenkeep.stores.sql.sqlite.reading import Readers
from tokenkeep.stores.sql.sqlite.statements import Statements
from tokenkeep.stores.sql.sqlite.writing import Job, Work, Writer

THREADS: Final = 4
"""Threads of the async face; one of them at a time writes."""


class SqliteTransaction:
    """Implements `Transaction`; nothing in it ever suspends."""

    def __init__(self, connection: sqlite3.Connection, statements: Statements) -> None:
        self._connection = connection
        self._statements = statements

    async def run(self, statement: Executable, parameters: Parameters | None = None) -> None:
        await self.count(statement, parameters)

    async def count(self, statement: Executable, parameters: Parameters | None = None) -> int:
        rows = parameters if isinstance(parameters, Sequence) else [parameters or {}]
        compiled = self._statements.compiled(statement, rows[0])
        if compiled is None:
            count: int = await self.plainly(lambda connection: connection.execute(statement, parameters).rowcount)
            return count
        if len(rows) == 1:
            return self._connection.execute(compiled.sql, compiled.bound(rows[0])).rowcount
        return self._connection.executemany(compiled.sql, map(compiled.bound, rows)).rowcount

    async def first(self, statement: Executable, parameters: Values | None = None) -> Any:
        return next(iter(await self.rows(statement, parameters)), None)

    async def rows(self, statement: Executable, parameters: Values | None = None) -> Sequence[Any]:
        values = parameters or {}
        compiled = self._statements.compiled(statement, values)
        if compiled is None:
            rows: Sequence[Any] = await self.plainly(lambda connection: connection.execute(statement, values).all())
            return rows
        return [compiled.decoded(row) for row in self._connection.execute(compiled.sql, compiled.bound(values))]

    async def plainly(self, function: Callable[[Connection], Any]) -> Any:
        engine = create_engine("sqlite://", creator=lambda: _Lent(self._connection), poolclass=StaticPool)
        with engine.connect() as connection:
            return function(connection)


class _Lent:
    """A connection whose transaction is not SQLAlchemy's to end."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def commit(self) -> None:
        """Leave it open."""

    rollback = close = commit


class SqliteDatabase:
    """Implements `Database`.

    The sync face works in the thread of its caller. In the async face a whole transaction is handed to a
    thread, never a statement: what it does never suspends, so it is stepped there as in the sync face.

    Args:
        path: the file; `None` for a database in memory, which has one connection for everything.
        name: what errors call it.
        asynchronous: whether an event loop must not be held up.
    """

    def __init__(self, path: str | None, *, name: str, asynchronous: bool) -> None:
        self.name = name
        self.dialect: Dialect = pysqlite.dialect()
        self.replica: Replica | None = None
        self._place = Place(name, "sqlite")
        self._in_memory = path is None
        self._asynchronous = asynchronous and path is not None
        wrap = partial(SqliteTransaction, statements=Statements(self.dialect))
        self._writer = Writer(partial(connect, path, writes=True), wrap)
        self._readers = Readers(partial(connect, path), wrap)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="tokenkeep-sqlite")

    async def read[T](self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        if self._in_memory:
            return await self.write(work)
        job = Job(work)
        if self._asynchronous:
            await self._in_thread(job)
        else:
            self._readers.do(job)
        return self._outcome(job)

    async def report[T](self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        return await self.read(work)

    async def write[T](self, work: Callable[[Transaction], Awaitable[T]], doubt: Doubt = Doubt.TELL) -> T:  # noqa: ARG002  # no reply to a COMMIT is lost here
        if self._asynchronous:
            return self._outcome(await self._written(work))
        job = Job(work)
        self._writer.do(job)
        return self._outcome(job)

    async def _written[T](self, work: Work[T]) -> Job[T]:
        """Hand a change to a thread; it happens even where its caller is cancelled meanwhile."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        job = Job(work, wake=partial(_tell, loop, done))
        if self._writer.lay_down(job):
            try:
                self._threads.submit(self._writer.serve)
            except RuntimeError:  # the interpreter is ending and starts no threads any more
                self._writer.serve()
        await done
        return job

    async def _in_thread(self, job: Job[Any]) -> None:
        loop = asyncio.get_running_loop()
        try:
            reading = loop.run_in_executor(self._threads, self._readers.do, job)
        except RuntimeError:  # likewise
            self._readers.do(job)
        else:
            await reading

    def _outcome[T](self, job: Job[T]) -> T:
        if job.error is None:
            return job.value
        if not is_of_a_driver(job.error):
            raise job.error
        raise self.as_ours(job.error)

    def as_ours(self, error: BaseException) -> StoreError:
        return as_ours(self._place, error, Phase.BEFORE_COMMIT)

    async def close(self) -> None:
        self._threads.shutdown()  # what a cancelled caller has left under way takes milliseconds
        self._writer.close()
        self._readers.close()
        self._begin_anew()

    def forget_connections(self) -> None:
        self._writer.forget()
        self._readers.forget()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="tokenkeep-sqlite")


def _tell(loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
    with suppress(RuntimeError):  # the loop has ended, and nobody waits
        loop.call_soon_threadsafe(_settle, done)


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
