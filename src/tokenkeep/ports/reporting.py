"""The reads that may be stale, all of them. People look at what they tell, and nothing is decided by it.

A store may answer them from a replica, which knows of a change a moment after it was acknowledged. Every other read
of every port decides something (whether a token is good, who logs in, which version is next, which key seals), so
it is always asked of the server that took the writes. A store's protocols inherit these, and add nothing stale.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from tokenkeep.model import Account, AuditEvent, Statistics, TokenInfo


class TokenReports(Protocol):
    """Of acquired tokens."""

    async def history(self, account: Account, *, now: datetime, limit: int) -> list[TokenInfo]:
        """Return what was made for an account, newest first."""

    async def created_between(
        self, namespace: str, start: datetime, end: datetime, *, user_id: str | None, now: datetime, limit: int
    ) -> list[TokenInfo]:
        """Return what was made from `start` (included) to `end` (excluded), newest first."""

    async def statistics(self, account: Account, *, kind: str | None, now: datetime) -> Statistics:
        """Count over the tokens of an account."""


class IssuedReports(Protocol):
    """Of issued tokens. The list of a user's sessions is none: it is what people end sessions by."""

    async def issued_statistics(self, namespace: str, user_id: str, *, now: datetime) -> Statistics:
        """Count over the access tokens of a user."""


class AuditReports(Protocol):
    """Of the trail."""

    async def audit_trail(self, namespace: str, user_id: str, *, limit: int) -> list[AuditEvent]:
        """Return events newest first."""
