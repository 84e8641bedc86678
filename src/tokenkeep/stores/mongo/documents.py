"""How our values are kept in documents, and read back with suspicion. A BSON date has only milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from tokenkeep.errors import StoreError
from tokenkeep.model import Account, Statistics
from tokenkeep.stores.plain import MICROSECOND, from_micros, to_micros

type Document = Mapping[str, Any]


def to_micros_or_none(value: datetime | None) -> int | None:
    """Return microseconds since 1970-01-01 UTC, and `None` for none."""
    return None if value is None else to_micros(value)


def from_micros_or_none(value: int | None) -> datetime | None:
    """Return the time of `to_micros_or_none`."""
    return None if value is None else from_micros(value)


def span_to_micros(value: timedelta) -> int:
    """Return a span in microseconds."""
    return value // MICROSECOND


def key_of(*parts: str) -> str:
    """Join names to one key from which each can be told again, whatever characters they hold."""
    return "".join(f"{len(part)}:{part}" for part in parts)


def parts_of(key: str) -> list[str]:
    """Return the names that `key_of` joined."""
    parts, rest = [], key
    while rest:
        length, _, rest = rest.partition(":")
        parts.append(rest[: int(length)])
        rest = rest[int(length) :]
    if key_of(*parts) != key:
        msg = "not a key of names"
        raise ValueError(msg)
    return parts


def at(account: Account) -> dict[str, str]:
    """Return the fields by which an account's documents are found."""
    return {"namespace": account.namespace, "provider": account.provider, "user_id": account.user_id}


def literal(value: object) -> dict[str, object]:
    """Keep a value out of the reach of an aggregation pipeline, to which `$name` is a field."""
    return {"$literal": value}


@contextmanager
def suspicion(name: str) -> Iterator[None]:
    """Raise a `StoreError` where a document of the database `name` holds what tokenkeep never wrote."""
    try:
        yield
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        msg = f"{name}: a document is damaged; revoke that token, and find out who wrote it"
        raise StoreError(msg) from error


def statistics(figures: Document | None) -> Statistics:
    """Build statistics from the fields `total, active, used, made, last` of an aggregation; `None`: no tokens."""
    if figures is None:
        figures = {"total": 0, "active": 0, "used": 0, "made": None, "last": None}
    return Statistics(
        total_tokens=figures["total"],
        active_tokens=figures["active"],
        total_usage=figures["used"],
        avg_usage_per_token=figures["used"] / figures["total"] if figures["total"] else 0.0,
        last_generation=from_micros_or_none(figures["made"]),
        last_usage=from_micros_or_none(figures["last"]),
    )
