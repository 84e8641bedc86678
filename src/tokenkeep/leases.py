"""Single-flight: one login, however many threads, tasks, processes and hosts ask for it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from tokenkeep.errors import AcquireInDoubt, ProviderError, ProviderRejected, ProviderUnavailable, StoreError
from tokenkeep.model import Account, Action
from tokenkeep.ports import Clock, Entry, Failure, Lease, LeaseState, LeaseStore, Wait, Work
from tokenkeep.sightings import Seeker, Sightings

LEASE: Final = timedelta(seconds=10)
"""How long a lease lasts without a beat: the time after which a leader that died is succeeded."""

BEAT: Final = LEASE / 3

PATIENCE: Final = 180.0
"""Seconds a caller waits for others before it gives up."""

_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.05
_FIRST_BACKOFF: Final = 1.0
_LONGEST_BACKOFF: Final = 60.0
_DOUBT_BACKOFF: Final = 30.0
_REASON: Final = 500

_ERRORS: Final[Mapping[str, type[ProviderError]]] = {
    error.__name__: error for error in (ProviderRejected, ProviderUnavailable, AcquireInDoubt)
}


class SingleFlight:
    """Let one caller lead and the others follow.

    A caller takes its turn in the process, looks whether what it wants is there, and otherwise takes the
    lease of the account or waits for whoever holds it, looking again after each wait. The callers who
    waited for an attempt share its failure, so that a hundred threads do not try a wrong PIN a hundred times,
    and what the first of them then reads, which the others need not read again.
    """

    def __init__(self, leases: LeaseStore, *, clock: Clock, wait: Wait, work: Work) -> None:
        self._leases = leases
        self._clock = clock
        self._wait = wait
        self._work = work
        self._sightings = Sightings[Any](wait.signal)

    async def run[T](
        self,
        account: Account,
        *,
        kind: str,
        read: Callable[[], Awaitable[T | None]],
        serves: Callable[[T], bool],
        attempt: Callable[[Lease], Awaitable[T | None]],
        forced: bool,
    ) -> T:
        """Return what `read` finds and `serves` approves of, or what `attempt` brings under the lease.

        Args:
            account: what the lease is for.
            kind: whoever asks for the same kind of the same account would read the same.
            read: looks for the wanted thing; called again after each wait.
            serves: judges what was found, by this caller or by another who read it after this one had asked.
            attempt: brings it about and gives the lease back with it; `None` when the lease was lost meanwhile.
            forced: attempt even where earlier failures ask for a pause.

        Raises:
            ProviderError: the attempt failed, or the one that was waited for did.
        """
        seen = await self._leases.lease_state(account)
        shared_from = seen.fence if seen.held_for else seen.fence + 1
        seeker = self._sightings.seek((account, kind), read)
        try:
            while not seeker.leads:
                found: T | None = await seeker.told()
                if found is not None and serves(found):
                    return found
            async with self._wait.turn(account):
                return await self._bring(account, seeker, read, serves, attempt, shared_from, forced=forced)
        finally:
            seeker.leave()

    async def _bring[T](  # what `run` was given
        self,
        account: Account,
        seeker: Seeker[T],
        read: Callable[[], Awaitable[T | None]],
        serves: Callable[[T], bool],
        attempt: Callable[[Lease], Awaitable[T | None]],
        shared_from: int,
        *,
        forced: bool,
    ) -> T:
        waited, pause = 0.0, _FIRST_PAUSE
        while waited < PATIENCE:
            if (found := await seeker.look(serves)) is not None:
                return found
            state = await self._leases.lease_state(account)
            self._share_failure(account, state, shared_from, forced=forced)
            if not state.held_for:  # whoever is cancelled while he takes the lease must not leave it lying
                ready = partial(_sought, read, serves)
                result = await self._work.finish(self._try_to_lead(account, ready, attempt))
                if result is not None:
                    return result
            await self._wait.sleep(pause)
            waited, pause = waited + pause, min(pause * 1.5, _LONGEST_PAUSE)
        msg = f"another process has held the login for {PATIENCE:.0f} seconds; see what it waits for, then ask again"
        raise ProviderUnavailable(msg, provider=account.provider, user_id=account.user_id)

    def forget(self) -> None:
        """After a fork: those who wait are the parent's."""
        self._sightings.forget()

    def _share_failure(self, account: Account, state: LeaseState, shared_from: int, *, forced: bool) -> None:
        if state.failed_fence is None or state.held_for or state.failure is None:
            return
        if state.failed_fence >= shared_from:
            raise _failure(account, state, state.reason)
        if forced:
            return
        if state.retry_in is None:
            hint = "nothing is tried by itself after this: mend the cause, then call acquire() or `tokenkeep login`"
            raise _failure(account, state, f"{state.reason} ({hint})")
        if state.retry_in > 0:
            raise _failure(account, state, f"{state.reason} (the next attempt is due in {state.retry_in:.0f} s)")

    async def _try_to_lead[T](
        self,
        account: Account,
        ready: Callable[[], Awaitable[T | None]],
        attempt: Callable[[Lease], Awaitable[T | None]],
    ) -> T | None:
        lease = await self._leases.take_lease(account, _owner(), LEASE)
        return None if lease is None else await self._lead(lease, ready, attempt)

    async def _lead[T](
        self,
        lease: Lease,
        ready: Callable[[], Awaitable[T | None]],
        attempt: Callable[[Lease], Awaitable[T | None]],
    ) -> T | None:
        try:
            if (found := await ready()) is not None:  # somebody finished between our look and our lease
                await self._leases.drop_lease(lease, None, None)
                return found
            async with self._work.beating(partial(self._leases.keep_lease, lease, LEASE), BEAT):
                return await attempt(lease)
        except ProviderError as error:
            await self._give_back(lease, error)
            raise
        except BaseException:
            await self._give_back(lease, None)
            raise

    async def _give_back(self, lease: Lease, error: ProviderError | None) -> None:
        """Give the lease back after a failure; a store that cannot take it back lets it end by itself."""
        failure = None if error is None else _noted(error, lease.failures)
        entry = None if error is None else _entry(error, self._clock.now())
        try:
            await self._leases.drop_lease(lease, failure, entry)
        except StoreError:
            return


async def _sought[T](read: Callable[[], Awaitable[T | None]], serves: Callable[[T], bool]) -> T | None:
    found = await read()
    return found if found is not None and serves(found) else None


def _owner() -> str:
    return f"{os.getpid()}-{secrets.token_hex(8)}"


def _noted(error: ProviderError, failures: int) -> Failure:
    reason = error.reason[:_REASON]
    if isinstance(error, ProviderRejected):
        return Failure(failure=ProviderRejected.__name__, reason=reason, retry_in=None)
    backoff = min(_FIRST_BACKOFF * 2.0 ** min(failures, 16), _LONGEST_BACKOFF)
    if isinstance(error, ProviderUnavailable):
        if error.retry_after is not None:
            backoff = max(error.retry_after.total_seconds(), 0.0)
        return Failure(failure=ProviderUnavailable.__name__, reason=reason, retry_in=backoff)
    return Failure(failure=AcquireInDoubt.__name__, reason=reason, retry_in=max(backoff, _DOUBT_BACKOFF))


def _entry(error: ProviderError, now: datetime) -> Entry:
    doubt = isinstance(error, AcquireInDoubt)
    action = Action.ACQUIRE_IN_DOUBT if doubt else Action.ACQUIRE_FAILED
    return Entry(action=action, at=now, detail={"error": type(error).__name__, "reason": error.reason[:_REASON]})


def _failure(account: Account, state: LeaseState, reason: str) -> ProviderError:
    kind = _ERRORS.get(state.failure or "", AcquireInDoubt)
    if kind is ProviderUnavailable:
        retry_after = None if state.retry_in is None else timedelta(seconds=state.retry_in)
        return ProviderUnavailable(reason, provider=account.provider, user_id=account.user_id, retry_after=retry_after)
    return kind(reason, provider=account.provider, user_id=account.user_id)
