"""Issued tokens in partitions."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Partitions(Protocol):
    """Partitions of issued tokens by the day in which they end.

    A store that could have them but was not set up so does nothing here, and neither does a user who may not change
    tables: then the rows are deleted in batches, as elsewhere.
    """

    async def make_partitions(self, first: datetime, last: datetime) -> int:
        """Make the partitions that are missing from one moment to another; return how many. Nobody waits for it."""

    async def drop_ended(self, namespace: str | None, *, before: datetime) -> int:
        """Drop the partitions in which every token expired before a moment; return how many tokens were in them.

        A partition with tokens of other namespaces stays, unless `namespace` is `None`; so does one that others
        hold on to: the next time finds it again.
        """
