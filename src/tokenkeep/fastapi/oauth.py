"""Introspection (RFC 7662) and revocation (RFC 7009) for other programs."""

from collections.abc import Callable
from typing import Annotated, Any, Final, Protocol
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from tokenkeep.digest import parse_public_id
from tokenkeep.errors import TokenKeepError
from tokenkeep.fastapi.answers import NO_STORE
from tokenkeep.fastapi.oauth_answers import OAuthError, OAuthRefusal, OAuthRoute
from tokenkeep.model import IssuedToken

LONGEST_BODY: Final = 8192
"""Bytes; a form with a token is much shorter."""

_FIELDS: Final = 1000
_FORM: Final = "application/x-www-form-urlencoded"
_OPENAPI: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            _FORM: {
                "schema": {
                    "type": "object",
                    "required": ["token"],
                    "properties": {
                        "token": {"type": "string", "minLength": 1},
                        "token_type_hint": {"type": "string", "description": "Not needed."},
                    },
                }
            }
        },
    }
}

type MaySee = Callable[[str, IssuedToken], bool]


class Verifies(Protocol):
    """What the routes ask of an issuer: an `AsyncTokenIssuer`, or what stands around one."""

    async def verify(self, token: str) -> IssuedToken | None:
        """Return whose token it is; `None` when it is not good."""

    async def revoke(self, token: str) -> bool:
        """End a token."""


class Introspection(BaseModel):
    """What a token stands for; of one that is not active, nothing else is said (RFC 7662 section 2.2)."""

    active: bool
    sub: str | None = Field(default=None, description="Whose it is.")
    scope: str | None = Field(default=None, description="What it may do, separated by spaces.")
    exp: int | None = Field(default=None, description="Its end, in seconds since 1970.")
    iat: int | None = Field(default=None, description="When it was issued, in seconds since 1970.")
    token_type: str | None = None


def oauth_router(
    issuer: Verifies,
    caller: Callable[..., Any],
    *,
    prefix: str = "/oauth",
    may_see: MaySee | None = None,
) -> APIRouter:
    """Return the routes `POST /introspect` and `POST /revoke`.

    Args:
        issuer: of the tokens that are asked about.
        caller: the dependency that says who asks, or refuses: `Clients({…})`, or a `Bearer` with scopes.
        may_see: `may_see(caller, token)` tells whether the caller may know of an access token; to others it is
            not active, and they cannot revoke it. `None`: each caller may. Whoever has a refresh token may
            revoke it.
        prefix: of both paths.
    """
    router = APIRouter(
        prefix=prefix,
        tags=["oauth"],
        route_class=OAuthRoute,
        responses={status: {"model": OAuthError} for status in (400, 401, 503)},
    )

    def sees(who: Any, found: IssuedToken | None) -> bool:
        return found is None or may_see is None or may_see(who, found)

    @router.post("/introspect", openapi_extra=_OPENAPI, response_model=Introspection)
    async def introspect(request: Request, who: Annotated[Any, Depends(caller)]) -> Response:
        """Tell what an access token stands for."""
        found = await _verified(issuer, await _token(request))
        return JSONResponse(_described(found if sees(who, found) else None), headers=NO_STORE)

    @router.post("/revoke", openapi_extra=_OPENAPI, response_class=Response)
    async def revoke(request: Request, who: Annotated[Any, Depends(caller)]) -> Response:
        """End an access or refresh token, and what was issued with it. One that is not known is ended already."""
        token = await _token(request)
        if parse_public_id(token) is None and sees(who, await _verified(issuer, token)):  # an id is no token
            await _revoked(issuer, token)
        return Response(headers=NO_STORE)

    return router


async def _verified(issuer: Verifies, token: str) -> IssuedToken | None:
    try:
        return await issuer.verify(token)
    except TokenKeepError:
        raise OAuthRefusal(503, "temporarily_unavailable") from None


async def _revoked(issuer: Verifies, token: str) -> None:
    try:
        await issuer.revoke(token)
    except TokenKeepError:
        raise OAuthRefusal(503, "temporarily_unavailable") from None


def _described(found: IssuedToken | None) -> dict[str, Any]:
    if found is None:
        return {"active": False}
    return {
        "active": True,
        "sub": found.user_id,
        "scope": " ".join(sorted(found.scopes)),
        "exp": int(found.expires_at.timestamp()),
        "iat": int(found.created_at.timestamp()),
        "token_type": "Bearer",
    }


async def _token(request: Request) -> str:
    """Read the form. What is in the URL is not looked at."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise OAuthRefusal(400, "invalid_request")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_BODY:
            raise OAuthRefusal(400, "invalid_request")
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_FIELDS, errors="strict")
    except ValueError:
        raise OAuthRefusal(400, "invalid_request") from None
    tokens = [value for name, value in fields if name == "token"]
    hints = [value for name, value in fields if name == "token_type_hint"]
    if len(tokens) != 1 or not tokens[0] or len(hints) > 1:
        raise OAuthRefusal(400, "invalid_request")
    return tokens[0]
