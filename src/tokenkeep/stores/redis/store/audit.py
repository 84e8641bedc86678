"""The audit trail in Redis: a stream for each user, which the scripts of the changes write to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from tokenkeep.model import Account, Action, AuditEvent
from tokenkeep.ports import Entry
from tokenkeep.stores.redis.store.database import Database
from tokenkeep.stores.redis.store.names import Whose
from tokenkeep.stores.redis.store.scripts import script
from tokenkeep.stores.redis.store.sweeping import Sweeps
from tokenkeep.stores.redis.store.values import for_script, from_json, from_micros, pairs, suspicion, to_json, to_micros

_NOTE: Final = script("audit_note")
_CLEAR: Final = script("audit_clear")
_PAGE: Final = 500

type Event = list[str]


class RedisAudit:
    """Implements `AuditStore`; `event` and `events` are what the script of a change appends."""

    def __init__(self, database: Database, *, actor: str) -> None:
        self._database = database
        self._actor = actor
        self._sweeps = Sweeps(database)

    def event(self, provider: str, entry: Entry) -> str:
        """Return an event for a script."""
        return for_script(self._event(provider, entry))

    def events(self, provider: str, entries: Sequence[Entry]) -> str:
        """Return events for a script."""
        return for_script([self._event(provider, entry) for entry in entries])

    def _event(self, provider: str, entry: Entry) -> Event:
        return [
            entry.action.value,
            provider,
            entry.token_id or "",
            str(to_micros(entry.at)),
            self._actor,
            to_json(dict(entry.detail)),
        ]

    async def note(self, account: Account, entry: Entry) -> None:
        whose, names = Whose.of(account.namespace, account.user_id), self._database.names
        events = self.events(account.provider, [entry])
        await self._database.run(_NOTE, [names.answer(whose), names.trail(whose)], events)

    async def note_each(self, noted: Sequence[tuple[Account, Entry]]) -> None:
        for account, entry in noted:  # users lie in slots of their own, so there is no transaction over them
            await self.note(account, entry)

    async def audit_trail(self, namespace: str, user_id: str, *, limit: int) -> list[AuditEvent]:
        trail = self._database.names.trail(Whose.of(namespace, user_id))
        rows = await self._database.ask("XREVRANGE", trail, "+", "-", "COUNT", limit)
        with suspicion(self._database.name):
            return [_read(user_id, pairs(fields)) for _, fields in rows]

    async def purge_audit(self, namespace: str, before: datetime, *, limit: int) -> int:
        name, gone = (namespace, before), 0
        sweep = self._sweeps.take(name, self._database.names.every(b"e", namespace))
        while gone < limit and (trail := await sweep.next()) is not None:
            deleted = await self._clear(trail, to_micros(before), limit - gone)
            gone += deleted
            if gone >= limit:
                sweep.put_back(trail)
                self._sweeps.leave(name, sweep)
        return gone

    async def _clear(self, trail: bytes, before: int, limit: int) -> int:
        """Delete old events of a trail. The hosts' clocks differ, so an old one may stand behind a newer one."""
        old: list[bytes] = []
        after = b"-"
        while len(old) < limit:
            rows = await self._database.ask("XRANGE", trail, after, "+", "COUNT", _PAGE)
            with suspicion(self._database.name):
                old += [event_id for event_id, fields in rows if int(pairs(fields)[b"at"]) < before]
            if len(rows) < _PAGE:
                break
            after = b"(" + rows[-1][0]
        gone = 0
        for begin in range(0, min(len(old), limit), _PAGE):
            gone += await self._database.run(_CLEAR, [trail], *old[begin : min(begin + _PAGE, limit)])
        return gone


def _read(user_id: str, fields: dict[bytes, bytes]) -> AuditEvent:
    return AuditEvent(
        action=Action(fields[b"action"].decode()),
        user_id=user_id,
        token_id=fields[b"token"].decode() or None,
        at=from_micros(fields[b"at"]),
        actor=fields[b"actor"].decode(),
        detail=from_json(fields[b"detail"]),
    )
