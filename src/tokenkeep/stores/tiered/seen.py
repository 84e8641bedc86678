"""What a process has seen of tokens, so that it never falls behind itself."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import replace
from typing import Final

from tokenkeep.model import Account
from tokenkeep.ports import TokenRecord, Use

ENTRIES: Final = 10_000


class Newest[K: Hashable, V]:
    """A mapping of bounded size; the oldest entry leaves. Safe to use from threads."""

    def __init__(self, entries: int = ENTRIES) -> None:
        self._entries = entries
        self._lock = threading.Lock()
        self._kept: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Return what was put under a key and is still there."""
        return self._kept.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep a value."""
        with self._lock:
            if key not in self._kept and len(self._kept) >= self._entries:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = value

    def drop(self, key: K) -> None:
        """Forget a value."""
        with self._lock:
            self._kept.pop(key, None)


class Seen:
    """The newest version of each token that this process saw, and the uses that it knows of."""

    def __init__(self) -> None:
        self._versions: Newest[tuple[Account, str], int] = Newest()
        self._used: Newest[str, TokenRecord] = Newest()

    def note(self, record: TokenRecord) -> TokenRecord:
        """Remember a record, and return it with all the uses that are known: copies lag behind the counting."""
        slot = (record.account, record.kind)
        if record.version > (self._versions.get(slot) or 0):
            self._versions.put(slot, record.version)
        known = self._used.get(record.id)
        if known is None or known.usage_count < record.usage_count:
            self._used.put(record.id, record)
            return record
        if known.usage_count == record.usage_count:
            return record
        return replace(record, usage_count=known.usage_count, last_used_at=known.last_used_at)

    def nothing(self, account: Account, kind: str) -> None:
        """The durable store has none in place: its versions may begin anew."""
        self._versions.drop((account, kind))

    def is_old(self, record: TokenRecord) -> bool:
        """Tell whether a newer one has been seen."""
        return record.version < (self._versions.get((record.account, record.kind)) or 0)

    def counted(self, uses: Use) -> None:
        """Uses went into the durable store."""
        known = self._used.get(uses.token_id)
        if known is not None:
            last = max(uses.last_used_at, known.last_used_at or uses.last_used_at)
            counted = replace(known, usage_count=known.usage_count + uses.count, last_used_at=last)
            self._used.put(uses.token_id, counted)
