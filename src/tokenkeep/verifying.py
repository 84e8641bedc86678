"""Is this bearer one of ours, and good now? The hot path of issued tokens."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from tokenkeep import _checking
from tokenkeep._kept import Kept
from tokenkeep.digest import TokenForm, fingerprint, public_id, token_id
from tokenkeep.errors import StoreError
from tokenkeep.minting import shown
from tokenkeep.model import IssuedToken
from tokenkeep.ports import Clock, IssuedRecord, IssuedStore, Wait
from tokenkeep.recent import Recent, Ticket
from tokenkeep.secret import Secret
from tokenkeep.uses import UseCounter

GRANULES: Final = 20
GRANULE: Final = timedelta(seconds=60)
"""A use is written when the one on disk is older than a twentieth of `idle`, at most this."""

EVERYTHING: Final = "*"

_LONGEST: Final = 128
"""Characters; no token is longer."""

_KEPT: Final = 10_000


class Seen(NamedTuple):
    """A row that a token was found to match, and what is shown of it."""

    record: IssuedRecord
    token: IssuedToken


class Verifier:
    """Judges tokens of one form in one namespace.

    Args:
        recent: answers without asking the store within its bound; `None`: the store is always asked.
        idle: a token that was not used for so long is over; `None`: only its end counts.
    """

    def __init__(  # the ports that it needs
        self,
        store: IssuedStore,
        form: TokenForm,
        uses: UseCounter[str],
        *,
        namespace: str,
        idle: timedelta | None,
        recent: Recent | None,
        clock: Clock,
        wait: Wait,
    ) -> None:
        self._wait = wait
        self._store = store
        self._form = form
        self._uses = uses
        self._namespace = namespace
        self._idle = idle
        self._granule = None if idle is None else min(idle / GRANULES, GRANULE)
        self._recent = recent
        self._time = clock.now
        self._latest = clock.now()
        self._seen: Kept[bytes, Seen] = Kept(_KEPT)

    async def verify(self, token: str | Secret, *, scopes: Collection[str] = ()) -> IssuedToken | None:
        """Return whose token it is; `None` for anything that is not good, and when a scope is missing."""
        if isinstance(scopes, str):
            _checking.scopes(scopes, "scopes")
        plain = token.reveal() if isinstance(token, Secret) else token
        if not isinstance(plain, str) or len(plain) > _LONGEST or not plain.isascii():
            return None
        mark = fingerprint(plain)
        if self._recent is None:
            return await self._ask(plain, mark, scopes, None)
        now = self.now()
        found = self._recent.get(mark, now)
        if found is not None:
            return self._used(found, scopes, now)
        if not self._form.well_formed(plain):
            return None
        async with self._wait.turn((self, mark)):  # of a crowd one asks, and the others find what it was told
            found = self._recent.get(mark, now := self.now())
            if found is not None:
                return self._used(found, scopes, now)
            return await self._ask(plain, mark, scopes, self._recent.ticket())

    async def _ask(self, plain: str, mark: bytes, scopes: Collection[str], ticket: Ticket | None) -> IssuedToken | None:
        """Ask the store. What was seen of this very token before saves work only while the row is the same."""
        seen = self._seen.get(mark)
        if seen is None and not self._form.well_formed(plain):
            return None
        record = await self._store.find(token_id(plain) if seen is None else seen.record.id, coarse=self._idle is None)
        now = self.now()
        if record is None or not self.is_good(record, now):
            return None
        is_newest = record.key_id == self._form.key_id  # another key may have left the ring
        if seen is None or seen.record is not record or not is_newest:
            trusted = is_newest and self._has_matched(seen, record)
            if not trusted and not self._form.matches(plain, record.digest, record.key_id):
                return None
            seen = Seen(record, shown(record))
            if self._recent is None and is_newest:
                self._seen.keep(mark, seen)
        found = self._used(seen.token, scopes, now)
        if found is not None:
            if self._granule is not None or not is_newest:
                await self._look_after(record, plain, now)
            if self._recent is not None and ticket is not None:
                self._recent.keep(mark, found, ends_at=self._end(record), ticket=ticket)
        return found

    @staticmethod
    def _has_matched(seen: Seen | None, record: IssuedRecord) -> bool:
        """Tell whether the token was found to match this very digest before."""
        return seen is not None and (seen.record.digest, seen.record.key_id) == (record.digest, record.key_id)

    def _used(self, found: IssuedToken, scopes: Collection[str], now: datetime) -> IssuedToken | None:
        """Default deny: what is asked for must have been granted. Only then it is a use."""
        if scopes and EVERYTHING not in found.scopes and not found.scopes.issuperset(scopes):
            return None
        self._uses.add(found.id, now)
        return found

    async def _look_after(self, record: IssuedRecord, plain: str, now: datetime) -> None:
        """Write the last use once in a granule, and the digest under the newest key. What fails, the next use tries."""
        if self._granule is not None and now - (record.last_used_at or record.created_at) >= self._granule:
            with suppress(StoreError):
                await self._uses.flush()
        newest = self._form.key_id
        if record.key_id != newest:
            with suppress(StoreError):
                await self._store.redigest(record.id, record.digest, self._form.digest(plain, newest), newest)

    def is_good(self, record: IssuedRecord, now: datetime) -> bool:
        """Tell whether an access token is of this issuer and not over."""
        return (
            record.namespace == self._namespace
            and now < record.expires_at
            and (self._idle is None or now < self._end(record))
        )

    def _end(self, record: IssuedRecord) -> datetime:
        """The end, or the end of idleness when that is sooner. A use that is not written yet counts."""
        if self._idle is None:
            return record.expires_at
        last = max(record.last_used_at or record.created_at, self._uses.last(public_id(record.id)) or record.created_at)
        return min(record.expires_at, last + self._idle)

    def now(self) -> datetime:
        """Return the time, which never goes back here: a clock that is set back revives nothing."""
        now = self._time()
        if now < self._latest:
            return self._latest
        self._latest = now
        return now

    def forget(self) -> None:
        """After a fork: what was counted is the parent's."""
        self._uses.forget()
        if self._recent is not None:
            self._recent.forget()
