"""Documents as whole rows, by the names of the columns in SQL, and rows as documents.

Both are read with suspicion: each value must be of the type that belongs there. Only free mappings hold what
somebody chose, and in a document they are text; so no row brings anything that means something to MongoDB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from tokenkeep.ports import Room, Row
from tokenkeep.stores.mongo.documents import (
    Document,
    from_json,
    from_micros,
    key_of,
    parts_of,
    to_json,
    to_micros,
)
from tokenkeep.stores.mongo.schema import AUDIT, HEAD, HISTORY, ISSUED, KEY, LEASE, STEP, TOKEN

_LIMIT: Final = 2**63
"""BSON has whole numbers of 64 bits."""

PLACES: Final[Mapping[Room, tuple[str, ...]]] = {
    Room.KEYS: (KEY,),
    Room.STEPS: (STEP,),
    Room.LEASES: (LEASE,),
    Room.TOKENS: (TOKEN, HISTORY),
    Room.ISSUED: (ISSUED,),
    Room.AUDIT: (AUDIT,),
    Room.HEADS: (HEAD,),
}
"""The collections in which the rows of each kind are."""


def _octets(value: bytes) -> bytes:
    if type(value) is not bytes:  # a Binary of another subtype
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
    """What a value is in a document and in a row, and how one becomes the other."""

    stored: type
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

_KEY: Final[Mapping[Room, str]] = {
    Room.KEYS: "key_id",
    Room.STEPS: "account",
    Room.TOKENS: "id",
    Room.ISSUED: "id",
    Room.AUDIT: "id",
}
"""The column that is the `_id` of a document, or for a token in place its `id`."""

_NAMES: Final[Mapping[Room, tuple[str, ...]]] = {
    Room.LEASES: ("namespace", "provider", "user_id"),
    Room.HEADS: ("namespace", "user_id"),
}
"""The columns that are joined to the `_id` of a document."""

_SLOT: Final = ("namespace", "provider", "user_id", "kind")
_ELSEWHERE: Final = "a document stands where it does not belong"
_IN_PLACE: Final = 1
_ENDED: Final = {"active": None, "access_sealed": None, "refresh_sealed": None}

_ALWAYS: Final[Mapping[Room, Document]] = {
    Room.LEASES: {"failures": 0, "reason": ""},
    Room.TOKENS: {"key_id": ""},
}
"""What a document may lack: a lease that never failed, and history from before the key's id was kept there."""

_LEFT_OUT: Final = frozenset({"revoked_at", "family", "generation", "access_lifetime", "spent_at", "successors"})
"""What a document of an issued token has only when there is something to say: the index of families goes by it."""


def key_in(room: Room, row: Row) -> Any:
    """Return what a row is found by: the `_id` of its document, for a token its `id` wherever it is."""
    names = _NAMES.get(room)
    return row[_KEY[room]] if names is None else key_of(*(row[name] for name in names))


def to_row(room: Room, document: Document, collection: str) -> Row:
    """Read a document; raise whatever Python raises when it is damaged."""
    named = {**_ALWAYS.get(room, {}), **document, **_known(room, document, collection)}
    full, empty = _COLUMNS[room]
    row = {name: _changed(named[name], kind.stored, kind.read) for name, kind in full.items()}
    for name, kind in empty.items():
        value = named.get(name)
        row[name] = None if value is None else _changed(value, kind.stored, kind.read)
    if room is Room.ISSUED and not row["metadata"]:
        row["metadata"] = None  # SQL keeps no empty mapping there
    return row


def _known(room: Room, document: Document, collection: str) -> Document:
    """Return the columns that are told by where a document stands."""
    row_id = document["_id"]
    if room in _NAMES:
        known = dict(zip(_NAMES[room], parts_of(row_id), strict=True))
        if any(document.get(name, part) != part for name, part in known.items()):
            raise ValueError(_ELSEWHERE)
        return known
    if collection == TOKEN:
        if row_id != key_of(*(document[name] for name in _SLOT)):
            raise ValueError(_ELSEWHERE)
        return {"active": _IN_PLACE, "ended_at": None, "end_reason": None}
    return {_KEY[room]: row_id, **(_ENDED if collection == HISTORY else {})}


def to_document(room: Room, row: Row) -> tuple[str, dict[str, Any]]:
    """Return a row as a document, and the collection it belongs to; raise whatever Python raises when it is damaged."""
    full, empty = _COLUMNS[room]
    document = {name: _changed(row[name], kind.plain, kind.write) for name, kind in full.items()}
    for name, kind in empty.items():
        document[name] = None if row[name] is None else _changed(row[name], kind.plain, kind.write)
    if room is Room.TOKENS:
        return _token(document)
    if room is Room.ISSUED:
        document["metadata"] = document["metadata"] or to_json({})
        document = {name: value for name, value in document.items() if value is not None or name not in _LEFT_OUT}
    column = _KEY.get(room, "")
    row_id = key_in(room, document)
    dropped = _NAMES[room] if room is Room.LEASES else (column,)
    return PLACES[room][0], {"_id": row_id, **{name: document[name] for name in document if name not in dropped}}


def _token(document: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    active = document.pop("active")
    if active is None:
        kept = {name: value for name, value in document.items() if name != "id" and name not in _ENDED}
        return HISTORY, {"_id": document["id"], **kept}
    if active != _IN_PLACE or document.pop("ended_at") is not None or document.pop("end_reason") is not None:
        msg = "a token neither in place nor ended"
        raise ValueError(msg)
    return TOKEN, {"_id": key_of(*(document[name] for name in _SLOT)), **document}


def _changed(value: Any, wanted: type, change: Callable[[Any], Any]) -> Any:
    if not isinstance(value, wanted):
        msg = f"not of the type {wanted.__name__}"
        raise TypeError(msg)
    return change(value)
