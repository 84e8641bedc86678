"""The async face of the vault, one line a method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Self

from tokenkeep import opening
from tokenkeep.api._words import same_words
from tokenkeep.api.vaults import TokenVault
from tokenkeep.api.watches import AsyncWatch
from tokenkeep.keyring import KeyRing
from tokenkeep.lifecycle import Opened
from tokenkeep.model import (
    AcquiredToken,
    Acquisition,
    AuditCheck,
    AuditChecks,
    AuditEvent,
    Dashboard,
    NewToken,
    Purged,
    Rotated,
    Statistics,
    Status,
    TokenInfo,
)
from tokenkeep.opening import Audited
from tokenkeep.outcomes import Forgotten
from tokenkeep.ports import Clock, Provider, Source
from tokenkeep.vault import MIN_VALIDITY, VaultCore
from tokenkeep.watching import INTERVAL


@same_words(TokenVault)
class AsyncTokenVault:
    """`TokenVault` with awaited methods; `open` is called plainly and reads nothing before the first of them."""

    def __init__(self, opened: Opened[VaultCore]) -> None:
        self._opened = opened

    @classmethod
    def open(  # the fixed public signature
        cls,
        url: Source,
        *,
        providers: Iterable[Provider] = (),
        keys: KeyRing | None = None,
        namespace: str = "default",
        cache: str | None = None,
        audit: Audited = "changes",
        clock: Clock | None = None,
    ) -> Self:
        return cls(
            opening.open_vault(
                url,
                asynchronous=True,
                providers=providers,
                keys=keys,
                namespace=namespace,
                cache=cache,
                audit=audit,
                clock=clock,
            )
        )

    async def __aenter__(self) -> Self:
        await self._opened.started()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._opened.close()

    async def get_valid(
        self,
        user_id: str,
        *,
        provider: str | None = None,
        kind: str = "access",
        min_validity: timedelta = MIN_VALIDITY,
    ) -> AcquiredToken | None:
        core = await self._opened.started()
        return await core.get_valid(user_id, provider=provider, kind=kind, min_validity=min_validity)

    async def get_or_create(
        self,
        user_id: str,
        *,
        provider: str | None = None,
        kind: str = "access",
        min_validity: timedelta = MIN_VALIDITY,
    ) -> AcquiredToken:
        core = await self._opened.started()
        return await core.get_or_create(user_id, provider=provider, kind=kind, min_validity=min_validity)

    async def acquire(self, user_id: str, *, provider: str | None = None) -> AcquiredToken:
        return await (await self._opened.started()).acquire(user_id, provider=provider)

    async def acquire_many(
        self,
        user_ids: Iterable[str],
        *,
        provider: str | None = None,
        concurrency: int = 4,
        progress: Callable[[int, int], object] | None = None,
    ) -> list[Acquisition]:
        core = await self._opened.started()
        return await core.acquire_many(user_ids, provider=provider, concurrency=concurrency, progress=progress)

    async def store(self, user_id: str, new_token: NewToken, *, provider: str | None = None) -> AcquiredToken:
        return await (await self._opened.started()).store(user_id, new_token, provider=provider)

    def watch(
        self,
        user_id: str,
        *,
        provider: str | None = None,
        kind: str = "access",
        interval: timedelta = INTERVAL,
    ) -> AsyncWatch:
        watcher = self._opened.core.watch(user_id, provider=provider, kind=kind, interval=interval)
        return AsyncWatch(self._opened, watcher)

    async def reject(self, token: AcquiredToken) -> None:
        await (await self._opened.started()).reject(token)

    async def revoke(self, user_id: str, *, provider: str | None = None) -> bool:
        return await (await self._opened.started()).revoke(user_id, provider=provider)

    async def forget(self, user_id: str) -> Forgotten:
        return await (await self._opened.started()).forget_user(user_id)

    async def history(self, user_id: str, *, provider: str | None = None, limit: int = 10) -> list[TokenInfo]:
        return await (await self._opened.started()).reports.history(user_id, provider=provider, limit=limit)

    async def statistics(self, user_id: str, *, provider: str | None = None, kind: str | None = "access") -> Statistics:
        return await (await self._opened.started()).reports.statistics(user_id, provider=provider, kind=kind)

    async def dashboard(self, user_id: str, *, provider: str | None = None) -> Dashboard:
        return await (await self._opened.started()).reports.dashboard(user_id, provider=provider)

    async def created_between(
        self, start: datetime, end: datetime, *, user_id: str | None = None, limit: int = 1000
    ) -> list[TokenInfo]:
        core = await self._opened.started()
        return await core.reports.created_between(start, end, user_id=user_id, limit=limit)

    async def audit_trail(self, user_id: str, *, limit: int = 50) -> list[AuditEvent]:
        return await (await self._opened.started()).reports.audit_trail(user_id, limit=limit)

    async def check_audit(self, user_id: str, *, head: str | None = None) -> AuditCheck:
        return await (await self._opened.started()).auditing.check(user_id, head=head)

    async def check_audits(
        self,
        *,
        heads: Mapping[str, str] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> AuditChecks:
        return await (await self._opened.started()).auditing.check_all(heads=heads, progress=progress)

    async def purge(self, *, expired_before: datetime | None = None, audit_before: datetime | None = None) -> Purged:
        core = await self._opened.started()
        return await core.upkeep.purge(expired_before=expired_before, audit_before=audit_before)

    async def status(self) -> Status:
        return await (await self._opened.started()).reports.status()

    async def rotate_keys(self, progress: Callable[[int, int], object] | None = None) -> Rotated:
        return await (await self._opened.started()).upkeep.rotate_keys(progress)
