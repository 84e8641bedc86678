"""The words of RFC 6749 on the wire: how a client names itself, what a grant and a refusal look like."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote_plus

from tokenkeep import _checking
from tokenkeep.model import NewToken
from tokenkeep.secret import Secret

_VISIBLE: Final = re.compile(r"[\x20-\x7e]+")
"""RFC 6749 appendix A.12 and A.17: access-token = refresh-token = 1*VSCHAR."""

_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""Narrower than appendix A.7, so that a code is a word."""

_SECONDS: Final = re.compile(r"([0-9]{1,12})(\.[0-9]{1,12})?")

REJECTIONS: Final[Mapping[str, str]] = {
    "invalid_request": "compare the provider's documentation of this grant with what was configured",
    "invalid_client": "check client_id and client_secret",
    "invalid_grant": "authorise the application again and give its new token to vault.store()",
    "unauthorized_client": "allow this grant to the application at the provider",
    "unsupported_grant_type": "the provider does not offer this grant; choose another",
    "invalid_scope": "check scope against what the application may ask for",
    "unsupported_token_type": "the provider cannot revoke tokens of this type; they live on until they expire",
}
"""The codes that stay what they are (RFC 6749 section 5.2, RFC 7009 section 2.2.1), and what to do about each."""

TEMPORARY: Final = frozenset({"temporarily_unavailable", "server_error"})
"""The codes that pass (RFC 6749 section 4.1.2.1, which many use at the token endpoint too)."""

_MAX_DESCRIPTION: Final = 200
_TELLING: Final = 8
"""So many characters of a secret in a row give part of it away."""


class Unreadable(Exception):
    """The answer is not what RFC 6749 section 5.1 describes."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error response (RFC 6749 section 5.2), with nothing in it of what was sent."""

    code: str | None
    description: str


def basic(client_id: str, client_secret: Secret) -> str:
    """Build the `Authorization` header of RFC 6749 section 2.3.1: form-urlencoded first, then RFC 7617."""
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret.reveal())}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def fields_of(body: bytes) -> dict[str, Any]:
    """Read a JSON object of UTF-8, each name once.

    Raises:
        Unreadable: it is something else.
    """
    try:
        fields = json.loads(body.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        msg = "the answer is no JSON object"
        raise Unreadable(msg)
    return fields


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        msg = "a name stands twice"
        raise ValueError(msg)
    return fields


def token_of(fields: dict[str, Any], requested: Collection[str]) -> NewToken:
    """Read a successful response (RFC 6749 section 5.1).

    Raises:
        Unreadable: there is no usable access token.
    """
    access_token = _text(fields, "access_token")
    if access_token is None:
        msg = "the answer has no access_token"
        raise Unreadable(msg)
    return NewToken(
        access_token,
        refresh_token=_text(fields, "refresh_token"),
        expires_in=lifetime(fields.get("expires_in")),
        token_type=(_text(fields, "token_type") or "Bearer")[: _checking.MAX_NAME],
        scope=_scope(fields.get("scope"), requested),
    )


def _text(fields: dict[str, Any], name: str) -> str | None:
    """Return a text field; `None` when it is missing, null or empty."""
    value = fields.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
        msg = f"{name} in the answer is no text of printable ASCII"
        raise Unreadable(msg)
    return value


def lifetime(value: Any) -> timedelta | None:
    """Read `expires_in`: a number of seconds, or one written as text; fractions are cut off, ten years is the most.

    What is missing, zero, negative or no number tells nothing: `None`. To believe that a token was dead when it
    came would mean to ask for another at each call; one that is dead indeed is found out by its rejection.
    """
    if isinstance(value, str):
        found = _SECONDS.fullmatch(value.strip())
        value = int(found[1]) if found else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1:
        return None
    return timedelta(seconds=int(min(value, _checking.MAX_SPAN.total_seconds())))


def _scope(value: Any, requested: Collection[str]) -> tuple[str, ...]:
    """Read `scope`, as text or as the list that some send; missing, it is what was requested (section 5.1)."""
    if value is None:
        return tuple(requested)
    values = value.split() if isinstance(value, str) else value
    try:
        return tuple(dict.fromkeys(_checking.scopes(values, "scope")))
    except (TypeError, ValueError):
        return ()


def refusal_of(fields: dict[str, Any], sent: Sequence[str]) -> Refusal:
    """Read an error response. Its words are the server's: cleaned, capped, and dropped when they repeat a secret.

    Args:
        fields: the answer.
        sent: every form in which secrets were sent.
    """
    code, text = _code(fields.get("error"), sent), fields.get("error_description")
    if not isinstance(text, str):
        return Refusal(code, "")
    clean = "".join(char if char.isprintable() else " " for char in text[: 20 * _MAX_DESCRIPTION])
    if _repeats(clean, sent) or _repeats("".join(clean.split()), sent):
        return Refusal(code, "its description repeats a secret and is withheld")
    return Refusal(code, " ".join(clean.split())[:_MAX_DESCRIPTION])


def _code(value: Any, sent: Sequence[str]) -> str | None:
    if not isinstance(value, str) or not _CODE.fullmatch(value):
        return None
    known = value in REJECTIONS or value in TEMPORARY
    return value if known or not _repeats(value, sent) else None


def _repeats(text: str, secrets: Sequence[str]) -> bool:
    return any(
        text[start : start + width] in secret
        for secret in secrets
        if (width := min(_TELLING, len(secret)))
        for start in range(len(text) - width + 1)
    )
