"""Acquired tokens in Redis."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from tokenkeep._kept import Kept
from tokenkeep.model import Account, Statistics, TokenInfo
from tokenkeep.ports import Entry, Lease, Right, TokenRecord, Use
from tokenkeep.stores.plain import to_micros
from tokenkeep.stores.redis.store.audit import RedisAudit
from tokenkeep.stores.redis.store.counting import Counting, Uses
from tokenkeep.stores.redis.store.database import Argument, Database
from tokenkeep.stores.redis.store.names import Whose
from tokenkeep.stores.redis.store.pointers import Pointers
from tokenkeep.stores.redis.store.records import (
    LETTERS,
    Fields,
    ended_record,
    fields_of,
    info,
    provider_in,
    record,
    records_in,
    slots_of,
    token_arguments,
)
from tokenkeep.stores.redis.store.scripts import script
from tokenkeep.stores.redis.store.sweeping import Sweep, Sweeps
from tokenkeep.stores.redis.store.values import pairs, suspicion

_REPLACE: Final = script("token_replace")
_REJECT: Final = script("token_reject")
_REVOKE: Final = script("token_revoke")
_USES: Final = script("token_uses")
_INFOS: Final = script("token_infos")
_ERASE: Final = script("token_erase")
_PURGE: Final = script("token_purge")
_RESEAL: Final = script("token_reseal")

_KEPT: Final = 10_000
"""How many tokens are remembered in decoded form, to be handed out again while they read the same."""

_VERSION: Final = re.compile(rb"V[0-9]+:")
"""How the field begins that counts the versions of a slot: it outlives the tokens."""

_ALL: Final = 1 << 53


class RedisTokens:
    """Implements `TokenStore`."""

    def __init__(self, database: Database, audit: RedisAudit) -> None:
        self._database = database
        self._names = database.names
        self._audit = audit
        self._pointers = Pointers(database)
        self._sweeps = Sweeps(database)
        self._counting = Counting[str](self._owner, self._count)
        database.at_fork(self._counting.forget)
        self._kept: Kept[tuple[Account, str], tuple[Fields, TokenRecord]] = Kept(_KEPT)

    # --- what is in place

    async def load(self, account: Account, kind: str) -> TokenRecord | None:
        whose = Whose.of(account.namespace, account.user_id)
        slot = slots_of(account.provider) + kind
        fields: Fields = await self._database.ask("HMGET", self._names.place(whose), *fields_of(slot))
        if fields[0] is None:
            return None
        kept = self._kept.get((account, kind))
        if kept is not None and kept[0] == fields:
            return kept[1]
        with suspicion(self._database.name):
            found = record(fields, account, kind)
        self._kept.keep((account, kind), (fields, found))
        self._pointers.know(self._names.to_token(found.id), whose)
        return found

    async def loaded(self, account: Account) -> list[TokenRecord]:
        held = await self._held(self._names.place(Whose.of(account.namespace, account.user_id)))
        with suspicion(self._database.name):
            return [found for found in records_in(held) if found.account == account]

    async def _held(self, place: bytes) -> dict[bytes, bytes]:
        return pairs(await self._database.ask("HGETALL", place))

    async def versions(self, account: Account) -> dict[str, int]:
        held = await self._held(self._names.place(Whose.of(account.namespace, account.user_id)))
        prefix = b"V" + slots_of(account.provider).encode()
        with suspicion(self._database.name):
            return {
                field.removeprefix(prefix).decode(): int(version)
                for field, version in held.items()
                if field.startswith(prefix)
            }

    # --- changing

    async def replace(self, records: Sequence[TokenRecord], right: Right, entries: Sequence[Entry]) -> bool:
        account = right.account
        whose = Whose.of(account.namespace, account.user_id)
        leading = [self._names.to_token(new.id) for new in records]
        await self._pointers.put(leading, whose)
        arguments = [argument for new in records for argument in token_arguments(new)]
        shown = (account.provider, *_shown(right), self._names.channel, *arguments)
        is_there = bool(await self._audit.change(_REPLACE, account, self._tokens_of(whose), *shown, events=entries))
        if not is_there:
            await self._pointers.remove(leading)
        return is_there

    def _tokens_of(self, whose: Whose) -> list[bytes]:
        return [self._names.place(whose), self._names.history(whose), self._names.order(whose)]

    async def reject(self, token_id: str, account: Account, entry: Entry) -> bool:
        whose = Whose.of(account.namespace, account.user_id)
        keys = [self._names.answer(whose), self._names.place(whose)]
        return bool(await self._audit.change(_REJECT, account, keys, token_id, to_micros(entry.at), events=[entry]))

    async def revoke(self, account: Account, entry: Callable[[str], Entry], *, wishing: bool) -> int:
        whose = Whose.of(account.namespace, account.user_id)
        keys = [self._names.answer(whose), *self._tokens_of(whose)]
        shown = (account.provider, slots_of(account.provider), to_micros(entry("").at), int(wishing))
        return int(await self._audit.change(_REVOKE, account, keys, *shown, each=entry))

    async def count_uses(self, uses: Sequence[Use]) -> None:
        await self._counting.count([Uses(use.token_id, use.count, use.last_used_at) for use in uses])

    async def _owner(self, token_id: str) -> Whose | None:
        return await self._pointers.find(self._names.to_token(token_id))

    async def _count(self, whose: Whose, uses: Sequence[Uses[str]]) -> None:
        keys = [self._names.answer(whose), self._names.place(whose), self._names.history(whose)]
        arguments = [argument for use in uses for argument in (use.token_id, use.number, to_micros(use.last))]
        await self._database.run(_USES, keys, *arguments)

    # --- what is known without the secrets

    async def history(self, account: Account, *, now: datetime, limit: int) -> list[TokenInfo]:
        whose = Whose.of(account.namespace, account.user_id)
        return _newest(await self._infos(whose, slots_of(account.provider), None, now, limit), limit)

    async def _infos(
        self, whose: Whose, slots: str, between: tuple[datetime, datetime] | None, now: datetime, limit: int
    ) -> list[TokenInfo]:
        span: tuple[str | int, str | int] = ("-inf", "+inf")
        if between is not None:
            span = (to_micros(between[0]), to_micros(between[1]))
        rows = await self._database.run(_INFOS, self._tokens_of(whose), slots, *span, limit)
        with suspicion(self._database.name):
            return [info(row, now) for row in rows]

    async def created_between(
        self, namespace: str, start: datetime, end: datetime, *, user_id: str | None, now: datetime, limit: int
    ) -> list[TokenInfo]:
        if user_id is not None:
            return _newest(await self._infos(Whose.of(namespace, user_id), "", (start, end), now, limit), limit)
        found: list[TokenInfo] = []
        sweep = Sweep(self._database, self._names.every(b"a", namespace))
        while (place := await sweep.next()) is not None:
            found += await self._infos(self._names.whose(place), "", (start, end), now, limit)
            if len(found) > 2 * limit:
                found = _newest(found, limit)
        return _newest(found, limit)

    async def statistics(self, account: Account, *, kind: str | None, now: datetime) -> Statistics:
        whose = Whose.of(account.namespace, account.user_id)
        infos = await self._infos(whose, slots_of(account.provider), None, now, _ALL)
        mine = [one for one in infos if kind is None or one.kind == kind]
        uses = sum(one.usage_count for one in mine)
        return Statistics(
            total_tokens=len(mine),
            active_tokens=sum(one.active for one in mine),
            total_usage=uses,
            avg_usage_per_token=uses / len(mine) if mine else 0.0,
            last_generation=max((one.created_at for one in mine), default=None),
            last_usage=max((one.last_used_at for one in mine if one.last_used_at is not None), default=None),
        )

    # --- upkeep

    async def purge(
        self, namespace: str, *, expired_before: datetime, ended_before: datetime, limit: int
    ) -> tuple[int, int]:
        name, erased, deleted = (namespace, expired_before, ended_before), 0, 0
        sweep = self._sweeps.take(name, self._names.every(b"a", namespace))
        while max(erased, deleted) < limit and (place := await sweep.next()) is not None:
            some, gone = await self._database.run(
                _PURGE,
                self._tokens_of(self._names.whose(place)),
                *(to_micros(expired_before), to_micros(ended_before), limit - erased, limit - deleted),
            )
            await self._pointers.remove([self._names.to_token(token_id.decode()) for token_id in gone])
            erased, deleted = erased + some, deleted + len(gone)
            if max(erased, deleted) >= limit:
                sweep.put_back(place)
                self._sweeps.leave(name, sweep)
        return erased, deleted

    async def providers_of(self, namespace: str, user_id: str) -> list[str]:
        held = await self._held(self._names.place(Whose.of(namespace, user_id)))
        with suspicion(self._database.name):
            return sorted({provider_in(field[1:]) for field in held if _VERSION.match(field)})

    async def erase(self, account: Account, *, limit: int) -> tuple[int, int]:
        keys = self._tokens_of(Whose.of(account.namespace, account.user_id))
        shown = (account.provider, slots_of(account.provider), limit)
        gone, wished = await self._database.run(_ERASE, keys, *shown)
        await self._pointers.remove([self._names.to_token(token_id.decode()) for token_id in gone])
        return len(gone), int(wished)

    async def sealed_under(self, key_ids: Sequence[str], *, after: str, limit: int) -> list[TokenRecord]:
        wanted = set(key_ids)
        sweep = self._sweeps.take(after or None, self._names.every(b"a"))
        found: list[TokenRecord] = []
        while len(found) < limit and (place := await sweep.next()) is not None:
            held = await self._held(place)
            with suspicion(self._database.name):
                found += [one for one in records_in(held) if one.key_id in wanted]
                found += [one for one in await self._wished(place, held) if one.key_id in wanted]
        if found:
            self._sweeps.leave(found[-1].id, sweep)
        return found

    async def _wished(self, place: bytes, held: Mapping[bytes, bytes]) -> list[TokenRecord]:
        """Return what has ended and keeps its secrets, because its provider has still to be told."""
        found = []
        history = self._names.history(self._names.whose(place))
        for kept in [field[1:] for field in held if field.startswith(b"Ww:")]:
            document = await self._database.ask("HGET", history, b"D" + kept.removeprefix(b"w:"))
            found.append(ended_record([document, *(held.get(b"%c%b" % (letter, kept)) for letter in LETTERS[1:])]))
        return found

    async def reseal(self, pairs: Sequence[tuple[TokenRecord, TokenRecord]]) -> int:
        by_user: dict[Whose, list[Argument]] = {}
        for old, new in pairs:
            by_user.setdefault(Whose.of(old.account.namespace, old.account.user_id), []).extend(
                (old.id, old.version, old.key_id, new.access_sealed or b"", new.refresh_sealed or b"", new.key_id)
            )
        return sum(
            [
                int(await self._database.run(_RESEAL, [self._names.place(whose)], *arguments))
                for whose, arguments in by_user.items()
            ]
        )


def _shown(right: Right) -> tuple[str, int | str]:
    """Return owner and fence of a lease; nothing where nobody holds it."""
    return (right.owner, right.fence) if isinstance(right, Lease) else ("", "")


def _newest(infos: list[TokenInfo], limit: int) -> list[TokenInfo]:
    infos.sort(key=lambda one: (one.created_at, one.version), reverse=True)
    return infos[:limit]
