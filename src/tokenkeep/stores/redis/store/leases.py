"""Single-flight in Redis: fields of the user's hash, changed only by scripts, timed by the server's own clock."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from tokenkeep.model import Account
from tokenkeep.ports import Clock, Entry, Failure, Lease, LeaseState
from tokenkeep.stores.plain import MICROSECOND, to_micros
from tokenkeep.stores.redis.store.audit import RedisAudit
from tokenkeep.stores.redis.store.database import Database
from tokenkeep.stores.redis.store.events import Owner
from tokenkeep.stores.redis.store.names import Whose
from tokenkeep.stores.redis.store.scripts import script
from tokenkeep.stores.redis.store.values import suspicion

_STATE: Final = script("lease_state")
_TAKE: Final = script("lease_take")
_KEEP: Final = script("lease_keep")
_INTEND: Final = script("lease_intend")
_DROP: Final = script("lease_drop")
_CLAIM: Final = script("step_claim")

_MICROSECONDS: Final = 1_000_000
STEPS_KEPT: Final = timedelta(days=7) // timedelta(milliseconds=1)
"""Milliseconds for which a claimed time step is remembered after its last use; a time step is seconds or minutes."""


class RedisLeases:
    """Implements `LeaseStore`.

    Args:
        clock: times the leases instead of the server's own clock; `None` where hosts may disagree.
    """

    def __init__(self, database: Database, audit: RedisAudit, *, clock: Clock | None) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    def _now(self) -> int | bytes:
        return b"" if self._clock is None else to_micros(self._clock.now())

    def _place(self, account: Account) -> bytes:
        return self._database.names.place_of(account)

    async def lease_state(self, account: Account) -> LeaseState:
        row = await self._database.run(_STATE, [self._place(account)], account.provider, self._now())
        with suspicion(self._database.name):
            return _state(row)

    async def take_lease(self, account: Account, owner: str, ttl: timedelta) -> Lease | None:
        whose = Owner(account.namespace, account.user_id).text()
        row = await self._database.run(
            _TAKE, [self._place(account)], account.provider, owner, ttl // MICROSECOND, self._now(), whose
        )
        if row is None:
            return None
        fence, begun, fingerprint, failures = row
        with suspicion(self._database.name):
            return Lease(
                account=account,
                owner=owner,
                fence=int(fence),
                unfinished=None if begun is None else int(begun),
                fingerprint=fingerprint,
                failures=int(failures or 0),
            )

    async def keep_lease(self, lease: Lease, ttl: timedelta) -> bool:
        place, mine = self._place(lease.account), _mine(lease)
        return bool(await self._database.run(_KEEP, [place], *mine, ttl // MICROSECOND, self._now()))

    async def note_intent(self, lease: Lease, fingerprint: bytes | None) -> bool:
        place, mine = self._place(lease.account), _mine(lease)
        return bool(await self._database.run(_INTEND, [place], *mine, fingerprint or b""))

    async def drop_lease(self, lease: Lease, failure: Failure | None, entry: Entry | None) -> bool:
        whose, names = Whose.of(lease.account.namespace, lease.account.user_id), self._database.names
        failed: tuple[str, str, int | bytes] = ("", "", b"")
        if failure is not None:
            wait = b"" if failure.retry_in is None else int(failure.retry_in * _MICROSECONDS)
            failed = (failure.failure, failure.reason, wait)
        keys, entries = [names.answer(whose), names.place(whose)], [] if entry is None else [entry]
        shown = (*_mine(lease), self._now(), *failed)
        return bool(await self._audit.change(_DROP, lease.account, keys, *shown, events=entries))

    async def claim_step(self, key: bytes, *, after: int, upto: int) -> bool:
        step = self._database.names.step(key)
        return bool(
            await self._database.run(_CLAIM, [self._database.names.answer_at(step), step], after, upto, STEPS_KEPT)
        )


def _mine(lease: Lease) -> tuple[str, str, int]:
    return lease.account.provider, lease.owner, lease.fence


def _state(row: list[bytes | None]) -> LeaseState:
    fence, owner, until, failed_fence, failure, reason, retry_at, present = row
    now = int(present or 0)
    never = failure is not None and retry_at is None
    return LeaseState(
        fence=int(fence or 0),
        held_for=0.0 if owner is None else max(0.0, (int(until or 0) - now) / _MICROSECONDS),
        failed_fence=None if failed_fence is None else int(failed_fence),
        failure=None if failure is None else failure.decode(),
        reason=(reason or b"").decode(),
        retry_in=None if never else max(0.0, (int(retry_at or 0) - now) / _MICROSECONDS),
    )
