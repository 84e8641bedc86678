"""The day in which an issued token ends, which the token carries as a hint and its id begins with.

So what has ended is one range of the primary key: it is found without an index on the end, and a partition of a
table is such a range too.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

BUCKET_BYTES: Final = 2
LAST_DAY: Final = 2 ** (8 * BUCKET_BYTES) - 1
"""In the year 2149. What ends later is put there, and its row alone says when it ends."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)


def day_of(moment: datetime) -> int:
    """Return the day that a moment lies in: whole days since 1970-01-01 UTC, from 0 to `LAST_DAY`."""
    return min(max((moment - _EPOCH) // _DAY, 0), LAST_DAY)


def start_of(day: int) -> datetime:
    """Return the moment at which a day begins."""
    return _EPOCH + day * _DAY


def first_id(day: int) -> bytes:
    """Return what no id of that day, or of a later one, is smaller than; past `LAST_DAY` it is above every id."""
    return day.to_bytes(BUCKET_BYTES) if day <= LAST_DAY else b"\xff" * 17
