"""What a request is answered that is not let in: RFC 6750 section 3, with bodies that tell nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from math import ceil
from typing import Any, Final

from fastapi import HTTPException
from pydantic import BaseModel

NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
"""For every answer that carries a token (RFC 6749 section 5.1)."""

RETRY_AFTER: Final = timedelta(seconds=5)
"""After which a client may ask again when the database cannot be reached."""


class Refusal(BaseModel):
    """Why a request was not served."""

    detail: str


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what an OpenAPI document says of these answers."""
    return {status: {"model": Refusal} for status in statuses}


def unauthenticated(realm: str) -> HTTPException:
    """401 for a request without credentials, which gets no error code (RFC 6750 section 3.1)."""
    return _challenge(401, "This needs an access token.", realm)


def invalid_token(realm: str) -> HTTPException:
    """401 for every token that is not good; unknown, expired and revoked ones are answered alike."""
    return _challenge(401, "The access token is not valid.", realm, error="invalid_token")


def insufficient_scope(realm: str, scopes: Collection[str]) -> HTTPException:
    """403 for a good token that may not do this, with what would be needed."""
    detail = "The access token does not allow this."
    return _challenge(403, detail, realm, error="insufficient_scope", scope=" ".join(sorted(scopes)))


def invalid_request(realm: str, detail: str) -> HTTPException:
    """400 for a request that brings its token in a way that cannot be accepted."""
    return _challenge(400, detail, realm, error="invalid_request")


def stale_login(realm: str, within: timedelta) -> HTTPException:
    """401 for a good token whose owner must log in again (RFC 9470 section 3)."""
    detail = "This needs a more recent login."
    seconds = str(int(within.total_seconds()))
    return _challenge(401, detail, realm, error="insufficient_user_authentication", max_age=seconds)


def cross_site() -> HTTPException:
    """403 for a request with a cookie that another site may have sent."""
    return HTTPException(403, "This request came with a cookie and does not come from this site's own pages.")


def too_many_sessions() -> HTTPException:
    """409: the user has to end a session first."""
    return HTTPException(409, "There are as many sessions as are allowed; end one of them first.", headers=NO_STORE)


def unavailable(detail: str = "This cannot be checked now.", *, after: timedelta | None = None) -> HTTPException:
    """503: nobody is let in while the store cannot be asked."""
    return HTTPException(503, detail, headers={"Retry-After": str(ceil((after or RETRY_AFTER).total_seconds()))})


def _challenge(status: int, detail: str, realm: str, **parameters: str) -> HTTPException:
    return HTTPException(
        status, detail, headers={"WWW-Authenticate": challenge("Bearer", {"realm": realm} | parameters)}
    )


def challenge(scheme: str, parameters: Mapping[str, str]) -> str:
    """Write a challenge; its values must hold no quotes and no backslashes."""
    return f"{scheme} " + ", ".join(f'{name}="{value}"' for name, value in parameters.items() if value)
