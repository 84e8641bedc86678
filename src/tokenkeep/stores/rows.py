"""Whole rows as flat ones: text, whole numbers, bytes and lists of text, for stores that have no more types.

Both are read with suspicion: each value must be of the type that belongs there. Only free mappings hold what
somebody chose, and in a flat row they are text; so no row brings anything that means something to a database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple

from tokenkeep.errors import StoreError
from tokenkeep.ports import Room, Row
from tokenkeep.stores.plain import from_json, from_micros, to_json, to_micros

_LIMIT: Final = 2**63
"""Databases have whole numbers of 64 bits."""

IN_PLACE: Final = 1
"""What `active` holds of a token in place."""

type Flat = dict[str, Any]


def _octets(value: bytes) -> bytes:
    if type(value) is not bytes:  # BSON has a class of its own for bytes of another kind
        msg = "not plain bytes"
        raise TypeError(msg)
    return value


def _whole(value: int) -> int:
    if isinstance(value, bool) or not -_LIMIT <= value < _LIMIT:
        msg = "not a whole number of 64 bits"
        raise ValueError(msg)
    return int(value)


def _prose(value: str) -> str:
    return value.replace("\x00", "\ufffd")  # as SQL keeps it


def _words(value: list[Any]) -> list[str]:
    if not all(isinstance(word, str) for word in value):
        msg = "not a list of text"
        raise TypeError(msg)
    return list(value)


class _Kind(NamedTuple):
    """What a value is in a flat row and in a row, and how one becomes the other."""

    flat: type
    plain: type
    read: Callable[[Any], Any]
    write: Callable[[Any], Any]


_TEXT: Final = _Kind(str, str, str, str)
_PROSE: Final = _Kind(str, str, _prose, _prose)
_WHOLE: Final = _Kind(int, int, _whole, _whole)
_OCTETS: Final = _Kind(bytes, bytes, _octets, _octets)
_TIME: Final = _Kind(int, datetime, from_micros, to_micros)
_JSON: Final = _Kind(str, dict, from_json, to_json)
_WORDS: Final = _Kind(list, list, _words, _words)


class _Columns(NamedTuple):
    """The columns of a kind of row: those that always hold something, and those that may be null."""

    full: Mapping[str, _Kind]
    empty: Mapping[str, _Kind]


_USER: Final = {"namespace": _TEXT, "user_id": _TEXT}
_ACCOUNT: Final = {**_USER, "provider": _TEXT}

_COLUMNS: Final[Mapping[Room, _Columns]] = {
    Room.KEYS: _Columns({"key_id": _TEXT, "check_value": _OCTETS, "created_at": _TIME}, {}),
    Room.STEPS: _Columns({"account": _OCTETS, "step": _WHOLE}, {}),
    Room.LEASES: _Columns(
        {**_ACCOUNT, "fence": _WHOLE, "until": _WHOLE, "failures": _WHOLE, "reason": _PROSE},
        {
            "owner": _TEXT,
            "begun": _WHOLE,
            "fingerprint": _OCTETS,
            "failed_fence": _WHOLE,
            "failure": _TEXT,
            "retry_at": _WHOLE,
        },
    ),
    Room.TOKENS: _Columns(
        {
            "id": _TEXT,
            **_ACCOUNT,
            "kind": _TEXT,
            "version": _WHOLE,
            "key_id": _TEXT,
            "token_type": _TEXT,
            "scope": _WORDS,
            "created_at": _TIME,
            "usage_count": _WHOLE,
            "profile": _JSON,
            "metadata": _JSON,
        },
        {
            "active": _WHOLE,
            "access_sealed": _OCTETS,
            "refresh_sealed": _OCTETS,
            "expires_at": _TIME,
            "rejected_at": _TIME,
            "ended_at": _TIME,
            "end_reason": _TEXT,
            "last_used_at": _TIME,
            "revoke_at": _TIME,
        },
    ),
    Room.ISSUED: _Columns(
        {
            "id": _OCTETS,
            "digest": _OCTETS,
            **_USER,
            "scopes": _PROSE,
            "created_at": _TIME,
            "expires_at": _TIME,
            "usage_count": _WHOLE,
        },
        {
            "key_id": _TEXT,
            "name": _TEXT,
            "client": _TEXT,
            "metadata": _JSON,
            "last_used_at": _TIME,
            "revoked_at": _TIME,
            "family": _OCTETS,
            "generation": _WHOLE,
            "access_lifetime": _WHOLE,
            "spent_at": _TIME,
            "successors": _WHOLE,
        },
    ),
    Room.AUDIT: _Columns(
        {"id": _WHOLE, **_USER, "action": _TEXT, "at": _TIME, "actor": _TEXT, "detail": _JSON},
        {
            "provider": _TEXT,
            "token_id": _TEXT,
            "sequence": _WHOLE,
            "digest": _OCTETS,
            "proof": _OCTETS,
            "key_id": _TEXT,
        },
    ),
    Room.HEADS: _Columns(
        {
            **_USER,
            "sequence": _WHOLE,
            "digest": _OCTETS,
            "vouched": _WHOLE,
            "vouched_digest": _OCTETS,
            "purged": _WHOLE,
            "purged_digest": _OCTETS,
        },
        {"vouched_proof": _OCTETS, "vouched_key_id": _TEXT, "purged_proof": _OCTETS, "purged_key_id": _TEXT},
    ),
}


def to_row(room: Room, flat: Mapping[str, Any]) -> Row:
    """Return a flat row as a row; raise whatever Python raises when it is damaged."""
    full, empty = _COLUMNS[room]
    row = {name: _changed(flat[name], kind.flat, kind.read) for name, kind in full.items()}
    for name, kind in empty.items():
        value = flat.get(name)
        row[name] = None if value is None else _changed(value, kind.flat, kind.read)
    if room is Room.ISSUED and not row["metadata"]:
        row["metadata"] = None  # SQL keeps no empty mapping there
    return row


def to_flat(room: Room, row: Row) -> Flat:
    """Return a row as a flat one; raise whatever Python raises when it is damaged."""
    full, empty = _COLUMNS[room]
    flat = {name: _changed(row[name], kind.plain, kind.write) for name, kind in full.items()}
    for name, kind in empty.items():
        flat[name] = None if row[name] is None else _changed(row[name], kind.plain, kind.write)
    if room is Room.TOKENS:
        _check_place(flat)
    return flat


def _changed(value: Any, wanted: type, change: Callable[[Any], Any]) -> Any:
    if not isinstance(value, wanted):
        msg = f"not of the type {wanted.__name__}"
        raise TypeError(msg)
    return change(value)


def _check_place(token: Flat) -> None:
    if token["active"] is None:
        return
    if token["active"] != IN_PLACE or any(token[name] is not None for name in ("ended_at", "end_reason", "revoke_at")):
        msg = "a token neither in place nor ended"
        raise ValueError(msg)


@contextmanager
def suspicion_of_a_row(room: Room) -> Iterator[None]:
    """Raise a `StoreError` where a row of another store holds what tokenkeep never wrote."""
    try:
        yield
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        msg = f"a row of {room.value} in the source holds what tokenkeep never wrote; find out who wrote it"
        raise StoreError(msg) from None
