"""Look-ups on psycopg from threads: prepared, on a few connections that are kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from tokenkeep.stores.sql.wire.coalescing import Key, Row
from tokenkeep.stores.sql.wire.question import Fetch, Question

LINES: Final = 4


class ThreadWire:
    """Implements `Wire`. A connection on which anything went wrong is dropped.

    Args:
        connect: opens a connection of psycopg, on which each statement is its own transaction.
        timeout: how many seconds a thread waits for its turn.
    """

    def __init__(self, connect: Callable[[], Any], *, timeout: float) -> None:
        self._connect = connect
        self._timeout = timeout
        self.forget()

    def fetching(self, question: Question) -> Fetch:
        async def fetch(key: Key) -> Row:
            if not self._places.acquire(timeout=self._timeout):
                msg = "no connection became free"
                raise TimeoutError(msg)
            try:
                return self._first(question, key)
            finally:
                self._places.release()

        return fetch

    def _first(self, question: Question, key: Key) -> Row:
        connection = self._take()
        try:
            row: Row = connection.execute(question.one, key, prepare=True, binary=True).fetchone()
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return row

    def _take(self) -> Any:
        try:
            return self._idle.pop()  # the one that was used last, whose pages are warm
        except IndexError:
            return self._connect()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def forget(self) -> None:
        self._idle: list[Any] = []
        self._places = threading.BoundedSemaphore(LINES)
