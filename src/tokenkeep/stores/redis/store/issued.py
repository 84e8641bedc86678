"""Issued tokens in Redis."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from secrets import token_bytes
from typing import Any, Final

from tokenkeep._kept import Kept
from tokenkeep.model import Account, Statistics
from tokenkeep.ports import Entry, Grant, IssuedRecord, Spending
from tokenkeep.stores.plain import MICROSECOND, to_micros
from tokenkeep.stores.redis.store.audit import RedisAudit
from tokenkeep.stores.redis.store.counting import Counting, Uses
from tokenkeep.stores.redis.store.database import Argument, Database
from tokenkeep.stores.redis.store.issued_records import Fields, alone, fields_of, issued_arguments, record
from tokenkeep.stores.redis.store.names import Whose
from tokenkeep.stores.redis.store.pointers import Pointers
from tokenkeep.stores.redis.store.scripts import script
from tokenkeep.stores.redis.store.sweeping import Sweeps
from tokenkeep.stores.redis.store.values import pairs, suspicion

_ADD: Final = script("issued_add")
_WITHIN: Final = script("issued_within")
_END: Final = script("issued_end")
_END_ALL: Final = script("issued_end_all")
_SPEND: Final = script("issued_spend")
_LIVING: Final = script("issued_living")
_USES: Final = script("issued_uses")
_REDIGEST: Final = script("issued_redigest")
_PURGE: Final = script("issued_purge")

_TOGETHER: Final = 1000
"""Tokens that are revoked by one script."""

_CLEARED: Final = 500
"""Tokens that are deleted by one script; the server does nothing else meanwhile."""

_KEPT: Final = 10_000
"""How many tokens are remembered in decoded form, to be handed out again while they read the same."""


class RedisIssued:
    """Implements `IssuedStore`."""

    def __init__(self, database: Database, audit: RedisAudit) -> None:
        self._database = database
        self._names = database.names
        self._audit = audit
        self._pointers = Pointers(database)
        self._sweeps = Sweeps(database)
        self._counting = Counting[bytes](self._owner, self._count)
        database.at_fork(self._counting.forget)
        self._kept: Kept[bytes, tuple[Fields, IssuedRecord, IssuedRecord]] = Kept(_KEPT)

    # --- adding and finding

    async def add(self, grants: Sequence[Grant]) -> None:
        by_user: dict[Whose, list[Grant]] = {}
        for grant in grants:
            first = grant.records[0]
            by_user.setdefault(Whose.of(first.namespace, first.user_id), []).append(grant)
        for whose, theirs in by_user.items():
            await self._pointers.put(self._leading_to(theirs), whose)
            entries = [grant.entry for grant in theirs]
            account = _account(theirs[0].records[0])
            await self._audit.change(_ADD, account, self._keys(whose), *_arguments(theirs), events=entries)

    async def add_within(
        self,
        grant: Grant,
        choose: Callable[[Sequence[IssuedRecord]], Collection[bytes] | None],
        ended: Callable[[str], Entry],
    ) -> list[bytes] | None:
        first, now = grant.records[0], grant.entry.at
        whose, new = Whose.of(first.namespace, first.user_id), first.id.hex()

        def each(token_id: str) -> Entry:
            return grant.entry if token_id == new else ended(token_id)

        while True:
            living = await self._all_living(first.namespace, first.user_id, now=now)
            chosen = choose(living)
            if chosen is None:
                await self._pointers.remove(self._leading_to([grant]))
                return None
            await self._pointers.put(self._leading_to([grant]), whose)
            ids = (b"".join(sorted(one.id for one in living)), b"".join(sorted(chosen)))
            shown = (to_micros(now), *ids, *_arguments([grant]))
            tokens = [new, *(token_id.hex() for token_id in sorted(chosen))]
            done, revoked = await self._audit.change(
                _WITHIN, _account(first), self._keys(whose), *shown, each=each, tokens=tokens
            )
            if done:
                return list(revoked)

    def _leading_to(self, grants: Sequence[Grant]) -> list[bytes]:
        return [self._names.to_issued(new.id) for grant in grants for new in grant.records]

    def _keys(self, whose: Whose) -> list[bytes]:
        names = self._names
        return [names.issued(whose), names.by_end(whose), names.living(whose)]

    async def find(self, token_id: bytes, *, coarse: bool = False) -> IssuedRecord | None:  # noqa: ARG002  # never is it behind
        kept = await self._find(token_id)
        return None if kept is None or kept[1].access_lifetime is not None else kept[2]

    async def find_refresh(self, token_id: bytes) -> IssuedRecord | None:
        kept = await self._find(token_id)
        return None if kept is None or kept[1].access_lifetime is None else kept[1]

    async def _find(self, token_id: bytes) -> tuple[Fields, IssuedRecord, IssuedRecord] | None:
        whose = await self._owner(token_id)
        if whose is None:
            return None
        fields: Fields = await self._database.ask("HMGET", self._names.issued(whose), *fields_of(token_id))
        if fields[0] is None or fields[3] is not None:
            return None
        kept = self._kept.get(token_id)
        if kept is None or kept[0] != fields:
            with suspicion(self._database.name):
                found = self._owned(whose, record(token_id, fields))
            self._kept.keep(token_id, kept := (fields, found, alone(found)))
        return kept

    @staticmethod
    def _owned(whose: Whose, found: IssuedRecord) -> IssuedRecord:
        if Whose.of(found.namespace, found.user_id) != whose:
            msg = "a token stands where it does not belong"
            raise ValueError(msg)
        return found

    # --- ending

    async def end_issued(self, namespace: str, token_id: bytes, entry: Callable[[str], Entry]) -> list[bytes]:
        whose = await self._owner(token_id)
        if whose is None or not whose.is_in(namespace):
            return []
        known = await self._database.ask("HMGET", self._names.issued(whose), *fields_of(token_id))
        if known[0] is None:
            return []
        with suspicion(self._database.name):
            account = _account(self._owned(whose, record(token_id, known)))
        shown, tokens = (token_id, to_micros(entry("").at)), [token_id.hex()]
        keys = self._ending(whose)
        return list(await self._audit.change(_END, account, keys, *shown, each=entry, tokens=tokens))

    def _ending(self, whose: Whose) -> list[bytes]:
        names = self._names
        return [names.answer(whose), names.issued(whose), names.living(whose)]

    async def end_all_issued(
        self, namespace: str, user_id: str, entry: Callable[[str], Entry], *, keep: bytes | None
    ) -> list[bytes]:
        whose, shown = Whose.of(namespace, user_id), (keep or b"", to_micros(entry("").at), _TOGETHER)
        account = Account(namespace, "", user_id)
        ended: list[bytes] = []
        while True:
            some = await self._audit.change(_END_ALL, account, self._ending(whose), *shown, each=entry)
            ended += some
            if len(some) < _TOGETHER:
                return ended

    # --- refreshing

    async def spend(
        self, spent: IssuedRecord, grant: Grant, reused: Callable[[str], Entry], *, grace: timedelta, successors: int
    ) -> Spending:
        whose = Whose.of(spent.namespace, spent.user_id)
        await self._pointers.put(self._leading_to([grant]), whose)
        shown = (spent.id, to_micros(grant.entry.at), grace // MICROSECOND, successors, *_arguments([grant]))
        outcome = await self._audit.change(
            _SPEND, _account(spent), self._keys(whose), *shown, events=[grant.entry], each=reused
        )
        if outcome != b"done":
            await self._pointers.remove(self._leading_to([grant]))
        return Spending[outcome.decode().upper()]

    # --- the rest

    async def issued(self, namespace: str, user_id: str, *, now: datetime, limit: int) -> list[IssuedRecord]:
        found = await self._all_living(namespace, user_id, now=now)
        found.sort(key=lambda one: one.id)
        found.sort(key=lambda one: one.created_at, reverse=True)
        return found[:limit]

    async def _all_living(self, namespace: str, user_id: str, *, now: datetime) -> list[IssuedRecord]:
        whose = Whose.of(namespace, user_id)
        rows = await self._database.run(_LIVING, [self._names.issued(whose), self._names.living(whose)], to_micros(now))
        with suspicion(self._database.name):
            return [record(token_id, fields) for token_id, fields in rows]

    async def count_issued_uses(self, uses: Sequence[tuple[bytes, int, datetime]]) -> None:
        await self._counting.count([Uses(*use) for use in uses])

    async def _owner(self, token_id: bytes) -> Whose | None:
        return await self._pointers.find(self._names.to_issued(token_id))

    async def _count(self, whose: Whose, uses: Sequence[Uses[bytes]]) -> None:
        arguments = [argument for use in uses for argument in (use.token_id, use.number, to_micros(use.last))]
        await self._database.run(_USES, [self._names.answer(whose), self._names.issued(whose)], *arguments)

    async def redigest(self, token_id: bytes, old: bytes, new: bytes, key_id: str | None) -> bool:
        whose = await self._owner(token_id)
        if whose is None:
            return False
        return bool(await self._database.run(_REDIGEST, [self._names.issued(whose)], token_id, old, new, key_id or b""))

    async def erase_issued(self, namespace: str, user_id: str, *, limit: int) -> int:
        keys = self._keys(Whose.of(namespace, user_id))[:3]
        gone = await self._database.run(_PURGE, keys, "+inf", min(limit, _CLEARED))
        await self._pointers.remove([self._names.to_issued(token_id) for token_id in gone])
        return len(gone)

    async def purge_issued(
        self, namespace: str, *, before: datetime, after: bytes, limit: int
    ) -> tuple[int, bytes | None]:
        sweep = self._sweeps.take(after or None, self._names.every(b"x", namespace))
        looked_at = deleted = 0
        while looked_at < limit and (by_end := await sweep.next()) is not None:
            keys = self._keys(self._names.whose(by_end))
            gone = await self._database.run(_PURGE, keys, to_micros(before), _CLEARED)
            await self._pointers.remove([self._names.to_issued(token_id) for token_id in gone])
            deleted += len(gone)
            looked_at += len(gone) + 1
            if len(gone) == _CLEARED:
                sweep.put_back(by_end)
        if looked_at < limit:
            return deleted, None
        self._sweeps.leave(name := token_bytes(16), sweep)
        return deleted, name

    async def issued_statistics(self, namespace: str, user_id: str, *, now: datetime) -> Statistics:
        issued = self._names.issued(Whose.of(namespace, user_id))
        held = pairs(await self._database.ask("HGETALL", issued))
        with suspicion(self._database.name):
            return _statistics(held, now)


def _account(record: IssuedRecord) -> Account:
    return Account(record.namespace, "", record.user_id)


def _arguments(grants: Sequence[Grant]) -> list[Argument]:
    return [argument for grant in grants for new in grant.records for argument in issued_arguments(new)]


def _statistics(held: Mapping[bytes, bytes], now: datetime) -> Statistics:
    found: list[tuple[IssuedRecord, Any, int]] = []
    for field in held:
        if field.startswith(b"D"):
            token_id = field[1:]
            one = record(token_id, [held.get(name) for name in fields_of(token_id)])
            if one.access_lifetime is None:
                found.append((one, held.get(b"R" + token_id), int(held.get(b"U" + token_id, 0))))
    uses = sum(count for _, _, count in found)
    return Statistics(
        total_tokens=len(found),
        active_tokens=sum(revoked is None and one.expires_at > now for one, revoked, _ in found),
        total_usage=uses,
        avg_usage_per_token=uses / len(found) if found else 0.0,
        last_generation=max((one.created_at for one, _, _ in found), default=None),
        last_usage=max((one.last_used_at for one, _, _ in found if one.last_used_at is not None), default=None),
    )
