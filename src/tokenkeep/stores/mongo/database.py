"""A client of either kind, spoken to in one way."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import pymongo
from pymongo import AsyncMongoClient, MongoClient, ReadPreference, WriteConcern
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from tokenkeep._stepping import settle
from tokenkeep.errors import StoreUnavailable
from tokenkeep.stores.mongo.errors import translated

type Client = MongoClient[dict[str, Any]] | AsyncMongoClient[dict[str, Any]]
type Filter = Mapping[str, Any]
type Change = Mapping[str, Any] | Sequence[Mapping[str, Any]]

PATIENCE: Final = 10.0
"""Seconds for one call of a store, a whole transaction with its repetitions included."""

REACH: Final = 5.0
"""Seconds in which a server must be found at opening."""

_MAJORITY: Final = ReadConcern("majority")
_SNAPSHOT: Final = ReadConcern("snapshot")
_DURABLE: Final = WriteConcern("majority", j=True)
_SHORTEST_PAUSE: Final = 0.002
_LONGEST_PAUSE: Final = 0.1

_LEAST: Final = 0.25
"""Seconds that must be left to begin once more: a command given up on in mid-air may begin what nobody ends."""

_ABORT: Final = 1.0
"""Seconds to take back a transaction that did not come to its end."""


class Contended(Exception):
    """Others wrote the same documents at that moment: the transaction begins anew. It never leaves the store."""


class Calls:
    """What can be asked of the database, inside a transaction or each call for itself."""

    def __init__(self, database: Any, session: Any = None) -> None:
        self._database = database
        self._session = session

    async def first(self, collection: str, where: Filter) -> dict[str, Any] | None:
        """Return one document, or `None`."""
        found: dict[str, Any] | None = await settle(self._database[collection].find_one(where, session=self._session))
        return found

    async def rows(
        self,
        collection: str,
        where: Filter,
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int = 0,
        skip: int = 0,
        fields: Sequence[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Return documents; `limit` 0 is no limit."""
        cursor = self._database[collection].find(
            where, fields, sort=list(sort) or None, limit=limit, skip=skip, session=self._session
        )
        found: list[dict[str, Any]] = await settle(cursor.to_list())
        return found

    async def aggregate(self, collection: str, stages: Sequence[Filter]) -> list[dict[str, Any]]:
        """Return what an aggregation makes of a collection."""
        cursor = await settle(self._database[collection].aggregate(stages, session=self._session))
        found: list[dict[str, Any]] = await settle(cursor.to_list())
        return found

    async def insert(self, collection: str, documents: Sequence[dict[str, Any]]) -> None:
        """Add documents."""
        if documents:
            await settle(self._database[collection].insert_many(documents, session=self._session))

    async def update(self, collection: str, where: Filter, change: Change, *, upsert: bool = False) -> bool:
        """Change one document; tell whether there was one."""
        done = await settle(self._database[collection].update_one(where, change, upsert=upsert, session=self._session))
        return bool(done.matched_count)

    async def bulk(self, collection: str, changes: Sequence[Any]) -> int:
        """Do many changes in one round trip; return how many documents they matched."""
        if not changes:
            return 0
        done = await settle(self._database[collection].bulk_write(changes, ordered=False, session=self._session))
        matched: int = done.matched_count
        return matched

    async def delete(self, collection: str, where: Filter) -> int:
        """Delete documents; return how many."""
        done = await settle(self._database[collection].delete_many(where, session=self._session))
        deleted: int = done.deleted_count
        return deleted


class Database:
    """One database of a `MongoClient` or an `AsyncMongoClient`.

    Whatever the client's own settings are, every read is from the primary and of what a majority holds, and
    every write waits for a majority to have it in its journal.

    Args:
        connect: makes a client; called again after a fork and in another event loop, where a client cannot go.
        database: the name of the database in MongoDB.
        name: what errors call it; never a data source name.
        asynchronous: which kind of client `connect` makes.
        patience: seconds for one call.
        reach: seconds for the first call, in which a server must be found.
        owned: whether `close` closes the client: who opens, closes.
    """

    def __init__(
        self,
        connect: Callable[[], Client],
        database: str,
        *,
        name: str,
        asynchronous: bool,
        patience: float = PATIENCE,
        reach: float = REACH,
        owned: bool = True,
    ) -> None:
        self.name = name
        self.asynchronous = asynchronous
        self._connect = connect
        self._database = database
        self._patience = patience
        self._reach = min(reach, patience)
        self._owned = owned
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._loop: object = None
        self._forgotten: list[Client | None] = []
        self._exiting = False
        if asynchronous:
            atexit.register(self._exit)

    @contextmanager
    def asking(self, patience: float | None = None) -> Iterator[Calls]:
        """Ask for single things, each for itself.

        Args:
            patience: seconds for all of them; `None` for those of a call.
        """
        with translated(self.name), pymongo.timeout(self._patience if patience is None else patience):
            yield Calls(self.handle())

    async def hello(self) -> Mapping[str, Any]:
        """Ask the server what it is: the first call of all."""
        with translated(self.name), pymongo.timeout(self._reach):
            said: Mapping[str, Any] = await settle(self.handle().client.admin.command("hello"))
        return said

    async def transact[T](self, work: Callable[[Calls], Awaitable[T]]) -> T:
        """Run `work` in a transaction, again from the start whenever another transaction was in its way.

        An error in `work` rolls back. It must not change anything but the database.
        """
        with translated(self.name):
            until, pause = time.monotonic() + self._patience, _SHORTEST_PAUSE
            while True:
                try:
                    return await self._once(work, until)
                except (PyMongoError, Contended) as error:
                    if isinstance(error, PyMongoError) and not error.has_error_label("TransientTransactionError"):
                        raise
                    if time.monotonic() + pause + _LEAST > until:
                        msg = f"{self.name}: others keep writing the same documents, or the server is away; try again"
                        raise StoreUnavailable(msg) from error
                await self._pause(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _once[T](self, work: Callable[[Calls], Awaitable[T]], until: float) -> T:
        database = self.handle()
        session = database.client.start_session()
        try:
            with pymongo.timeout(until - time.monotonic()):
                await settle(
                    session.start_transaction(
                        read_concern=_SNAPSHOT, write_concern=_DURABLE, read_preference=ReadPreference.PRIMARY
                    )
                )
                result = await work(Calls(database, session))
                await self._commit(session, until)
                return result
        finally:
            with pymongo.timeout(_ABORT):  # past `until` too: what is left open blocks others for a minute
                await settle(session.end_session())

    async def _commit(self, session: Any, until: float) -> None:
        """Commit, and ask again where the answer was lost: a commit is safe to repeat."""
        pause = _SHORTEST_PAUSE
        while True:
            try:
                await settle(session.commit_transaction())
            except PyMongoError as error:
                if not error.has_error_label("UnknownTransactionCommitResult") or time.monotonic() + pause > until:
                    raise
            else:
                return
            await self._pause(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _pause(self, seconds: float) -> None:
        if self.asynchronous:
            await asyncio.sleep(seconds)
        else:
            time.sleep(seconds)  # noqa: ASYNC251  # the sync face has no event loop to keep waiting

    def _exit(self) -> None:
        self._exiting = True

    def handle(self) -> Any:
        """Return PyMongo's handle of the database, on a client of this process and this event loop.

        Raises:
            StoreUnavailable: the interpreter exits, and the loop that had the connections is gone: a new one
                could not look up an address, which asyncio does in a thread.
        """
        loop = asyncio.get_running_loop() if self.asynchronous else None
        client = self._client
        if client is None or loop is not self._loop:
            client = self._renewed(loop)
        return client.get_database(
            self._database, read_preference=ReadPreference.PRIMARY, read_concern=_MAJORITY, write_concern=_DURABLE
        )

    def _renewed(self, loop: object) -> Client:
        with self._lock:
            if self._client is None or loop is not self._loop:
                if self._exiting:
                    msg = f"{self.name}: the program ends without having closed it, in the event loop that opened it"
                    raise StoreUnavailable(msg)
                self._forgotten.append(self._client)
                self._client, self._loop = self._connect(), loop
            return self._client

    async def close(self) -> None:
        """Close a client of our own. Safe to repeat."""
        atexit.unregister(self._exit)
        client, self._client = self._client, None
        if client is None or not self._owned:
            return
        if self.asynchronous and asyncio.get_running_loop() is not self._loop:
            self._forgotten.append(client)  # its loop is gone, and its connections with it
            return
        with suppress(PyMongoError):
            await settle(client.close())

    def forget(self) -> None:
        """Let go of the client without closing it: after a fork its connections are the parent's."""
        self._lock = threading.Lock()
        self._forgotten.append(self._client)
        self._client = None
