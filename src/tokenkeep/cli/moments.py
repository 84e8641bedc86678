"""Moments as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_SPAN: Final = re.compile(r"([0-9]{1,6})\s*([smhdw])")

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, option: str, *, now: datetime) -> datetime:
    """Read `2026-11-22`, `2026-11-22T09:15`, `2026-11-22T09:15+05:30`, or a span ago: `90m`, `12h`, `7d`, `2w`.

    A moment without a zone is one of this machine's zone.

    Raises:
        ValueError: it is none of these.
    """
    if (ago := _read(text)) is not None:
        return now - ago
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        msg = f"{option} takes a date such as 2026-11-22, a time such as 2026-11-22T09:15, or a span ago such as 7d"
        raise ValueError(msg) from None


def span(text: str, option: str) -> timedelta:
    """Read a span: `90m`, `12h`, `7d`, `2w`.

    Raises:
        ValueError: it is none.
    """
    found = _read(text)
    if not found:
        msg = f"{option} takes a span such as 90m, 12h, 30d or 52w"
        raise ValueError(msg)
    return found


def _read(text: str) -> timedelta | None:
    match = _SPAN.fullmatch(text.strip())
    return None if match is None else timedelta(**{_UNITS[match[2]]: int(match[1])})
