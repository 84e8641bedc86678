# /// script
# requires-python = ">=3.12"
# dependencies = ["tokenkeep", "fastapi-users[beanie]", "uvicorn"]
#
# [tool.uv.sources]
# tokenkeep = { path = "../..", editable = true }
# ///
"""fastapi-users with its database strategy on Beanie and MongoDB: register, login, me, logout.

    examples/fastapi_users_beanie/run

Two imports name tokenkeep; nothing else differs from an application that fastapi-users' own documentation shows,
but for the client: motor is gone, PyMongo's `AsyncMongoClient` it is. `DATABASE_URL` names the server.
"""

# ruff: noqa: ANN201, B008
# It is written as the documentation of fastapi-users shows it.

import os
import uuid
from contextlib import asynccontextmanager

import uvicorn
from beanie import Document, PydanticObjectId, init_beanie
from fastapi import Depends, FastAPI
from fastapi_users import BaseUserManager, FastAPIUsers, schemas
from fastapi_users.authentication import AuthenticationBackend, BearerTransport
from fastapi_users.db import BeanieBaseUser, BeanieUserDatabase, ObjectIDIDMixin
from pymongo import AsyncMongoClient

from tokenkeep.fastapi_users import AccessTokenDatabase, DatabaseStrategy
from tokenkeep.fastapi_users.beanie import BeanieAccessTokenDatabase, BeanieBaseAccessToken

DATABASE_URL = os.environ.get("DATABASE_URL", "mongodb://localhost:27017")
DATABASE_NAME = os.environ.get("DATABASE_NAME", "fastapi_users_example")
SECRET = os.environ.get("SECRET", uuid.uuid4().hex)

client: AsyncMongoClient = AsyncMongoClient(DATABASE_URL, uuidRepresentation="standard")


class User(BeanieBaseUser, Document):
    pass


class AccessToken(BeanieBaseAccessToken, Document):
    class Settings(BeanieBaseAccessToken.Settings):
        name = "access_tokens"


class UserRead(schemas.BaseUser[PydanticObjectId]):
    pass


class UserCreate(schemas.BaseUserCreate):
    pass


class UserUpdate(schemas.BaseUserUpdate):
    pass


class UserManager(ObjectIDIDMixin, BaseUserManager[User, PydanticObjectId]):
    reset_password_token_secret = SECRET
    verification_token_secret = SECRET


async def get_user_db():
    yield BeanieUserDatabase(User)


async def get_access_token_db():
    yield BeanieAccessTokenDatabase(AccessToken)


async def get_user_manager(user_db: BeanieUserDatabase = Depends(get_user_db)):
    yield UserManager(user_db)


def get_database_strategy(
    access_token_db: AccessTokenDatabase[AccessToken] = Depends(get_access_token_db),
) -> DatabaseStrategy:
    return DatabaseStrategy(access_token_db, lifetime_seconds=3600)


auth_backend = AuthenticationBackend(
    name="database", transport=BearerTransport(tokenUrl="auth/login"), get_strategy=get_database_strategy
)
fastapi_users = FastAPIUsers[User, PydanticObjectId](get_user_manager, [auth_backend])


@asynccontextmanager
async def lifespan(_app: FastAPI):
    await init_beanie(database=client[DATABASE_NAME], document_models=[User, AccessToken])
    yield
    await client.close()


app = FastAPI(title="fastapi-users on Beanie", lifespan=lifespan)
app.include_router(fastapi_users.get_auth_router(auth_backend), prefix="/auth", tags=["auth"])
app.include_router(fastapi_users.get_register_router(UserRead, UserCreate), prefix="/auth", tags=["auth"])
app.include_router(fastapi_users.get_users_router(UserRead, UserUpdate), prefix="/users", tags=["users"])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
