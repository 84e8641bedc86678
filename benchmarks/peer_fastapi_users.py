"""The process of the peer: reads requests as lines of JSON, answers with the seconds that one operation took.

It does what the documentation of fastapi-users shows: one session a request, the database strategy on it.
"""

# mypy: ignore-errors
# It runs in an environment of its own, where these packages are; in ours they are not.

from __future__ import annotations

import asyncio
import gc
import json
import secrets
import sqlite3
import sys
import time
import uuid
from datetime import UTC, datetime
from random import Random

from fastapi_users import BaseUserManager, UUIDIDMixin
from fastapi_users.authentication.strategy.db import DatabaseStrategy
from fastapi_users_db_sqlalchemy import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from fastapi_users_db_sqlalchemy.access_token import SQLAlchemyAccessTokenDatabase, SQLAlchemyBaseAccessTokenTableUUID
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

USERS = 1000
PICKED = 10_000


class Base(DeclarativeBase):
    pass


class User(SQLAlchemyBaseUserTableUUID, Base):
    pass


class AccessToken(SQLAlchemyBaseAccessTokenTableUUID, Base):
    pass


class Users(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):
    pass


class Application:
    def __init__(self, path: str) -> None:
        self.path = path
        self.engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self.tokens: list[str] = []
        self.users: list[User] = []
        self.random = Random(1)  # noqa: S311  # which token is asked for next is no secret

    async def fill(self, rows: int) -> float:
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        self.users = [User(email=f"{n}@example.org", hashed_password="x", is_active=True) for n in range(USERS)]
        async with self.sessions() as session:
            session.add_all(self.users)
            await session.commit()
        self.tokens = [secrets.token_urlsafe() for _ in range(min(rows, PICKED))]
        others = (secrets.token_urlsafe() for _ in range(rows - len(self.tokens)))
        now = datetime.now(UTC).replace(tzinfo=None).isoformat(sep=" ")
        owner = self.users[0].id.hex
        with sqlite3.connect(self.path) as connection:
            insert = "INSERT INTO accesstoken (token, created_at, user_id) VALUES (?, ?, ?)"
            owners = [user.id.hex for user in self.users]
            connection.executemany(insert, ((token, now, owners[n % USERS]) for n, token in enumerate(self.tokens)))
            connection.executemany(insert, ((token, now, owner) for token in others))
        return 0.0

    async def read(self) -> None:
        async with self.sessions() as session:
            user = await self._strategy(session).read_token(
                self.random.choice(self.tokens), Users(SQLAlchemyUserDatabase(session, User))
            )
            if user is None:
                sys.exit("a token was not found")

    async def write(self) -> None:
        async with self.sessions() as session:
            await self._strategy(session).write_token(self.random.choice(self.users))

    def _strategy(self, session: object) -> DatabaseStrategy:
        return DatabaseStrategy(SQLAlchemyAccessTokenDatabase(session, AccessToken), lifetime_seconds=36_000)


async def paced(operation: object, count: int, callers: int) -> float:
    async def caller() -> None:
        for _ in range(count // callers):
            await operation()

    gc.collect()
    gc.disable()
    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    taken = time.perf_counter() - started
    gc.enable()
    return taken / (count // callers * callers)


def main() -> None:
    with asyncio.Runner() as runner:
        application = Application(sys.argv[1])
        for line in sys.stdin:
            request = json.loads(line)
            do = request.pop("do")
            work = application.fill(**request) if do == "fill" else paced(getattr(application, do), **request)
            print(json.dumps(runner.run(work)), flush=True)
        runner.run(application.engine.dispose())


if __name__ == "__main__":
    main()
