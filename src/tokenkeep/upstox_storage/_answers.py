"""The dictionaries that the classes of the page return: what can be in them, by the page's own names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from tokenkeep.acquiring import SUBJECT
from tokenkeep.model import AcquiredToken, Acquisition, AuditEvent, Dashboard, Statistics, Status, TokenInfo
from tokenkeep.upstox_storage._text import TokenText

DEFAULT_USER: Final = "default"
"""What the account of a caller who names none is filed under: a key must be known before the login."""

_PROFILE: Final = ("user_name", "email", "broker", "user_type", "products", "exchanges")


def name_of(token: AcquiredToken | TokenInfo) -> str:
    """Return the name that the caller knows a token's user by: for one who was not named the broker's id."""
    if token.user_id != DEFAULT_USER:
        return token.user_id
    return str(token.profile.get(SUBJECT) or DEFAULT_USER)


def chosen(answer: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return the part of an answer that a class of the page gives, in its order."""
    return {key: answer[key] for key in keys}


def token(found: AcquiredToken) -> dict[str, Any]:
    """Return everything that one class or another tells of a token, with the token itself."""
    return {
        "token": TokenText(found.access_token.reveal()),
        "user_id": name_of(found),
        "token_id": found.id,
        "user_name": found.profile.get("user_name"),
        "email": found.profile.get("email"),
        "created_at": found.created_at.isoformat(),
        "expires_at": _text(found.expires_at),
        "usage_count": found.usage_count,
    }


def history_row(info: TokenInfo) -> dict[str, Any]:
    """Return a row of the history."""
    told = {name: info.profile.get(name) for name in ("user_name", "email", "broker")}
    return {
        "created_at": info.created_at.isoformat(),
        "expires_at": _text(info.expires_at),
        "is_active": info.active,
        **told,
    }


def document(info: TokenInfo) -> dict[str, Any]:
    """Return what the page's MongoDB class stores of a token, without the token."""
    ended = {} if info.ended_at is None else {"deactivated_at": info.ended_at, "deactivation_reason": info.end_reason}
    return {
        "_id": info.id,
        "user_id": name_of(info),
        **{name: info.profile.get(name) for name in _PROFILE},
        "is_active": info.active,
        "created_at": info.created_at,
        "expires_at": info.expires_at,
        "usage_count": info.usage_count,
        "last_used_at": info.last_used_at,
        "metadata": dict(info.metadata),
        **ended,
    }


def statistics(found: Statistics) -> dict[str, Any]:
    """Return the figures of a user."""
    return {
        "total_tokens": found.total_tokens,
        "active_tokens": found.active_tokens,
        "total_usage": found.total_usage,
        "last_generation": found.last_generation,
        "last_usage": found.last_usage,
        "avg_usage_per_token": found.avg_usage_per_token,
    }


def event(found: AuditEvent, user_id: str) -> dict[str, Any]:
    """Return what every class tells of an event."""
    told = {"action": str(found.action), "performed_at": found.at, "metadata": dict(found.detail)}
    return {**told, "user_id": user_id}


def audit_row(found: AuditEvent, user_id: str, made: Mapping[str, datetime]) -> dict[str, Any]:
    """Return a row of the trail; `made` tells when each token was made, `None` stands where that is forgotten."""
    return {**event(found, user_id), "token_created": made.get(found.token_id or "")}


def dashboard(found: Dashboard, user_id: str) -> dict[str, Any]:
    """Return the page's dashboard; of a user without tokens the figures are empty."""
    figures, active = statistics(found.statistics), found.active_token
    figures["avg_usage"] = figures.pop("avg_usage_per_token")
    recent = [{"token_id": item.token_id, **event(item, user_id)} for item in found.recent_activity]
    return {
        "user_id": user_id,
        "statistics": {"_id": None, **figures} if found.statistics.total_tokens else {},
        "recent_activity": recent,
        "active_token": {
            "exists": active is not None,
            "expires_at": None if active is None else _text(active.expires_at),
            "usage_count": 0 if active is None else active.usage_count,
        },
    }


def batch_row(result: Acquisition, user_id: str) -> dict[str, Any]:
    """Return one user's result of a batch."""
    if result.token is None:
        return {"user_id": user_id, "success": False, "error": str(result.error)}
    return {"user_id": user_id, "token_id": result.token.id, "success": True}


def status(found: Status, now: datetime) -> dict[str, Any]:
    """Return each tier's state: `healthy`, or the error."""
    tiers = {tier.name: "healthy" if tier.healthy else f"error: {tier.reason}" for tier in found.tiers}
    return {**tiers, "timestamp": now.isoformat()}


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
