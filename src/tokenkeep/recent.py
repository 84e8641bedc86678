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


class Ticket(NamedTuple):
    """Taken before a query, shown when its answer is to be kept."""

    trusted_until: float
    generation: int


class Recent:
    """Remembers verified tokens by their fingerprints; neither tokens nor refusals are kept. Safe to use from threads.

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
        self._dropped: dict[str, float] = {}

    def get(self, fingerprint: bytes, now: datetime) -> IssuedToken | None:
        """Return what is still trusted and has not ended at `now`."""
        kept = self._kept.get(fingerprint)
        if kept is None:
            return None
        trusted_until, ends_at, token = kept
        moment = self._monotonic()
        if moment >= trusted_until or now >= ends_at or self._dropped.get(token.id, moment) > moment:
            return None
        return token

    def ticket(self) -> Ticket:
        """Begin a query."""
        return Ticket(self._monotonic() + self._bound, self._generation)

    def keep(self, fingerprint: bytes, token: IssuedToken, *, ends_at: datetime, ticket: Ticket) -> None:
        """Remember an answer, unless this process has revoked anything since its query began."""
        with self._lock:
            if ticket.generation != self._generation:
                return
            self._kept.pop(fingerprint, None)
            while len(self._kept) >= self._entries:
                del self._kept[next(iter(self._kept))]
            self._kept[fingerprint] = (ticket.trusted_until, ends_at, token)

    def drop(self, *token_ids: str) -> None:
        """Trust nothing that is kept of tokens that were revoked, nor what a query under way will say of them.

        Their ids are noted for as long as an answer from before could be trusted.
        """
        now = self._monotonic()
        with self._lock:
            self._generation += 1
            still = {token_id: until for token_id, until in self._dropped.items() if until > now}
            self._dropped = still | dict.fromkeys(token_ids, now + self._bound)

    def clear(self) -> None:
        """Forget everything, and whatever the queries under way will say."""
        with self._lock:
            self._generation += 1
            self._kept = {}

    def forget(self) -> None:
        """After a fork: begin anew."""
        self._lock = threading.Lock()
        self._kept = {}
