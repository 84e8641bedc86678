"""Tokens as the storage classes in the documentation of upstox-totp wrote them.

In SQLite they write `expires_at` as the local time 24 hours ahead, which is later than Upstox means it; `created_at`
is in UTC, by SQLite's own CURRENT_TIMESTAMP. Other databases give their times in types of their own.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tokenkeep import _checking
from tokenkeep.importing.entries import Contents, Entry, Origin, Unreadable
from tokenkeep.model import NewToken

MAGIC: Final = b"SQLite format 3\x00"

_NEEDED: Final = frozenset({"id", "user_id", "access_token", "is_active", "created_at", "expires_at"})
_LISTS: Final = ("products", "exchanges")
_TEXTS: Final = ("user_name", "email", "broker", "user_type")

_COLUMNS: Final = "SELECT name FROM pragma_table_info('upstox_tokens')"
_ROWS: Final = "SELECT * FROM upstox_tokens ORDER BY id"


def read(path: Path, origin: Origin) -> Contents:
    """Read the table; the file is opened for reading only.

    Raises:
        Unreadable: there is no such table, or a live row is malformed.
    """
    remedy = "when nothing uses it any more, delete it with its -wal, -journal and backups"
    found = Contents(remedy=f"{remedy}: shred -u {path}")
    chosen: dict[str, Entry] = {}
    people: set[str] = set()
    for row in _rows(path):
        place = f"row {row['id']}"
        if not row["is_active"]:
            found.skip(place, "not active")
            continue
        try:
            entry = entry_of(place, row, origin)
        except (ValueError, TypeError) as error:
            msg = f"{path.name}, {place} of upstox_tokens: {error}; nothing was imported"
            raise Unreadable(msg) from None
        if entry.token.expires_at is not None and entry.token.expires_at <= origin.now:
            found.skip(place, "expired")
            continue
        people.add(row["user_id"])
        if origin.user is not None and len(people) > 1:
            msg = f"{path.name} has tokens of several users; --user is for a file of one"
            raise Unreadable(msg)
        older = chosen.get(entry.user_id)
        if older is not None:
            older, entry = sorted((older, entry), key=_age)
            found.skip(older.place, "a newer row of the same user is active too")
        chosen[entry.user_id] = entry
    found.entries = list(chosen.values())
    return found


def newest(entries: Iterable[Entry], now: datetime) -> list[Entry]:
    """Return the newest entry of each user that has not ended."""
    chosen: dict[str, Entry] = {}
    for entry in sorted(entries, key=_age):
        if entry.token.expires_at is None or entry.token.expires_at > now:
            chosen[entry.user_id] = entry
    return list(chosen.values())


def _age(entry: Entry) -> datetime:
    return entry.made_at or datetime.min.replace(tzinfo=UTC)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            columns = {name for (name,) in connection.execute(_COLUMNS)}
            if not columns >= _NEEDED:
                lacking = ", ".join(sorted(_NEEDED - columns)) if columns else ""
                what = f"lacks {lacking}" if lacking else "is not there"
                msg = f"{path.name}: the table upstox_tokens {what}; this is no file of a storage class of upstox-totp"
                raise Unreadable(msg)
            connection.row_factory = sqlite3.Row
            for row in connection.execute(_ROWS):
                yield dict(row)
    except sqlite3.Error as error:
        msg = f"{path.name} cannot be read as a SQLite file ({type(error).__name__}); is it whole, and not locked?"
        raise Unreadable(msg) from None


def entry_of(place: str, row: Mapping[str, Any], origin: Origin) -> Entry:
    """Read a row of SQLite.

    Raises:
        ValueError, TypeError: it is malformed.
    """
    made_at = _time(row["created_at"], "created_at").replace(tzinfo=UTC)
    stated = _time(row["expires_at"], "expires_at").astimezone(UTC)  # it was this machine's local time
    return entry_at(place, row, origin, made_at=made_at, stated=stated)


def entry_at(place: str, row: Mapping[str, Any], origin: Origin, *, made_at: datetime, stated: datetime) -> Entry:
    """Read a row whose times have been read.

    Raises:
        ValueError, TypeError: it is malformed.
    """
    profile = {"user_id": row["user_id"], **{name: row[name] for name in _TEXTS if row.get(name) is not None}}
    profile |= {name: _json(row[name], name, list) for name in _LISTS if row.get(name) is not None}
    values = {"profile": profile, "metadata": _json(row.get("metadata") or "{}", "metadata", dict)}
    token = NewToken(row["access_token"], **values)
    end = origin.end_of(token, made_at, stated)
    user_id = _checking.name(origin.user or row["user_id"], "user_id")
    return Entry(
        place=place,
        user_id=user_id,
        made_at=made_at,
        token=NewToken(row["access_token"], **values, expires_at=end),
    )


def _time(value: Any, name: str) -> datetime:
    try:
        return datetime.fromisoformat(value).replace(tzinfo=None)
    except (ValueError, TypeError):
        msg = f"{name} is no time"
        raise ValueError(msg) from None


def _json(value: Any, name: str, kind: type) -> Any:
    parsed = value
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = None
    if not isinstance(parsed, kind):
        msg = f"{name} is no JSON {'list' if kind is list else 'object'}"
        raise ValueError(msg)  # noqa: TRY004  # what stands in a file is a value, whatever its type
    return parsed
