"""How our values are kept by stores that have no types for them.

Times are integers, microseconds since 1970-01-01 UTC. Free mappings are JSON text, so that no key of theirs means
anything to a database.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tokenkeep._checking import encodable

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


def to_micros(value: datetime) -> int:
    """Return microseconds since 1970-01-01 UTC, exactly."""
    return (value - _EPOCH) // MICROSECOND


def from_micros(value: int | bytes) -> datetime:
    """Return the aware UTC time of `to_micros`, also from its digits."""
    return _EPOCH + timedelta(microseconds=int(value))


def to_json(value: Mapping[str, Any]) -> str:
    """Return a free mapping as text."""
    text = json.dumps(dict(value), ensure_ascii=False, separators=(",", ":"))
    if encodable(text):
        return text
    return json.dumps(dict(value), separators=(",", ":"))  # JSON can say lone surrogates, UTF-8 cannot


def from_json(text: bytes | str) -> dict[str, Any]:
    """Return the mapping of `to_json`."""
    value = json.loads(text)
    if not isinstance(value, dict):
        msg = "not a mapping"
        raise TypeError(msg)
    return value
