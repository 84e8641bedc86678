"""One login under a lease: from the intent on disk to the sealed tokens in place."""

from __future__ import annotations

import math
import uuid
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, cast

from tokenkeep.errors import (
    AcquireInDoubt,
    ProviderError,
    ProviderRejected,
    ProviderUnavailable,
    StoreError,
    TokenKeepError,
)
from tokenkeep.model import Account, Action, NewToken
from tokenkeep.ports import (
    Backend,
    Binding,
    Clock,
    Entry,
    Lease,
    OneTimeCodes,
    Provider,
    Renewing,
    Right,
    Sealer,
    TokenRecord,
    Wait,
    Work,
)
from tokenkeep.secret import Secret

SUBJECT: Final = "user_id"
"""The key of a profile under which a provider gives its own id of the user."""

ACCESS: Final = "access_token"
REFRESH: Final = "refresh_token"


@dataclass(frozen=True, slots=True)
class Landed:
    """What a login brought, by kind; `written` is `False` when the database could not take it yet."""

    records: Mapping[str, TokenRecord]
    written: bool


@dataclass(frozen=True, slots=True)
class Unwritten:
    """Tokens that were granted and could not be written: everything the write needs."""

    records: Sequence[TokenRecord]
    lease: Lease
    entries: Sequence[Entry]

    def late(self) -> Sequence[Entry]:
        """The entries, saying that the write came late."""
        return [replace(entry, detail={**entry.detail, "written": "late"}) for entry in self.entries]


@dataclass(frozen=True, slots=True)
class Granted:
    """What a provider answered to a request that began at `started`.

    Attributes:
        kept_refresh: the refresh token that stays good when none came with the answer (RFC 6749 section 6).
    """

    started: datetime
    tokens: Sequence[NewToken]
    kept_refresh: Secret | None = None


class _ClaimMissed(Exception):  # it leaves this module never
    """The login was to begin later than its claim on a one-time code allows."""


class Acquiring:
    """Log in or renew at a provider and put the result in place.

    The provider is called outside every transaction. Before it is called, the fence of the attempt and the
    fingerprint of the refresh token to be spent are on disk, so that a crash leaves "in doubt" behind.
    """

    def __init__(  # the ports that one login needs
        self,
        backend: Backend,
        sealer: Sealer,
        *,
        clock: Clock,
        wait: Wait,
        work: Work,
    ) -> None:
        self._tokens = backend.tokens
        self._leases = backend.leases
        self._audit = backend.audit
        self._keys = backend.keys
        self._remembered: set[str] = set()
        self._sealer = sealer
        self._clock = clock
        self._wait = wait
        self._work = work
        self.unwritten: dict[Account, Unwritten] = {}

    # --- asking the provider ---

    async def attempt(self, lease: Lease, provider: Provider) -> Landed | None:
        """Ask the provider once and write what it gave; `None` when the lease was lost on the way.

        Raises:
            ProviderError: no token came. Whatever else escapes a provider is `AcquireInDoubt`.
        """
        account = lease.account
        await self._prepare(lease)
        before = {record.kind: record for record in await self._tokens.loaded(account)}
        versions = await self._tokens.versions(account)
        refresh = self._refresh_token(before) if isinstance(provider, Renewing) else None
        try:
            if refresh is None:
                granted = await self._log_in(provider, lease)
            else:
                granted = await self._renew(provider, lease, refresh)
            if granted is None:
                return None
            new_tokens = _checked(granted.tokens)
            _same_subject(before, new_tokens)
        except ProviderError as error:
            error.provider = error.provider or account.provider
            error.user_id = error.user_id or account.user_id
            raise
        except TokenKeepError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__} escaped the provider; a token may have been granted, see the cause"
            raise AcquireInDoubt(reason, provider=account.provider, user_id=account.user_id) from error
        ends = {new.kind: self.end(provider, new, granted.started) for new in new_tokens}
        records = [
            self._sealed(account, new, versions.get(new.kind, 0) + 1, ends[new.kind], kept_refresh=granted.kept_refresh)
            for new in new_tokens
        ]
        return await self._put_in_place(lease, records)

    async def _prepare(self, right: Right) -> None:
        """Before anything is asked for: note an attempt that was cut off, and the key that is about to seal."""
        if isinstance(right, Lease) and right.unfinished is not None:
            detail = {"reason": "an earlier attempt was begun and never ended; its token, if there was one, is lost"}
            entry = Entry(action=Action.ACQUIRE_IN_DOUBT, at=self._clock.now(), detail=detail)
            await self._audit.note(right.account, entry)
        key_id = self._sealer.key_id
        if key_id not in self._remembered:
            await self._keys.remember_key(key_id, self._sealer.check_value(key_id), self._clock.now())
            self._remembered.add(key_id)

    def _refresh_token(self, before: Mapping[str, TokenRecord]) -> Secret | None:
        for record in before.values():
            if record.refresh_sealed is not None:
                return self._sealer.open(record.refresh_sealed, binding(record, REFRESH))
        return None

    async def _renew(self, provider: Provider, lease: Lease, refresh: Secret) -> Granted | None:
        """Spend the refresh token; where it is refused, look whether somebody else has, and then log in anew."""
        renew = cast("Renewing", provider).renew
        user_id = lease.account.user_id
        fingerprint = self._sealer.fingerprint(refresh)
        if not await self._leases.note_intent(lease, fingerprint):
            return None
        started = self._clock.now()
        try:
            return Granted(started, await self._work.call(renew, user_id, refresh), kept_refresh=refresh)
        except ProviderRejected as refused:
            now = {record.kind: record for record in await self._tokens.loaded(lease.account)}
            newer = self._refresh_token(now)
            if newer is not None and newer != refresh:
                return Granted(started, await self._work.call(renew, user_id, newer), kept_refresh=newer)
            try:
                return await self._log_in(provider, lease)
            except ProviderRejected as error:
                reason = f"{refused.reason}; {error.reason}"
                if lease.unfinished is None or lease.fingerprint != fingerprint:
                    raise ProviderRejected(reason, code=refused.code) from refused
                lost = "an earlier attempt that was cut off had sent the same refresh token: its successor is lost"
                msg = f"{lost}; {reason}"
                raise AcquireInDoubt(msg) from refused

    async def _log_in(self, provider: Provider, lease: Lease) -> Granted | None:
        """Log in; `None` when the lease was lost, as it may be while the login waits for its one-time code."""
        user_id = lease.account.user_id
        while True:
            begin_by = await self._claim_code(provider, user_id)
            if not await self._leases.note_intent(lease, None):
                return None
            started = self._clock.now()
            try:
                return Granted(started, await self._work.call(self._begin, provider, user_id, begin_by))
            except _ClaimMissed:
                continue

    def _begin(
        self, provider: Provider, user_id: str, begin_by: datetime | None
    ) -> Sequence[NewToken] | Awaitable[Sequence[NewToken]]:
        """Begin a login while its claim holds: a thread may have waited long for its turn to run this."""
        if begin_by is not None and self._clock.now() > begin_by:
            raise _ClaimMissed
        return provider.acquire(user_id)

    async def _claim_code(self, provider: Provider, user_id: str) -> datetime | None:
        """Wait for a time step of which no code was used, by whatever process, and claim it.

        The code is computed up to `lead` after this, so the steps up to then are claimed with it. Return when
        the login must have begun; `None` for a provider without such codes.
        """
        if not isinstance(provider, OneTimeCodes):
            return None
        window = provider.code_window(user_id)
        key = self._sealer.fingerprint(Secret(f"code\x00{window.account}"), self._sealer.key_ids[0])
        period = window.period.total_seconds()
        while True:
            claimed_at = self._clock.now()
            now = claimed_at.timestamp()
            step = math.floor(now / period)
            upto = math.floor((now + window.lead.total_seconds()) / period)
            if await self._leases.claim_step(key, after=step - 1, upto=upto):
                return claimed_at + window.begin_within
            await self._wait.sleep((step + 1) * period - now)

    def end(self, provider: Provider | None, new: NewToken, started: datetime) -> datetime | None:
        """Tell when a token ends, counted from before it was asked for, which is never too late."""
        own = new.expires_at if new.expires_in is None else started + new.expires_in
        by_policy = None
        if provider is not None and provider.expiry is not None and (own is None or new.kind == "access"):
            by_policy = provider.expiry.expires_at(started, new)
        ends = [end for end in (own, by_policy) if end is not None]
        if not ends:
            return None
        if min(ends) <= self._clock.now():
            reason = "the token that came has already ended; ask again, and if it lasts check this machine's clock"
            raise ProviderUnavailable(reason)
        return min(ends)

    # --- writing ---

    async def store(self, right: Right, new: NewToken, expires_at: datetime | None) -> Landed | None:
        """Put a token in place that arrived another way; `None` when the lease is another's or was lost.

        Raises:
            StoreError: it was not written; whoever handed it over still has it.
        """
        await self._prepare(right)
        versions = await self._tokens.versions(right.account)
        record = self._sealed(right.account, new, versions.get(new.kind, 0) + 1, expires_at)
        written = await self._tokens.replace([record], right, _entries([record], Action.STORED))
        return Landed({record.kind: record}, written=True) if written else None

    async def _put_in_place(self, lease: Lease, records: Sequence[TokenRecord]) -> Landed | None:
        """Write what a login brought and give the lease back; `None` when it was lost.

        Where the database cannot take it, it is kept here and the write is repeated by `write_late`.
        """
        landed = {record.kind: record for record in records}
        entries = _entries(records, Action.CREATED)
        try:
            written = await self._tokens.replace(records, lease, entries)
        except StoreError:
            self.unwritten[lease.account] = Unwritten(records, lease, entries)
            return Landed(landed, written=False)
        return Landed(landed, written=True) if written else None

    def _sealed(
        self,
        account: Account,
        new: NewToken,
        version: int,
        expires_at: datetime | None,
        *,
        kept_refresh: Secret | None = None,
    ) -> TokenRecord:
        record = TokenRecord(
            id=uuid.uuid4().hex,
            account=account,
            kind=new.kind,
            version=version,
            access_sealed=None,
            refresh_sealed=None,
            key_id=self._sealer.key_id,
            token_type=new.token_type,
            scope=new.scope,
            created_at=self._clock.now(),
            expires_at=expires_at,
            profile=new.profile,
            metadata=new.metadata,
        )
        refresh = new.refresh_token or (kept_refresh if new.kind == "access" else None)
        return seal(self._sealer, record, new.access_token, refresh)

    async def write_late(self, account: Account) -> Sequence[TokenRecord]:
        """Repeat a write that failed; afterwards nothing waits. Return what was overtaken, and so not written.

        Raises:
            StoreError: it failed again; it still waits.
        """
        waiting = self.unwritten.get(account)
        if waiting is None:
            return ()
        written = await self._tokens.replace(waiting.records, waiting.lease, waiting.late())
        if self.unwritten.get(account) is waiting:
            del self.unwritten[account]
        return () if written else waiting.records

    async def left_unwritten(self, account: Account) -> Sequence[TokenRecord]:
        """Try once more to write what waits; return what is on no disk even so."""
        waiting = self.unwritten.get(account)
        try:
            return await self.write_late(account)
        except StoreError:
            return () if waiting is None else waiting.records


def binding(record: TokenRecord, field: str) -> Binding:
    """Where a sealed field of a record belongs."""
    return Binding(record.account, record.kind, record.id, field)


def seal(sealer: Sealer, record: TokenRecord, access: Secret | None, refresh: Secret | None) -> TokenRecord:
    """Return the record with its secrets sealed under the newest key."""
    sealed = None if access is None else sealer.seal(access, binding(record, ACCESS))
    return replace(
        record,
        access_sealed=sealed,
        refresh_sealed=None if refresh is None else sealer.seal(refresh, binding(record, REFRESH)),
        key_id=sealer.key_id if sealed is None else sealer.key_id_of(sealed),
    )


def _entries(records: Sequence[TokenRecord], action: Action) -> list[Entry]:
    return [
        Entry(
            action=action,
            at=record.created_at,
            token_id=record.id,
            detail={"kind": record.kind, "version": record.version},
        )
        for record in records
    ]


def _checked(granted: object) -> Sequence[NewToken]:
    """Check what a provider returned: at least one token, at most one of each kind."""
    tokens = [granted] if isinstance(granted, NewToken) else list(granted) if isinstance(granted, Sequence) else []
    if not tokens or not all(isinstance(token, NewToken) for token in tokens):
        msg = f"the provider returned {type(granted).__name__} instead of a sequence of NewToken"
        raise TypeError(msg)
    kinds = [token.kind for token in tokens]
    if len(set(kinds)) != len(kinds):
        msg = f"the provider returned two tokens of one kind: {', '.join(kinds)}"
        raise TypeError(msg)
    return tokens


def _same_subject(before: Mapping[str, TokenRecord], new_tokens: Sequence[NewToken]) -> None:
    """Refuse tokens of another person than the ones in place: the credentials were mixed up."""
    known = {str(record.profile[SUBJECT]) for record in before.values() if record.profile.get(SUBJECT)}
    for new in new_tokens:
        subject = new.profile.get(SUBJECT)
        if known and subject and str(subject) not in known:
            reason = (
                f"the login is that of {subject!r}, but the tokens in place are those of {', '.join(sorted(known))!r}: "
                "check whose credentials these are, or revoke() the old tokens first"
            )
            raise ProviderRejected(reason)
