"""Uses, handed over user by user: they lie in different slots, so no script takes them all."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from tokenkeep.errors import StoreError
from tokenkeep.stores.redis.store.names import Whose


class Uses[K](NamedTuple):
    """So many uses of one token, the last of them at this moment."""

    token_id: K
    number: int
    last: datetime


class Counting[K]:
    """Counts what can be counted, and remembers it when the rest could not be: whoever failed hands all over again.

    Args:
        whose: finds out to whom a token belongs; `None` for nobody any more.
        write: adds the uses of one user's tokens.
    """

    def __init__(
        self,
        whose: Callable[[K], Awaitable[Whose | None]],
        write: Callable[[Whose, Sequence[Uses[K]]], Awaitable[None]],
    ) -> None:
        self._whose = whose
        self._write = write
        self._lock = threading.Lock()
        self._ahead: dict[K, int] = {}

    async def count(self, uses: Sequence[Uses[K]]) -> None:
        """Add uses.

        Raises:
            StoreError: some could not be added; the same ones are expected again, with what came meanwhile.
        """
        by_user: dict[Whose, list[Uses[K]]] = {}
        for use in uses:
            whose = await self._whose(use.token_id)
            if whose is not None:
                by_user.setdefault(whose, []).append(use)
        failure: StoreError | None = None
        written: list[Uses[K]] = []
        for whose, theirs in by_user.items():
            left = [self._left_of(use) for use in theirs]
            try:
                await self._write(whose, [use for use in left if use.number])
            except StoreError as error:
                failure = error
                self._went_ahead(
                    [use._replace(number=use.number - new.number) for use, new in zip(theirs, left, strict=True)]
                )
            else:
                written += theirs
        if failure is not None:
            self._went_ahead(written)
            raise failure

    def _left_of(self, use: Uses[K]) -> Uses[K]:
        """Return the uses that did not go ahead."""
        with self._lock:
            ahead = self._ahead.pop(use.token_id, 0)
            if ahead > use.number:
                self._ahead[use.token_id] = ahead - use.number
        return use._replace(number=max(0, use.number - ahead))

    def _went_ahead(self, uses: Sequence[Uses[K]]) -> None:
        """Remember uses that are counted and will be handed over again."""
        with self._lock:
            for use in uses:
                self._ahead[use.token_id] = self._ahead.get(use.token_id, 0) + use.number

    def forget(self) -> None:
        """After a fork: the uses are the parent's, and so is what went ahead of them."""
        self._lock = threading.Lock()
        self._ahead = {}
