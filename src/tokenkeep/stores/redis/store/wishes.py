"""What providers have still to be told, in Redis: secrets that stay beside what is in place."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from tokenkeep.ports import Entry, Wish
from tokenkeep.stores.plain import from_micros, to_micros
from tokenkeep.stores.redis.store.audit import RedisAudit
from tokenkeep.stores.redis.store.database import Argument, Database
from tokenkeep.stores.redis.store.names import Whose
from tokenkeep.stores.redis.store.records import Fields, ended_record, slots_of
from tokenkeep.stores.redis.store.scripts import script
from tokenkeep.stores.redis.store.sweeping import Sweep, Sweeps
from tokenkeep.stores.redis.store.values import pairs, suspicion

_CLAIM: Final = script("wish_claim")
_SETTLE: Final = script("wish_settle")
_PAGE: Final = 1000


class RedisWishes:
    """Implements `WishStore`."""

    def __init__(self, database: Database, audit: RedisAudit) -> None:
        self._database = database
        self._names = database.names
        self._audit = audit
        self._sweeps = Sweeps(database)

    async def claim_wish(
        self,
        namespace: str,
        *,
        providers: Collection[str],
        user_id: str | None,
        now: datetime,
        over: datetime,
        until: datetime,
    ) -> Wish | None:
        shown: list[Argument] = [
            to_micros(now),
            to_micros(over),
            to_micros(until),
            *(slots_of(name) for name in providers),
        ]
        if user_id is not None:
            return await self._claim(Whose.of(namespace, user_id), shown, until)
        sweep = self._sweeps.take(namespace, self._names.every(b"a", namespace))
        while (place := await sweep.next()) is not None:
            wish = await self._claim(self._names.whose(place), shown, until)
            if wish is not None:
                sweep.put_back(place)  # there may be more
                self._sweeps.leave(namespace, sweep)
                return wish
        return None

    async def _claim(self, whose: Whose, shown: Sequence[Argument], until: datetime) -> Wish | None:
        keys = [self._names.place(whose), self._names.history(whose)]
        answer: Fields | None = await self._database.run(_CLAIM, keys, *shown)
        if answer is None:
            return None
        _, *fields, ended = answer
        with suspicion(self._database.name):
            moment = int((ended or b"").partition(b":")[0])
            return Wish(record=ended_record(fields), ended_at=from_micros(moment), claimed_until=until)

    async def settle_wish(self, wish: Wish, entry: Entry, *, again_at: datetime | None) -> bool:
        account = wish.record.account
        whose = Whose.of(account.namespace, account.user_id)
        keys = [self._names.answer(whose), self._names.place(whose)]
        shown = (wish.record.id, to_micros(wish.claimed_until), "" if again_at is None else to_micros(again_at))
        return bool(await self._audit.change(_SETTLE, account, keys, *shown, events=[entry]))

    async def count_wishes(self) -> int:
        found: set[tuple[bytes, bytes]] = set()
        sweep = Sweep(self._database, self._names.every(b"a"))
        while (place := await sweep.next()) is not None:
            cursor = b"0"
            while True:
                cursor, flat = await self._database.ask("HSCAN", place, cursor, "MATCH", "Ww:*", "COUNT", _PAGE)
                found |= {(place, field) for field in pairs(flat)}
                if int(cursor) == 0:
                    break
        return len(found)
