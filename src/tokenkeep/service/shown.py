"""What the service says of tokens: the least that is of use (OWASP ASVS 5.0, 15.3.1)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from tokenkeep.model import AcquiredToken, TokenInfo

_KNOWN: Final = (
    *("kind", "version", "active", "created_at", "expires_at", "rejected_at", "ended_at", "end_reason"),
    *("last_used_at", "usage_count"),
)
"""Of a token without its secret. What the provider says of its owner stays here."""


def handed_out(token: AcquiredToken, now: datetime) -> dict[str, Any]:
    """Return a token as RFC 6749 section 5.1 has it, with what rejects it. No refresh token ever leaves."""
    end = token.expires_at
    return {
        "access_token": token.access_token.reveal(),
        "token_type": token.token_type,
        "expires_in": None if end is None else max(int((end - now).total_seconds()), 0),
        "expires_at": moment(end),
        "scope": " ".join(token.scope),
        "kind": token.kind,
        "version": token.version,
    }


def known(info: TokenInfo) -> dict[str, Any]:
    """Return what may be told of a token."""
    return {name: getattr(info, name) for name in _KNOWN}


def moment(at: datetime | None) -> str | None:
    """Return a time as RFC 3339 has it, in UTC."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
