"""How many sessions a user may have at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Literal

from tokenkeep import _checking
from tokenkeep.ports import IssuedRecord

AtLimit = Literal["revoke", "refuse"]
"""What happens when there is one too many."""

_CHOICES: Final = ("revoke", "refuse")


class Limit:
    """A number of sessions, and which of them must end for another.

    What came of one issue by refreshing is one session; it lives while any of its tokens can be used.
    """

    def __init__(self, most: int, at_limit: AtLimit) -> None:
        self.most = _checking.count(most, "limit")
        if at_limit not in _CHOICES:
            msg = f"at_limit must be 'revoke' or 'refuse', not {at_limit!r}"
            raise ValueError(msg)
        self._refuses = at_limit == "refuse"

    def choose(self, records: Sequence[IssuedRecord], is_good: Callable[[IssuedRecord], bool]) -> list[bytes] | None:
        """Name a token of each session that must end for another one; `None` when there is to be none.

        Those stay that were issued or refreshed last.
        """
        newest: dict[bytes, tuple[datetime, bytes]] = {}
        for record in records:
            if record.access_lifetime is not None or is_good(record):
                session, made = record.family or record.id, (record.created_at, record.id)
                newest[session] = max(newest.get(session, made), made)
        over = sorted(newest.values(), reverse=True)[self.most - 1 :]
        return None if over and self._refuses else [token_id for _, token_id in over]
