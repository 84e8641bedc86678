"""The audit trail in Redis, and its chains: a stream for each user, which the scripts of the changes write to.

A script has no SHA-256, so the program links the events of a change to the last one that it knows of, and offers them
with the change. Where somebody else has appended meanwhile, or the change finds other tokens than the program thought,
nothing is done: the script says what is so, and is offered new events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from tokenkeep._kept import Kept
from tokenkeep.errors import StoreUnavailable
from tokenkeep.model import Account, AuditEvent
from tokenkeep.ports import START, Chain, Entry, Link, Mark, TrailKeys
from tokenkeep.stores.plain import to_micros
from tokenkeep.stores.redis.store.database import Argument, Database
from tokenkeep.stores.redis.store.events import Owner, chain, entry_id_of, event, head_of, link, offer, proof_text
from tokenkeep.stores.redis.store.names import Whose
from tokenkeep.stores.redis.store.rolls import Roll
from tokenkeep.stores.redis.store.scripts import Script, script
from tokenkeep.stores.redis.store.sweeping import Sweep, Sweeps
from tokenkeep.stores.redis.store.values import pairs, suspicion
from tokenkeep.trail import linked, prove_purge, purged_up_to

_NOTE: Final = script("audit_note")
_CLEAR: Final = script("audit_clear")
_VOUCH: Final = script("audit_vouch")

_PAGE: Final = 500
_KEPT: Final = 10_000
"""How many heads are remembered. A wrong one costs a change one more question."""

_AT_ONCE: Final = 3
"""How often a change is offered anew before it lets others go first."""

_PATIENCE: Final = 30.0
"""Seconds for which a change is offered anew. Each time somebody else's went through, so this takes a crowd."""


class RedisAudit:
    """Implements `ChainedAudit`; `change` is how every change of a user is done."""

    def __init__(self, database: Database, *, actor: str) -> None:
        self._database = database
        self._names = database.names
        self._actor = actor
        self._keys: TrailKeys | None = None
        self._heads: Kept[Whose, Mark] = Kept(_KEPT)
        self._sweeps = Sweeps(database)
        self._rolls: dict[str, Roll] = {}
        self._chains = Roll(database, [b"c"])

    def use_keys(self, keys: TrailKeys | None) -> None:
        self._keys = keys

    # --- appending

    async def change(
        self,
        changing: Script,
        account: Account,
        keys: Sequence[bytes],
        *arguments: Argument,
        events: Sequence[Entry] = (),
        each: Callable[[str], Entry] | None = None,
        tokens: Sequence[str] = (),
    ) -> Any:
        """Run the script of a change with the events that tell of it: chain and trail are its last keys.

        Args:
            changing: the script.
            account: of the user whose keys these are; its provider is empty where the events have none.
            keys: those that come before chain and trail.
            arguments: those that come after the offer, which is the first.
            events: what the change writes.
            each: makes what the change writes of a token that it finds.
            tokens: those that it will probably find.
        """
        whose = Whose.of(account.namespace, account.user_id)
        head, began, losses = self._heads.get(whose, START), time.monotonic(), 0
        while True:
            these = self._linked(account, head, events)
            those = self._linked(account, head, [each(token) for token in tokens] if each is not None else ())
            offered = offer(Owner(account.namespace, account.user_id), head, these, those)
            all_keys = [*keys, self._names.chain(whose), self._names.trail(whose)]
            answer = await self._database.run(changing, all_keys, offered, *arguments)
            if not _is_refused(answer):
                self._heads.keep(whose, _last(these or those, head))
                return answer
            with suspicion(self._database.name):
                head, tokens = head_of(answer[1]), [token.decode() for token in answer[2]]
            losses += 1
            await self._let_others_go(began, losses)

    def _linked(self, account: Account, head: Mark, entries: Sequence[Entry]) -> list[Link]:
        if not entries:
            return []
        noted, user = [(account, entry) for entry in entries], (account.namespace, account.user_id)
        links, _ = linked(noted, {user: head}, actor=self._actor, keys=self._keys)
        return links

    async def _let_others_go(self, began: float, losses: int) -> None:
        if time.monotonic() - began > _PATIENCE:
            msg = f"{self._database.name}: others keep writing to the trail of the same user; try again"
            raise StoreUnavailable(msg)
        if losses > _AT_ONCE:
            await self._database.pause(losses - _AT_ONCE)

    async def note(self, account: Account, entry: Entry) -> None:
        await self._note(account, [entry])

    async def note_each(self, noted: Sequence[tuple[Account, Entry]]) -> None:
        # users lie in slots of their own, so there is no transaction over them
        for account, entries in groupby(sorted(noted, key=lambda one: one[0]), key=lambda one: one[0]):
            await self._note(account, [entry for _, entry in entries])

    async def _note(self, account: Account, entries: Sequence[Entry]) -> None:
        answer = self._names.answer(Whose.of(account.namespace, account.user_id))
        await self.change(_NOTE, account, [answer], events=entries)

    # --- reading

    async def audit_trail(self, namespace: str, user_id: str, *, limit: int) -> list[AuditEvent]:
        trail = self._names.trail(Whose.of(namespace, user_id))
        rows = await self._database.ask("XREVRANGE", trail, "+", "-", "COUNT", limit)
        with suspicion(self._database.name):
            return [event(user_id, pairs(fields)) for _, fields in rows]

    async def count_audit(self, namespace: str) -> int:
        total, sweep = 0, Sweep(self._database, self._names.every(b"e", namespace))
        while (trail := await sweep.next()) is not None:
            total += int(await self._database.ask("XLEN", trail))
        return total

    async def audited_users(self, namespace: str, *, after: str, limit: int) -> list[str]:
        roll = self._rolls.setdefault(namespace, Roll(self._database, [b"c", b"e"], namespace))
        found: list[str] = []
        for whose in await roll.past(Whose.of(namespace, after) if after else None):
            owner = await self._owner(whose)
            if owner is not None:
                found.append(owner.user_id)
            if len(found) == limit:
                break
        return found

    async def _owner(self, whose: Whose) -> Owner | None:
        """Return the name of whose chain or trail it is; `None` when both have gone."""
        text = await self._database.ask("HGET", self._names.chain(whose), "user")
        if text is None:
            rows = await self._database.ask("XRANGE", self._names.trail(whose), "-", "+", "COUNT", 1)
            if not rows:
                return None
            text = pairs(rows[0][1]).get(b"user")
        with suspicion(self._database.name):
            return Owner.read(text)

    async def chain(self, namespace: str, user_id: str) -> Chain:
        return await self._chain(Whose.of(namespace, user_id))

    async def _chain(self, whose: Whose) -> Chain:
        fields = pairs(await self._database.ask("HGETALL", self._names.chain(whose)))
        with suspicion(self._database.name):
            return chain(fields)

    async def links(self, namespace: str, user_id: str, *, after: int, limit: int) -> list[Link]:
        owner, trail = Owner(namespace, user_id), self._names.trail(Whose.of(namespace, user_id))
        past = b"(" + entry_id_of(after) if after else b"-"
        rows = await self._database.ask("XRANGE", trail, past, "+", "COUNT", limit)
        try:
            return [link(owner, entry_id, pairs(fields)) for entry_id, fields in rows]
        except (KeyError, OverflowError, TypeError) as error:
            raise ValueError(str(error)) from None

    # --- upkeep

    async def purge_audit(self, namespace: str, before: datetime, *, limit: int) -> int:
        name, gone = (namespace, before), 0
        sweep = self._sweeps.take(name, self._names.every(b"e", namespace))
        while gone < limit and (trail := await sweep.next()) is not None:
            deleted = await self._clear(trail, before, min(limit - gone, _PAGE))
            gone += deleted
            if deleted == _PAGE or gone >= limit:
                sweep.put_back(trail)
        if gone >= limit:
            self._sweeps.leave(name, sweep)
        return gone

    async def _clear(self, trail: bytes, before: datetime, limit: int) -> int:
        """Delete the oldest events of a trail, up to the first that is younger."""
        whose = self._names.whose(trail)
        rows = await self._database.ask("XRANGE", trail, "-", "+", "COUNT", limit)
        old: list[bytes] = []
        marks: list[Mark] = []
        with suspicion(self._database.name):
            for entry_id, flat in rows:
                fields, known = pairs(flat), chain(pairs(flat)).head
                if int(fields[b"at"]) >= to_micros(before):
                    break
                old.append(entry_id)
                marks += [] if known is None else [known]
        if not old:
            return 0
        seen = await self._chain(whose)
        mark = purged_up_to(seen, marks)
        proof = seen.purged_proof if mark == seen.purged else prove_purge(mark, self._keys)
        shown = (seen.purged.sequence, mark.sequence, mark.digest.hex(), *proof_text(proof))
        return int(await self._database.run(_CLEAR, [self._names.chain(whose), trail], *shown, *old))

    async def unvouched(self, key_id: str, *, after: tuple[str, str], limit: int) -> list[tuple[str, str, Chain]]:
        found: list[tuple[str, str, Chain]] = []
        for whose in await self._chains.past(Whose.of(*after) if any(after) else None):
            owner, known = await self._owner(whose), await self._chain(whose)
            if owner is not None and known.head is not None and known.vouched_proof.key_id != key_id:
                found.append((*owner, known))
            if len(found) == limit:
                break
        return found

    async def vouch(self, namespace: str, user_id: str, chain: Chain) -> bool:
        place = self._names.chain(Whose.of(namespace, user_id))
        vouched = (chain.vouched.sequence, chain.vouched.digest.hex(), *proof_text(chain.vouched_proof))
        marks = (*vouched, *proof_text(chain.purged_proof))
        return bool(await self._database.run(_VOUCH, [place], chain.purged.sequence, *marks))


def _is_refused(answer: Any) -> bool:
    return isinstance(answer, list) and bool(answer) and answer[0] == b"again"


def _last(links: Sequence[Link], head: Mark) -> Mark:
    return (links[-1].mark or head) if links else head
