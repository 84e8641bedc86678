"""Acquired tokens as fields of a hash, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from tokenkeep.model import Account, EndReason, TokenInfo
from tokenkeep.ports import TokenRecord
from tokenkeep.stores.plain import from_json, from_micros, to_json, to_micros
from tokenkeep.stores.redis.store.database import Argument
from tokenkeep.stores.redis.store.values import micros_or_nothing, time_or_none

LETTERS: Final = b"DABKRUL"
"""The fields of a token in place: document, access, refresh, key, rejected at, uses, last use."""

type Fields = Sequence[bytes | None]


def slots_of(provider: str) -> str:
    """Return how the slots of a provider's tokens begin; it can be told where the provider's name ends."""
    return f"{len(provider.encode())}:{provider}"


def provider_in(slot: bytes) -> str:
    """Return the provider of a slot."""
    length, _, rest = slot.partition(b":")
    return rest[: int(length)].decode()


def fields_of(slot: str) -> list[bytes]:
    """Return the names of the fields of the token in a slot, in the order of `LETTERS`."""
    name = slot.encode()
    return [b"%c%b" % (letter, name) for letter in LETTERS]


def token_arguments(record: TokenRecord) -> list[Argument]:
    """Return what the script `token_replace` takes for a token."""
    return [
        slots_of(record.account.provider) + record.kind,
        record.id,
        record.version,
        _document(record),
        record.access_sealed or b"",
        record.refresh_sealed or b"",
        record.key_id,
        to_micros(record.created_at),
        micros_or_nothing(record.expires_at),
        record.usage_count,
        micros_or_nothing(record.last_used_at),
    ]


def _document(record: TokenRecord) -> str:
    """What does not change, and is no secret."""
    return to_json(
        {
            "id": record.id,
            **record.account._asdict(),
            "kind": record.kind,
            "version": record.version,
            "token_type": record.token_type,
            "scope": list(record.scope),
            "created_at": to_micros(record.created_at),
            "expires_at": None if record.expires_at is None else to_micros(record.expires_at),
            "profile": dict(record.profile),
            "metadata": dict(record.metadata),
        }
    )


def record(fields: Fields, account: Account, kind: str | None = None) -> TokenRecord:
    """Read a token in place; raise whatever Python raises when it is damaged or stands in another's place."""
    document, access, refresh, key_id, rejected, uses, last = fields
    known = from_json(document or b"")
    if _account(known) != account or (kind is not None and known["kind"] != kind):
        msg = "a token stands where it does not belong"
        raise ValueError(msg)
    return TokenRecord(
        id=known["id"],
        account=account,
        kind=known["kind"],
        version=int(known["version"]),
        access_sealed=access,
        refresh_sealed=refresh,
        key_id=(key_id or b"").decode(),
        token_type=known["token_type"],
        scope=tuple(known["scope"]),
        created_at=from_micros(known["created_at"]),
        expires_at=time_or_none(known["expires_at"]),
        last_used_at=time_or_none(last),
        usage_count=int(uses or 0),
        rejected=rejected is not None,
        profile=known["profile"],
        metadata=known["metadata"],
    )


def records_in(held: Mapping[bytes, bytes]) -> list[TokenRecord]:
    """Read every token in place of a user."""
    found = []
    for field in sorted(held):
        if field.startswith(b"D"):
            slot = field[1:].decode()
            account = _account(from_json(held[field]))
            found.append(record([held.get(name) for name in fields_of(slot)], account))
    return found


def ended_record(fields: Fields) -> TokenRecord:
    """Read a token that has ended and keeps its secrets."""
    return record(fields, _account(from_json(fields[0] or b"")))


def info(fields: Fields, now: datetime) -> TokenInfo:
    """Read what is known of a token, in place or not."""
    document, rejected, uses, last, ended = fields
    known = from_json(document or b"")
    moment, _, reason = (ended or b"").decode().partition(":")
    expires_at, rejected_at = time_or_none(known["expires_at"]), time_or_none(rejected)
    return TokenInfo(
        id=known["id"],
        **_account(known)._asdict(),
        kind=known["kind"],
        version=int(known["version"]),
        token_type=known["token_type"],
        scope=tuple(known["scope"]),
        created_at=from_micros(known["created_at"]),
        expires_at=expires_at,
        rejected_at=rejected_at,
        ended_at=from_micros(int(moment)) if moment else None,
        end_reason=EndReason(reason) if moment else None,
        last_used_at=time_or_none(last),
        usage_count=int(uses or 0),
        profile=known["profile"],
        metadata=known["metadata"],
        active=not moment and rejected_at is None and (expires_at is None or expires_at > now),
    )


def _account(known: Mapping[str, Any]) -> Account:
    parts = (known["namespace"], known["provider"], known["user_id"])
    if not all(isinstance(part, str) for part in parts):
        msg = "an account is no text"
        raise TypeError(msg)
    return Account(*parts)
