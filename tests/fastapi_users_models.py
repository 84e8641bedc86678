"""Tables, users and a manager for the tests of `tokenkeep.fastapi_users`, on the SQLAlchemy of this environment.

The original's adapter for users wants SQLAlchemy below 2.1, so the users here have one of their own.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi_users import BaseUserManager, UUIDIDMixin
from fastapi_users.db import BaseUserDatabase
from sqlalchemy import ForeignKey, String, event, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tokenkeep.fastapi_users.sqlalchemy import (
    GUID,
    SQLAlchemyBaseAccessTokenTableUUID,
    SQLAlchemyBaseRichAccessTokenTableUUID,
)


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "user"
    id: Mapped[uuid.UUID] = mapped_column(GUID, primary_key=True, default=uuid.uuid4)
    email: Mapped[str] = mapped_column(String(320), unique=True)
    hashed_password: Mapped[str] = mapped_column(String(1024), default="")
    is_active: Mapped[bool] = mapped_column(default=True)
    is_superuser: Mapped[bool] = mapped_column(default=False)
    is_verified: Mapped[bool] = mapped_column(default=False)


class AccessToken(SQLAlchemyBaseAccessTokenTableUUID, Base):
    pass


class RichToken(SQLAlchemyBaseRichAccessTokenTableUUID, Base):
    __tablename__ = "rich_token"


class Order(Base):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[uuid.UUID | None] = mapped_column(GUID, ForeignKey("user.id"))


class Users(BaseUserDatabase[User, uuid.UUID]):  # type: ignore[type-var]  # Mapped stands for what it maps
    """The users' part of the original adapter, as far as the tests go."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def get(self, id: uuid.UUID) -> User | None:  # noqa: A002  # the original's name
        return (await self.session.execute(select(User).where(User.id == id))).unique().scalar_one_or_none()

    async def get_by_email(self, email: str) -> User | None:
        return (await self.session.execute(select(User).where(func.lower(User.email) == email.lower()))).scalar()

    async def create(self, create_dict: dict[str, Any]) -> User:
        user = User(**create_dict)
        self.session.add(user)
        await self.session.commit()
        return user

    async def update(self, user: User, update_dict: dict[str, Any]) -> User:
        for name, value in update_dict.items():
            setattr(user, name, value)
        self.session.add(user)
        await self.session.commit()
        await self.session.refresh(user)
        return user

    async def delete(self, user: User) -> None:
        await self.session.delete(user)
        await self.session.commit()


class Manager(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):  # type: ignore[type-var]  # the same
    reset_password_token_secret = "a made-up secret, long enough for HMAC"
    verification_token_secret = "a made-up secret, long enough for HMAC"


@asynccontextmanager
async def database(url: str, base: type[DeclarativeBase] = Base, **options: Any) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url, **options)
    async with engine.begin() as connection:
        await connection.run_sync(base.metadata.create_all)
    try:
        yield engine
    finally:
        async with engine.begin() as connection:
            await connection.run_sync(base.metadata.drop_all)
        await engine.dispose()


async def new_user(session: AsyncSession, email: str = "arthur@camelot.bt") -> User:
    user = User(email=email)
    session.add(user)
    await session.commit()
    return user


class Statements(list[str]):
    """Every statement that an engine executes from now on."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__()
        event.listen(engine.sync_engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.append(statement)


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def passes(self, **span: float) -> None:
        self.at += timedelta(**span)
