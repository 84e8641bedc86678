"""Who asks, and may they? Nothing is served that was not granted to the caller by a scope."""

from collections.abc import Callable, Coroutine
from hmac import compare_digest
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import unquote

from fastapi import Depends, HTTPException, Request
from fastapi.openapi.models import HTTPBase
from fastapi.security.base import SecurityBase

from tokenkeep import _checking
from tokenkeep.api import AsyncTokenIssuer
from tokenkeep.fastapi import Bearer, answers
from tokenkeep.fastapi.clients import basic_credentials
from tokenkeep.fastapi.oauth_answers import OAuthRefusal
from tokenkeep.model import IssuedToken
from tokenkeep.service import callers
from tokenkeep.service.edge import CALLER
from tokenkeep.service.lately import Lately

REALM: Final = "tokenkeep"


class Asked(NamedTuple):
    """The account of a request that its caller may ask about."""

    provider: str
    user_id: str


type Admitted = Callable[..., Coroutine[Any, Any, IssuedToken]]


class Admission:
    """Makes the dependencies of the routes.

    Args:
        issuer: of the callers' tokens.
    """

    def __init__(self, issuer: AsyncTokenIssuer) -> None:
        self._bearer = Bearer(issuer, realm=REALM)
        self._lately = Lately(self._bearer)

    @property
    def caller(self) -> Admitted:
        """The caller of a request with a bearer token, known and nothing more."""
        bearer = self._bearer

        async def caller(request: Request, who: Annotated[IssuedToken, Depends(bearer)]) -> IssuedToken:
            return _noted(request, who)

        return caller

    def to(self, action: str) -> Admitted:
        """Let callers do what concerns no account."""

        async def admitted(who: Annotated[IssuedToken, Depends(self.caller)]) -> IssuedToken:
            return _granted(who, action)

        return admitted

    def even_without_store(self, action: str) -> Admitted:
        """Let callers do it too while the store cannot be asked, if they were known a moment ago."""

        async def admitted(request: Request) -> IssuedToken:
            brought = self._bearer.presented(request)
            if brought is None:
                raise answers.unauthenticated(REALM)
            who = await self._lately.verified(brought.token)
            if who is None:
                raise answers.invalid_token(REALM)
            return _granted(_noted(request, who), action)

        return admitted

    def on_account(self, action: str) -> Callable[..., Coroutine[Any, Any, Asked]]:
        """Let callers do this on the account that the path names. It is not said whether there is such an account."""

        async def admitted(who: Annotated[IssuedToken, Depends(self.caller)], provider: str, user_id: str) -> Asked:
            asked = _named(provider, user_id)
            if not callers.may_on(who, action, *asked):
                raise answers.insufficient_scope(REALM, [callers.scope_for(action, *asked)])
            return asked

        return admitted

    async def by_bearer(self, request: Request) -> IssuedToken | None:
        """Return the caller of a request with a bearer token; `None` for nobody."""
        brought = self._bearer.presented(request)
        who = None if brought is None else await self._bearer.verified(brought.token)
        return None if who is None else _noted(request, who)

    async def by_password(self, request: Request) -> IssuedToken | None:
        """Return the caller of a request that brings name and token by HTTP Basic; `None` for nobody."""
        name, token = basic_credentials(request.headers.getlist("authorization"))
        who = await self._bearer.verified(token) if token else None
        if who is None or not compare_digest((who.name or "").encode(), name.encode()):
            return None
        return _noted(request, who)


class OAuthCaller(SecurityBase):
    """The dependency of the OAuth routes: HTTP Basic with a caller's name and token, or the token as a bearer.

    The scope that is needed is called as the route: `introspect` or `revoke`.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.model = HTTPBase(scheme="basic", description="The name and token of a caller.")
        self.scheme_name = "caller"

    async def __call__(self, request: Request) -> IssuedToken:
        """Return the caller."""
        scheme = request.headers.get("authorization", "").partition(" ")[0].lower()
        who = await (self._admission.by_bearer if scheme == "bearer" else self._admission.by_password)(request)
        if who is None:
            raise OAuthRefusal(401, "invalid_client")
        if not callers.may(who, request.url.path.rpartition("/")[2]):
            raise OAuthRefusal(403, "insufficient_scope")
        return who


def _noted(request: Request, who: IssuedToken) -> IssuedToken:
    """Let the access log know who asked."""
    setattr(request.state, CALLER, who.name)
    return who


def _granted(who: IssuedToken, action: str) -> IssuedToken:
    if not callers.may(who, action):
        raise answers.insufficient_scope(REALM, [action])
    return who


def _named(provider: str, user_id: str) -> Asked:
    """Read the parts of the path, which are as they were sent."""
    try:
        asked = Asked(unquote(provider, errors="strict"), unquote(user_id, errors="strict"))
        _checking.label(asked.provider, "the provider")
        _checking.name(asked.user_id, "the user")
    except UnicodeDecodeError:
        raise HTTPException(400, "The path is not UTF-8.") from None
    except ValueError as error:
        raise HTTPException(400, f"{error}.") from None
    return asked
