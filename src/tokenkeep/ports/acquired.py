"""Where acquired tokens are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from tokenkeep.model import Account
from tokenkeep.ports.auditing import Entry
from tokenkeep.ports.leasing import Right
from tokenkeep.ports.reporting import TokenReports


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A row of the token table: an acquired token in its sealed form.

    Attributes:
        access_sealed: `None` once the secret has been erased.
        key_id: the key that both sealed fields are under.
        rejected: the provider refused this version; only its refresh token is still of use.
    """

    id: str
    account: Account
    kind: str
    version: int
    access_sealed: bytes | None
    refresh_sealed: bytes | None
    key_id: str
    token_type: str
    scope: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = None
    usage_count: int = 0
    rejected: bool = False
    profile: Mapping[str, Any]
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Use:
    """So many uses of one token, the last of them at `last_used_at`."""

    token_id: str
    count: int
    last_used_at: datetime


@runtime_checkable
class NearTokens(Protocol):
    """A store that may know a token in place without asking where it is kept. An extra power of a `TokenStore`."""

    async def recall(self, account: Account, kind: str) -> TokenRecord | None:
        """Return a token that was in place a moment ago; `None` when `load` has to be asked. Never raises.

        It is good for handing out and for nothing else: what decides over a login asks `load`.
        """


class TokenStore(TokenReports, Protocol):
    """Acquired tokens, sealed. At most one in place for each (account, kind), by a constraint."""

    async def load(self, account: Account, kind: str) -> TokenRecord | None:
        """Return the token in place, ended or not; `None` when there is none. The hot path."""

    async def loaded(self, account: Account) -> list[TokenRecord]:
        """Return the tokens in place of every kind."""

    async def versions(self, account: Account) -> dict[str, int]:
        """Return the highest version ever written for each kind."""

    async def replace(self, records: Sequence[TokenRecord], right: Right, entries: Sequence[Entry]) -> bool:
        """Put new tokens of one account in place of the old and give the lease back, in one transaction.

        The replaced ones lose their secrets and stay as history. `False`, and nothing is written, when
        the lease was lost or a version is taken; without a lease also wherever the store cannot tell at
        once that nobody holds it. Repeating it after an error is safe: the same rows are
        recognised by their ids, and the answer is then `True`.
        """

    async def reject(self, token_id: str, account: Account, entry: Entry) -> bool:
        """Mark exactly this token as refused by the provider; `False` when it is no longer in place."""

    async def revoke(self, account: Account, entry: Callable[[str], Entry], *, wishing: bool) -> int:
        """End what is in place of every kind, erase the secrets, note each by its id; return how many.

        With `wishing` those that may still be good at the provider (`may_still_be_good`) keep their secrets, each
        as a `Wish` that is due from the moment of the entry on.
        The entries differ in nothing but the id: a store may make one and put the ids in itself.
        A lease of the account is broken in the same transaction, so that a login in flight cannot land.
        """

    async def count_uses(self, uses: Sequence[Use]) -> None:
        """Add uses that were summed in the process, in one statement or one transaction.

        Where that cannot be, and some could not be added, the same ones are handed over again, with others.
        """

    async def purge(
        self, namespace: str, *, expired_before: datetime, ended_before: datetime, limit: int
    ) -> tuple[int, int]:
        """Work on one batch; return how many secrets were erased and how many rows deleted; (0, 0): done.

        Secrets go of tokens in place that ended before `expired_before` (but a refresh token stays), rows
        of those that ended before `ended_before`.
        """

    async def providers_of(self, namespace: str, user_id: str) -> list[str]:
        """Return the providers of which there is anything of a user, in place or not."""

    async def erase(self, account: Account, *, limit: int) -> tuple[int, int]:
        """Delete a batch of rows of what has ended, whenever that was; return how many, and how many stay.

        Those stay that are a `Wish`. With the last batch the lease goes too, unless somebody holds it. What is in
        place is not touched: revoke it first.
        """

    async def sealed_under(self, key_ids: Sequence[str], *, after: str, limit: int) -> list[TokenRecord]:
        """Return rows of any namespace sealed under one of these keys, in one order, past the id `after`."""

    async def reseal(self, pairs: Sequence[tuple[TokenRecord, TokenRecord]]) -> int:
        """Swap the sealed fields of rows where they are still the old ones, in one transaction; return how many."""
