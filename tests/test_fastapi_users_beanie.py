"""The Beanie adapter in the place of the original's, on PyMongo's `AsyncMongoClient`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from beanie import Document, PydanticObjectId, init_beanie
from pymongo import AsyncMongoClient
from pymongo.errors import DuplicateKeyError

from servers.mongo import Mongo
from tokenkeep.fastapi_users import DatabaseStrategy
from tokenkeep.fastapi_users.beanie import (
    AP_BEANIE,
    BeanieAccessTokenDatabase,
    BeanieBaseAccessToken,
    BeanieBaseAccessTokenDocument,
    BeanieBaseRichAccessToken,
)
from tokenkeep.marked import marked_digest

CLEAR = "an-old-token-in-clear-from-the-original-ones"[:43]
MALFORMED = ["", "a\x00b", "é", "x" * 256, "x" * 1_000_000, "$" + "A" * 42, "\ud800"]


class AccessToken(BeanieBaseAccessToken, Document):
    pass


class DocumentFirst(Document, BeanieBaseAccessToken):
    class Settings(BeanieBaseAccessToken.Settings):
        name = "tokens"
        use_state_management = True


class Ready(BeanieBaseAccessTokenDocument):
    pass


class Extra(BeanieBaseAccessToken, Document):
    user_agent: str | None = None


class Rich(BeanieBaseRichAccessToken, Document):
    pass


MODELS: list[Any] = [AccessToken, DocumentFirst, Ready, Extra, Rich]


@pytest.fixture
async def collections(mongo_server: Mongo) -> AsyncIterator[Any]:
    name = mongo_server.fresh_name()
    async with AsyncMongoClient[dict[str, Any]](mongo_server.url(name), uuidRepresentation="standard") as client:
        await init_beanie(database=client[name], document_models=MODELS)
        yield client[name]
        await client.drop_database(name)


async def kept(model: Any) -> list[str]:
    return [one["token"] async for one in model.get_pymongo_collection().find()]


def tokens_of(model: Any, **options: Any) -> BeanieAccessTokenDatabase[Any]:
    return BeanieAccessTokenDatabase(access_token_model=model, **options)


@pytest.mark.parametrize("model", MODELS)
async def test_the_document_shows_the_token_and_the_collection_holds_its_digest(collections: Any, model: Any) -> None:
    assert collections is not None
    tokens, owner = tokens_of(model), PydanticObjectId()
    made = await tokens.create({"token": "TOKEN", "user_id": owner})
    assert made.token == "TOKEN"
    changed = await tokens.update(made, {"created_at": datetime.now(UTC)})
    assert changed is made
    assert made.token == "TOKEN"
    made.created_at = datetime.now(UTC)
    await made.save()
    assert made.token == "TOKEN"
    await made.sync()
    assert made.token == "TOKEN"
    assert await kept(model) == [marked_digest("TOKEN")]
    found: Any = await tokens.get_by_token("TOKEN")
    assert (found.token, found.user_id) == ("TOKEN", owner)
    await found.save()
    await model(token="BY HAND", user_id=owner).insert()
    await model.insert_many([model(token="IN BULK", user_id=owner)])
    assert set(await kept(model)) == {marked_digest(token) for token in ("TOKEN", "BY HAND", "IN BULK")}
    assert {"token_1"} <= set(await model.get_pymongo_collection().index_information())


@pytest.mark.requirement("S2")
async def test_nothing_that_stands_in_the_collection_works_as_a_token(collections: Any) -> None:
    assert collections is not None
    tokens, owner = tokens_of(AccessToken), PydanticObjectId()
    await tokens.create({"token": "TOKEN", "user_id": owner})
    (stolen,) = await kept(AccessToken)
    for attempt in (stolen, stolen[1:]):
        assert await tokens.get_by_token(attempt) is None
        assert not await tokens.delete_token(attempt, owner)
    with pytest.raises(DuplicateKeyError):
        await tokens.create({"token": "TOKEN", "user_id": owner})
    with pytest.raises(ValueError, match="token must be"):
        await tokens.create({"token": stolen, "user_id": owner})


async def test_a_document_in_clear_works_and_is_a_digest_once_it_was_seen(collections: Any) -> None:
    owner, created_at = PydanticObjectId(), datetime(2026, 2, 1, tzinfo=UTC)
    clear = {"token": CLEAR, "user_id": owner, "created_at": created_at}
    await collections["AccessToken"].insert_one(clear)
    strict, tokens = tokens_of(AccessToken, accept_clear=False), tokens_of(AccessToken)
    assert await strict.get_by_token(CLEAR) is None
    assert await strict.list_for_user(owner) == []
    assert await tokens.get_by_token(CLEAR, created_at + timedelta(seconds=1)) is None
    assert await kept(AccessToken) == [CLEAR]
    found: Any = await tokens.get_by_token(CLEAR, created_at)
    assert (found.token, found.user_id) == (CLEAR, owner)
    assert await kept(AccessToken) == [marked_digest(CLEAR)]
    assert await strict.get_by_token(CLEAR) is not None
    await collections["AccessToken"].update_one({}, {"$set": {"token": CLEAR}})
    assert [one.token for one in await tokens.list_for_user(owner)] == [marked_digest(CLEAR)]
    assert await kept(AccessToken) == [marked_digest(CLEAR)]


async def test_a_deleted_document_is_not_brought_back(collections: Any) -> None:
    assert collections is not None
    tokens = tokens_of(Rich)
    made = await tokens.create({"token": "TOKEN", "user_id": PydanticObjectId()})
    await tokens.delete(made)
    await tokens.delete(made)
    changed = await tokens.update(made, {"name": "laptop"})
    assert (changed.token, changed.name) == ("TOKEN", "laptop")
    await tokens.touch(made, datetime.now(UTC), None)
    assert await kept(Rich) == []


async def test_a_rotated_token_is_the_one_that_counts_in_mongodb(collections: Any) -> None:
    assert collections is not None
    tokens = tokens_of(AccessToken)
    made = await tokens.create({"token": "TOKEN", "user_id": PydanticObjectId()})
    assert (await tokens.update(made, {"token": "NEXT"})).token == "NEXT"
    assert await kept(AccessToken) == [marked_digest("NEXT")]
    assert await tokens.get_by_token("NEXT") is not None


@pytest.mark.requirement("V7")
@pytest.mark.parametrize("token", MALFORMED, ids=range(len(MALFORMED)))
async def test_a_malformed_token_costs_mongodb_no_query(token: str) -> None:
    class Untouched:
        async def find_one(self, _query: Any) -> None:
            pytest.fail("a query")

    tokens = tokens_of(Untouched)
    assert await tokens.get_by_token(token) is None
    assert not await tokens.delete_token(token, PydanticObjectId())


async def test_a_time_in_any_zone_is_the_same_moment(collections: Any) -> None:
    assert collections is not None
    moment = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    tokens = tokens_of(AccessToken)
    await tokens.create({"token": "TOKEN", "user_id": PydanticObjectId(), "created_at": moment})
    assert await tokens.get_by_token("TOKEN", moment) is not None
    assert await tokens.get_by_token("TOKEN", moment + timedelta(seconds=1)) is None


async def test_the_richer_documents_list_end_slide_and_are_purged(collections: Any) -> None:
    assert "user_id_1" in await collections["Rich"].index_information()
    now = [datetime(2026, 3, 1, 12, tzinfo=UTC)]
    tokens = tokens_of(Rich, now=lambda: now[0])
    owner, other = PydanticObjectId(), PydanticObjectId()
    for number, user in enumerate([owner, owner, owner, other]):
        values = {"token": f"TOKEN{number}", "user_id": user, "name": f"laptop {number}"}
        at = now[0] + timedelta(minutes=number)
        await tokens.create(values | {"created_at": at, "expires_at": at + timedelta(hours=number + 1)})
    assert [one.name for one in await tokens.list_for_user(owner)] == ["laptop 2", "laptop 1", "laptop 0"]
    now[0] += timedelta(hours=1)
    assert await tokens.get_by_token("TOKEN0") is None
    assert await tokens.purge_expired() == 1
    assert await tokens.revoke_all(owner, keep="TOKEN1") == 1
    assert set(await kept(Rich)) == {marked_digest("TOKEN1"), marked_digest("TOKEN3")}
    assert await tokens.revoke_all(owner, keep=await tokens.get_by_token("TOKEN1")) == 0
    assert await tokens.delete_token("TOKEN1", other) is False
    assert await tokens.delete_token("TOKEN1", owner) is True


async def test_the_strategy_keeps_a_document_alive_while_it_is_used(collections: Any) -> None:
    assert collections is not None
    now = [datetime.now(UTC)]
    tokens = tokens_of(Rich, now=lambda: now[0])
    strategy: Any = DatabaseStrategy(tokens, 3600, idle_seconds=600, now=lambda: now[0])

    class User:
        id = PydanticObjectId()

    class Manager:
        def parse_id(self, value: Any) -> Any:
            return value

        async def get(self, identity: Any) -> Any:
            return User if identity == User.id else None

    token = await strategy.write_token(User)
    for _ in range(5):
        now[0] += timedelta(minutes=9)
        assert await strategy.read_token(token, Manager()) is User
    now[0] += timedelta(minutes=15)
    assert await strategy.read_token(token, Manager()) is None


def test_the_type_variable_is_bound_to_the_document() -> None:
    assert AP_BEANIE.__bound__ is BeanieBaseAccessTokenDocument
