"""Tokens in a JSON file: one, a list of them, or an object of them by user."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from tokenkeep import _checking
from tokenkeep.importing.entries import Contents, Entry, Origin, Unreadable, local_or_utc
from tokenkeep.model import NewToken
from tokenkeep.providers.upstox import PROFILE

MAX_BYTES: Final = 64 << 20

_LATEST: Final = 253_402_300_800
"""Seconds since 1970 at which `datetime` stops; a greater number is one of milliseconds."""

_MILLISECONDS_FROM: Final = 100_000_000_000
"""As seconds this is in the year 5138, as milliseconds in 1973."""

_FIELDS: Final = frozenset(
    {
        *("user_id", "access_token", "extended_token", "refresh_token", "expires_at", "expires_in", "created_at"),
        *("scope", "token_type", "kind", "profile", "metadata"),
    }
)


def read(path: Path, origin: Origin) -> Contents:
    """Read a file whole.

    Raises:
        Unreadable: it is no JSON, or an entry is malformed.
    """
    found = Contents(remedy=f"delete it, and its copies: shred -u {path}")
    seen: set[tuple[str, str]] = set()
    for place, user, fields in _objects(_document(path)):
        try:
            entries = list(_entries(place, user, fields, origin))
        except (ValueError, TypeError, OverflowError) as error:
            msg = f"{path.name}, {place}: {error}; nothing was imported"
            raise Unreadable(msg) from None
        for entry in entries:
            if (entry.user_id, entry.token.kind) in seen:
                msg = f"{path.name}, {place}: a second {entry.token.kind} token of {entry.user_id!r}; keep one of them"
                raise Unreadable(msg)
            seen.add((entry.user_id, entry.token.kind))
            if entry.token.expires_at is not None and entry.token.expires_at <= origin.now:
                found.skip(place, "expired")
            else:
                found.entries.append(entry)
        found.left_out |= set(fields) - _FIELDS - set(PROFILE)
    return found


def _document(path: Path) -> Any:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        msg = f"{path.name} is larger than {MAX_BYTES >> 20} MB; split it"
        raise Unreadable(msg)
    try:
        return json.loads(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        what = f"is not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
    except (UnicodeDecodeError, RecursionError, ValueError):
        what = "is neither JSON nor a SQLite file"
    msg = f"{path.name} {what}; nothing was imported"
    raise Unreadable(msg)


def _objects(document: Any) -> Iterator[tuple[str, str | None, Mapping[str, Any]]]:
    """Yield (place, user, token object) of the shapes that are known."""
    if isinstance(document, list):
        named = [(f"entry {number}", None, item) for number, item in enumerate(document, start=1)]
    elif isinstance(document, dict) and "access_token" in document:
        named = [("entry 1", None, document)]
    elif isinstance(document, dict) and isinstance(document.get("data"), dict) and "access_token" in document["data"]:
        named = [("entry 1", None, document["data"])]  # an answer of Upstox, as upstox-totp hands it on
    elif isinstance(document, dict) and document:
        named = [(f"entry {user!r}", user, item) for user, item in document.items()]
    else:
        named = [("entry 1", None, None)] if not isinstance(document, (dict, list)) else []
    if not named:
        msg = "the file holds no token: a token is an object with access_token, or a list of them, or one by user"
        raise Unreadable(msg)
    for place, user, item in named:
        if not isinstance(item, dict):
            msg = f"{place} is no object with access_token; nothing was imported"
            raise Unreadable(msg)
        yield place, user, item


def _entries(place: str, user: str | None, fields: Mapping[str, Any], origin: Origin) -> Iterator[Entry]:
    user_id = origin.user or user or fields.get("user_id")
    if user_id is None:
        msg = "nobody knows whose token this is: there is no user_id; name the user with --user"
        raise ValueError(msg)
    user_id = _checking.name(str(user_id) if isinstance(user_id, int) else user_id, "user_id")
    made_at = _instant(fields.get("created_at"), "created_at")
    profile = {name: fields[name] for name in PROFILE if name in fields} if origin.provider == "upstox" else {}
    profile |= _checking.mapping(fields.get("profile"), "profile")
    yield Entry(place=place, user_id=user_id, made_at=made_at, token=_token(fields, profile, made_at, origin))
    if fields.get("extended_token"):
        extended = NewToken(fields["extended_token"], kind="extended", profile=profile)
        end = origin.end_of(extended, made_at, None) or (made_at or origin.saved_at) + timedelta(days=365)
        token = NewToken(fields["extended_token"], kind="extended", profile=profile, expires_at=end)
        yield Entry(place=place, user_id=user_id, made_at=made_at, token=token)


def _token(fields: Mapping[str, Any], profile: Mapping[str, Any], made_at: datetime | None, origin: Origin) -> NewToken:
    scope = fields.get("scope") or ()
    values: dict[str, Any] = {
        "kind": fields.get("kind") or "access",
        "refresh_token": fields.get("refresh_token") or None,
        "token_type": fields.get("token_type") or "Bearer",
        "scope": tuple(scope.split()) if isinstance(scope, str) else tuple(scope),
        "profile": profile,
        "metadata": _checking.json_mapping(fields.get("metadata"), "metadata"),
    }
    if "access_token" not in fields:
        msg = "there is no access_token"
        raise ValueError(msg)
    token = NewToken(fields["access_token"], **values)
    end = origin.end_of(token, made_at, _stated_end(fields, made_at or origin.saved_at))
    return NewToken(fields["access_token"], **values, expires_at=end)


def _stated_end(fields: Mapping[str, Any], made_at: datetime) -> datetime | None:
    end = _instant(fields.get("expires_at"), "expires_at")
    lifetime = fields.get("expires_in")
    if end is not None or lifetime is None:
        return end
    seconds = _number(lifetime)
    if seconds is None or not 0 <= seconds <= _checking.MAX_SPAN.total_seconds():
        msg = "expires_in must be a number of seconds, from 0 to ten years"
        raise ValueError(msg)
    return made_at + timedelta(seconds=seconds)


def _instant(value: Any, name: str) -> datetime | None:
    """Read an ISO time, or a number of seconds or milliseconds since 1970, be it a number or text."""
    if value is None or value == "":
        return None
    number = _number(value)
    if number is not None:
        seconds = number / 1000 if number >= _MILLISECONDS_FROM else number
        if 0 < seconds < _LATEST:
            return datetime.fromtimestamp(seconds, UTC)
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is not None:
            return local_or_utc(moment) if moment.tzinfo is None else moment.astimezone(UTC)
    msg = f"{name} must be an ISO 8601 time, or seconds or milliseconds since 1970"
    raise ValueError(msg)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
