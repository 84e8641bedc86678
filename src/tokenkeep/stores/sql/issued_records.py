"""Issued tokens as rows of their table, and back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from tokenkeep.model import Account
from tokenkeep.ports import Entry, Grant, IssuedRecord

ADDED: Final = (
    *("id", "digest", "key_id", "namespace", "user_id", "name", "scopes", "created_at", "expires_at", "client"),
    *("metadata", "usage_count", "family", "generation", "access_lifetime"),
)
"""The columns of `values_of`."""

_MICROSECOND: Final = timedelta(microseconds=1)


def rows_of(grants: Sequence[Grant]) -> list[dict[str, Any]]:
    """Return the rows that grants bring."""
    return [values_of(record) for grant in grants for record in grant.records]


def noted(grants: Sequence[Grant]) -> list[tuple[Account, Entry]]:
    """Return the events that tell of them."""
    return [(account_of(grant.records[0]), grant.entry) for grant in grants]


def account_of(record: IssuedRecord) -> Account:
    """Return whose trail tells of a token."""
    return Account(record.namespace, "", record.user_id)


def record(row: Sequence[Any]) -> IssuedRecord:
    """Build a record from the columns as they are selected, with or without what refreshing needs."""
    row_id, digest, key_id, namespace, user_id, name, scopes, created_at, expires_at, client, *more = row
    metadata, last_used_at, *kinship = more
    family, generation, access_lifetime = kinship or (None, None, None)
    return IssuedRecord(
        id=bytes(row_id),
        digest=bytes(digest),
        key_id=key_id,
        namespace=namespace,
        user_id=user_id,
        name=name,
        scopes=tuple(scopes.split()),
        created_at=created_at,
        expires_at=expires_at,
        client=client,
        metadata=metadata or {},
        last_used_at=last_used_at,
        family=family,
        generation=generation,
        access_lifetime=None if access_lifetime is None else timedelta(microseconds=access_lifetime),
    )


def values_of(record: IssuedRecord) -> dict[str, Any]:
    """Return the row of a new token."""
    lifetime = record.access_lifetime
    return {
        "id": record.id,
        "digest": record.digest,
        "key_id": record.key_id,
        "namespace": record.namespace,
        "user_id": record.user_id,
        "name": record.name,
        "scopes": " ".join(record.scopes),
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "client": record.client,
        "metadata": dict(record.metadata) or None,
        "usage_count": 0,
        "family": record.family,
        "generation": record.generation,
        "access_lifetime": None if lifetime is None else lifetime // _MICROSECOND,
    }
