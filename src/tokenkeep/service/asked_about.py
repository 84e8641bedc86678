"""The application's own issued tokens, as the OAuth routes ask about them: counted."""

from __future__ import annotations

from tokenkeep.api import AsyncTokenIssuer
from tokenkeep.metrics import Metrics
from tokenkeep.model import IssuedToken


class AskedAbout:
    """Verifies and revokes."""

    def __init__(self, issuer: AsyncTokenIssuer, metrics: Metrics) -> None:
        self._issuer = issuer
        self._metrics = metrics

    async def verify(self, token: str) -> IssuedToken | None:
        """Return whose it is; `None` when it is not good."""
        found = await self._issuer.verify(token)
        self._metrics.verified(found)
        return found

    async def revoke(self, token: str) -> bool:
        """End it."""
        return await self._issuer.revoke(token)
