"""Another server that holds the same rows a moment later, for reports only."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from tokenkeep.errors import StoreUnavailable

RESTS: Final = 5.0
"""Seconds for which a replica that failed is not asked again."""

_logger = logging.getLogger("tokenkeep")


class _Database(Protocol):
    name: str

    async def read[T](self, work: Callable[[Any], Awaitable[T]]) -> T: ...

    async def close(self) -> None: ...

    def forget_connections(self) -> None: ...


class Replica:
    """Answers reports while it answers at all.

    Args:
        database: on that server; it must give up at once rather than try again.
    """

    def __init__(self, database: _Database) -> None:
        self._database = database
        self._rests_until: float | None = None

    @property
    def rests(self) -> bool:
        """Whether it failed a moment ago."""
        return self._rests_until is not None and time.monotonic() < self._rests_until

    async def read[T](self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run a report here.

        Raises:
            StoreUnavailable: it does not answer, so somebody else has to; it then rests.
        """
        try:
            answer = await self._database.read(work)
        except StoreUnavailable as error:
            if self._rests_until is None:
                _logger.warning("%s; the primary answers in its place", error)
            self._rests_until = time.monotonic() + RESTS
            raise
        self._rests_until = None
        return answer

    async def close(self) -> None:
        """End its connections."""
        await self._database.close()

    def forget_connections(self) -> None:
        """Let go of its connections: after a fork they are the parent's."""
        self._database.forget_connections()
