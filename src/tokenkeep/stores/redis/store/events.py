"""Audit events as entries of a stream, what is known of a chain as fields of a hash, and back.

Digests and proofs are hexadecimal: a script reads and writes them as text. What is not there is empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from tokenkeep.model import Account, Action, AuditEvent
from tokenkeep.ports import START, UNPROVED, Chain, Entry, Link, Mark, Proof
from tokenkeep.stores.plain import from_json, from_micros, to_json, to_micros
from tokenkeep.stores.redis.store.values import for_script

_PLACE_BITS: Final = 64

type Fields = Mapping[bytes, bytes]


class Owner(NamedTuple):
    """A user of a namespace, by name."""

    namespace: str
    user_id: str

    def text(self) -> str:
        """Return what the names are kept as."""
        return json.dumps(self, separators=(",", ":"))

    @classmethod
    def read(cls, text: bytes | None) -> Owner:
        """Return the owner of `text`; raise whatever Python raises when it is damaged."""
        namespace, user_id = json.loads(text or b"")
        if not isinstance(namespace, str) or not isinstance(user_id, str):
            msg = "no name of a user"
            raise TypeError(msg)
        return cls(namespace, user_id)


def offer(owner: Owner, head: Mark, events: Sequence[Link], each: Sequence[Link]) -> str:
    """Return events as the offer that a script takes."""
    follows = "" if head == START else f"{head.sequence}:{head.digest.hex()}"
    lists = {"events": [_event(link) for link in events], "each": [_event(link) for link in each]}
    return for_script({"user": owner.text(), "head": follows, **lists})


def _event(link: Link) -> list[str]:
    entry, (sequence, digest) = link.entry, link.mark or START
    known = [entry.action.value, link.account.provider, entry.token_id or "", str(to_micros(entry.at))]
    return [*known, link.actor, to_json(dict(entry.detail)), str(sequence), digest.hex(), *proof_text(link.proof)]


def proof_text(proof: Proof) -> tuple[str, str]:
    """Return a proof as two texts."""
    return ("" if proof.code is None else proof.code.hex(), proof.key_id or "")


def head_of(text: bytes) -> Mark:
    """Return the head that a script says events must follow."""
    sequence, _, digest = text.decode().partition(":")
    return Mark(int(sequence), bytes.fromhex(digest)) if sequence else START


def event(user_id: str, fields: Fields) -> AuditEvent:
    """Read an event."""
    return AuditEvent(
        action=Action(fields[b"action"].decode()),
        user_id=user_id,
        token_id=fields[b"token"].decode() or None,
        at=from_micros(fields[b"at"]),
        actor=fields[b"actor"].decode(),
        detail=from_json(fields[b"detail"]),
    )


def link(owner: Owner, entry_id: bytes, fields: Fields) -> Link:
    """Read an event with its place in the chain of the user under whose key it stands."""
    known = event(owner.user_id, fields)
    return Link(
        account=Account(owner.namespace, fields[b"provider"].decode(), owner.user_id),
        entry=Entry(action=known.action, at=known.at, token_id=known.token_id, detail=known.detail),
        actor=known.actor,
        mark=_mark(fields, b"sequence", b"digest") if fields.get(b"sequence") else None,
        proof=_proof(fields, b""),
        place=place_of(entry_id),
    )


def chain(fields: Fields) -> Chain:
    """Read what is known of a chain beside its events."""
    return Chain(
        head=_mark(fields, b"sequence", b"digest") if b"sequence" in fields else None,
        vouched=_mark(fields, b"vouched", b"vouched_digest"),
        vouched_proof=_proof(fields, b"vouched_"),
        purged=_mark(fields, b"purged", b"purged_digest"),
        purged_proof=_proof(fields, b"purged_"),
    )


def _mark(fields: Fields, sequence: bytes, digest: bytes) -> Mark:
    if sequence not in fields:
        return START
    return Mark(int(fields[sequence]), bytes.fromhex(fields[digest].decode()))


def _proof(fields: Fields, prefix: bytes) -> Proof:
    code, key_id = fields.get(prefix + b"proof"), fields.get(prefix + b"key")
    return Proof(bytes.fromhex(code.decode()), key_id.decode()) if code and key_id else UNPROVED


def place_of(entry_id: bytes) -> int:
    """Return the id of an entry of a stream as one number, in the same order."""
    moment, _, number = entry_id.partition(b"-")
    return int(moment) << _PLACE_BITS | int(number)


def entry_id_of(place: int) -> bytes:
    """Return the id that `place_of` read."""
    return b"%d-%d" % (place >> _PLACE_BITS, place & ((1 << _PLACE_BITS) - 1))
