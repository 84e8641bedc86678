"""Moving a whole store to another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

type Row = Mapping[str, Any]
"""A whole row by the names of the columns in SQL: text, whole numbers, bytes, aware UTC times, and what JSON holds."""


class Room(StrEnum):
    """The kinds of row, in the order in which they are moved: the keys first, the trail and its heads last."""

    KEYS = "key"
    STEPS = "step"
    LEASES = "lease"
    TOKENS = "token"
    ISSUED = "issued"
    AUDIT = "audit"
    HEADS = "audit_head"


@runtime_checkable
class Transferable(Protocol):
    """A backend whose rows can be read and added as they are. Nothing is opened: sealed values move sealed."""

    @property
    def together(self) -> int:
        """How many rows are best added at a time."""

    async def count_rows(self, room: Room) -> int:
        """Return how many rows there are."""

    async def read_rows(self, room: Room, *, after: Row | None, limit: int) -> list[Row]:
        """Return the next rows in the store's own order, past the row `after`; sometimes a few past `limit`.

        The order is the same each time, as long as nobody writes. Events of one user come in that of their numbers.
        """

    async def add_rows(self, room: Room, rows: Sequence[Row]) -> int:
        """Add the rows whose key is not there yet; return how many. Safe to repeat.

        In one transaction where the store can, else in one for each user.
        """
