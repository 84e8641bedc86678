"""Documents as whole rows, and rows as documents: a document is a flat row but for what its place tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tokenkeep.ports import Room, Row
from tokenkeep.stores import rows
from tokenkeep.stores.mongo.documents import Document, key_of, parts_of
from tokenkeep.stores.mongo.schema import AUDIT, HEAD, HISTORY, ISSUED, KEY, LEASE, STEP, TOKEN
from tokenkeep.stores.plain import to_json
from tokenkeep.stores.rows import IN_PLACE, Flat

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
_TOLD: Final = frozenset({"active", "ended_at", "end_reason", "revoke_at"})
_SECRETS: Final = ("access_sealed", "refresh_sealed", "revoke_at")
"""What history has only while its provider has still to be told."""

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
    return rows.to_row(room, {**_ALWAYS.get(room, {}), **document, **_known(room, document, collection)})


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
        return {"active": IN_PLACE, **dict.fromkeys(("ended_at", "end_reason", "revoke_at"))}
    if collection == HISTORY and document.get("revoke_at") is None:
        return {_KEY[room]: row_id, "active": None, **dict.fromkeys(_SECRETS)}
    return {_KEY[room]: row_id, **({"active": None} if collection == HISTORY else {})}


def to_document(room: Room, row: Row) -> tuple[str, Flat]:
    """Return a row as a document, and the collection it belongs to; raise whatever Python raises when it is damaged."""
    document = rows.to_flat(room, row)
    if room is Room.TOKENS:
        return _token(document)
    if room is Room.ISSUED:
        document["metadata"] = document["metadata"] or to_json({})
        document = {name: value for name, value in document.items() if value is not None or name not in _LEFT_OUT}
    column = _KEY.get(room, "")
    row_id = key_in(room, document)
    dropped = _NAMES[room] if room is Room.LEASES else (column,)
    return PLACES[room][0], {"_id": row_id, **{name: document[name] for name in document if name not in dropped}}


def _token(document: Flat) -> tuple[str, Flat]:
    if document["active"] is None:
        left = ("id", "active") if document["revoke_at"] is not None else ("id", "active", *_SECRETS)
        kept = {name: value for name, value in document.items() if name not in left}
        return HISTORY, {"_id": document["id"], **kept}
    placed = {name: value for name, value in document.items() if name not in _TOLD}
    return TOKEN, {"_id": key_of(*(document[name] for name in _SLOT)), **placed}
