"""The records of an account as one sealed value.

The whole value is sealed, not only the secrets in it (which are sealed once more for their rows): whoever can
write to the cache can neither read a profile there nor change an end, a version or a scope.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from tokenkeep.errors import SealingError, UnknownKey
from tokenkeep.model import Account
from tokenkeep.ports import Binding, Sealer, TokenRecord
from tokenkeep.secret import Secret
from tokenkeep.stores.tiered.cache import RECORDS

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Unreadable(Exception):
    """A value that no tokenkeep with these keys wrote for this account."""


class Entry(NamedTuple):
    """The records of an account by their kind, as they stood at some moment after `at`."""

    at: datetime
    records: dict[str, TokenRecord]


def packed(sealer: Sealer, account: Account, at: datetime, records: Sequence[TokenRecord]) -> bytes:
    """Return the value that holds these records."""
    plain = json.dumps({"at": _micros(at), "records": [_fields(record) for record in records]}, ensure_ascii=False)
    return RECORDS + sealer.seal(Secret(plain), _binding(account))


def unpacked(sealer: Sealer, account: Account, value: bytes) -> Entry | None:
    """Return what `packed` put in; `None` when its key is not in the ring.

    Raises:
        Unreadable: it is not ours, or was changed, or belongs to another account.
    """
    try:
        fields = json.loads(sealer.open(value[len(RECORDS) :], _binding(account)).reveal())
        records = [_record(account, one) for one in fields["records"]]
        at = _moment(fields["at"])
    except UnknownKey:
        return None
    except (SealingError, AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise Unreadable from None
    return Entry(at, {record.kind: record for record in records})


def _binding(account: Account) -> Binding:
    return Binding(account, "", "", "cached records")


def _fields(record: TokenRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "kind": record.kind,
        "version": record.version,
        "access": _text(record.access_sealed),
        "refresh": _text(record.refresh_sealed),
        "key_id": record.key_id,
        "type": record.token_type,
        "scope": list(record.scope),
        "created": _micros(record.created_at),
        "expires": None if record.expires_at is None else _micros(record.expires_at),
        "used": None if record.last_used_at is None else _micros(record.last_used_at),
        "uses": record.usage_count,
        "profile": dict(record.profile),
        "metadata": dict(record.metadata),
    }


def _record(account: Account, fields: dict[str, Any]) -> TokenRecord:
    return TokenRecord(
        id=fields["id"],
        account=account,
        kind=fields["kind"],
        version=fields["version"],
        access_sealed=_bytes(fields["access"]),
        refresh_sealed=_bytes(fields["refresh"]),
        key_id=fields["key_id"],
        token_type=fields["type"],
        scope=tuple(fields["scope"]),
        created_at=_moment(fields["created"]),
        expires_at=None if fields["expires"] is None else _moment(fields["expires"]),
        last_used_at=None if fields["used"] is None else _moment(fields["used"]),
        usage_count=fields["uses"],
        profile=fields["profile"],
        metadata=fields["metadata"],
    )


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _text(sealed: bytes | None) -> str | None:
    return None if sealed is None else b64encode(sealed).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text, validate=True)
