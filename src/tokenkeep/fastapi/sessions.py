"""Sessions of people: begun by a login, seen by their owner, ended by their owner."""

from collections.abc import Callable, Collection, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection

from tokenkeep import _checking
from tokenkeep.errors import LimitReached, TokenKeepError
from tokenkeep.fastapi import answers
from tokenkeep.fastapi.addresses import Addresses
from tokenkeep.fastapi.bearer import Bearer
from tokenkeep.model import IssuedToken
from tokenkeep.ports import Clock

SESSION: Final = "session"
"""The key in a token's metadata under which is kept when its owner logged in, and from where."""


class SessionInfo(BaseModel):
    """A session, without its token.

    `name` and `client` are text that a client chose: escape them where they are shown.
    """

    id: str = Field(description="Public; to end the session by.")
    name: str | None = Field(description="What its owner calls it.")
    client: str | None = Field(description="What the client says it is: its User-Agent, at most 255 characters.")
    address: str | None = Field(description="From where it was begun.")
    created_at: datetime
    last_used_at: datetime | None = Field(description="Coarser than each request.")
    expires_at: datetime
    current: bool = Field(description="Whether it is the one that asks.")


class Ended(BaseModel):
    """How many sessions were ended."""

    ended: int


type Dependency = Callable[..., Coroutine[Any, Any, IssuedToken]]


class _SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class Sessions:
    """Begins, lists and ends sessions.

    Args:
        bearer: accepts their tokens; its cookie, if it has one, carries them.
        trusted_proxies: addresses and networks whose `X-Forwarded-For` is believed.
        clock: the time of logins; `None` for this machine's.
    """

    def __init__(self, bearer: Bearer, *, trusted_proxies: Collection[str] = (), clock: Clock | None = None) -> None:
        self._bearer = bearer
        self._issuer = bearer.issuer
        self._addresses = Addresses(trusted_proxies)
        self._clock = clock or _SystemClock()

    async def begin(
        self,
        connection: HTTPConnection,
        response: Response,
        user_id: str,
        *,
        scopes: Collection[str] = (),
        name: str | None = None,
        lifetime: timedelta | None = None,
        metadata: Mapping[str, Any] | None = None,
        refresh: bool = False,
    ) -> IssuedToken:
        """Issue a token to somebody who has just proved who they are, and end the one that the request brought.

        With a cookie it is set on `response`; without one, return it by `token_answer`. A page of another site
        that sends the login gets 403: nobody is logged in to an account that is not theirs. 409 when the issuer was
        opened to refuse more sessions than its `limit`, the one that the request brought included.
        """
        cookie = self._bearer.cookie
        if cookie is not None and not cookie.origins.own(connection, silence=True):
            raise answers.cross_site()
        brought = self._bearer.presented(connection)
        before = None if brought is None else await self._bearer.verified(brought.token)
        facts = {"auth_time": int(self._clock.now().timestamp()), "address": self._addresses.of(connection)}
        try:
            issued = await self._issuer.issue(
                user_id,
                scopes=scopes,
                name=name,
                lifetime=lifetime,
                client=connection.headers.get("user-agent"),
                metadata={**_checking.mapping(metadata, "metadata"), SESSION: facts},
                refresh=refresh,
            )
            if before is not None:
                await self._issuer.revoke(before)
        except LimitReached:
            raise answers.too_many_sessions() from None
        except TokenKeepError:
            raise answers.unavailable() from None
        if cookie is not None:
            cookie.put(connection, response, issued)
        response.headers.update(answers.NO_STORE)
        return issued

    async def end(self, connection: HTTPConnection, response: Response, mine: IssuedToken) -> None:
        """End this session, durably, and take its cookie away."""
        await self._revoke(mine)
        if self._bearer.cookie is not None:
            self._bearer.cookie.drop(connection, response)

    @property
    def current(self) -> Dependency:
        """The dependency that gives the token of a session.

        Other tokens are answered 403: one that a person made for a program does not show that the person is
        there.
        """
        bearer = self._bearer

        async def current(mine: Annotated[IssuedToken, Depends(bearer)]) -> IssuedToken:
            if logged_in_at(mine) is None:
                raise HTTPException(403, "This needs a session that was begun by a login.")
            return mine

        return current

    def require_fresh(self, within: timedelta) -> Dependency:
        """Return a dependency that wants a login within this span, however often the token was refreshed since.

        Otherwise the answer is 401 with `insufficient_user_authentication` and `max_age` (RFC 9470): log in again.
        """
        span = _checking.span(within, "within")

        async def fresh(mine: Annotated[IssuedToken, Depends(self.current)]) -> IssuedToken:
            at = logged_in_at(mine)
            if at is None or self._clock.now() - at > span:
                raise answers.stale_login(self._bearer.realm, span)
            return mine

        return fresh

    def router(self, *, prefix: str = "/sessions", fresh: timedelta | None = None) -> APIRouter:
        """Return the routes to list one's own sessions, to end one, the others, or this one.

        `fresh` is how recent the login must be to end other sessions (OWASP ASVS 5.0, 7.5.2); `None` for any.
        """
        router = APIRouter(
            prefix=prefix,
            tags=["sessions"],
            dependencies=[Depends(_no_store)],
            responses=answers.refusals(400, 401, 403, 503),
        )
        mine = self.current
        ending = mine if fresh is None else self.require_fresh(fresh)
        self._add_listing(router, mine)
        self._add_ending(router, mine, ending)
        return router

    def _add_listing(self, router: APIRouter, mine: Dependency) -> None:
        @router.get("")
        async def list_sessions(mine: Annotated[IssuedToken, Depends(mine)]) -> list[SessionInfo]:
            """List my sessions and other tokens, newest first, at most a thousand."""
            return [_info(token, mine) for token in await self._tokens(mine)]

    def _add_ending(self, router: APIRouter, mine: Dependency, ending: Dependency) -> None:
        @router.delete("/current", status_code=204)
        async def end_this_session(
            mine: Annotated[IssuedToken, Depends(mine)], request: Request, response: Response
        ) -> None:
            """Log out."""
            await self.end(request, response, mine)

        @router.delete("/others")
        async def end_other_sessions(mine: Annotated[IssuedToken, Depends(ending)]) -> Ended:
            """End all my sessions and other tokens but this one."""
            try:
                return Ended(ended=await self._issuer.revoke_all(mine.user_id, keep=mine))
            except TokenKeepError:
                raise answers.unavailable() from None

        @router.delete("/{session_id}", status_code=204, responses=answers.refusals(404))
        async def end_a_session(
            session_id: str, mine: Annotated[IssuedToken, Depends(ending)], request: Request, response: Response
        ) -> None:
            """End one of my sessions. What is not mine is not found."""
            found = next((token for token in await self._tokens(mine) if token.id == session_id), None)
            if found is None:
                raise HTTPException(404, "There is no such session.")
            if found.id == mine.id:
                await self.end(request, response, mine)
            else:
                await self._revoke(found)

    async def _tokens(self, mine: IssuedToken) -> list[IssuedToken]:
        try:
            return await self._issuer.tokens(mine.user_id)
        except TokenKeepError:
            raise answers.unavailable() from None

    async def _revoke(self, token: IssuedToken) -> None:
        try:
            await self._issuer.revoke(token)
        except TokenKeepError:
            detail = "It is not known whether the session was ended; ask again."
            raise answers.unavailable(detail) from None


def token_answer(issued: IssuedToken) -> JSONResponse:
    """Return a token just issued as RFC 6749 section 5.1 has it, to be kept by no cache.

    Raises:
        ValueError: it was not issued just now.
    """
    if issued.token is None:
        msg = "only a token that was issued just now can be shown"
        raise ValueError(msg)
    content = {
        "access_token": issued.token.reveal(),
        "token_type": "Bearer",
        "expires_in": int((issued.expires_at - issued.created_at).total_seconds()),
        "scope": " ".join(sorted(issued.scopes)),
    }
    if issued.refresh_token is not None:
        content["refresh_token"] = issued.refresh_token.reveal()
    return JSONResponse(content, headers=answers.NO_STORE)


def logged_in_at(token: IssuedToken) -> datetime | None:
    """Return when its owner logged in; `None` for a token that no login began. A refresh does not change it."""
    facts = token.metadata.get(SESSION)
    seconds = facts.get("auth_time") if isinstance(facts, Mapping) else None
    return datetime.fromtimestamp(seconds, UTC) if isinstance(seconds, int) else None


def _info(token: IssuedToken, mine: IssuedToken) -> SessionInfo:
    facts = token.metadata.get(SESSION)
    return SessionInfo(
        id=token.id,
        name=token.name,
        client=token.client,
        address=facts.get("address") if isinstance(facts, Mapping) else None,
        created_at=token.created_at,
        last_used_at=token.last_used_at,
        expires_at=token.expires_at,
        current=token.id == mine.id,
    )


async def _no_store(response: Response) -> None:
    response.headers.update(answers.NO_STORE)
