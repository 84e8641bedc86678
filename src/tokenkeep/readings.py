"""An event for each token that is handed out."""

from __future__ import annotations

from datetime import datetime

from tokenkeep.batching import Batch
from tokenkeep.model import Account, Action
from tokenkeep.ports import AuditStore, Entry, TokenRecord, Wait, Work


class Readings:
    """Writes them before the tokens are handed out; those of concurrent callers in one transaction."""

    def __init__(self, audit: AuditStore, *, wait: Wait, work: Work) -> None:
        self._batch = Batch[tuple[Account, Entry]](audit.note_each, wait=wait, work=work)

    async def note(self, record: TokenRecord, at: datetime) -> None:
        """Return when it is written; whoever cannot write it must not hand out the token."""
        detail = {"kind": record.kind, "version": record.version}
        await self._batch.put((record.account, Entry(action=Action.USED, at=at, token_id=record.id, detail=detail)))

    def forget(self) -> None:
        """After a fork: what waits is the parent's to write."""
        self._batch.forget()
