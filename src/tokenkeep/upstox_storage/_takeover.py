"""Taking over what the code in upstox-totp's documentation has left in a database: its tokens are in clear.

What is live goes into the vault, sealed; then the clear text is erased, each row only if it still is what was read.
So it may be interrupted anywhere and repeated, and several processes may do it at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Protocol

from tokenkeep.api import TokenVault
from tokenkeep.importing.entries import Entry, Origin
from tokenkeep.importing.landing import land
from tokenkeep.importing.seed_page import newest
from tokenkeep.ports import Provider

ERASED: Final = "moved to tokenkeep"
"""What stands in the place of a clear token: the column takes no null."""

_logger: Final = logging.getLogger("tokenkeep")


@dataclass(frozen=True, slots=True, kw_only=True)
class OldRow:
    """A row with a clear token.

    Attributes:
        key: by which the row is found again.
        text: what is erased if it still stands there.
        read: makes an entry of it; raises whatever Python raises when it is malformed.
    """

    place: str
    key: Any
    user_id: str
    active: bool
    text: str = field(repr=False)
    read: Callable[[Origin], Entry] = field(repr=False)


class OldTokens(Protocol):
    """A database of the page, opened."""

    def rows(self) -> Sequence[OldRow]:
        """Return the rows that hold a clear token; none where there is no such table."""

    def back_up(self) -> str:
        """Keep a copy where the database is a file, and return its name; empty for a server."""

    def erase(self, rows: Sequence[OldRow]) -> None:
        """Put `ERASED` in place of the tokens, and mark the rows as not active."""


type Opening = Callable[[], AbstractContextManager[OldTokens]]


def take_over(vault: TokenVault, provider: Provider, opening: Opening, *, sole_user: str | None, now: datetime) -> None:
    """Move the tokens of an old database into the vault. Does nothing where there are none, or no longer.

    They are filed under the broker's id, or where all are of one person under `sole_user`, if there is one.
    """
    with opening() as old:
        rows = old.rows()
        if not rows:
            return
        backup = old.back_up()
        entries = _entries(rows, provider, now)
        if sole_user is not None and len({row.user_id for row in rows}) == 1:
            entries = [replace(entry, user_id=sole_user) for entry in entries]
        land(vault, provider.name, entries, dry=False, advance=lambda: None)
        old.erase(rows)
    kept = f"; {backup} holds them in clear: delete it once everything runs" if backup else ""
    _logger.warning("took over %d live tokens, erased %d in clear%s", len(entries), len(rows), kept)


def _entries(rows: Sequence[OldRow], provider: Provider, now: datetime) -> list[Entry]:
    origin = Origin(provider=provider.name, user=None, policy=provider.expiry, now=now, saved_at=now)
    found = []
    for row in rows:
        if not row.active:
            continue
        try:
            found.append(row.read(origin))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            _logger.warning("%s is malformed (%s) and is not taken over", row.place, type(error).__name__)
    return newest(found, now)
