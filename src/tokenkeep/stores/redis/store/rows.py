"""Fields and entries as whole rows, and rows as what the scripts that bring them take. What is not there is empty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tokenkeep.ports import Chain, Link, Mark, Proof, Room, Row
from tokenkeep.stores import rows
from tokenkeep.stores.plain import from_json, to_json, to_micros
from tokenkeep.stores.redis.store.database import Argument
from tokenkeep.stores.redis.store.events import Owner
from tokenkeep.stores.redis.store.records import slots_of
from tokenkeep.stores.rows import IN_PLACE, Flat

_IN_A_DOCUMENT: Final = (
    *("id", "namespace", "provider", "user_id", "kind", "version", "token_type", "scope"),
    *("created_at", "expires_at", "profile", "metadata"),
)
_OF_AN_ISSUED: Final = (
    *("namespace", "user_id", "name", "scopes", "created_at", "expires_at", "client", "metadata"),
    *("family", "generation", "access_lifetime"),
)
_OF_A_LEASE: Final[Mapping[bytes, type]] = {
    b"fence": int,
    b"owner": str,
    b"until": int,
    b"begun": int,
    b"fingerprint": bytes,
    b"failures": int,
    b"failed_fence": int,
    b"failure": str,
    b"reason": str,
    b"retry_at": int,
}
type Fields = Mapping[bytes, bytes]


def owner_of(row: Row) -> Owner:
    """Return whose row it is."""
    return Owner(row["namespace"], row["user_id"])


# --- acquired tokens


def token_in_place(held: Fields, slot: bytes) -> Row:
    """Read the token in a slot of a user."""
    read = {letter: held.get(letter.encode() + slot) for letter in "DABKRUL"}
    return _token({**_known(read), "active": IN_PLACE, "access_sealed": read["A"], "refresh_sealed": read["B"]})


def token_in_history(held: Fields, token_id: bytes, kept: Fields) -> Row:
    """Read a token that was in place; `kept` is where those are that keep their secrets."""
    read = {letter: held.get(letter.encode() + token_id) for letter in "DKRULX"}
    wish = {letter: kept.get(letter.encode() + b"w:" + token_id) for letter in "WABK"}
    moment, _, reason = (read["X"] or b"").decode().partition(":")
    secrets = {"access_sealed": wish["A"], "refresh_sealed": wish["B"]}
    due = wish["W"]
    known = _known({**read, "K": wish["K"] or read["K"]})
    whenever = {"ended_at": int(moment), "revoke_at": None if due is None else int(due)}
    return _token({**known, **secrets, **whenever, "end_reason": reason})


def _known(read: Mapping[str, bytes | None]) -> Flat:
    numbers = {"rejected_at": read["R"], "last_used_at": read["L"]}
    return {
        **from_json(read["D"] or b""),
        "key_id": (read["K"] or b"").decode(),
        "usage_count": int(read["U"] or 0),
        **{name: None if value is None else int(value) for name, value in numbers.items()},
    }


def _token(flat: Flat) -> Row:
    return rows.to_row(Room.TOKENS, {**flat, **{name: to_json(flat[name]) for name in ("profile", "metadata")}})


def token_arguments(row: Row) -> list[Argument]:
    """Return what the script takes for a token."""
    flat = rows.to_flat(Room.TOKENS, row)
    free = {name: from_json(flat[name]) for name in ("profile", "metadata")}
    document = {name: flat[name] for name in _IN_A_DOCUMENT}
    numbers = [flat[name] for name in ("created_at", "expires_at", "usage_count", "last_used_at", "rejected_at")]
    return [
        slots_of(flat["provider"]) + flat["kind"],
        flat["id"],
        flat["version"],
        to_json({**document, **free}),
        *_or_empty(flat["access_sealed"], flat["refresh_sealed"], flat["key_id"], *numbers),
        "" if flat["active"] else f"{flat['ended_at']}:{flat['end_reason'] or ''}",
        *_or_empty(flat["revoke_at"]),
    ]


# --- issued tokens


def issued_row(held: Fields, token_id: bytes) -> Row:
    """Read an issued token of a user."""
    read = {letter: held.get(letter.encode() + token_id) for letter in "DHKRSNUL"}
    flat = from_json(read["D"] or b"")
    numbers = {"revoked_at": "R", "spent_at": "S", "successors": "N", "last_used_at": "L"}
    return rows.to_row(
        Room.ISSUED,
        {
            **flat,
            "id": token_id,
            "digest": read["H"],
            "key_id": None if (key_id := read["K"]) is None else key_id.decode(),
            "scopes": " ".join(flat["scopes"]),
            "metadata": to_json(flat["metadata"]),
            "family": None if flat["family"] is None else bytes.fromhex(flat["family"]),
            "usage_count": int(read["U"] or 0),
            **{name: None if (value := read[letter]) is None else int(value) for name, letter in numbers.items()},
        },
    )


def issued_arguments(row: Row) -> list[Argument]:
    """Return what the script takes for an issued token."""
    flat = rows.to_flat(Room.ISSUED, row)
    document = {
        **{name: flat[name] for name in _OF_AN_ISSUED},
        "scopes": flat["scopes"].split(),
        "metadata": from_json(flat["metadata"] or "{}"),
        "family": None if flat["family"] is None else flat["family"].hex(),
    }
    added = (flat["digest"], flat["key_id"], flat["expires_at"], flat["family"], flat["generation"])
    since = (
        flat["revoked_at"],
        flat["spent_at"],
        flat["successors"],
        flat["usage_count"] or None,
        flat["last_used_at"],
    )
    return [flat["id"], to_json(document), *_or_empty(*added, *since)]


# --- leases


def lease_rows(held: Fields, owner: Owner) -> Iterator[Row]:
    """Read every lease of a user."""
    for field in sorted(held):
        name, _, provider = field.partition(b":")
        if name != b"fence":
            continue
        flat: Flat = {**owner._asdict(), "provider": provider.decode(), "until": 0, "failures": 0, "reason": ""}
        for part, kind in _OF_A_LEASE.items():
            value = held.get(part + b":" + provider)
            if value is not None:
                flat[part.decode()] = value.decode() if kind is str else kind(value)
        yield rows.to_row(Room.LEASES, flat)


def lease_arguments(row: Row) -> list[Argument]:
    """Return what the script takes for a lease."""
    flat = rows.to_flat(Room.LEASES, row)
    flat["failures"] = flat["failures"] or None
    return [flat["provider"], *_or_empty(*(flat[name.decode()] for name in _OF_A_LEASE))]


# --- the trail


def event_row(link: Link, number: int) -> Row:
    """Return an event as a row under a number."""
    entry = link.entry
    flat = {
        "id": number,
        **link.account._asdict(),
        "provider": link.account.provider or None,
        "action": entry.action.value,
        "token_id": entry.token_id,
        "at": to_micros(entry.at),
        "actor": link.actor,
        "detail": to_json(entry.detail),
        **({} if link.mark is None else link.mark._asdict()),
        **_proved("", link.proof),
    }
    return rows.to_row(Room.AUDIT, flat)


def event_arguments(row: Row) -> list[Argument]:
    """Return what the script takes for an event."""
    flat = rows.to_flat(Room.AUDIT, row)
    known = [flat["id"], flat["action"], flat["provider"], flat["token_id"], flat["at"], flat["actor"], flat["detail"]]
    return _or_empty(*known, flat["sequence"], _hex(flat["digest"]), _hex(flat["proof"]), flat["key_id"])


def head_row(owner: Owner, chain: Chain) -> Row:
    """Return what is known of a chain as a row; raise whatever Python raises where its head is missing."""
    flat: Flat = {**owner._asdict(), **_placed("sequence", "digest", chain.head)}
    for name, mark, proof in (
        ("vouched", chain.vouched, chain.vouched_proof),
        ("purged", chain.purged, chain.purged_proof),
    ):
        flat |= {**_placed(name, f"{name}_digest", mark), **_proved(f"{name}_", proof)}
    return rows.to_row(Room.HEADS, flat)


def head_arguments(row: Row) -> list[Argument]:
    """Return what the script takes for a chain: fields and values, of marks only those that are set."""
    flat = rows.to_flat(Room.HEADS, row)
    fields = {"user": owner_of(row).text(), "sequence": flat["sequence"], "digest": _hex(flat["digest"])}
    for name in ("vouched", "purged"):
        if flat[name]:
            proof = {f"{name}_proof": _hex(flat[f"{name}_proof"]), f"{name}_key": flat[f"{name}_key_id"]}
            fields |= {name: flat[name], f"{name}_digest": _hex(flat[f"{name}_digest"]), **proof}
    return _or_empty(*(word for pair in fields.items() for word in pair))


def _placed(sequence: str, digest: str, mark: Mark | None) -> Flat:
    return {} if mark is None else {sequence: mark.sequence, digest: mark.digest}


def _proved(prefix: str, proof: Proof) -> Flat:
    return {f"{prefix}proof": proof.code, f"{prefix}key_id": proof.key_id}


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _or_empty(*values: Any) -> list[Argument]:
    return ["" if value is None else value for value in values]
