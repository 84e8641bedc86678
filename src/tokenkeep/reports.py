"""What is known of acquired tokens, without their secrets."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from tokenkeep import _checking
from tokenkeep.model import AuditEvent, Dashboard, Statistics, Status, TokenInfo
from tokenkeep.ports import Backend, Clock
from tokenkeep.registry import Registry
from tokenkeep.status import status_of
from tokenkeep.uses import UseCounter

_RECENT: Final = 10


class Reports:
    """The reading half of the vault. The uses counted in this process are written before they are told."""

    def __init__(self, backend: Backend, registry: Registry, uses: UseCounter[str], *, clock: Clock) -> None:
        self._backend = backend
        self._tokens = backend.tokens
        self._registry = registry
        self._uses = uses
        self._clock = clock

    async def history(self, user_id: str, *, provider: str | None = None, limit: int = 10) -> list[TokenInfo]:
        account = self._registry.account(user_id, provider)
        _checking.count(limit, "limit")
        await self._uses.flush()
        return await self._tokens.history(account, now=self._clock.now(), limit=limit)

    async def statistics(self, user_id: str, *, provider: str | None = None, kind: str | None = "access") -> Statistics:
        account = self._registry.account(user_id, provider)
        await self._uses.flush()
        return await self._tokens.statistics(account, kind=kind, now=self._clock.now())

    async def dashboard(self, user_id: str, *, provider: str | None = None) -> Dashboard:
        statistics = await self.statistics(user_id, provider=provider)
        newest = await self.history(user_id, provider=provider, limit=_RECENT)
        active = [info for info in newest if info.active]
        return Dashboard(
            user_id=user_id,
            statistics=statistics,
            recent_activity=await self.audit_trail(user_id, limit=_RECENT),
            active_token=next((info for info in active if info.kind == "access"), active[0] if active else None),
        )

    async def created_between(
        self, start: datetime, end: datetime, *, user_id: str | None = None, limit: int = 1000
    ) -> list[TokenInfo]:
        start, end = _checking.instant(start, "start"), _checking.instant(end, "end")
        if user_id is not None:
            _checking.name(user_id, "user_id")
        _checking.count(limit, "limit")
        await self._uses.flush()
        return await self._tokens.created_between(
            self._registry.namespace, start, end, user_id=user_id, now=self._clock.now(), limit=limit
        )

    async def audit_trail(self, user_id: str, *, limit: int = 50) -> list[AuditEvent]:
        _checking.name(user_id, "user_id")
        _checking.count(limit, "limit")
        return await self._backend.audit.audit_trail(self._registry.namespace, user_id, limit=limit)

    async def status(self) -> Status:
        return await status_of(self._backend)
