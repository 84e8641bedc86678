"""How our values are kept in Redis, and read back with suspicion. Times are microseconds since 1970-01-01 UTC."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tokenkeep.errors import StoreError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


def to_micros(value: datetime) -> int:
    """Return microseconds since 1970-01-01 UTC, exactly."""
    return (value - _EPOCH) // MICROSECOND


def from_micros(value: int | bytes) -> datetime:
    """Return the aware UTC time of `to_micros`."""
    return _EPOCH + timedelta(microseconds=int(value))


def micros_or_nothing(value: datetime | None) -> int | bytes:
    """Return the same as an argument of a script: empty for none."""
    return b"" if value is None else to_micros(value)


def time_or_none(value: int | bytes | None) -> datetime | None:
    """Return the time of a field that may be missing."""
    return None if value is None else from_micros(value)


def to_json(value: Mapping[str, Any]) -> str:
    """Return a value as text, in ASCII: what JSON can hold of a string is more than UTF-8 can."""
    return json.dumps(value, separators=(",", ":"))


def for_script(value: Mapping[str, Any]) -> str:
    """Return a value as text that a script reads; it does not read every escape that JSON knows."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def from_json(text: bytes | str) -> dict[str, Any]:
    """Return the mapping of `to_json`."""
    value = json.loads(text)
    if not isinstance(value, dict):
        msg = "not a mapping"
        raise TypeError(msg)
    return value


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
