"""The database strategy of fastapi-users, with an end for every token and a logout that is nobody else's."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, override

from tokenkeep.errors import ConfigurationError
from tokenkeep.fastapi_users._offers import offered
from tokenkeep.fastapi_users._originals import AP, ID, NO_SUCH_USER, UP, AccessTokenDatabase, OriginalStrategy

GRANULE: Final = timedelta(minutes=1)
"""Uses within this span of the last one that was written down are not written down."""

_LONGEST: Final = timedelta(days=365_000)


class DatabaseStrategy(OriginalStrategy[UP, ID, AP], Generic[UP, ID, AP]):  # noqa: UP046  # fastapi-users' own type variables
    """Keeps access tokens in a database. Override `_create_access_token_dict` to fill columns of your own.

    Args:
        database: only its four methods are called, unless it offers more.
        lifetime_seconds: how long a token is accepted after its creation; `None`: for ever, with a warning.
        idle_seconds: how long it is accepted after its last use, within `lifetime_seconds`. This needs a table
            that keeps `expires_at`: a base whose name begins with `SQLAlchemyBaseRich` or `BeanieBaseRich`.
        now: tells the time, aware.

    Raises:
        ValueError: a span is zero, negative or absurd.
        ConfigurationError: `idle_seconds` with a table that cannot keep it.
    """

    idle_seconds: int | None = None

    def __init__(
        self,
        database: AccessTokenDatabase[AP],
        lifetime_seconds: int | None = None,
        *,
        idle_seconds: int | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.database = database
        self.lifetime_seconds = lifetime_seconds
        self.idle_seconds = idle_seconds
        self._now = now
        _span(lifetime_seconds, "lifetime_seconds")
        _span(idle_seconds, "idle_seconds")
        if lifetime_seconds is None:
            msg = "lifetime_seconds=None: a token that is stolen works for ever; give a number of seconds"
            warnings.warn(msg, UserWarning, stacklevel=2)
        if idle_seconds is not None and not self._keeps_expiry:
            msg = "idle_seconds needs a table with expires_at and last_used_at: derive it from a Rich base"
            raise ConfigurationError(msg)

    @override
    async def read_token(self, token: str | None, user_manager: Any) -> UP | None:
        """Return the user of a token; `None` for one that is unknown, dead or malformed."""
        if token is None:
            return None
        now = self._now()
        lifetime = self._lifetime
        max_age = None if lifetime is None else now - lifetime
        get_with_user = offered(self.database, "get_with_user", instead_of=("get_by_token",))
        if get_with_user is not None and getattr(self.database, "reads_users", False):
            access_token, user = await get_with_user(token, max_age)
        else:
            access_token = await self.database.get_by_token(token, max_age)
            user = None if access_token is None else await self._owner(access_token, user_manager)
        if user is not None:
            await self._note_use(access_token, now)
        return user  # type: ignore[no-any-return]  # the database is as typed as its table

    @override
    async def write_token(self, user: UP) -> str:
        """Make a token for a user, and return it."""
        create_dict = self._create_access_token_dict(user)
        if self._keeps_expiry:
            now = self._now()
            create_dict.setdefault("expires_at", self._end(now, now))
        access_token = await self.database.create(create_dict)
        return access_token.token

    @override
    async def destroy_token(self, token: str, user: UP) -> None:
        """Delete a token of this user; anybody else's is left alone. Safe to repeat."""
        delete_token = offered(self.database, "delete_token", instead_of=("get_by_token", "delete"))
        if delete_token is not None:
            await delete_token(token, user.id)
            return
        access_token = await self.database.get_by_token(token)
        if access_token is not None and access_token.user_id == user.id:
            await self.database.delete(access_token)

    @override
    def _create_access_token_dict(self, user: UP) -> dict[str, Any]:
        return {"token": secrets.token_urlsafe(), "user_id": user.id}

    @property
    def _lifetime(self) -> timedelta | None:
        return _span(self.lifetime_seconds, "lifetime_seconds")

    @property
    def _idle(self) -> timedelta | None:
        return _span(self.idle_seconds, "idle_seconds")

    @property
    def _keeps_expiry(self) -> bool:
        return bool(getattr(self.database, "keeps_expiry", False))

    async def _owner(self, access_token: AP, user_manager: Any) -> UP | None:
        try:
            return await user_manager.get(user_manager.parse_id(access_token.user_id))  # type: ignore[no-any-return]
        except NO_SUCH_USER:
            return None

    async def _note_use(self, access_token: Any, now: datetime) -> None:
        """Write down that a token was used, and move its end; at most once in a granule."""
        touch = offered(self.database, "touch", instead_of=("update",))
        if touch is None or not self._keeps_expiry:
            return
        idle, last = self._idle, access_token.last_used_at
        granule = GRANULE if idle is None else min(GRANULE, idle / 10)
        if last is None or now - _aware(last) >= granule:
            slid = access_token.expires_at if idle is None else self._end(now, _aware(access_token.created_at))
            await touch(access_token, now, slid)

    def _end(self, now: datetime, created_at: datetime) -> datetime | None:
        lifetime, idle = self._lifetime, self._idle
        ends = [] if lifetime is None else [created_at + lifetime]
        ends += [] if idle is None else [now + idle]
        return min(ends, default=None)


def _span(seconds: float | None, argument: str) -> timedelta | None:
    if seconds is None:
        return None
    if not 0 < seconds <= _LONGEST.total_seconds():
        msg = f"{argument} must be a positive number of seconds, not {seconds!r}; None is for ever"
        raise ValueError(msg)
    return timedelta(seconds=seconds)


def _aware(moment: datetime) -> datetime:
    """Return a time as aware; MongoDB's driver leaves out that it is UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
