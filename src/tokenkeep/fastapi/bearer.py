"""The dependency that lets a request in, or not."""

import logging
from collections.abc import Collection
from inspect import Parameter, Signature
from typing import Annotated, Any, Final

from fastapi import Security
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.openapi.models import SecurityBase as Scheme
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from tokenkeep import _checking
from tokenkeep.api import AsyncTokenIssuer
from tokenkeep.errors import TokenKeepError
from tokenkeep.fastapi import answers
from tokenkeep.fastapi.cookies import SessionCookie
from tokenkeep.fastapi.origins import SAFE_METHODS
from tokenkeep.fastapi.presented import Ambiguous, Presented, Transport, presented
from tokenkeep.model import IssuedToken
from tokenkeep.verifying import EVERYTHING

_LOG: Final = logging.getLogger("tokenkeep.fastapi")


class Bearer(SecurityBase):
    """Gives an endpoint the `IssuedToken` of the request: `Annotated[IssuedToken, Depends(Bearer(issuer))]`.

    Answers 401 with a challenge (RFC 6750 section 3) for no token and for every token that is not good, 403
    for one without the scopes, 400 for two at once or one in the URL, 503 when the store cannot be asked.
    It serves WebSockets too. `Security(bearer, scopes=[…])` asks for further scopes.

    Args:
        issuer: verifies the tokens.
        scopes: all of these are needed; none means that any good token does.
        cookie: accepted instead of the header, from pages of this site; `None` for the header only.
        realm: what the challenge calls the place.

    Raises:
        TypeError: the issuer is not asynchronous: its face would block the event loop.
    """

    def __init__(
        self,
        issuer: AsyncTokenIssuer,
        *,
        scopes: Collection[str] = (),
        cookie: SessionCookie | None = None,
        realm: str = "api",
    ) -> None:
        if not isinstance(issuer, AsyncTokenIssuer):
            msg = "Bearer needs an AsyncTokenIssuer; the other face would block the event loop"
            raise TypeError(msg)
        if '"' in realm or "\\" in realm or not realm.isprintable() or not realm.isascii():
            msg = "a realm is printable ASCII without quotes and backslashes"
            raise ValueError(msg)
        self.issuer = issuer
        self.cookie = cookie
        self.realm = realm
        self._scopes = frozenset(_checking.scopes(scopes, "scopes"))
        self.model = HTTPBearer(description="An access token of this application.")
        self.scheme_name = "bearer"
        self.__signature__ = _signature(self._documented())

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes, **_: None) -> IssuedToken:
        """Return the token of the request, verified."""
        brought = self.presented(connection)
        if brought is None:
            raise answers.unauthenticated(self.realm)
        found = await self.verified(brought.token)
        if found is None:
            raise answers.invalid_token(self.realm)
        wanted = self._scopes.union(security_scopes.scopes)
        if wanted and EVERYTHING not in found.scopes and not wanted <= found.scopes:
            raise answers.insufficient_scope(self.realm, wanted)
        return found

    def presented(self, connection: HTTPConnection) -> Presented | None:
        """Return what the request brings, not verified; a cookie only where no other site can have sent it."""
        cookie = self.cookie
        name = None if cookie is None else cookie.name_on(connection).encode()
        try:
            brought = presented(connection.scope, name)
        except Ambiguous as error:
            raise answers.invalid_request(self.realm, str(error)) from None
        forgeable = brought is not None and brought.transport is Transport.COOKIE and _unsafe(connection)
        if forgeable and cookie is not None and not cookie.origins.own(connection, silence=False):
            raise answers.cross_site()
        return brought

    async def verified(self, token: str) -> IssuedToken | None:
        """Ask the issuer. Whatever fails there lets nobody in."""
        try:
            return await self.issuer.verify(token)
        except TokenKeepError as error:
            _LOG.error("a token could not be verified: %s", error)
            raise answers.unavailable() from None

    def _documented(self) -> list[Any]:
        """Return what only the OpenAPI document needs to know of: own scopes, and the cookie."""
        schemes = [Documented("bearer", self.model)] if self._scopes else []
        if self.cookie is not None:
            model = APIKey.model_validate({"in": APIKeyIn.cookie, "name": self.cookie.name})
            schemes.append(Documented("cookie", model))
        return [Security(scheme, scopes=sorted(self._scopes)) for scheme in schemes]


class Documented(SecurityBase):
    """A security scheme that stands in the OpenAPI document and does nothing."""

    def __init__(self, name: str, model: Scheme) -> None:
        self.scheme_name = name
        self.model = model

    async def __call__(self) -> None:
        """Do nothing; it is not a plain function, which would cost a thread."""


def _unsafe(connection: HTTPConnection) -> bool:
    return connection.scope.get("method") not in SAFE_METHODS


def _signature(schemes: Collection[Any]) -> Signature:
    """Return the parameters that FastAPI reads: its own two, and the schemes to document."""
    kind = Parameter.KEYWORD_ONLY
    return Signature(
        [
            Parameter("connection", kind, annotation=HTTPConnection),
            Parameter("security_scopes", kind, annotation=SecurityScopes),
            *(
                Parameter(f"documented_{number}", kind, annotation=Annotated[None, scheme])
                for number, scheme in enumerate(schemes)
            ),
        ],
        return_annotation=IssuedToken,
    )
