"""Acquired tokens as documents, and back."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from tokenkeep.model import Account, EndReason, TokenInfo
from tokenkeep.ports import TokenRecord
from tokenkeep.stores.mongo.documents import Document, at, from_micros_or_none, key_of, to_micros_or_none
from tokenkeep.stores.plain import from_json, from_micros, to_json, to_micros

_SECRETS: Final = ("access_sealed", "refresh_sealed")
"""What history takes over only of a token of which the provider has still to be told."""


def slot(account: Account, kind: str) -> str:
    """Return the `_id` of the token in place."""
    return key_of(*account, kind)


def token_document(record: TokenRecord) -> dict[str, Any]:
    """Return the document of a token in place."""
    return {
        "_id": slot(record.account, record.kind),
        "id": record.id,
        **at(record.account),
        "kind": record.kind,
        "version": record.version,
        "access_sealed": record.access_sealed,
        "refresh_sealed": record.refresh_sealed,
        "key_id": record.key_id,
        "token_type": record.token_type,
        "scope": list(record.scope),
        "created_at": to_micros(record.created_at),
        "expires_at": to_micros_or_none(record.expires_at),
        "rejected_at": None,
        "last_used_at": to_micros_or_none(record.last_used_at),
        "usage_count": record.usage_count,
        "profile": to_json(record.profile),
        "metadata": to_json(record.metadata),
    }


def ended_document(document: Document, reason: EndReason, moment: datetime, *, wished: bool = False) -> dict[str, Any]:
    """Return what history keeps of a token that was in place; the token's id becomes its `_id`."""
    left = ("_id", "id") if wished else ("_id", "id", *_SECRETS)
    kept = {name: value for name, value in document.items() if name not in left}
    wish = {"revoke_at": to_micros(moment)} if wished else {}
    return {"_id": document["id"], **kept, "ended_at": to_micros(moment), "end_reason": reason.value, **wish}


def ended_record(document: Document) -> TokenRecord:
    """Read a token in history that keeps its secrets; raise whatever Python raises when it is damaged."""
    return record({**document, "_id": slot(_account(document), document["kind"]), "id": document["_id"]})


def record(document: Document) -> TokenRecord:
    """Read a token in place; raise whatever Python raises when it is damaged."""
    account = _account(document)
    if document["_id"] != slot(account, document["kind"]):
        msg = "a document stands where it does not belong"
        raise ValueError(msg)
    return TokenRecord(
        id=document["id"],
        account=account,
        kind=document["kind"],
        version=_whole(document["version"]),
        access_sealed=_sealed(document["access_sealed"]),
        refresh_sealed=_sealed(document["refresh_sealed"]),
        key_id=document["key_id"],
        token_type=document["token_type"],
        scope=tuple(document["scope"]),
        created_at=from_micros(document["created_at"]),
        expires_at=from_micros_or_none(document["expires_at"]),
        last_used_at=from_micros_or_none(document["last_used_at"]),
        usage_count=_whole(document["usage_count"]),
        rejected=document["rejected_at"] is not None,
        profile=from_json(document["profile"]),
        metadata=from_json(document["metadata"]),
    )


def info(document: Document, now: datetime) -> TokenInfo:
    """Read what is known of a token, in place or not."""
    ended_at = document.get("ended_at")
    reason = document.get("end_reason")
    expires_at = from_micros_or_none(document["expires_at"])
    rejected_at = from_micros_or_none(document["rejected_at"])
    return TokenInfo(
        id=document["_id"] if ended_at is not None else document["id"],
        **_account(document)._asdict(),
        kind=document["kind"],
        version=_whole(document["version"]),
        token_type=document["token_type"],
        scope=tuple(document["scope"]),
        created_at=from_micros(document["created_at"]),
        expires_at=expires_at,
        rejected_at=rejected_at,
        ended_at=from_micros_or_none(ended_at),
        end_reason=None if reason is None else EndReason(reason),
        last_used_at=from_micros_or_none(document["last_used_at"]),
        usage_count=_whole(document["usage_count"]),
        profile=from_json(document["profile"]),
        metadata=from_json(document["metadata"]),
        active=ended_at is None and rejected_at is None and (expires_at is None or expires_at > now),
    )


def _account(document: Document) -> Account:
    parts = (document["namespace"], document["provider"], document["user_id"])
    if not all(isinstance(part, str) for part in parts):
        msg = "an account is no text"
        raise TypeError(msg)
    return Account(*parts)


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        msg = "not a whole number"
        raise TypeError(msg)
    return value


def _sealed(value: object) -> bytes | None:
    if value is not None and not isinstance(value, bytes):
        msg = "a sealed value is no bytes"
        raise TypeError(msg)
    return value
