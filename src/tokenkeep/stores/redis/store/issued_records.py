"""Issued tokens as fields of a hash, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from tokenkeep.ports import IssuedRecord
from tokenkeep.stores.plain import MICROSECOND, from_json, from_micros, to_json, to_micros
from tokenkeep.stores.redis.store.database import Argument
from tokenkeep.stores.redis.store.values import time_or_none

LETTERS: Final = b"DHKRL"
"""The fields of an issued token that are read: document, digest, key of the digest, revoked at, last use."""

type Fields = Sequence[bytes | None]


def fields_of(token_id: bytes) -> list[bytes]:
    """Return the names of the fields of a token, in the order of `LETTERS`."""
    return [b"%c%b" % (letter, token_id) for letter in LETTERS]


def issued_arguments(record: IssuedRecord) -> list[Argument]:
    """Return what the scripts take for a token that is added."""
    return [
        record.id,
        _document(record),
        record.digest,
        record.key_id or b"",
        to_micros(record.expires_at),
        record.family or b"",
        b"" if record.generation is None else record.generation,
    ]


def _document(record: IssuedRecord) -> str:
    lifetime = record.access_lifetime
    return to_json(
        {
            "namespace": record.namespace,
            "user_id": record.user_id,
            "name": record.name,
            "scopes": list(record.scopes),
            "created_at": to_micros(record.created_at),
            "expires_at": to_micros(record.expires_at),
            "client": record.client,
            "metadata": dict(record.metadata),
            "family": None if record.family is None else record.family.hex(),
            "generation": record.generation,
            "access_lifetime": None if lifetime is None else lifetime // MICROSECOND,
        }
    )


def record(token_id: bytes, fields: Fields) -> IssuedRecord:
    """Read a token; raise whatever Python raises when it is damaged."""
    document, digest, key_id, _, last = fields
    known: Mapping[str, Any] = from_json(document or b"")
    lifetime, family = known["access_lifetime"], known["family"]
    if digest is None or not isinstance(known["user_id"], str) or not isinstance(known["namespace"], str):
        msg = "a token without digest or owner"
        raise ValueError(msg)
    return IssuedRecord(
        id=token_id,
        digest=digest,
        key_id=None if key_id is None else key_id.decode(),
        namespace=known["namespace"],
        user_id=known["user_id"],
        name=known["name"],
        scopes=tuple(known["scopes"]),
        created_at=from_micros(known["created_at"]),
        expires_at=from_micros(known["expires_at"]),
        client=known["client"],
        metadata=known["metadata"],
        last_used_at=time_or_none(last),
        family=None if family is None else bytes.fromhex(family),
        generation=known["generation"],
        access_lifetime=None if lifetime is None else timedelta(microseconds=lifetime),
    )


def alone(found: IssuedRecord) -> IssuedRecord:
    """Return an access token without its family."""
    return replace(found, family=None, generation=None)
