"""Acquired tokens: the core of the vault. It awaits nothing but its ports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeGuard

from tokenkeep import _checking
from tokenkeep.acquiring import ACCESS, REFRESH, Acquiring, Landed, binding
from tokenkeep.auditing import Auditing
from tokenkeep.errors import (
    ProviderError,
    ProviderRejected,
    SealingError,
    StoreError,
    TokenKeepError,
)
from tokenkeep.expiry import worth_renewing
from tokenkeep.keycheck import check_keys
from tokenkeep.leases import SingleFlight
from tokenkeep.model import (
    Account,
    AcquiredToken,
    Acquisition,
    Action,
    NewToken,
)
from tokenkeep.outcomes import Forgotten
from tokenkeep.ports import (
    Backend,
    Clock,
    Entry,
    Lease,
    NearTokens,
    Provider,
    Right,
    Sealer,
    TokenRecord,
    Unheld,
    Use,
    Wait,
    Work,
)
from tokenkeep.readings import Readings
from tokenkeep.registry import Registry
from tokenkeep.reports import Reports
from tokenkeep.revoking import Revocations
from tokenkeep.upkeep import Upkeep
from tokenkeep.uses import Sums, UseCounter
from tokenkeep.watching import Watcher, Watching

MIN_VALIDITY: Final = timedelta(seconds=60)
_NOTHING: Final = timedelta(0)
_RETRY_WRITE: Final = timedelta(seconds=1)


class VaultCore:
    """What both faces do, one method each. Docstrings stand on the faces."""

    def __init__(  # everything a vault is wired with
        self,
        backend: Backend,
        registry: Registry,
        sealer: Sealer,
        *,
        clock: Clock,
        wait: Wait,
        work: Work,
        audit_reads: bool = False,
    ) -> None:
        self._backend = backend
        self._tokens = backend.tokens
        self._near = backend.tokens if isinstance(backend.tokens, NearTokens) else None
        self._registry = registry
        self._sealer = sealer
        self._clock = clock
        self._work = work
        self._flight = SingleFlight(backend.leases, clock=clock, wait=wait, work=work)
        self._acquiring = Acquiring(backend, sealer, clock=clock, wait=wait, work=work)
        self._unwritten = self._acquiring.unwritten
        self._uses = UseCounter[str](self._count_uses, work)
        self._watching = Watching(backend.bell, wait=wait, work=work)
        self._readings = Readings(backend.audit, wait=wait, work=work) if audit_reads else None
        self._revocations = Revocations(backend, registry, self._open, clock=clock, work=work)
        self.auditing = Auditing(backend.audit, sealer, namespace=registry.namespace)
        self.reports = Reports(backend, registry, self._uses, clock=clock)
        self.upkeep = Upkeep(
            backend, registry, sealer, self._uses, self.auditing, self._revocations, clock=clock, wait=wait
        )

    async def start(self) -> None:
        """Prepare the schema and check the keys."""
        await self._backend.health.prepare()
        await check_keys(self._backend.keys, self._sealer, self._clock)

    async def close(self) -> None:
        """Write what waits to be written, then close what was opened."""
        try:
            await self._watching.close()
            await self._write_what_waits()
        finally:
            await self._backend.health.close()

    async def _write_what_waits(self) -> None:
        """Write late tokens and counted uses; a token that still cannot be written costs no count."""
        try:
            for account in list(self._unwritten):
                await self._acquiring.write_late(account)
        finally:
            await self._uses.flush()

    async def flush(self) -> None:
        """Write the uses that were counted."""
        await self._uses.flush()

    def forget(self) -> None:
        """After a fork: what was counted and not written yet is the parent's."""
        self._uses.forget()
        self._unwritten.clear()
        self._watching.forget()
        self._flight.forget()
        if self._readings is not None:
            self._readings.forget()

    # --- handing out ---

    async def get_valid(
        self,
        user_id: str,
        *,
        provider: str | None = None,
        kind: str = "access",
        min_validity: timedelta = MIN_VALIDITY,
    ) -> AcquiredToken | None:
        account = self._registry.account(user_id, provider)
        _checking.span(min_validity, "min_validity", zero=True)
        record = await self._at_hand(account, _checking.label(kind, "kind"), min_validity)
        now = self._clock.now()
        return await self._hand_out(record, now) if _usable(record, now, min_validity) else None

    async def get_or_create(
        self,
        user_id: str,
        *,
        provider: str | None = None,
        kind: str = "access",
        min_validity: timedelta = MIN_VALIDITY,
    ) -> AcquiredToken:
        account = self._registry.account(user_id, provider)
        _checking.span(min_validity, "min_validity", zero=True)
        record = await self._at_hand(account, _checking.label(kind, "kind"), min_validity)
        now = self._clock.now()
        if _usable(record, now, min_validity):
            return await self._hand_out(record, now)
        source = self._registry.provider(account.provider)
        if _usable(record, now) and not self._worth_renewing(source, record, now, min_validity):
            return await self._hand_out(record, now)
        if record is None and kind != "access":
            await self._refuse_missing_kind(account, kind, now)
        try:
            record = await self._acquire(source, account, kind, min_validity=min_validity, seen=record, forced=False)
        except ProviderError:
            record = await self._in_place(account, kind)
            if not _usable(record, self._clock.now()):
                raise
        return await self._hand_out(record, self._clock.now())

    def _worth_renewing(self, source: Provider, record: TokenRecord, now: datetime, needed: timedelta) -> bool:
        """Whether a login now would give a token that lives longer than the one in place."""
        expected = source.expiry.expires_at(now) if source.expiry is not None else None
        if expected is None and record.expires_at is not None:
            expected = now + (record.expires_at - record.created_at)
        return worth_renewing(now, ends=record.expires_at, expected=expected, needed=needed)

    async def _refuse_missing_kind(self, account: Account, kind: str, now: datetime) -> None:
        """Do not log in again and again for a kind that the last login did not bring."""
        others = [record.kind for record in await self._tokens.loaded(account) if _usable(record, now)]
        if others:
            reason = f"the last login gave {', '.join(others)}, not {kind!r}; acquire() logs in anew"
            raise ProviderRejected(reason, provider=account.provider, user_id=account.user_id)

    async def acquire(self, user_id: str, *, provider: str | None = None) -> AcquiredToken:
        account = self._registry.account(user_id, provider)
        source = self._registry.provider(account.provider)
        seen = await self._in_place(account, "access")
        record = await self._acquire(source, account, "access", min_validity=None, seen=seen, forced=True)
        return self._open(record)

    async def _acquire(
        self,
        source: Provider,
        account: Account,
        kind: str,
        *,
        min_validity: timedelta | None,
        seen: TokenRecord | None,
        forced: bool,
    ) -> TokenRecord:
        """Lead a login or wait for the one that is under way.

        What serves is a token newer than `seen`, or with `min_validity` one that lasts that long.
        """

        def serves(record: TokenRecord) -> bool:
            now = self._clock.now()
            newer = seen is None or record.id != seen.id
            return (newer and _usable(record, now)) or (min_validity is not None and _usable(record, now, min_validity))

        async def attempt(lease: Lease) -> TokenRecord | None:
            landed = await self._acquiring.attempt(lease, source)
            return None if landed is None else self._wanted(account, landed, kind)

        read = partial(self._in_place, account, kind)
        return await self._flight.run(account, kind=kind, read=read, serves=serves, attempt=attempt, forced=forced)

    def _wanted(self, account: Account, landed: Landed, kind: str) -> TokenRecord:
        self._watching.ring(account)
        if not landed.written:
            self._work.later(partial(self._write_later, account), _RETRY_WRITE)
        kinds = landed.records
        if kind == "access" and kind not in kinds:
            return next(iter(kinds.values()))
        if kind not in kinds:
            reason = f"the login gave {', '.join(kinds)}, not {kind!r}"
            raise ProviderRejected(reason, provider=account.provider, user_id=account.user_id)
        return kinds[kind]

    async def _write_later(self, account: Account) -> None:
        try:
            await self._acquiring.write_late(account)
        except StoreError:
            self._work.later(partial(self._write_later, account), _RETRY_WRITE)

    async def acquire_many(
        self,
        user_ids: Iterable[str],
        *,
        provider: str | None = None,
        concurrency: int = 4,
        progress: Callable[[int, int], object] | None = None,
    ) -> list[Acquisition]:
        _checking.count(concurrency, "concurrency")
        self._registry.provider(self._registry.name(provider))
        users = [_checking.name(user_id, "user_ids") for user_id in user_ids]
        done = 0

        async def one(user_id: str) -> Acquisition:
            nonlocal done
            try:
                result = Acquisition(user_id=user_id, token=await self.acquire(user_id, provider=provider))
            except TokenKeepError as error:
                result = Acquisition(user_id=user_id, error=error)
            done += 1
            if progress is not None:
                progress(done, len(users))
            return result

        return await self._work.each([partial(one, user_id) for user_id in users], concurrency=concurrency)

    async def store(self, user_id: str, new_token: NewToken, *, provider: str | None = None) -> AcquiredToken:
        account = self._registry.account(user_id, provider)
        if not isinstance(new_token, NewToken):
            msg = f"new_token must be a NewToken, not {type(new_token).__name__}"
            raise TypeError(msg)
        now = self._clock.now()
        ends = self._acquiring.end(self._registry.providers.get(account.provider), new_token, now)

        async def nothing() -> TokenRecord | None:
            return None

        async def write(right: Right) -> TokenRecord | None:
            landed = await self._acquiring.store(right, new_token, ends)
            return None if landed is None else self._wanted(account, landed, new_token.kind)

        record = await write(Unheld(account=account))
        if record is None:  # somebody logs in, or others store at this moment
            record = await self._flight.run(
                account, kind="", read=nothing, serves=lambda _: False, attempt=write, forced=True
            )
        return self._open(record)

    async def _at_hand(self, account: Account, kind: str, needed: timedelta) -> TokenRecord | None:
        """The token in place; what is only remembered must be good to hand out, for it decides nothing else."""
        if self._near is not None and account not in self._unwritten:
            record = await self._near.recall(account, kind)
            if _usable(record, self._clock.now(), needed):
                return record
        return await self._in_place(account, kind)

    async def _in_place(self, account: Account, kind: str) -> TokenRecord | None:
        """The token in place, be it in the database or, granted and not yet written, here."""
        if self._unwritten and (waiting := self._unwritten.get(account)) is not None:
            with suppress(StoreError):
                await self._acquiring.write_late(account)
            if account in self._unwritten:
                return next((record for record in waiting.records if record.kind == kind), None)
        return await self._tokens.load(account, kind)

    async def _hand_out(self, record: TokenRecord, now: datetime) -> AcquiredToken:
        if self._readings is not None:
            self._open(record)  # what cannot be opened is not read
            await self._readings.note(record, now)
        pending = self._uses.add(record.id, now)
        return self._open(record, uses=pending, at=now)

    def _open(self, record: TokenRecord, *, uses: int = 0, at: datetime | None = None) -> AcquiredToken:
        account = record.account
        if record.access_sealed is None:
            msg = f"the secret of token {record.id} has been erased"
            raise SealingError(msg)
        refresh = record.refresh_sealed
        return AcquiredToken(
            id=record.id,
            namespace=account.namespace,
            provider=account.provider,
            user_id=account.user_id,
            kind=record.kind,
            version=record.version,
            access_token=self._sealer.open(record.access_sealed, binding(record, ACCESS)),
            refresh_token=None if refresh is None else self._sealer.open(refresh, binding(record, REFRESH)),
            token_type=record.token_type,
            scope=record.scope,
            created_at=record.created_at,
            expires_at=record.expires_at,
            last_used_at=record.last_used_at if at is None else at,
            usage_count=record.usage_count + uses,
            profile=record.profile,
            metadata=record.metadata,
            persisted=account not in self._unwritten,
        )

    # --- watching ---

    def watch(self, user_id: str, *, provider: str | None, kind: str, interval: timedelta) -> Watcher:
        account = self._registry.account(user_id, provider)
        _checking.label(kind, "kind")
        _checking.span(interval, "interval")

        async def hand_out(record: TokenRecord) -> AcquiredToken | None:
            now = self._clock.now()
            return await self._hand_out(record, now) if _usable(record, now) else None

        look = partial(self._in_place, account, kind)
        watching = self._watching
        return watching.add(Watcher(watching, account, kind, interval=interval, look=look, hand_out=hand_out))

    # --- ending ---

    async def reject(self, token: AcquiredToken) -> None:
        if token.namespace != self._registry.namespace:
            msg = f"the token is of namespace {token.namespace!r}, this vault keeps {self._registry.namespace!r}"
            raise ValueError(msg)
        account = Account(token.namespace, token.provider, token.user_id)
        waiting = self._unwritten.get(account)
        if waiting is not None and any(record.id == token.id for record in waiting.records):
            del self._unwritten[account]
            return
        detail = {"kind": token.kind, "version": token.version}
        entry = Entry(action=Action.REJECTED, at=self._clock.now(), token_id=token.id, detail=detail)
        await self._tokens.reject(token.id, account, entry)

    async def revoke(self, user_id: str, *, provider: str | None = None) -> bool:
        account = self._registry.account(user_id, provider)
        waiting = self._unwritten.get(account)
        ended = await self._revocations.revoke(account, await self._acquiring.left_unwritten(account))
        self._unwritten.pop(account, None)
        return ended > 0 or waiting is not None

    async def forget_user(self, user_id: str) -> Forgotten:
        namespace = self._registry.namespace
        kept_by = await self._tokens.providers_of(namespace, _checking.name(user_id, "user_id"))
        waiting = {account.provider for account in self._unwritten if account.user_id == user_id}
        erased = awaiting = 0
        for name in sorted({*kept_by, *waiting, *self._registry.providers}):
            await self.revoke(user_id, provider=name)
            gone, kept = await self.upkeep.erase(Account(namespace, name, user_id))
            erased, awaiting = erased + gone, awaiting + kept
        detail = {"acquired_tokens": erased, "awaiting_revocation": awaiting}
        entry = Entry(action=Action.FORGOTTEN, at=self._clock.now(), detail=detail)
        await self._backend.audit.note(Account(namespace, "", user_id), entry)
        return Forgotten(tokens=erased, awaiting_revocation=awaiting)

    async def _count_uses(self, sums: Sums[str]) -> None:
        uses: Sequence[Use] = [Use(token_id, used.count, used.last) for token_id, used in sums.items()]
        await self._tokens.count_uses(uses)


def _usable(record: TokenRecord | None, now: datetime, needed: timedelta = _NOTHING) -> TypeGuard[TokenRecord]:
    """Whether a token can be handed out and lasts for `needed` at least. At its end it has ended."""
    return (
        record is not None
        and record.access_sealed is not None
        and not record.rejected
        and (record.expires_at is None or record.expires_at > now + needed)
    )
