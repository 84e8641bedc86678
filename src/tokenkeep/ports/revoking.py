"""Where it is kept what providers have still to be told: tokens that have ended here, and not yet there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from tokenkeep.ports.acquired import TokenRecord
from tokenkeep.ports.auditing import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A token that was revoked here and is still to be revoked at its provider.

    `TokenStore.revoke` makes it; whoever claimed it has it for himself until `claimed_until`. Nothing but this
    leads to its secrets.
    """

    record: TokenRecord
    ended_at: datetime
    claimed_until: datetime


class WishStore(Protocol):
    """An outbox without a table of its own where that can be: the secrets stay until the provider has answered."""

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
        """Take a wish that is due at `now`, by one conditional write; `None` when there is none.

        It is one of these providers, or any that has come to its end: its token has expired and has no refresh
        token, or it was revoked here before `over`. Of `user_id` only, unless that is `None`.
        """

    async def settle_wish(self, wish: Wish, entry: Entry, *, again_at: datetime | None) -> bool:
        """Put a claimed wish off to `again_at`, or with `None` erase it; with its event, in one transaction.

        `False`, and nothing is written, when the claim has ended and somebody else has it.
        """

    async def count_wishes(self) -> int:
        """Return how many there are, in all namespaces."""


def may_still_be_good(record: TokenRecord, at: datetime) -> bool:
    """Tell whether its provider may still accept a token, so that it is worth to be revoked there."""
    lasts = record.expires_at is None or record.expires_at > at
    return record.refresh_sealed is not None or (record.access_sealed is not None and not record.rejected and lasts)
