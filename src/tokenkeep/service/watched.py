"""The accounts that the metrics tell of: have they a valid token, and until when?"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from tokenkeep._checking import MAX_SPAN
from tokenkeep.api import AsyncTokenVault

MOST: Final = 200
"""Accounts; each costs a query when the metrics are read."""

_LOOKED_AT: Final = 10


class Watched:
    """Those that were named, and those whose tokens were handed out since the start, at most 200 in all.

    Args:
        accounts: provider and user of each that is watched from the start.
    """

    def __init__(self, accounts: Iterable[tuple[str, str]] = ()) -> None:
        self._accounts = dict.fromkeys(accounts)

    def add(self, provider: str, user_id: str) -> None:
        """Watch one more, if there is room."""
        if len(self._accounts) < MOST:
            self._accounts[provider, user_id] = None

    async def left(self, vault: AsyncTokenVault, now: datetime) -> dict[str, list[timedelta | None]]:
        """Return by provider how long the token of each account still lasts; `None` where there is no valid one.

        A token without an end lasts ten years. Nothing is decrypted, and nothing counts as a use.
        """
        found: dict[str, list[timedelta | None]] = {}
        for provider, user_id in tuple(self._accounts):
            infos = await vault.history(user_id, provider=provider, limit=_LOOKED_AT)
            valid = [info for info in infos if info.active and info.kind == "access"]
            ends = [MAX_SPAN if info.expires_at is None else info.expires_at - now for info in valid]
            found.setdefault(provider, []).append(ends[0] if ends else None)
        return found
