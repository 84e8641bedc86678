"""Issued tokens: the core of the issuer. It awaits nothing but its ports."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from tokenkeep import _checking
from tokenkeep.auditing import Auditing
from tokenkeep.batching import Batch
from tokenkeep.digest import parse_public_id, public_id, token_id
from tokenkeep.errors import LimitReached
from tokenkeep.keycheck import check_keys
from tokenkeep.limiting import Limit
from tokenkeep.minting import IssuerKeys, Mint, shown
from tokenkeep.model import Account, Action, AuditEvent, IssuedToken, Purged, Statistics, Status
from tokenkeep.outcomes import Forgotten
from tokenkeep.ports import Backend, Clock, Entry, Grant, IssuedRecord, Spending, Wait, Work
from tokenkeep.recent import Recent
from tokenkeep.secret import Secret
from tokenkeep.status import status_of
from tokenkeep.uses import Sums, UseCounter
from tokenkeep.verifying import Verifier

REFRESH_GRACE: Final = timedelta(seconds=10)
"""How long after its first use a refresh token may be used again, because the answer may have been lost."""

REFRESH_SUCCESSORS: Final = 2
"""How many successors a refresh token has at most."""

AHEAD: Final = timedelta(days=40)
"""How far ahead partitions are made: further than refresh tokens live. For what lives longer it is done when needed."""

_LISTED: Final = 1000
_FROM_THE_START: Final[bytes | None] = b""
_SWEPT_BESIDE: Final = 5000
"""Rows that a batch looks at where nobody waits for it."""

_SWEPT: Final = 2000
_FEWEST: Final = 1000
_MOST: Final = 32_000
_SHORT: Final = 0.01
_LONG: Final = 0.03
"""Seconds. A batch that took longer is followed by one of half its size, one that was shorter by one of twice that."""

_TOGETHER: Final = 500
_SHORTEST_PAUSE: Final = 0.002


class IssuerCore:
    """What both faces do, one method each. Docstrings stand on the faces."""

    def __init__(  # noqa: PLR0913  # everything an issuer is wired with
        self,
        backend: Backend,
        *,
        lifetime: timedelta,
        idle: timedelta | None = None,
        prefix: str = "tk",
        max_staleness: timedelta = timedelta(0),
        namespace: str = "default",
        limit: Limit | None = None,
        ring: IssuerKeys | None,
        clock: Clock,
        wait: Wait,
        work: Work,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._store = backend.issued
        self._namespace = namespace
        self._limit = limit
        self._ring = ring
        self._clock = clock
        self._monotonic = monotonic
        self._wait = wait
        self._mint = Mint(prefix, ring, namespace=namespace, lifetime=lifetime)
        self._uses = UseCounter[str](self._count_uses, work)
        self.auditing = Auditing(backend.audit, ring, namespace=namespace)
        self._issues = Batch[Grant](self._store.add, wait=wait, work=work)
        bound = _checking.span(max_staleness, "max_staleness", zero=True)
        self._recent = Recent(bound, monotonic=monotonic) if bound else None
        self._verifier = Verifier(
            self._store,
            self._mint.access,
            self._uses,
            namespace=namespace,
            idle=None if idle is None else _checking.span(idle, "idle"),
            recent=self._recent,
            clock=clock,
            wait=wait,
        )
        self.verify = self._verifier.verify

    async def start(self) -> None:
        """Prepare the schema and check the keys."""
        await self._backend.health.prepare()
        if self._ring is not None:
            await check_keys(self._backend.keys, self._ring, self._clock)

    async def close(self) -> None:
        """Write what waits to be written, then close what was opened."""
        try:
            await self._uses.flush()
        finally:
            await self._backend.health.close()

    async def flush(self) -> None:
        """Write the uses that were counted."""
        await self._uses.flush()

    def forget(self) -> None:
        """After a fork: what was counted or waits to be written is the parent's."""
        self._verifier.forget()
        self._issues.forget()

    async def _count_uses(self, sums: Sums[str]) -> None:
        await self._store.count_issued_uses([(bytes.fromhex(key), used.count, used.last) for key, used in sums.items()])

    # --- issuing and verifying

    async def issue(  # the fixed public signature
        self,
        user_id: str,
        *,
        scopes: Collection[str] = (),
        name: str | None = None,
        lifetime: timedelta | None = None,
        client: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        refresh: bool = False,
    ) -> IssuedToken:
        minted = self._mint.first(
            user_id,
            now=self._clock.now(),
            scopes=scopes,
            name=name,
            lifetime=lifetime,
            client=client,
            metadata=metadata,
            refresh=refresh,
        )
        await (self._issues.put(minted.grant) if self._limit is None else self._issue_within(self._limit, minted.grant))
        return minted.issued

    async def _issue_within(self, limit: Limit, grant: Grant) -> None:
        """Add the tokens of a login and end what is too many; logins of a user in this process take turns."""
        now = grant.entry.at

        def choose(records: Sequence[IssuedRecord]) -> list[bytes] | None:
            return limit.choose(records, lambda record: self._verifier.is_good(record, now))

        async with self._wait.turn((self, grant.records[0].user_id)):
            ended = await self._store.add_within(grant, choose, self._noting(Action.REVOKED))
        if ended is None:
            raise LimitReached(limit.most)
        self._drop(ended)

    async def refresh(self, refresh_token: str | Secret) -> IssuedToken | None:
        plain = _plain(refresh_token)
        if not isinstance(plain, str) or not self._mint.refresh.well_formed(plain):
            return None
        record = await self._store.find_refresh(token_id(plain))
        if record is None or not self._refreshes(record, plain):
            return None
        minted = self._mint.successor(record, self._clock.now())
        outcome = await self._store.spend(
            record,
            minted.grant,
            self._noting(Action.REUSED),
            grace=REFRESH_GRACE,
            successors=REFRESH_SUCCESSORS,
        )
        if outcome is Spending.REUSED and self._recent is not None:
            self._recent.clear()
        return minted.issued if outcome is Spending.DONE else None

    def _refreshes(self, record: IssuedRecord, plain: str) -> bool:
        return (
            record.namespace == self._namespace
            and self._verifier.now() < record.expires_at
            and self._mint.refresh.matches(plain, record.digest, record.key_id)
        )

    # --- revoking

    async def revoke(self, token_or_id: str | Secret | IssuedToken) -> bool:
        key = self._key(token_or_id)
        if key is None:
            return False
        ended: list[bytes] = [key]
        try:
            ended = await self._store.end_issued(self._namespace, key, self._noting(Action.REVOKED))
        finally:
            self._drop(ended)
        return bool(ended)

    async def revoke_all(self, user_id: str, *, keep: str | Secret | IssuedToken | None = None) -> int:
        _checking.name(user_id, "user_id")
        kept = None if keep is None else self._key(keep)
        if keep is not None and kept is None:
            msg = "keep must be a token, an id or an IssuedToken of this issuer; nothing was revoked"
            raise ValueError(msg)
        try:
            ended = await self._store.end_all_issued(self._namespace, user_id, self._noting(Action.REVOKED), keep=kept)
        except BaseException:
            if self._recent is not None:  # some may have been revoked
                self._recent.clear()
            raise
        self._drop(ended)
        return len(ended)

    async def forget_user(self, user_id: str) -> Forgotten:
        await self.revoke_all(user_id)
        await self._uses.flush()
        erased, gone = 0, _TOGETHER
        while gone == _TOGETHER:
            async with self._making_way():
                gone = await self._store.erase_issued(self._namespace, user_id, limit=_TOGETHER)
            erased += gone
        detail = {"issued_tokens": erased}
        entry = Entry(action=Action.FORGOTTEN, at=self._clock.now(), detail=detail)
        await self._backend.audit.note(Account(self._namespace, "", user_id), entry)
        return Forgotten(tokens=erased)

    def _key(self, named: object) -> bytes | None:
        """Return the primary key of what names a token; `None` when it names none."""
        plain = named.id if isinstance(named, IssuedToken) else _plain(named)
        if not isinstance(plain, str):
            return None
        if self._mint.access.well_formed(plain) or self._mint.refresh.well_formed(plain):
            return token_id(plain)
        return parse_public_id(plain)

    def _drop(self, ended: Collection[bytes]) -> None:
        if self._recent is not None and ended:
            self._recent.drop(*map(public_id, ended))

    def _noting(self, action: Action) -> Callable[[str], Entry]:
        now = self._clock.now()
        return lambda public: Entry(action=action, at=now, token_id=public, detail={})

    # --- what is known

    async def tokens(self, user_id: str) -> list[IssuedToken]:
        _checking.name(user_id, "user_id")
        await self._uses.flush()
        now = self._clock.now()
        records = await self._store.issued(self._namespace, user_id, now=now, limit=_LISTED)
        living = {
            record.id: record.family
            for record in records
            if record.access_lifetime is None and self._verifier.is_good(record, now)
        }
        return [
            shown(record)
            for record in records
            if record.id in living or (record.access_lifetime is not None and record.family not in living.values())
        ]

    async def statistics(self, user_id: str) -> Statistics:
        _checking.name(user_id, "user_id")
        await self._uses.flush()
        return await self._store.issued_statistics(self._namespace, user_id, now=self._clock.now())

    async def audit_trail(self, user_id: str, *, limit: int = 50) -> list[AuditEvent]:
        _checking.name(user_id, "user_id")
        _checking.count(limit, "limit")
        return await self._backend.audit.audit_trail(self._namespace, user_id, limit=limit)

    async def status(self) -> Status:
        return await status_of(self._backend)

    # --- clearing

    async def purge(self, *, expired_before: datetime | None = None, audit_before: datetime | None = None) -> Purged:
        now = self._clock.now()
        expired = now if expired_before is None else min(now, _checking.instant(expired_before, "expired_before"))
        audit = None if audit_before is None else _checking.instant(audit_before, "audit_before")
        tokens, after = await self._drop_partitions(now, expired), _FROM_THE_START
        limit = _SWEPT if self._backend.one_writer else _SWEPT_BESIDE
        while after is not None:
            async with self._making_way() as batch:
                gone, after = await self._store.purge_issued(self._namespace, before=expired, after=after, limit=limit)
            tokens += gone
            limit = batch.next(limit) if self._backend.one_writer else limit
        events, gone = 0, _TOGETHER
        while audit is not None and gone == _TOGETHER:
            async with self._making_way():
                gone = await self._backend.audit.purge_audit(self._namespace, audit, limit=_TOGETHER)
            events += gone
        return Purged(tokens=tokens, audit_events=events)

    async def _drop_partitions(self, now: datetime, expired: datetime) -> int:
        partitions = self._backend.partitions
        if partitions is None:
            return 0
        await partitions.make_partitions(now, now + AHEAD)
        return await partitions.drop_ended(self._namespace, before=expired)

    @asynccontextmanager
    async def _making_way(self) -> AsyncIterator[_Batch]:
        """Rest after a batch; where one writes at a time for as long as it took: who polls must find the lock free.

        The issues of this process take turns with the batches, so they need no luck.
        """
        batch = _Batch()
        async with self._wait.turn(self._issues):
            started = self._monotonic()
            yield batch
            batch.seconds = self._monotonic() - started
        await self._wait.sleep(max(_SHORTEST_PAUSE, batch.seconds if self._backend.one_writer else 0.0))


@dataclass(slots=True)
class _Batch:
    """How long a batch took, others' turns not counted."""

    seconds: float = 0.0

    def next(self, limit: int) -> int:
        """Return how many rows the next batch is to look at: who writes meanwhile waits for no longer than it takes."""
        if self.seconds > _LONG:
            return max(limit // 2, _FEWEST)
        return min(limit * 2, _MOST) if self.seconds < _SHORT else limit


def _plain(token: object) -> object:
    return token.reveal() if isinstance(token, Secret) else token
