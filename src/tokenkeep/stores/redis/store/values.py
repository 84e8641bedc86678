"""How our values are kept in Redis, and read back with suspicion."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from tokenkeep.errors import StoreError
from tokenkeep.stores.plain import from_micros, to_micros


def micros_or_nothing(value: datetime | None) -> int | bytes:
    """Return the same as an argument of a script: empty for none."""
    return b"" if value is None else to_micros(value)


def time_or_none(value: int | bytes | None) -> datetime | None:
    """Return the time of a field that may be missing."""
    return None if value is None else from_micros(value)


def for_script(value: Mapping[str, Any]) -> str:
    """Return a value as text that a script reads; it does not read every escape that JSON knows."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def pairs(flat: Sequence[bytes] | Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the fields of a hash, as either way of asking gives them."""
    if isinstance(flat, Mapping):
        return dict(flat)
    return dict(zip(flat[::2], flat[1::2], strict=True))


@contextmanager
def suspicion(name: str) -> Iterator[None]:
    """Raise a `StoreError` where a value in the store `name` is one that tokenkeep never wrote."""
    try:
        yield
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        msg = f"{name}: a value is damaged; revoke that token, and find out who wrote it"
        raise StoreError(msg) from error
