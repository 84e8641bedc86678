"""Writing to SQLite: one connection, and one commit for all who wait at the same moment."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from tokenkeep._stepping import run
from tokenkeep.errors import StoreUnavailable
from tokenkeep.leading import Line
from tokenkeep.stores.sql.database import Transaction

TOGETHER: Final = 100
"""Changes in one commit."""

type Work[T] = Callable[[Transaction], Awaitable[T]]


class Job[T]:
    """A change that is to be made, and what came of it. Implements `Standing`.

    Attributes:
        wake: told once the job is done; from whatever thread made the change.
    """

    __slots__ = ("done", "error", "leads", "value", "wake", "work")

    value: T

    def __init__(self, work: Work[T], wake: Callable[[], object] = bool) -> None:
        self.work = work
        self.wake = wake
        self.done = False
        self.leads = False
        self.error: BaseException | None = None

    def attempt(self, transaction: Transaction) -> None:
        """Make the change; it is done only when it is committed."""
        self.value, self.error = run(_coroutine(self.work, transaction)), None

    def finish(self, error: BaseException | None = None) -> None:
        """Say that it is committed, or why it is not."""
        self.error = self.error if error is None else error
        self.done = True
        self.wake()


async def _coroutine[T](work: Work[T], transaction: Transaction) -> T:
    return await work(transaction)


class Writer:
    """Makes changes in transactions of one connection, several in one where they wait for each other.

    Whoever comes first makes all the changes that lie there and commits once: a change that fails is taken
    back alone, by a savepoint. When the whole transaction fails each is tried by itself, so that none suffers
    for another. Safe to use from threads.

    Args:
        connect: opens the connection; called at the first change.
        wrap: makes a transaction of it.
    """

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], wrap: Callable[[sqlite3.Connection], Transaction]
    ) -> None:
        self._connect = connect
        self._wrap = wrap
        self._connection: sqlite3.Connection | None = None
        self.forget()

    def lay_down(self, job: Job[Any]) -> bool:
        """Let a job wait; `True`: nobody does such jobs now, so `serve` has to be called."""
        return self._line.join(job)

    def do(self, job: Job[Any]) -> None:
        """Do a job, or wait until somebody has done it."""
        done = threading.Lock()
        done.acquire()
        job.wake = done.release
        if not self._line.join(job):
            self._stand(job, done)
        if job.done:
            return
        try:
            while not job.done:
                self._serve_some()
        finally:
            self._line.hand_over()

    def _stand(self, job: Job[Any], done: threading.Lock) -> None:
        try:
            done.acquire()
        except BaseException:
            self._line.leave(job)
            raise

    def serve(self) -> None:
        """Do what waits."""
        try:
            while not self._line.end():
                self._serve_some()
        except BaseException:
            self._line.abandon()
            raise

    def _serve_some(self) -> None:
        with self._turn:
            self._serve_batch(self._line.take(TOGETHER))

    def _serve_batch(self, batch: Sequence[Job[Any]]) -> None:
        try:
            if not self._made(batch):
                for job in batch:
                    self._made([job])
        finally:
            for job in batch:
                if not job.done:
                    job.finish(StoreUnavailable("the change was interrupted and has not happened; try again"))

    def _made(self, batch: Sequence[Job[Any]]) -> bool:
        """Make changes in one transaction; `False` when it was lost as a whole, and each is to be tried by itself.

        Whoever is interrupted after the COMMIT still says to all that it has happened.
        """
        try:
            connection = self._begun()
        except sqlite3.Error as error:
            _finish(batch, error)
            return True
        attempt, committing = self._within if len(batch) > 1 else self._alone, False
        try:
            for job in batch:
                attempt(job, connection)
            committing = True
            connection.execute("COMMIT")
            _finish(batch)
        except BaseException as error:
            if committing and not isinstance(error, sqlite3.Error) and not connection.in_transaction:
                _finish(batch)
                raise
            self._roll_back()
            if not isinstance(error, Exception):
                raise
            if len(batch) > 1:
                return False
            _finish(batch, error)
        return True

    def _begun(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def _alone(self, job: Job[Any], connection: sqlite3.Connection) -> None:
        job.attempt(self._wrap(connection))

    def _within(self, job: Job[Any], connection: sqlite3.Connection) -> None:
        connection.execute("SAVEPOINT change")
        try:
            job.attempt(self._wrap(connection))
        except Exception as error:  # noqa: BLE001  # its caller raises it
            job.error = error
            connection.execute("ROLLBACK TO change")  # fails when SQLite has taken back the whole transaction
        connection.execute("RELEASE change")

    def _roll_back(self) -> None:
        """Take back what is open; a connection that cannot even do that is dropped, and its transaction with it."""
        connection = self._connection
        if connection is None or not connection.in_transaction:
            return
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection = None
            connection.close()

    def close(self) -> None:
        """Close the connection when nobody uses it any more."""
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def forget(self) -> None:
        """Begin anew without closing anything: after a fork the connection is the parent's."""
        self._turn = threading.Lock()
        self._line = Line[Job[Any]]()
        self._forgotten, self._connection = self._connection, None  # closing it would drop the parent's locks


def _finish(batch: Sequence[Job[Any]], error: BaseException | None = None) -> None:
    for job in batch:
        if not job.done:
            job.finish(error)
