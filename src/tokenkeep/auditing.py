"""Checking the audit trail, and proving it under a newer key. `tokenkeep.trail` says what is looked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from tokenkeep import _checking
from tokenkeep.errors import ConfigurationError
from tokenkeep.model import AuditCheck, AuditChecks
from tokenkeep.ports import START, AuditStore, Chain, ChainedAudit, Mark, TrailKeys
from tokenkeep.trail import Flaw, Walk, vouched_for

_PAGE: Final = 500
_TRIES: Final = 5
"""How often a chain is looked at from its start when a purge changes it meanwhile."""

_HEAD: Final = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})")


class Auditing:
    """Checks chains. Nothing is locked: what is appended or purged meanwhile does not look like a flaw."""

    def __init__(self, audit: AuditStore, keys: TrailKeys | None, *, namespace: str) -> None:
        self._kept = audit if isinstance(audit, ChainedAudit) else None
        self._keys = keys
        self._namespace = namespace

    @property
    def _audit(self) -> ChainedAudit:
        """The trail.

        Raises:
            ConfigurationError: it has no chains.
        """
        if self._kept is None:
            msg = "this store keeps the audit trail without chains, so it cannot be checked"
            raise ConfigurationError(msg)
        return self._kept

    async def check(self, user_id: str, *, head: str | None = None) -> AuditCheck:
        """Check the trail of one user."""
        _checking.name(user_id, "user_id")
        return await self._checked(user_id, None if head is None else _read_head(head))

    async def check_all(
        self,
        *,
        heads: Mapping[str, str] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> AuditChecks:
        """Check the trail of every user of the namespace."""
        known = {_checking.name(user, "heads"): _read_head(head) for user, head in (heads or {}).items()}
        total = await self._audit.count_audit(self._namespace)
        sums = _Sums()
        after = ""
        while users := await self._audit.audited_users(self._namespace, after=after, limit=_PAGE):
            for user in users:
                sums.add(await self._checked(user, known.pop(user, None)))
                if progress is not None:
                    progress(sums.seen, max(total, sums.seen))
            after = users[-1]
        for user, head in known.items():
            sums.add(await self._checked(user, head))
        return sums.result()

    async def _checked(self, user_id: str, known: Mark | None) -> AuditCheck:
        tries = 0
        while True:
            tries += 1
            before = await self._audit.chain(self._namespace, user_id)
            walk = Walk(before, self._keys)
            flaw = walk.start() or await self._walked(self._namespace, user_id, walk, before, known)
            if flaw is None or tries >= _TRIES or not await self._purged_since(user_id, before):
                return _result(user_id, walk, flaw, before, proved=self._keys is not None)

    async def _purged_since(self, user_id: str, before: Chain) -> bool:
        return (await self._audit.chain(self._namespace, user_id)).purged != before.purged

    async def _walked(self, namespace: str, user_id: str, walk: Walk, chain: Chain, known: Mark | None) -> Flaw | None:
        """Follow the chain to its end, which may move on meanwhile."""
        place, found = 0, known is None or known.sequence < walk.at.sequence or known == walk.at
        while True:
            try:
                links = await self._audit.links(namespace, user_id, after=place, limit=_PAGE)
            except ValueError:
                return Flaw(walk.at.sequence + 1, "it, or one of those after it, cannot be read: it was changed")
            for link in links:
                if (flaw := walk.step(link)) is not None:
                    return flaw
                place, found = link.place, found or link.mark == known
            if len(links) >= _PAGE:
                continue
            last = chain if chain.head == walk.at else await self._audit.chain(namespace, user_id)
            if last.head in {chain.head, walk.at}:
                return walk.end(last) or (None if found else _gone(known, walk))
            chain = last

    async def vouch(self, keys: TrailKeys) -> None:
        """Look at all chains, of any namespace, and let the newest key vouch for those that are whole.

        Then older keys may go. What is not whole stays without. Safe to interrupt and to repeat.
        """
        after = ("", "")
        if self._kept is None:
            return
        while chains := await self._audit.unvouched(keys.key_id, after=after, limit=_PAGE):
            for namespace, user_id, chain in chains:
                walk = Walk(chain, keys)
                flaw = walk.start() or await self._walked(namespace, user_id, walk, chain, None)
                if flaw is None:
                    await self._audit.vouch(namespace, user_id, vouched_for(chain, walk.at, keys))
                after = (namespace, user_id)


class _Sums:
    def __init__(self) -> None:
        self._users = self._events = self._proved = self._unchained = 0
        self._flawed: list[AuditCheck] = []
        self._heads: dict[str, str] = {}

    @property
    def seen(self) -> int:
        return self._events + self._unchained

    def add(self, check: AuditCheck) -> None:
        self._users += 1
        self._events += check.events
        self._proved += check.proved
        self._unchained += check.unchained
        if not check.intact:
            self._flawed.append(check)
        if check.head is not None:
            self._heads[check.user_id] = check.head

    def result(self) -> AuditChecks:
        return AuditChecks(
            users=self._users,
            events=self._events,
            proved=self._proved,
            unchained=self._unchained,
            flawed=tuple(self._flawed),
            heads=self._heads,
        )


def _result(user_id: str, walk: Walk, flaw: Flaw | None, chain: Chain, *, proved: bool) -> AuditCheck:
    return AuditCheck(
        user_id=user_id,
        intact=flaw is None,
        events=walk.events,
        proved=walk.events if proved else 0,
        purged=chain.purged.sequence,
        unchained=walk.unchained,
        first_bad=None if flaw is None else flaw.sequence,
        reason=None if flaw is None else flaw.reason,
        head=None if walk.at == START else f"{walk.at.sequence}:{walk.at.digest.hex()}",
    )


def _gone(known: Mark | None, walk: Walk) -> Flaw | None:
    """What to say of a head from an earlier check that was not met."""
    if known is None:
        return None
    if known.sequence > walk.at.sequence:
        return Flaw(walk.at.sequence + 1, f"it is missing, with all up to {known.sequence}, which an earlier check saw")
    return Flaw(known.sequence, "it is not what an earlier check saw")


def _read_head(text: str) -> Mark:
    match = _HEAD.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        msg = "a head must be what an earlier check gave: a number, a colon and 64 hexadecimal digits"
        raise ValueError(msg)
    return Mark(int(match[1]), bytes.fromhex(match[2]))
