"""The database adapter for SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, override

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from tokenkeep.fastapi_users._originals import AP, AccessTokenDatabase
from tokenkeep.fastapi_users.sqlalchemy._rows import TokenRows
from tokenkeep.fastapi_users.sqlalchemy._types import now_utc


class SQLAlchemyAccessTokenDatabase(AccessTokenDatabase[AP], Generic[AP]):  # noqa: UP046  # fastapi-users' own type variables
    """Keeps access tokens in a table, as digests.

    Args:
        session: an `AsyncSession`; or an `async_sessionmaker`, and each call then takes a short session of its own,
            so that no connection is held while the endpoint works. What comes back then is detached.
        access_token_table: the mapped class of the tokens.
        user_table: the mapped class of the users; a token and its user are then read in one statement, and the
            user manager is not asked.
        accept_clear: whether tokens in clear from before are accepted, and rewritten as digests when they are seen.
        now: tells the time, aware.

    Raises:
        ConfigurationError: the table's `token` column is not one that digests.
    """

    def __init__(
        self,
        session: AsyncSession | async_sessionmaker[Any],
        access_token_table: type[AP],
        *,
        user_table: Any = None,
        accept_clear: bool = True,
        now: Callable[[], datetime] = now_utc,
    ) -> None:
        self.session = session
        self.access_token_table = access_token_table
        self._rows = TokenRows(access_token_table, user_table, accept_clear=accept_clear, now=now)

    @property
    def keeps_expiry(self) -> bool:
        """Whether the table keeps `expires_at` and `last_used_at`."""
        return self._rows.rich

    @property
    def reads_users(self) -> bool:
        """Whether `get_with_user` can be called."""
        return self._rows.user_table is not None

    @override
    async def get_by_token(self, token: str, max_age: datetime | None = None) -> AP | None:
        """Return the row of a token that was created no earlier than `max_age`; its `.token` is the token.

        A token that cannot be one of ours is `None` without a query: NUL, not ASCII, longer than the column.
        """
        return await self._run(self._rows.find, token, max_age)  # type: ignore[no-any-return]

    @override
    async def create(self, create_dict: dict[str, Any]) -> AP:
        """Make a row and commit it; a duplicate raises `IntegrityError`.

        Raises:
            ValueError: the token could never be presented: it is too long, or not ASCII.
        """
        return await self._run(self._rows.create, create_dict)  # type: ignore[no-any-return]

    @override
    async def update(self, access_token: AP, update_dict: dict[str, Any]) -> AP:
        """Change a row and commit it; one that was deleted meanwhile stays deleted, and nothing is raised."""
        return await self._run(self._rows.update, access_token, update_dict)  # type: ignore[no-any-return]

    @override
    async def delete(self, access_token: AP) -> None:
        """Delete a row, in one statement. Safe to repeat."""
        await self._run(self._rows.delete, access_token)

    # --- more than the original ---

    async def get_with_user(self, token: str, max_age: datetime | None = None) -> tuple[AP | None, Any]:
        """Return the row of a token and its user, in one statement."""
        return await self._run(self._rows.find_with_user, token, max_age)  # type: ignore[no-any-return]

    async def delete_token(self, token: str, user_id: Any) -> bool:
        """Delete this user's token, in one statement; tell whether there was one."""
        return await self._run(self._rows.delete_token, token, user_id)  # type: ignore[no-any-return]

    async def touch(self, access_token: AP, used_at: datetime, expires_at: datetime | None) -> None:
        """Write down a use and the end that follows from it; a row that is gone stays gone."""
        await self._run(self._rows.touch, access_token, used_at, expires_at)

    async def list_for_user(self, user_id: Any) -> list[AP]:
        """Return a user's tokens, newest first. Their `.token` is a digest, which opens nothing."""
        return await self._run(self._rows.of_user, user_id)  # type: ignore[no-any-return]

    async def revoke_all(self, user_id: Any, *, keep: str | AP | None = None) -> int:
        """Delete a user's tokens, but the one to `keep`: a raw token, or an object; return how many."""
        return await self._run(self._rows.revoke_all, user_id, keep)  # type: ignore[no-any-return]

    async def purge_expired(self, *, max_age: datetime | None = None) -> int:
        """Delete the tokens that ended, or were created before `max_age`, in batches; return how many.

        Raises:
            ValueError: the table keeps no `expires_at`, and `max_age` is not given.
        """
        return await self._run(self._rows.purge_expired, max_age)  # type: ignore[no-any-return]

    async def _run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        if isinstance(self.session, AsyncSession):
            return await self.session.run_sync(work, *arguments)
        async with self.session() as session:
            return await session.run_sync(_detaching(work), *arguments)


def _detaching(work: Callable[..., Any]) -> Callable[..., Any]:
    """Let what comes back be detached before the session closes, whatever its sessionmaker expires."""

    def run(session: Session, *arguments: Any) -> Any:
        done = work(session, *arguments)
        session.expunge_all()
        return done

    return run
