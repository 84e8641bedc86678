"""The SQLAlchemy adapter in the place of the original's."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, String, Text, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

from fastapi_users_models import AccessToken, Base, Order, RichToken, Statements, Time, User, database, new_user
from tokenkeep.errors import ConfigurationError
from tokenkeep.fastapi_users.sqlalchemy import (
    GUID,
    SQLAlchemyAccessTokenDatabase,
    SQLAlchemyBaseAccessTokenTable,
    TIMESTAMPAware,
    TokenAtRest,
    now_utc,
)
from tokenkeep.marked import marked_digest

CLEAR = "an-old-token-in-clear-from-the-original-ones"[:43]

MALFORMED = ["", "a\x00b", "é", "x" * 44, "x" * 1_000_000, "$" + "A" * 42, "\ud800"]


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
def tokens(session: AsyncSession) -> SQLAlchemyAccessTokenDatabase[AccessToken]:
    return SQLAlchemyAccessTokenDatabase[AccessToken](session, AccessToken)


async def kept(engine: AsyncEngine, table: str = "accesstoken") -> list[str]:
    """Return what stands in the column, as another program would read it."""
    async with engine.connect() as connection:
        return list((await connection.execute(text(f"SELECT token FROM {table}"))).scalars())  # noqa: S608


async def insert_clear(engine: AsyncEngine, user: User, created_at: str = "2026-02-01 00:00:00.000000") -> None:
    async with engine.begin() as connection:
        values = {"token": CLEAR, "created_at": created_at, "user_id": str(user.id)}
        await connection.execute(text("INSERT INTO accesstoken VALUES (:user_id, :token, :created_at)"), values)


# --- at rest ---


@pytest.mark.requirement("S1")
async def test_the_object_shows_the_token_and_the_table_holds_its_digest(
    tokens: SQLAlchemyAccessTokenDatabase[AccessToken], session: AsyncSession, engine: AsyncEngine, user: User
) -> None:
    made = await tokens.create({"token": "TOKEN", "user_id": user.id})
    assert made.token == "TOKEN"
    await session.refresh(made)
    assert made.token == "TOKEN"
    changed = await tokens.update(made, {"created_at": now_utc()})
    assert changed is made
    assert made.token == "TOKEN"
    found = await tokens.get_by_token("TOKEN")
    assert found is made
    assert await kept(engine) == [marked_digest("TOKEN")]
    assert len(marked_digest("TOKEN")) == 43


async def test_the_orm_never_writes_the_raw_token_back(
    tokens: SQLAlchemyAccessTokenDatabase[AccessToken], session: AsyncSession, engine: AsyncEngine, user: User
) -> None:
    made = await tokens.create({"token": "TOKEN", "user_id": user.id})
    made.created_at = now_utc() - timedelta(hours=1)
    await session.commit()
    made.token = "ROTATED"
    await session.commit()
    session.add(AccessToken(token="BY HAND", user_id=user.id))
    await session.commit()
    assert sorted(await kept(engine)) == sorted([marked_digest("ROTATED"), marked_digest("BY HAND")])
    assert await tokens.get_by_token("ROTATED") is not None
    assert await tokens.get_by_token("TOKEN") is None


@pytest.mark.requirement("S2")
async def test_nothing_that_stands_in_the_original_table_works_as_a_token(
    tokens: SQLAlchemyAccessTokenDatabase[AccessToken], session: AsyncSession, engine: AsyncEngine, user: User
) -> None:
    await tokens.create({"token": "TOKEN", "user_id": user.id})
    (stolen,) = await kept(engine)
    session.expunge_all()
    column: Any = AccessToken.token
    for attempt in (stolen, stolen[1:], stolen.lstrip("$"), stolen.replace("$", "-")):
        assert await tokens.get_by_token(attempt) is None
        assert not await tokens.delete_token(attempt, user.id)
        assert await session.get(AccessToken, attempt) is None
        assert (await session.scalars(select(AccessToken).where(column == attempt))).first() is None
    assert (await session.scalars(select(AccessToken).where(column == "TOKEN"))).first() is not None


async def test_a_rotated_token_is_the_one_that_counts(
    tokens: SQLAlchemyAccessTokenDatabase[AccessToken], engine: AsyncEngine, user: User
) -> None:
    made = await tokens.create({"token": "TOKEN", "user_id": user.id})
    changed = await tokens.update(made, {"token": "NEXT"})
    assert changed.token == "NEXT"
    assert await kept(engine) == [marked_digest("NEXT")]


async def test_a_duplicate_is_an_integrity_error_that_does_not_name_the_token(
    tokens: SQLAlchemyAccessTokenDatabase[AccessToken], user: User
) -> None:
    identity = user.id
    await tokens.create({"token": "TOKEN", "user_id": identity})
    with pytest.raises(IntegrityError) as caught:
        await tokens.create({"token": "TOKEN", "user_id": identity})
    assert "'TOKEN'" not in str(caught.value)
    assert await tokens.get_by_token("TOKEN") is not None


async def test_a_token_that_nobody_could_present_is_not_made(
    tokens: SQLAlchemyAccessTokenDatabase[AccessToken], engine: AsyncEngine, user: User
) -> None:
    for token in MALFORMED:
        with pytest.raises(ValueError, match="token must be"):
            await tokens.create({"token": token, "user_id": user.id})
    assert await kept(engine) == []


# --- rows in clear from before ---


async def test_a_row_in_clear_works_and_is_a_digest_once_it_was_seen(
    engine: AsyncEngine, session: AsyncSession, user: User
) -> None:
    identity = user.id
    await insert_clear(engine, user)
    await session.rollback()
    tokens = SQLAlchemyAccessTokenDatabase(session, AccessToken)
    found = await tokens.get_by_token(CLEAR)
    assert found is not None
    assert (found.token, found.user_id) == (CLEAR, identity)
    assert found.created_at == datetime(2026, 2, 1, tzinfo=UTC)
    assert await kept(engine) == [marked_digest(CLEAR)]
    await session.rollback()
    again = await tokens.get_by_token(CLEAR)
    assert again is not None
    assert again.created_at == datetime(2026, 2, 1, tzinfo=UTC)


async def test_a_row_in_clear_that_has_ended_is_neither_accepted_nor_rewritten(
    engine: AsyncEngine, session: AsyncSession, user: User
) -> None:
    await insert_clear(engine, user)
    tokens = SQLAlchemyAccessTokenDatabase(session, AccessToken)
    assert await tokens.get_by_token(CLEAR, datetime(2026, 2, 1, 0, 0, 1, tzinfo=UTC)) is None
    assert await kept(engine) == [CLEAR]


async def test_in_a_transaction_of_the_callers_a_row_in_clear_is_read_and_left_for_another_time(
    engine: AsyncEngine, session: AsyncSession, user: User
) -> None:
    await insert_clear(engine, user)
    tokens = SQLAlchemyAccessTokenDatabase(session, AccessToken)
    await session.execute(select(User))
    order = Order()
    session.add(order)
    found = await tokens.get_by_token(CLEAR)
    assert found is not None
    assert found.token == CLEAR
    assert order in session.new
    assert await kept(engine) == [CLEAR]
    await session.rollback()
    await tokens.delete(found)
    assert await kept(engine) == []


async def test_the_switch_turns_rows_in_clear_off(engine: AsyncEngine, session: AsyncSession, user: User) -> None:
    identity = user.id
    await insert_clear(engine, user)
    strict = SQLAlchemyAccessTokenDatabase(session, AccessToken, accept_clear=False)
    assert await strict.get_by_token(CLEAR) is None
    assert not await strict.delete_token(CLEAR, identity)
    assert await strict.list_for_user(identity) == []
    assert await kept(engine) == [CLEAR]


async def test_a_list_shows_no_token_in_clear(engine: AsyncEngine, session: AsyncSession, user: User) -> None:
    identity = user.id
    await insert_clear(engine, user)
    tokens = SQLAlchemyAccessTokenDatabase(session, AccessToken)
    assert [one.token for one in await tokens.list_for_user(identity)] == [marked_digest(CLEAR)]
    assert await kept(engine) == [marked_digest(CLEAR)]
    assert await tokens.get_by_token(CLEAR) is not None


# --- what costs what ---


@pytest.mark.requirement("V7")
@pytest.mark.parametrize("token", MALFORMED, ids=range(len(MALFORMED)))
async def test_a_malformed_cookie_or_bearer_costs_the_original_table_no_query(
    tokens: SQLAlchemyAccessTokenDatabase[AccessToken], engine: AsyncEngine, user: User, token: str
) -> None:
    identity = user.id
    seen = Statements(engine)
    assert await tokens.get_by_token(token) is None
    assert not await tokens.delete_token(token, identity)
    assert seen == []


async def test_looking_up_and_deleting_are_one_statement_each(
    tokens: SQLAlchemyAccessTokenDatabase[AccessToken], engine: AsyncEngine, user: User
) -> None:
    identity = user.id
    made = await tokens.create({"token": "TOKEN", "user_id": identity})
    await tokens.create({"token": "OTHER", "user_id": identity})
    seen = Statements(engine)
    assert await tokens.get_by_token("TOKEN") is made
    await tokens.delete(made)
    assert await tokens.delete_token("OTHER", identity)
    assert [statement.split()[0] for statement in seen] == ["SELECT", "DELETE", "DELETE"]
    await tokens.delete(made)
    assert await kept(engine) == []


async def test_updating_a_row_that_was_deleted_meanwhile_is_no_error_and_no_resurrection(
    tokens: SQLAlchemyAccessTokenDatabase[AccessToken], engine: AsyncEngine, user: User
) -> None:
    made = await tokens.create({"token": "TOKEN", "user_id": user.id})
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM accesstoken"))
    moment = now_utc()
    changed = await tokens.update(made, {"created_at": moment})
    assert (changed.token, changed.created_at) == ("TOKEN", moment)
    assert await tokens.get_by_token("TOKEN") is None


async def test_a_time_in_any_zone_is_kept_and_compared_as_the_same_moment(
    tokens: SQLAlchemyAccessTokenDatabase[AccessToken], session: AsyncSession, user: User
) -> None:
    india = timezone(timedelta(hours=5, minutes=30))
    moment = datetime(2026, 3, 1, 12, tzinfo=india)
    made = await tokens.create({"token": "TOKEN", "user_id": user.id, "created_at": moment})
    assert made.created_at == moment
    assert made.created_at.utcoffset() == timedelta(0)
    assert await tokens.get_by_token("TOKEN", moment) is not None
    assert await tokens.get_by_token("TOKEN", moment.astimezone(timezone(timedelta(hours=-5)))) is not None
    assert await tokens.get_by_token("TOKEN", moment + timedelta(seconds=1)) is None
    session.add(AccessToken(token="BY HAND", user_id=user.id, created_at=moment))
    await session.commit()
    assert await tokens.get_by_token("BY HAND", moment + timedelta(seconds=1)) is None


# --- what is the caller's ---


async def test_an_object_that_waits_is_neither_flushed_nor_committed_with_a_token(
    tokens: SQLAlchemyAccessTokenDatabase[AccessToken], session: AsyncSession, engine: AsyncEngine, user: User
) -> None:
    order = Order(user_id=user.id)
    session.add(order)
    made = await tokens.create({"token": "TOKEN", "user_id": user.id})
    await tokens.update(made, {"created_at": now_utc()})
    assert order in session.new
    await session.rollback()
    assert (await session.scalars(select(Order))).first() is None
    assert await kept(engine) == [marked_digest("TOKEN")]
    await session.refresh(made)
    assert made.token == "TOKEN"


async def test_what_was_flushed_stays_the_callers_to_commit_and_the_token_goes_with_it(
    tokens: SQLAlchemyAccessTokenDatabase[AccessToken], session: AsyncSession, engine: AsyncEngine, user: User
) -> None:
    identity = user.id
    for commit in (False, True):
        session.add(Order())
        await session.flush()
        made = await tokens.create({"token": "TOKEN", "user_id": identity})
        assert made.token == "TOKEN"
        await (session.commit() if commit else session.rollback())
        assert await kept(engine) == ([marked_digest("TOKEN")] if commit else [])


async def test_a_transaction_that_the_caller_began_is_the_callers_to_end(
    tokens: SQLAlchemyAccessTokenDatabase[AccessToken], session: AsyncSession, engine: AsyncEngine
) -> None:
    async with session.begin():
        user = User(email="lancelot@camelot.bt")
        session.add(user)
        await session.flush()
        await tokens.create({"token": "TOKEN", "user_id": user.id})
    assert await kept(engine) == [marked_digest("TOKEN")]


async def test_a_deleted_users_tokens_go_although_sqlite_holds_no_foreign_keys(
    tokens: SQLAlchemyAccessTokenDatabase[AccessToken], session: AsyncSession, engine: AsyncEngine, user: User
) -> None:
    await tokens.create({"token": "TOKEN", "user_id": user.id})
    async with engine.connect() as connection:
        assert (await connection.execute(text("PRAGMA foreign_keys"))).scalar() == 0
    await session.delete(user)
    await session.commit()
    assert await kept(engine) == []


# --- forms seen in the wild ---


class WildBase(DeclarativeBase):
    pass


class WildUser(WildBase):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)


class BaseFirst(WildBase, SQLAlchemyBaseAccessTokenTable[int]):
    __tablename__ = "base_first"
    user_id: Mapped[int] = mapped_column(Integer, ForeignKey("users.id", ondelete="cascade"), nullable=False)

    @classmethod
    def get_db(cls, session: AsyncSession) -> SQLAlchemyAccessTokenDatabase[Any]:
        return SQLAlchemyAccessTokenDatabase(session, cls)


class TableFirst(SQLAlchemyBaseAccessTokenTable[int], WildBase):
    __tablename__ = "table_first"

    @declared_attr
    def user_id(cls) -> Mapped[int]:  # noqa: N805  # declared_attr hands over the class
        return mapped_column(Integer, ForeignKey("users.id", ondelete="cascade"), nullable=False)


class OldStyle(SQLAlchemyBaseAccessTokenTable[int], WildBase):
    __tablename__ = "old_style"

    @declared_attr
    def user_id(cls) -> Any:  # noqa: N805  # the same
        return Column(Integer, ForeignKey("users.id", ondelete="cascade"), nullable=False)


class Declared(SQLAlchemyBaseAccessTokenTable[int], WildBase):
    __tablename__ = "declared"
    token: Mapped[str] = mapped_column(String(length=43), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(
        TIMESTAMPAware(timezone=True), index=True, nullable=False, default=now_utc
    )
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))


class WithId(SQLAlchemyBaseAccessTokenTable[int], WildBase):
    __tablename__ = "with_id"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    token: Mapped[str] = mapped_column(String(255), unique=True, index=True, nullable=False)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))


class AddedId(WildBase, SQLAlchemyBaseAccessTokenTable[int]):
    __tablename__ = "added_id"
    id: Mapped[int | None] = mapped_column(nullable=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))


class Extra(SQLAlchemyBaseAccessTokenTable[int], WildBase):
    __tablename__ = "extra"
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    user_agent: Mapped[str | None] = mapped_column(String(512))
    device: Mapped[uuid.UUID | None] = mapped_column(GUID)


class AsText(SQLAlchemyBaseAccessTokenTable[int], WildBase):
    __tablename__ = "as_text"
    token: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))


@pytest.mark.parametrize("table", [BaseFirst, TableFirst, OldStyle, Declared, WithId, AddedId, Extra, AsText])
async def test_a_form_seen_in_the_wild_works(table: Any, tmp_path: Path) -> None:
    async with (
        database(f"sqlite+aiosqlite:///{tmp_path}/wild.db", WildBase) as engine,
        async_sessionmaker(engine, expire_on_commit=False)() as session,
    ):
        session.add(WildUser(id=7))
        await session.commit()
        tokens = SQLAlchemyAccessTokenDatabase[Any](session=session, access_token_table=table)
        create_dict: dict[str, Any] = {"token": "TOKEN", "user_id": 7}
        if table is WithId:
            create_dict["id"] = 1  # its key has two columns
        if table is Extra:
            create_dict |= {"user_agent": "curl", "device": uuid.UUID(int=1)}
        made = await tokens.create(create_dict)
        assert (made.token, made.user_id) == ("TOKEN", 7)
        assert table is not Extra or (made.user_agent, made.device) == ("curl", uuid.UUID(int=1))
        await session.refresh(made)
        assert made.token == "TOKEN"
        assert await tokens.get_by_token("TOKEN", now_utc() - timedelta(hours=1)) is made
        await tokens.update(made, {"created_at": now_utc() - timedelta(hours=2)})
        assert await tokens.get_by_token("TOKEN", now_utc() - timedelta(hours=1)) is None
        assert await kept(engine, table.__tablename__) == [marked_digest("TOKEN")]
        await tokens.delete(made)
        assert await tokens.get_by_token("TOKEN") is None


async def test_a_table_that_does_not_digest_is_refused_with_the_way_out(session: AsyncSession) -> None:
    class Foreign(Base):
        __tablename__ = "foreign"
        token: Mapped[str] = mapped_column(String(43), primary_key=True)
        user_id: Mapped[uuid.UUID] = mapped_column(GUID)
        created_at: Mapped[datetime] = mapped_column(TIMESTAMPAware(timezone=True), default=now_utc)

    with pytest.raises(ConfigurationError, match=r"TokenAtRest\(43\)"):
        SQLAlchemyAccessTokenDatabase(session, Foreign)
    Base.metadata.remove(Foreign.metadata.tables["foreign"])


# --- the richer table ---


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def rich(session: AsyncSession, time: Time) -> SQLAlchemyAccessTokenDatabase[RichToken]:
    return SQLAlchemyAccessTokenDatabase(session, RichToken, now=time)


async def test_a_user_sees_names_and_ends_all_tokens_but_this_one(
    rich: SQLAlchemyAccessTokenDatabase[RichToken], session: AsyncSession, engine: AsyncEngine, user: User, time: Time
) -> None:
    other = await new_user(session, "lancelot@camelot.bt")
    for number, owner in enumerate([user, user, user, other]):
        values = {"token": f"TOKEN{number}", "user_id": owner.id, "name": f"laptop {number}", "created_at": time()}
        await rich.create(values | {"scopes": ["orders:read"], "expires_at": time() + timedelta(hours=number + 1)})
        time.passes(minutes=1)
    session.expunge_all()
    mine = await rich.list_for_user(user.id)
    assert [(one.name, one.scopes) for one in mine] == [(f"laptop {n}", ["orders:read"]) for n in (2, 1, 0)]
    assert all(one.token.startswith("$") for one in mine)
    time.passes(hours=1)
    assert len(await rich.list_for_user(user.id)) == 2
    assert await rich.get_by_token("TOKEN0") is None
    assert await rich.revoke_all(user.id, keep="TOKEN1") == 2
    assert set(await kept(engine, "rich_token")) == {marked_digest("TOKEN1"), marked_digest("TOKEN3")}
    assert await rich.revoke_all(user.id) == 1
    assert await rich.get_by_token("TOKEN3") is not None


async def test_a_purge_takes_in_batches_what_has_ended_and_nothing_else(
    rich: SQLAlchemyAccessTokenDatabase[RichToken], session: AsyncSession, engine: AsyncEngine, user: User, time: Time
) -> None:
    await rich.create({"token": "ALIVE", "user_id": user.id, "expires_at": time() + timedelta(days=2)})
    ended = time() + timedelta(days=1)
    session.add_all(RichToken(token=f"T{n}", user_id=user.id, expires_at=ended) for n in range(2500))
    await session.commit()
    assert await rich.purge_expired() == 0
    time.passes(days=1)
    seen = Statements(engine)
    assert await rich.purge_expired() == 2500
    assert len([statement for statement in seen if statement.startswith("DELETE")]) == 3
    assert await kept(engine, "rich_token") == [marked_digest("ALIVE")]


async def test_a_purge_of_the_plain_table_wants_to_know_how_old_is_old(
    tokens: SQLAlchemyAccessTokenDatabase[AccessToken], engine: AsyncEngine, user: User
) -> None:
    identity = user.id
    await tokens.create({"token": "OLD", "user_id": identity, "created_at": now_utc() - timedelta(days=2)})
    await tokens.create({"token": "NEW", "user_id": identity})
    with pytest.raises(ValueError, match="max_age"):
        await tokens.purge_expired()
    assert await tokens.purge_expired(max_age=now_utc() - timedelta(days=1)) == 1
    assert await kept(engine) == [marked_digest("NEW")]


def test_the_richer_table_has_an_index_on_its_users() -> None:
    indexes = [[column.name for column in index.columns] for index in RichToken.metadata.tables["rich_token"].indexes]
    assert ["user_id"] in indexes


# --- on servers ---


@pytest.mark.parametrize(
    ("fixture", "scheme"),
    [(None, ""), ("postgres_url", "postgresql+asyncpg"), ("mariadb_url", "mysql+asyncmy")],
    ids=["sqlite", "postgresql", "mariadb"],
)
async def test_a_database_made_by_the_original_goes_on_and_compares_byte_by_byte(
    fixture: str | None, scheme: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/test.db"
    if fixture is not None:
        url = f"{scheme}://{request.getfixturevalue(fixture).partition('://')[2]}"
    tokens_table: Any = AccessToken.__table__
    token_type, tokens_table.c.token.type = tokens_table.c.token.type, String(43)  # as the original makes it
    try:
        async with database(url) as engine:
            tokens_table.c.token.type = token_type
            await goes_on(engine)
    finally:
        tokens_table.c.token.type = token_type


async def goes_on(engine: AsyncEngine) -> None:
    quoted = '"user"' if engine.dialect.name != "mysql" else "user"
    identity, clear = uuid.uuid4(), "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_AbCdE"
    user = {"id": str(identity), "email": "a@b.bt", "hashed_password": ""}
    async with engine.begin() as connection:
        columns = "id, email, hashed_password, is_active, is_superuser, is_verified"
        insert = f"INSERT INTO {quoted} ({columns}) VALUES (:id, :email, :hashed_password, true, false, false)"  # noqa: S608
        await connection.execute(text(insert), user)
        insert = "INSERT INTO accesstoken (token, created_at, user_id) VALUES (:token, :created_at, :user_id)"
        moment = datetime(2026, 2, 1, tzinfo=UTC if engine.dialect.name == "postgresql" else None)
        owner = identity if engine.dialect.name == "postgresql" else str(identity)
        values = {"token": clear, "created_at": moment if engine.dialect.name != "sqlite" else f"{moment}.000000"}
        await connection.execute(text(insert), values | {"user_id": owner})
        if engine.dialect.name == "mysql":  # what MariaDB made of the original's table before 10.10
            of_old = "TIMESTAMP NOT NULL DEFAULT current_timestamp() ON UPDATE current_timestamp()"
            await connection.execute(text(f"ALTER TABLE accesstoken MODIFY created_at {of_old}"))
    async with async_sessionmaker(engine)() as session:
        tokens = SQLAlchemyAccessTokenDatabase(session, AccessToken)
        for other in (clear.lower(), clear.upper(), clear + " ", clear[:-1] + "e"):
            assert await tokens.get_by_token(other) is None
        await session.rollback()
        assert await kept(engine) == [clear]
        found = await tokens.get_by_token(clear, datetime(2026, 2, 1, tzinfo=UTC))
        assert found is not None
        assert (found.token, found.user_id, found.created_at) == (clear, identity, datetime(2026, 2, 1, tzinfo=UTC))
        assert await kept(engine) == [marked_digest(clear)]
        assert await tokens.get_by_token("a\x00b") is None
        india = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)))
        made = await tokens.create({"token": "TOKEN", "user_id": identity, "created_at": india})
        assert (made.created_at, made.token) == (india, "TOKEN")
        session.expunge(made)
        with pytest.raises(IntegrityError):
            await tokens.create({"token": "TOKEN", "user_id": identity})
        assert await tokens.get_by_token("token") is None
        assert await tokens.delete_token("TOKEN", identity)
        assert len(await kept(engine)) == 1


def test_on_mariadb_a_new_table_compares_tokens_byte_by_byte() -> None:
    from sqlalchemy.dialects import mysql, sqlite  # noqa: PLC0415  # only here

    assert "ascii_bin" in TokenAtRest(43).compile(mysql.dialect())
    assert TokenAtRest(43).compile(sqlite.dialect()) == "VARCHAR(43)"
