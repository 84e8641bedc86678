"""The application that the documentation of fastapi-users shows, over the tables of `peer_fastapi_users`."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN202, B008  # written as its documentation writes it
# It runs in the peer's environment, where these packages are; in ours they are not.

import uuid

from fastapi import Depends, FastAPI
from fastapi_users import FastAPIUsers
from fastapi_users.authentication import AuthenticationBackend, BearerTransport
from fastapi_users.authentication.strategy.db import DatabaseStrategy
from fastapi_users_db_sqlalchemy import SQLAlchemyUserDatabase
from fastapi_users_db_sqlalchemy.access_token import SQLAlchemyAccessTokenDatabase
from peer_fastapi_users import AccessToken, User, Users
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine


def application(path: str) -> FastAPI:
    sessions = async_sessionmaker(create_async_engine(f"sqlite+aiosqlite:///{path}"), expire_on_commit=False)

    async def session():
        async with sessions() as opened:
            yield opened

    async def strategy(opened=Depends(session)):
        return DatabaseStrategy(SQLAlchemyAccessTokenDatabase(opened, AccessToken), lifetime_seconds=36_000)

    async def manager(opened=Depends(session)):
        yield Users(SQLAlchemyUserDatabase(opened, User))

    backend = AuthenticationBackend("database", BearerTransport(tokenUrl="login"), get_strategy=strategy)
    users = FastAPIUsers[User, uuid.UUID](manager, [backend])
    app = FastAPI()

    @app.get("/me")
    async def me(user=Depends(users.current_user(active=True))) -> dict[str, str]:
        return {"user": str(user.id)}

    return app
