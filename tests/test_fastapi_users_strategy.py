"""The database strategy in the place of the original's: alone, in an application, and without fastapi-users."""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import fastapi_users.authentication.strategy.db as original
import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi_users import FastAPIUsers
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, CookieTransport
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from fastapi_users_models import (
    AccessToken,
    Manager,
    RichToken,
    Statements,
    Time,
    User,
    Users,
    database,
    new_user,
)
from tokenkeep.errors import ConfigurationError
from tokenkeep.fastapi_users import AccessTokenDatabase, DatabaseStrategy, RevokeOnPasswordChange
from tokenkeep.fastapi_users.sqlalchemy import SQLAlchemyAccessTokenDatabase, now_utc

HOUR = 3600


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    async with database(f"sqlite+aiosqlite:///{tmp_path}/test.db") as engine:
        yield engine


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with async_sessionmaker(engine, expire_on_commit=False)() as session:
        yield session


@pytest.fixture
async def user(session: AsyncSession) -> User:
    return await new_user(session)


@pytest.fixture
def manager(session: AsyncSession) -> Manager:
    return Manager(Users(session))


# --- its arguments ---


class InMemory:
    """A third party's database: the four methods and nothing else."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}

    async def get_by_token(self, token: str, max_age: Any = None) -> Any:
        found = self.rows.get(token)
        return None if found is None or (max_age and found.created_at < max_age) else found

    async def create(self, create_dict: dict[str, Any]) -> Any:
        return self.rows.setdefault(create_dict["token"], SimpleNamespace(created_at=now_utc(), **create_dict))

    async def update(self, access_token: Any, update_dict: dict[str, Any]) -> Any:
        vars(access_token).update(update_dict)
        return access_token

    async def delete(self, access_token: Any) -> None:
        self.rows.pop(access_token.token, None)


@pytest.mark.requirement("X5")
@pytest.mark.parametrize("seconds", [0, -1, -0.5, float("nan"), float("inf"), 10**18])
@pytest.mark.parametrize("argument", ["lifetime_seconds", "idle_seconds"])
def test_a_lifetime_that_is_no_lifetime_is_refused(argument: str, seconds: Any) -> None:
    given = {"lifetime_seconds": HOUR} | {argument: seconds}
    with pytest.raises(ValueError, match=argument):
        DatabaseStrategy(database=InMemory(), **given)


def test_no_lifetime_is_allowed_with_a_warning_that_says_what_it_means() -> None:
    with pytest.warns(UserWarning, match="works for ever"):
        assert DatabaseStrategy(InMemory()).lifetime_seconds is None


def test_an_idle_time_wants_a_table_that_can_keep_it() -> None:
    with pytest.raises(ConfigurationError, match="expires_at"):
        DatabaseStrategy(InMemory(), HOUR, idle_seconds=60)


def test_it_is_a_subclass_of_the_original_with_its_three_type_parameters() -> None:
    assert issubclass(DatabaseStrategy, original.DatabaseStrategy)
    assert AccessTokenDatabase is original.AccessTokenDatabase
    typed: Any = DatabaseStrategy
    assert typed[Any, uuid.UUID, Any]


# --- what it does with a database ---


async def test_a_database_with_four_methods_is_enough(user: User, manager: Manager) -> None:
    strategy: Any = DatabaseStrategy(InMemory(), HOUR)
    token = await strategy.write_token(user)
    assert await strategy.read_token(token, manager) is user
    assert await strategy.read_token(None, manager) is None
    assert await strategy.read_token("another", manager) is None
    await strategy.destroy_token(token, User(id=uuid.uuid4(), email="b"))
    assert await strategy.read_token(token, manager) is user
    await strategy.destroy_token(token, user)
    assert await strategy.read_token(token, manager) is None


async def test_the_hook_fills_columns_and_a_subclass_that_deletes_its_own_way_is_asked(
    session: AsyncSession, user: User
) -> None:
    deleted = []

    class Audited(SQLAlchemyAccessTokenDatabase[Any]):
        async def delete(self, access_token: Any) -> None:
            deleted.append(access_token.token)
            await super().delete(access_token)

    class Named(DatabaseStrategy[Any, Any, Any]):
        def _create_access_token_dict(self, user: Any) -> dict[str, Any]:
            return super()._create_access_token_dict(user) | {"name": "laptop"}

    tokens = Audited(session, RichToken)
    strategy = Named(tokens, lifetime_seconds=HOUR)
    token = await strategy.write_token(user)
    found = await tokens.get_by_token(token)
    assert found is not None
    assert found.name == "laptop"
    await strategy.destroy_token(token, user)
    assert deleted == [token]


async def test_a_token_is_only_ended_by_its_own_user_and_in_one_statement(
    session: AsyncSession, engine: AsyncEngine, user: User, manager: Manager
) -> None:
    other = await new_user(session, "lancelot@camelot.bt")
    strategy: Any = DatabaseStrategy(SQLAlchemyAccessTokenDatabase(session, AccessToken), HOUR)
    token = await strategy.write_token(user)
    await strategy.destroy_token(token, other)
    assert await strategy.read_token(token, manager) is user
    seen = Statements(engine)
    await strategy.destroy_token(token, user)
    assert [statement.split()[0] for statement in seen] == ["DELETE"]
    assert await strategy.read_token(token, manager) is None


@pytest.mark.requirement("V4")
async def test_the_tokens_of_a_deleted_user_open_nothing(session: AsyncSession, user: User, manager: Manager) -> None:
    strategy: Any = DatabaseStrategy(SQLAlchemyAccessTokenDatabase(session, AccessToken), HOUR)
    token, identity = await strategy.write_token(user), user.id
    await manager.delete(user)
    assert await strategy.read_token(token, manager) is None
    session.add(User(id=identity, email="the next one with this id"))
    await session.commit()
    assert await strategy.read_token(token, manager) is None


# --- the richer table ---


async def test_a_token_lives_on_while_it_is_used_and_never_past_its_lifetime(
    session: AsyncSession, engine: AsyncEngine, user: User, manager: Manager
) -> None:
    time = Time()
    tokens = SQLAlchemyAccessTokenDatabase(session, RichToken, now=time)

    class Dated(DatabaseStrategy[Any, Any, Any]):
        def _create_access_token_dict(self, user: Any) -> dict[str, Any]:
            return super()._create_access_token_dict(user) | {"created_at": time()}

    strategy = Dated(tokens, HOUR, idle_seconds=600, now=time)
    token = await strategy.write_token(user)
    seen = Statements(engine)
    for _ in range(3):
        assert await strategy.read_token(token, manager) is user
    assert len([statement for statement in seen if statement.startswith("UPDATE")]) == 1
    for _ in range(6):
        time.passes(minutes=9, seconds=59)
        assert await strategy.read_token(token, manager) is user
    time.passes(seconds=6)
    assert await strategy.read_token(token, manager) is None  # an hour is over
    token = await strategy.write_token(user)
    time.passes(minutes=10)
    assert await strategy.read_token(token, manager) is None  # it was not used for ten minutes


async def test_a_longer_lifetime_revives_no_token_of_the_richer_table(
    session: AsyncSession, user: User, manager: Manager
) -> None:
    time = Time()
    time.at = now_utc()
    tokens = SQLAlchemyAccessTokenDatabase(session, RichToken, now=time)
    token = await DatabaseStrategy[Any, Any, Any](tokens, HOUR, now=time).write_token(user)
    time.passes(hours=1, seconds=1)
    longer: Any = DatabaseStrategy(tokens, 24 * HOUR, now=time)
    assert await longer.read_token(token, manager) is None


async def test_writing_a_use_down_leaves_what_the_caller_has_loaded(engine: AsyncEngine) -> None:
    async with async_sessionmaker(engine)() as session:  # which expires on commit
        user = await new_user(session)
        await session.refresh(user)
        tokens = SQLAlchemyAccessTokenDatabase(session, RichToken)
        strategy: Any = DatabaseStrategy(tokens, HOUR, idle_seconds=600)
        token = await strategy.write_token(user)
        found = await strategy.read_token(token, Manager(Users(session)))
        assert (found.email, user.email) == ("arthur@camelot.bt", "arthur@camelot.bt")
        (used,) = await tokens.list_for_user(user.id)
        assert used.last_used_at is not None


async def test_a_use_after_a_logout_brings_nothing_back(session: AsyncSession, user: User) -> None:
    tokens = SQLAlchemyAccessTokenDatabase(session, RichToken)
    made = await tokens.create({"token": "TOKEN", "user_id": user.id})
    await tokens.revoke_all(user.id)
    await tokens.touch(made, now_utc(), now_utc() + timedelta(hours=1))
    await tokens.update(made, {"name": "laptop"})
    assert await tokens.get_by_token("TOKEN") is None


@pytest.mark.requirement("K3")
async def test_a_changed_or_reset_password_ends_every_token_of_its_user(session: AsyncSession) -> None:
    class Careful(RevokeOnPasswordChange, Manager):
        pass

    manager = Careful(Users(session))
    manager.access_token_db = tokens = SQLAlchemyAccessTokenDatabase(session, AccessToken)
    user, other = await new_user(session), await new_user(session, "lancelot@camelot.bt")
    for number, owner in enumerate([user, user, other]):
        await tokens.create({"token": f"TOKEN{number}", "user_id": owner.id})
    await manager._update(user, {"email": "king@camelot.bt"})
    assert await tokens.get_by_token("TOKEN0") is not None
    await manager._update(user, {"password": "guinevere"})
    assert await tokens.get_by_token("TOKEN0") is None
    assert await tokens.get_by_token("TOKEN1") is None
    assert await tokens.get_by_token("TOKEN2") is not None


# --- in an application ---


@asynccontextmanager
async def application(engine: AsyncEngine, *, short: bool, transport: Any = None) -> AsyncIterator[httpx.AsyncClient]:
    """Serve `/me`, where eight requests wait for each other, and the routes of fastapi-users."""
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    together = asyncio.Barrier(8)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            yield session

    async def get_manager(session: Annotated[AsyncSession, Depends(get_session)]) -> Manager:
        return Manager(Users(session))

    async def get_strategy(session: Annotated[AsyncSession, Depends(get_session)]) -> Any:
        options: dict[str, Any] = {"user_table": User} if short else {}
        return DatabaseStrategy(
            SQLAlchemyAccessTokenDatabase(sessions if short else session, AccessToken, **options), HOUR
        )

    backend: Any = AuthenticationBackend(
        name="db", transport=transport or BearerTransport(tokenUrl="login"), get_strategy=get_strategy
    )
    users: Any = FastAPIUsers(get_manager, [backend])
    active = users.current_user(active=True)
    app = FastAPI()
    app.include_router(users.get_auth_router(backend))

    @app.get("/together")
    async def meet(user: Annotated[Any, Depends(active)]) -> str:
        async with asyncio.timeout(5):
            await together.wait()
        return str(user.email)

    @app.get("/me")
    async def me(user: Annotated[Any, Depends(active)]) -> str:
        return str(user.email)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        yield client


async def test_no_connection_is_held_while_eight_endpoints_work_on_a_pool_of_two(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/test.db"
    async with database(url, pool_size=2, max_overflow=0, pool_timeout=1) as engine:
        async with AsyncSession(engine, expire_on_commit=False) as session:
            user = await new_user(session)
            await SQLAlchemyAccessTokenDatabase(session, AccessToken).create({"token": "TOKEN", "user_id": user.id})
        async with application(engine, short=True) as client:
            headers = {"Authorization": "Bearer TOKEN"}
            answers = await asyncio.gather(*(client.get("/together", headers=headers) for _ in range(8)))
    assert [answer.json() for answer in answers] == ["arthur@camelot.bt"] * 8


async def test_a_request_reads_token_and_user_in_one_statement(
    engine: AsyncEngine, session: AsyncSession, user: User
) -> None:
    await SQLAlchemyAccessTokenDatabase(session, AccessToken).create({"token": "TOKEN", "user_id": user.id})
    async with application(engine, short=True) as client:
        seen = Statements(engine)
        answer = await client.get("/me", headers={"Authorization": "Bearer TOKEN"})
        assert (answer.status_code, len(seen)) == (200, 1)
        answer = await client.post("/logout", headers={"Authorization": "Bearer TOKEN"})
        assert (answer.status_code, [statement.split()[0] for statement in seen]) == (204, ["SELECT"] * 2 + ["DELETE"])
        answer = await client.get("/me", headers={"Authorization": "Bearer TOKEN"})
        assert answer.status_code == 401


@pytest.mark.parametrize("short", [False, True])
async def test_a_malformed_cookie_is_a_401_with_no_query(engine: AsyncEngine, user: User, *, short: bool) -> None:
    async with application(engine, short=short, transport=CookieTransport(cookie_name="session")) as client:
        seen = Statements(engine)
        for value in ('"a\\000b"', "x" * 44, "$" + "A" * 42, ""):
            answer = await client.get("/me", headers={"Cookie": f"session={value}"})
            assert answer.status_code == 401
    assert user.is_active
    assert seen == []


# --- without fastapi-users ---


def test_it_works_where_fastapi_users_is_not_installed(tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout == "ok\n", done.stderr


ALONE = """
import asyncio, sys
sys.modules["fastapi_users"] = None
from types import SimpleNamespace
from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tokenkeep.fastapi_users import AP, AccessTokenDatabase, AccessTokenProtocol, DatabaseStrategy
from tokenkeep.fastapi_users.sqlalchemy import SQLAlchemyAccessTokenDatabase, SQLAlchemyBaseAccessTokenTable
import tokenkeep.fastapi_users.beanie

class Base(DeclarativeBase):
    pass

class AccessToken(SQLAlchemyBaseAccessTokenTable[int], Base):
    user_id: Mapped[int]

class Manager:
    def parse_id(self, value):
        return int(value)
    async def get(self, id):
        return {7: "arthur"}[id]

async def main():
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        tokens = SQLAlchemyAccessTokenDatabase[AccessToken](session, AccessToken)
        strategy = DatabaseStrategy[str, int, AccessToken](tokens, lifetime_seconds=60)
        token = await strategy.write_token(SimpleNamespace(id=7))
        assert await strategy.read_token(token, Manager()) == "arthur"
        stranger = await strategy.write_token(SimpleNamespace(id=8))
        assert await strategy.read_token(stranger, Manager()) is None
        await strategy.destroy_token(token, SimpleNamespace(id=7))
        assert await strategy.read_token(token, Manager()) is None
    await engine.dispose()
    print("ok")

asyncio.run(main())
"""
