"""Keeping house: clearing what has ended, and moving everything to the newest key."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from tokenkeep import _checking
from tokenkeep.acquiring import ACCESS, REFRESH, binding, seal
from tokenkeep.auditing import Auditing
from tokenkeep.errors import UnknownKey
from tokenkeep.keycheck import check_keys
from tokenkeep.model import Account, Purged, Rotated
from tokenkeep.ports import Backend, Clock, Sealer, TokenRecord, Wait
from tokenkeep.registry import Registry
from tokenkeep.revoking import Revocations
from tokenkeep.uses import UseCounter

HISTORY_RETENTION: Final = timedelta(days=365)
"""How long the history of a token outlives it."""

_BATCH: Final = 500
_PAUSE_BETWEEN_BATCHES: Final = 0.01


class Upkeep:
    """Long work on acquired tokens, in bounded batches, each a transaction: safe to interrupt and to repeat."""

    def __init__(  # the ports that it needs
        self,
        backend: Backend,
        registry: Registry,
        sealer: Sealer,
        uses: UseCounter[str],
        auditing: Auditing,
        revocations: Revocations,
        *,
        clock: Clock,
        wait: Wait,
    ) -> None:
        self._backend = backend
        self._tokens = backend.tokens
        self._registry = registry
        self._sealer = sealer
        self._uses = uses
        self._auditing = auditing
        self._revocations = revocations
        self._clock = clock
        self._wait = wait

    async def purge(self, *, expired_before: datetime | None = None, audit_before: datetime | None = None) -> Purged:
        expired = self._clock.now() if expired_before is None else _checking.instant(expired_before, "expired_before")
        audit = None if audit_before is None else _checking.instant(audit_before, "audit_before")
        await self._uses.flush()
        revoked = await self._revocations.work_off()
        secrets = tokens = events = 0
        while True:
            erased, deleted = await self._tokens.purge(
                self._registry.namespace, expired_before=expired, ended_before=expired - HISTORY_RETENTION, limit=_BATCH
            )
            secrets, tokens = secrets + erased, tokens + deleted
            if max(erased, deleted) < _BATCH:
                break
            await self._wait.sleep(_PAUSE_BETWEEN_BATCHES)
        while audit is not None:
            gone = await self._backend.audit.purge_audit(self._registry.namespace, audit, limit=_BATCH)
            events += gone
            if gone < _BATCH:
                break
            await self._wait.sleep(_PAUSE_BETWEEN_BATCHES)
        return Purged(secrets=secrets, tokens=tokens, audit_events=events, provider_revoked=revoked)

    async def erase(self, account: Account) -> tuple[int, int]:
        """Delete what has ended of an account; return how many rows went, and how many wait for their provider."""
        await self._uses.flush()
        erased, gone = 0, _BATCH
        while gone == _BATCH:
            gone, kept = await self._tokens.erase(account, limit=_BATCH)
            erased += gone
            await self._wait.sleep(_PAUSE_BETWEEN_BATCHES if gone == _BATCH else 0)
        return erased, kept

    async def rotate_keys(self, progress: Callable[[int, int], object] | None = None) -> Rotated:
        newest = self._sealer.key_id
        await check_keys(self._backend.keys, self._sealer, self._clock)
        in_use = await self._backend.keys.keys_in_use()
        if missing := set(in_use) - set(self._sealer.key_ids):
            raise UnknownKey(missing, "tokens in this database are still sealed under it")
        old = [key_id for key_id, use in in_use.items() if key_id != newest and use.sealed]
        total, done, moved, after = sum(in_use[key_id].sealed for key_id in old), 0, 0, ""
        while old and (records := await self._tokens.sealed_under(old, after=after, limit=_BATCH)):
            moved += await self._tokens.reseal([(record, self._resealed(record)) for record in records])
            done, after = done + len(records), records[-1].id
            if progress is not None:
                progress(min(done, total), total)
        if len(self._sealer.key_ids) > 1:
            await self._auditing.vouch(self._sealer)
        still = await self._backend.keys.keys_in_use()
        unused = tuple(sorted(key_id for key_id in self._sealer.key_ids if key_id != newest and key_id not in still))
        return Rotated(key_id=newest, resealed=moved, unused=unused)

    def _resealed(self, record: TokenRecord) -> TokenRecord:
        access, refresh = record.access_sealed, record.refresh_sealed
        return seal(
            self._sealer,
            record,
            None if access is None else self._sealer.open(access, binding(record, ACCESS)),
            None if refresh is None else self._sealer.open(refresh, binding(record, REFRESH)),
        )
