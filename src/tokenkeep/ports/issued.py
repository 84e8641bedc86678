"""Where issued tokens are kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any, Protocol

from tokenkeep.ports.auditing import Entry
from tokenkeep.ports.reporting import IssuedReports


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedRecord:
    """A row of the table of issued tokens. It holds a digest, never the token.

    Attributes:
        id: 16 bytes derived one-way from the token: the primary key and the public id. The first two are the day
            in which the token ends (`tokenkeep.buckets`).
        digest: 32 bytes, compared in constant time.
        key_id: the key of the digest; `None` for a plain SHA-256.
        family: what came of one issue by refreshing shares it; `None` where there is no refresh token.
        generation: of a refresh token: how many refreshes led to it.
        access_lifetime: of a refresh token: how long the access tokens live that it brings; `None` marks an
            access token.
    """

    id: bytes
    digest: bytes
    key_id: str | None
    namespace: str
    user_id: str
    name: str | None
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime
    client: str | None
    metadata: Mapping[str, Any]
    last_used_at: datetime | None = None
    family: bytes | None = None
    generation: int | None = None
    access_lifetime: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The rows that one issue or one refresh adds, and the event that tells of them."""

    records: tuple[IssuedRecord, ...]
    entry: Entry


class Spending(Enum):
    """What came of using a refresh token."""

    DONE = auto()
    REFUSED = auto()
    REUSED = auto()


class IssuedStore(IssuedReports, Protocol):
    """Issued tokens, as digests."""

    async def add(self, grants: Sequence[Grant]) -> None:
        """Insert new tokens and their events in one transaction, durable when it returns.

        Where users lie on different servers it is one for each user; after an error some tokens may be there.
        """

    async def add_within(
        self,
        grant: Grant,
        choose: Callable[[Sequence[IssuedRecord]], Collection[bytes] | None],
        ended: Callable[[str], Entry],
    ) -> list[bytes] | None:
        """Insert the tokens of one issue and revoke others of the user, in one transaction alone with the user.

        Meanwhile nobody else adds within a limit for this user. `choose` is handed the user's tokens that are
        neither expired nor revoked nor spent, and names those to revoke with their families, each with an `ended`
        event; it is pure and may be called again. With `None` it refuses, and nothing is written. Return what was
        revoked.
        """

    async def find(self, token_id: bytes, *, coarse: bool = False) -> IssuedRecord | None:
        """Return an access token that is not revoked, without its family. The hot path: one statement.

        Where it can it returns the same object as before while the row is the same. `coarse` lets it do so too while
        nothing but uses has changed the row, so that `last_used_at` may be up to a minute behind.
        """

    async def find_refresh(self, token_id: bytes) -> IssuedRecord | None:
        """Return a refresh token that is not revoked, whether spent or not."""

    async def end_issued(self, namespace: str, token_id: bytes, entry: Callable[[str], Entry]) -> list[bytes]:
        """Revoke one token and its family, each with its event; return the ids of those that were not revoked yet.

        The events differ in nothing but the id, here and below: a store may make one and put the ids in itself.
        """

    async def end_all_issued(
        self, namespace: str, user_id: str, entry: Callable[[str], Entry], *, keep: bytes | None
    ) -> list[bytes]:
        """Revoke all of a user's tokens but one and its family, each with its event; return their ids.

        It is one transaction for up to a thousand tokens, and one for each further thousand.
        """

    async def spend(
        self, spent: IssuedRecord, grant: Grant, reused: Callable[[str], Entry], *, grace: timedelta, successors: int
    ) -> Spending:
        """Use a refresh token and insert what it brings, in one transaction.

        The first use counts, and within `grace` of it, up to so many `successors` in all, further ones: the
        answer to the first may have been lost. Once a successor has been used, or after `grace`, somebody else
        holds a copy (RFC 9700 section 4.14.2): the family is revoked, with a `reused` event for each token.
        The time is that of the grant's event. Past `successors`, and when revoked meanwhile, nothing happens.
        """

    async def issued(self, namespace: str, user_id: str, *, now: datetime, limit: int) -> list[IssuedRecord]:
        """Return the user's tokens that are neither expired nor revoked nor spent, newest first."""

    async def count_issued_uses(self, uses: Sequence[tuple[bytes, int, datetime]]) -> None:
        """Add uses; a revoked token is left alone, and `last_used_at` never moves backwards."""

    async def redigest(self, token_id: bytes, old: bytes, new: bytes, key_id: str | None) -> bool:
        """Put a digest under a newer key in place of `old`."""

    async def erase_issued(self, namespace: str, user_id: str, *, limit: int) -> int:
        """Delete a batch of a user's tokens, whatever they are; return how many."""

    async def purge_issued(
        self, namespace: str, *, before: datetime, after: bytes, limit: int
    ) -> tuple[int, bytes | None]:
        """Look at the next `limit` rows, past `after`, and delete those that expired before `before`.

        Ids of days after that of `before` need no look. Return how many were deleted, and from where to go on, in
        the store's own order; `None`: done. Revoked ones stay until they expire.
        """
