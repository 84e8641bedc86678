"""Transactions on an engine of SQLAlchemy, of either kind, spoken to in one way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final

from sqlalchemy import Connection, CursorResult, Engine, Executable
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tokenkeep._stepping import settle
from tokenkeep.errors import StoreError, StoreUnavailable
from tokenkeep.stores.sql.database import Asking, Parameters, Transaction, Values
from tokenkeep.stores.sql.errors import Phase, Place, Undone, as_ours, is_of_a_driver
from tokenkeep.stores.sql.repeating import Doubt, Patience, repeated
from tokenkeep.stores.sql.servers.limits import Limits
from tokenkeep.stores.sql.servers.replica import Replica
from tokenkeep.stores.sql.wire.question import WritingWire


class EngineTransaction:
    """Implements `Transaction` on a connection of SQLAlchemy."""

    def __init__(self, connection: Connection | AsyncConnection) -> None:
        self._connection = connection

    async def _execute(self, statement: Executable, parameters: Parameters | None) -> CursorResult[Any]:
        return await settle(self._connection.execute(statement, parameters))

    async def run(self, statement: Executable, parameters: Parameters | None = None) -> None:
        await self._execute(statement, parameters)

    async def count(self, statement: Executable, parameters: Parameters | None = None) -> int:
        return (await self._execute(statement, parameters)).rowcount

    async def first(self, statement: Executable, parameters: Values | None = None) -> Any:
        return (await self._execute(statement, parameters)).first()

    async def rows(self, statement: Executable, parameters: Values | None = None) -> Sequence[Any]:
        return (await self._execute(statement, parameters)).all()

    async def plainly(self, function: Callable[[Connection], Any]) -> Any:
        if isinstance(self._connection, AsyncConnection):
            return await self._connection.run_sync(function)
        return function(self._connection)


class EngineDatabase:
    """Implements `Database` on an `Engine` or an `AsyncEngine`.

    A transaction whose connection was lost, or that others undid, is run again where that is safe.

    Args:
        engine: it is disposed of by `close` only when it is `owned`: who opens, closes.
        name: what errors call the database; never a data source name.
        owned: whether this object opened it.
        limits: for how long a lost connection is looked for again.
        replica: what may answer reports in its place.
    """

    def __init__(
        self,
        engine: Engine | AsyncEngine,
        *,
        name: str,
        owned: bool = True,
        limits: Limits | None = None,
        replica: Replica | None = None,
    ) -> None:
        self.name = name
        self.engine = engine
        self.dialect = engine.dialect
        self.replica = replica
        self.asynchronous = isinstance(engine, AsyncEngine)
        self._owned = owned
        self._limits = limits or Limits()
        self._place = Place(name, engine.dialect.name)
        self._readers = engine.execution_options(**_READING.get(engine.dialect.name, {}))
        self._writers = engine
        self._loop: asyncio.AbstractEventLoop | None = None

    async def read[T](self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        return await self._repeated(self._readers, work, Doubt.REPEAT)

    async def report[T](self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        if self.replica is None or self.replica.rests:
            return await self.read(work)
        try:
            return await self.replica.read(work)
        except StoreUnavailable:
            return await self.read(work)

    async def write[T](self, work: Callable[[Transaction], Awaitable[T]], doubt: Doubt = Doubt.TELL) -> T:
        return await self._repeated(self._writers, work, doubt)

    async def _repeated[T](
        self, engine: Engine | AsyncEngine, work: Callable[[Transaction], Awaitable[T]], doubt: Doubt
    ) -> T:
        async def attempt(answered: Callable[[T], None]) -> T:
            return await self._attempt(engine, work, answered)

        return await repeated(attempt, doubt, Patience(self._limits.retry_timeout), self.sleep)

    async def _attempt[T](
        self, engine: Engine | AsyncEngine, work: Callable[[Transaction], Awaitable[T]], answered: Callable[[T], None]
    ) -> T:
        phase = Phase.BEFORE_COMMIT
        try:
            async with self._connected(engine) as connection:
                result = await work(EngineTransaction(connection))
                if engine is self._writers:
                    answered(result)
                    phase = Phase.COMMITTING
                    await settle(connection.commit())
                return result
        except Exception as error:
            if not is_of_a_driver(error):
                raise
            failure = self.as_ours(error, phase)
        raise failure

    async def write_by[T](self, wire: WritingWire, work: Callable[[Asking], Awaitable[T]], doubt: Doubt) -> T:
        """Like `write`, on the connection of a wire."""

        async def attempt(answered: Callable[[T], None]) -> T:
            phase = Phase.BEFORE_COMMIT

            def committing(result: T) -> None:
                nonlocal phase
                answered(result)
                phase = Phase.COMMITTING

            try:
                return await wire.transact(work, committing)
            except Exception as error:
                if not is_of_a_driver(error):
                    raise
                failure = self.as_ours(error, phase)
            raise failure

        return await repeated(attempt, doubt, Patience(self._limits.retry_timeout), self.sleep)

    async def directly[T, K](self, ask: Callable[[K], Awaitable[T]], what: K) -> T:
        """Ask something of the driver itself, with its errors as ours, again when the connection is lost."""
        try:
            return await ask(what)
        except Exception as error:
            if not is_of_a_driver(error):
                raise
            failure = self.as_ours(error)
        if isinstance(failure, Undone):
            return await self._directly_again(ask, what, failure)
        raise failure

    async def _directly_again[T, K](self, ask: Callable[[K], Awaitable[T]], what: K, failure: StoreError) -> T:
        patience = Patience(self._limits.retry_timeout)
        while (pause := patience.pause(failure)) is not None:
            await self.sleep(pause)
            try:
                return await ask(what)
            except Exception as error:
                if not is_of_a_driver(error):
                    raise
                failure = self.as_ours(error)
        raise failure

    def as_ours(self, error: BaseException, phase: Phase = Phase.BEFORE_COMMIT) -> StoreError:
        return as_ours(self._place, error, phase)

    async def sleep(self, seconds: float) -> None:
        """Let a moment pass, in the way of the engine."""
        if self.asynchronous:
            await asyncio.sleep(seconds)
        else:
            time.sleep(seconds)  # noqa: ASYNC251  # a synchronous engine serves the face that blocks

    @asynccontextmanager
    async def _connected(self, engine: Engine | AsyncEngine) -> AsyncIterator[Connection | AsyncConnection]:
        self._move_to_this_loop()
        async with AsyncExitStack() as stack:
            opening = engine.connect()
            if isinstance(opening, AbstractAsyncContextManager):
                connection: Connection | AsyncConnection = await stack.enter_async_context(opening)
            else:
                connection = stack.enter_context(opening)
            try:
                yield connection
            except Exception as error:
                if is_of_a_driver(error) and not isinstance(error, SQLAlchemyError):
                    await settle(connection.invalidate())  # SQLAlchemy does not know that it is lost
                raise

    def _move_to_this_loop(self) -> None:
        """Leave the connections of an event loop that has ended to themselves: they work in no other."""
        if not self.asynchronous or not self._owned:
            return
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop and self._loop.is_closed():
            self.forget_connections()
        self._loop = loop

    async def close(self) -> None:
        if self.replica is not None:
            await self.replica.close()
        if self._owned:
            if self.asynchronous:
                self._move_to_this_loop()
            await settle(self.engine.dispose())

    def forget_connections(self) -> None:
        if self.replica is not None:
            self.replica.forget_connections()
        engine = self.engine.sync_engine if isinstance(self.engine, AsyncEngine) else self.engine
        engine.dispose(close=False)


_READING: Final[Mapping[str, Mapping[str, Any]]] = {"postgresql": {"isolation_level": "AUTOCOMMIT"}}
"""A read is one statement, or several that need no common moment; without BEGIN and ROLLBACK it is one round trip."""
