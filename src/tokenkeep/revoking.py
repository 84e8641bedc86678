"""Revoking acquired tokens: here at once, and at the provider as soon as it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, cast

from tokenkeep.errors import StoreError
from tokenkeep.model import Account, AcquiredToken, Action
from tokenkeep.ports import Backend, Clock, Entry, Revoking, TokenRecord, Wish, Work, may_still_be_good
from tokenkeep.registry import Registry

CLAIM: Final = timedelta(minutes=2)
"""How long a wish belongs to who took it: longer than a provider takes to answer. Then others may try."""

FIRST_WAIT: Final = timedelta(minutes=1)
"""How long a wish rests after the first failure."""

LONGEST_WAIT: Final = timedelta(hours=6)
"""Waits double with the age of a wish, up to this."""

GIVEN_UP_AFTER: Final = timedelta(days=30)
"""How long a provider is told of a token whose end is not known, as that of a refresh token is not."""


class Revocations:
    """An outbox: the wish to revoke at the provider is written with the revocation here, and done after it.

    Whoever takes a wish has it for `CLAIM` by a conditional write, so no two work on it. What a provider did not
    confirm is repeated after growing waits: by this process while it lives, and by every `purge`.
    """

    def __init__(
        self,
        backend: Backend,
        registry: Registry,
        opened: Callable[[TokenRecord], AcquiredToken],
        *,
        clock: Clock,
        work: Work,
    ) -> None:
        self._tokens = backend.tokens
        self._wishes = backend.wishes
        self._audit = backend.audit
        self._registry = registry
        self._opened = opened
        self._clock = clock
        self._work = work

    async def revoke(self, account: Account, unwritten: Sequence[TokenRecord] = ()) -> int:
        """End the tokens of an account here, then tell the provider; return how many ended here.

        Of what is `unwritten` the provider is told once: no row is there to remember it.
        """
        now = self._clock.now()

        def entry(token_id: str) -> Entry:
            return Entry(action=Action.REVOKED, at=now, token_id=token_id, detail={})

        can_be_told = isinstance(self._registry.providers.get(account.provider), Revoking)
        ended = await self._tokens.revoke(account, entry, wishing=can_be_told)
        if can_be_told:
            for record in unwritten:
                await self._audit.note(account, await self.tell(record))
            with suppress(StoreError):  # here it has ended; what is on disk is done by whoever comes next
                await self._work_off(account.user_id)
        return ended

    async def work_off(self) -> int:
        """Tell providers of every wish that is due; return how many confirmed. Safe to interrupt and to repeat."""
        return await self._work_off(None)

    async def _work_off(self, user_id: str | None) -> int:
        confirmed, waits = 0, list[timedelta]()
        while (wish := await self._claim(user_id)) is not None:
            entry, wait = await self._tell_or_give_up(wish)
            again_at = None if wait is None else self._clock.now() + wait
            await self._wishes.settle_wish(wish, entry, again_at=again_at)
            confirmed += entry.action is Action.PROVIDER_REVOKED
            waits += [] if wait is None else [wait]
        if waits:
            self._work.later(self._again, min(waits))
        return confirmed

    async def _claim(self, user_id: str | None) -> Wish | None:
        now = self._clock.now()
        return await self._wishes.claim_wish(
            self._registry.namespace,
            providers=[name for name, source in self._registry.providers.items() if isinstance(source, Revoking)],
            user_id=user_id,
            now=now,
            over=now - GIVEN_UP_AFTER,
            until=now + CLAIM,
        )

    async def _again(self) -> None:
        """What this process does by itself, later; where the database is away it is left to whoever comes next."""
        with suppress(StoreError):
            await self.work_off()

    async def _tell_or_give_up(self, wish: Wish) -> tuple[Entry, timedelta | None]:
        """Return what has happened, and how long to wait; `None` when it is over."""
        now, over = self._clock.now(), wish.ended_at + GIVEN_UP_AFTER
        if now > over or not may_still_be_good(wish.record, now):
            return _entry(Action.PROVIDER_REVOKE_ABANDONED, now, wish.record), None
        entry = await self.tell(wish.record)
        if entry.action is Action.PROVIDER_REVOKED:
            return entry, None
        return entry, min(max(entry.at - wish.ended_at, FIRST_WAIT), LONGEST_WAIT)

    async def tell(self, record: TokenRecord) -> Entry:
        """Tell the provider once; return what came of it."""
        source = self._registry.providers.get(record.account.provider)
        try:
            await self._work.call(cast("Revoking", source).revoke, self._opened(record))
        except Exception as error:  # noqa: BLE001  # whatever a provider raises, here the token has ended
            failed = {"error": type(error).__name__}
            return _entry(Action.PROVIDER_REVOKE_FAILED, self._clock.now(), record, **failed)
        return _entry(Action.PROVIDER_REVOKED, self._clock.now(), record)


def _entry(action: Action, at: datetime, record: TokenRecord, **more: str) -> Entry:
    return Entry(action=action, at=at, token_id=record.id, detail={"kind": record.kind, **more})
