"""A durable store of tokens with a cache in front of it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final

from tokenkeep.model import Account, Statistics, TierStatus, TokenInfo
from tokenkeep.ports import Clock, Entry, Right, Sealer, TokenRecord, TokenStore, Use
from tokenkeep.stores.tiered.breaker import Breaker
from tokenkeep.stores.tiered.cache import HOLD, MARK, RECORDS, CacheFailed, RecordCache
from tokenkeep.stores.tiered.sealed import Entry as Cached
from tokenkeep.stores.tiered.sealed import Unreadable, packed, unpacked
from tokenkeep.stores.tiered.seen import Newest, Seen

SKEW: Final = timedelta(seconds=5)
"""How far the clocks of two hosts may be apart."""

RUBBISH: Final = "holds a value that was not written by tokenkeep with these keys"
_MARK_BYTES: Final = 12
_SHORTEST: Final = timedelta(milliseconds=1)


class TieredTokens:
    """Implements `TokenStore` and `NearTokens`. The package says what is promised.

    Args:
        durable: where the tokens are.
        cache: where copies of them are.
        sealer: seals the copies.
        clock: by which a token has ended.
        breaker: decides whether the cache is asked.
        max_staleness: how long a copy lives. After a change that could not be cleared from the cache, nothing
            is read from it for as long.
        monotonic: seconds of a clock that is never set.
    """

    def __init__(  # what it stands between, and its one setting
        self,
        durable: TokenStore,
        cache: RecordCache,
        sealer: Sealer,
        *,
        clock: Clock,
        breaker: Breaker,
        max_staleness: timedelta,
        monotonic: Callable[[], float],
    ) -> None:
        self._durable = durable
        self._cache = cache
        self._sealer = sealer
        self._clock = clock
        self._breaker = breaker
        self._lives = max_staleness
        self._monotonic = monotonic
        self._trusted_from = 0.0
        self._opened: Newest[Account, tuple[bytes, Cached]] = Newest()
        self._seen = Seen()

    async def _ask[T](self, question: Callable[[], Awaitable[T]]) -> T | None:
        """Ask the cache, unless it is left alone; `None` when it did not answer."""
        entered = self._breaker.enter()
        if entered is None:
            return None
        try:
            answer = await question()
        except CacheFailed as failure:
            self._breaker.failed(failure.reason)
            return None
        self._breaker.well(entered)
        return answer

    async def tier(self) -> TierStatus:
        """Tell how the cache is."""
        await self._ask(self._cache.ping)
        reason = self._breaker.reason
        return TierStatus(name=self._cache.name, healthy=reason is None, reason=reason)

    # --- reading

    async def recall(self, account: Account, kind: str) -> TokenRecord | None:
        if self._trusted_from and self._monotonic() < self._trusted_from:
            return None
        value = await self._ask(lambda: self._cache.get(account))
        if value is None or value[:1] in {MARK, HOLD}:
            return None
        entry = await self._believed(account, value)
        record = None if entry is None else entry.records.get(kind)
        if record is None or self._seen.is_old(record) or record.key_id not in self._sealer.key_ids:
            return None
        return self._seen.note(record)

    async def _believed(self, account: Account, value: bytes) -> Cached | None:
        """Open a value; what can be nobody's is put away, and so is an old copy of the whole cache."""
        try:
            entry = self._entry(account, value)
        except Unreadable:
            await self._displace(account)
            self._breaker.failed(RUBBISH)
            return None
        if entry is not None and abs(self._clock.now() - entry.at) > self._lives + SKEW:
            await self._displace(account)
            return None
        return entry

    def _entry(self, account: Account, value: bytes) -> Cached | None:
        """Open a value, once while it is the same."""
        opened = self._opened.get(account)
        if opened is not None and opened[0] == value:
            return opened[1]
        if value[:1] != RECORDS:
            raise Unreadable
        entry = unpacked(self._sealer, account, value)
        if entry is not None:
            self._opened.put(account, (value, entry))
        return entry

    async def _displace(self, account: Account) -> None:
        """Put away what cannot be used."""
        hold = _new(HOLD)
        await self._ask(lambda: self._cache.hold(account, hold, self._lives))

    async def load(self, account: Account, kind: str) -> TokenRecord | None:
        mark, at = _new(MARK), self._clock.now()
        if not await self._ask(lambda: self._cache.mark(account, mark, self._lives)):
            return self._noted(account, kind, await self._durable.load(account, kind))
        records = await self._durable.loaded(account)
        await self._fill(account, mark, at, records)
        return self._noted(account, kind, next((record for record in records if record.kind == kind), None))

    def _noted(self, account: Account, kind: str, record: TokenRecord | None) -> TokenRecord | None:
        if record is not None:
            return self._seen.note(record)
        self._seen.nothing(account, kind)
        return None

    async def _fill(self, account: Account, mark: bytes, at: datetime, records: Sequence[TokenRecord]) -> None:
        """Keep copies of what can be handed out, until the first of them ends."""
        good = [record for record in records if record.access_sealed is not None and not record.rejected]
        ends = [record.expires_at - SKEW for record in good if record.expires_at is not None]
        left = min((end - at for end in ends), default=self._lives)
        if not good or left < _SHORTEST:
            return
        value = packed(self._sealer, account, at, good)
        await self._ask(lambda: self._cache.fill(account, mark, value, left))

    # --- changing

    @asynccontextmanager
    async def _changing(self, account: Account) -> AsyncIterator[None]:
        """Keep the cache empty of an account while the durable store changes it."""
        hold = _new(HOLD)
        await self._ask(lambda: self._cache.hold(account, hold, self._lives))
        try:
            yield
        finally:  # after an error too, for what was asked may have been done
            if await self._ask(lambda: self._cleared(account, hold)) is None:
                self._trusted_from = self._monotonic() + self._lives.total_seconds()

    async def _cleared(self, account: Account, hold: bytes) -> bool:
        await self._cache.clear(account, hold)
        return True

    async def replace(self, records: Sequence[TokenRecord], right: Right, entries: Sequence[Entry]) -> bool:
        async with self._changing(right.account):
            return await self._durable.replace(records, right, entries)

    async def reject(self, token_id: str, account: Account, entry: Entry) -> bool:
        async with self._changing(account):
            return await self._durable.reject(token_id, account, entry)

    async def revoke(self, account: Account, entry: Callable[[str], Entry], *, wishing: bool) -> int:
        async with self._changing(account):
            return await self._durable.revoke(account, entry, wishing=wishing)

    async def count_uses(self, uses: Sequence[Use]) -> None:
        await self._durable.count_uses(uses)
        for use in uses:
            self._seen.counted(use)

    # --- what the durable store answers alone

    async def loaded(self, account: Account) -> list[TokenRecord]:
        return await self._durable.loaded(account)

    async def versions(self, account: Account) -> dict[str, int]:
        return await self._durable.versions(account)

    async def history(self, account: Account, *, now: datetime, limit: int) -> list[TokenInfo]:
        return await self._durable.history(account, now=now, limit=limit)

    async def created_between(
        self, namespace: str, start: datetime, end: datetime, *, user_id: str | None, now: datetime, limit: int
    ) -> list[TokenInfo]:
        return await self._durable.created_between(namespace, start, end, user_id=user_id, now=now, limit=limit)

    async def statistics(self, account: Account, *, kind: str | None, now: datetime) -> Statistics:
        return await self._durable.statistics(account, kind=kind, now=now)

    async def purge(
        self, namespace: str, *, expired_before: datetime, ended_before: datetime, limit: int
    ) -> tuple[int, int]:
        return await self._durable.purge(
            namespace, expired_before=expired_before, ended_before=ended_before, limit=limit
        )

    async def providers_of(self, namespace: str, user_id: str) -> list[str]:
        return await self._durable.providers_of(namespace, user_id)

    async def erase(self, account: Account, *, limit: int) -> tuple[int, int]:
        return await self._durable.erase(account, limit=limit)

    async def sealed_under(self, key_ids: Sequence[str], *, after: str, limit: int) -> list[TokenRecord]:
        return await self._durable.sealed_under(key_ids, after=after, limit=limit)

    async def reseal(self, pairs: Sequence[tuple[TokenRecord, TokenRecord]]) -> int:
        return await self._durable.reseal(pairs)


def _new(kind: bytes) -> bytes:
    return kind + secrets.token_bytes(_MARK_BYTES)
