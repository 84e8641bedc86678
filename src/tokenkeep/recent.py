"""What was verified a moment ago: a cache whose staleness has a proved bound.

An answer is trusted until `bound` after the *start* of the query that brought it. The database gave that
query its state at some moment after the start, so whatever was revoked anywhere is refused here at most
`bound` after its revocation was committed, whether or not anything told this process of it. No channel can
be lost, because there is none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from tokenkeep.model import IssuedToken

ENTRIES: Final = 100_000
"""About 190 bytes each beside the token's record."""


class Ticket(NamedTuple):
    """Taken before a query, shown when its answer is to be kept."""

    trusted_until: float
    generation: int


class Recent:
    """Remembers verified tokens by their ids; neither tokens nor refusals are kept. Safe to use from threads.

    Args:
        bound: how long an answer is trusted.
        monotonic: seconds of a clock that is never set.
        entries: the oldest leave when there are more.
    """

    def __init__(self, bound: timedelta, *, monotonic: Callable[[], float], entries: int = ENTRIES) -> None:
        self._bound = bound.total_seconds()
        self._monotonic = monotonic
        self._entries = entries
        self._lock = threading.Lock()
        self._generation = 0
        self._kept: dict[bytes, tuple[float, datetime, IssuedToken]] = {}

    def get(self, token_id: bytes, now: datetime) -> IssuedToken | None:
        """Return what is still trusted and has not ended at `now`."""
        kept = self._kept.get(token_id)
        if kept is None:
            return None
        trusted_until, ends_at, token = kept
        return token if self._monotonic() < trusted_until and now < ends_at else None

    def ticket(self) -> Ticket:
        """Begin a query."""
        return Ticket(self._monotonic() + self._bound, self._generation)

    def keep(self, token_id: bytes, token: IssuedToken, *, ends_at: datetime, ticket: Ticket) -> None:
        """Remember an answer, unless this process has revoked anything since its query began."""
        with self._lock:
            if ticket.generation != self._generation:
                return
            self._kept.pop(token_id, None)
            while len(self._kept) >= self._entries:
                del self._kept[next(iter(self._kept))]
            self._kept[token_id] = (ticket.trusted_until, ends_at, token)

    def drop(self, *token_ids: bytes) -> None:
        """Forget tokens that were revoked, and whatever a query under way will say of them."""
        with self._lock:
            self._generation += 1
            for token_id in token_ids:
                self._kept.pop(token_id, None)

    def clear(self) -> None:
        """Forget everything, and whatever the queries under way will say."""
        with self._lock:
            self._generation += 1
            self._kept = {}

    def forget(self) -> None:
        """After a fork: begin anew."""
        self._lock = threading.Lock()
        self._kept = {}
