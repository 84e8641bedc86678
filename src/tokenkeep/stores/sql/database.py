"""An engine of either kind, spoken to in one way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final

from sqlalchemy import Connection, CursorResult, Engine, Executable
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tokenkeep._stepping import settle
from tokenkeep.stores.sql.errors import translated

WRITES: Final = "tokenkeep_writes"
"""The execution option of a connection that will write, so that SQLite takes the lock at BEGIN."""

type Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class Transaction:
    """An open transaction: statements go in, rows come out."""

    def __init__(self, connection: Connection | AsyncConnection) -> None:
        self._connection = connection

    async def run(self, statement: Executable, parameters: Parameters | None = None) -> CursorResult[Any]:
        """Execute a statement once, or once for each of a list of parameters."""
        return await settle(self._connection.execute(statement, parameters))

    async def count(self, statement: Executable, parameters: Parameters | None = None) -> int:
        """Execute a change and return how many rows it matched."""
        return (await self.run(statement, parameters)).rowcount

    async def first(self, statement: Executable, parameters: Parameters | None = None) -> Any:
        """Return the first row, or `None`."""
        return (await self.run(statement, parameters)).first()

    async def rows(self, statement: Executable, parameters: Parameters | None = None) -> Sequence[Any]:
        """Return all rows."""
        return (await self.run(statement, parameters)).all()

    async def plainly(self, function: Callable[[Connection], Any]) -> Any:
        """Call a function that wants SQLAlchemy's plain connection, such as `MetaData.create_all`."""
        if isinstance(self._connection, AsyncConnection):
            return await self._connection.run_sync(function)
        return function(self._connection)


class Database:
    """Transactions on an `Engine` or an `AsyncEngine`.

    Args:
        engine: it is disposed of by `close` only when it is `owned`: who opens, closes.
        name: what errors call the database; never a data source name.
        owned: whether this object opened it.
    """

    def __init__(self, engine: Engine | AsyncEngine, *, name: str, owned: bool = True) -> None:
        self.name = name
        self.engine = engine
        self.dialect = engine.dialect
        self._owned = owned
        self._readers = engine
        self._writers = engine.execution_options(**{WRITES: True})

    def reading(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction that only reads."""
        return self._transaction(self._readers)

    def writing(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction that writes; it commits at the end of the block and rolls back on an error."""
        return self._transaction(self._writers)

    @asynccontextmanager
    async def _transaction(self, engine: Engine | AsyncEngine) -> AsyncIterator[Transaction]:
        with translated(self.name):
            async with AsyncExitStack() as stack:
                begin = engine.begin()
                if isinstance(begin, AbstractAsyncContextManager):
                    connection: Connection | AsyncConnection = await stack.enter_async_context(begin)
                else:
                    connection = stack.enter_context(begin)
                yield Transaction(connection)

    async def close(self) -> None:
        """Dispose of an engine of our own."""
        if self._owned:
            await settle(self.engine.dispose())

    def forget_connections(self) -> None:
        """Let go of every pooled connection without closing it: they belong to the parent after a fork."""
        engine = self.engine.sync_engine if isinstance(self.engine, AsyncEngine) else self.engine
        engine.dispose(close=False)
