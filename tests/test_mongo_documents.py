"""What stands in MongoDB: nothing in clear, nothing that another may forge, indexes that delete nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pytest
import pytest_asyncio
from pymongo.database import Database

from servers.mongo import Mongo
from tokenkeep import AsyncTokenVault, KeyRing, NewToken
from tokenkeep.errors import SealingError, StoreError
from tokenkeep.testing import FakeClock, FakeProvider, faces

SECRET = "the-access-token-in-clear"
REFRESH = "the-refresh-token-in-clear"


@pytest.fixture
def database(mongo_server: Mongo, mongo_url: str) -> Iterator[Database[dict[str, Any]]]:
    """The database under test, past tokenkeep."""
    with mongo_server.connect() as client:
        yield client[mongo_url.rpartition("/")[2].partition("?")[0]]


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> faces.Face:
    found: faces.Face = request.param
    return found


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 1, 5, 6, 30, 0, 123457, tzinfo=UTC))


@pytest.fixture
def keys() -> KeyRing:
    return KeyRing.generate()


@pytest_asyncio.fixture
async def vault(mongo_url: str, face: faces.Face, keys: KeyRing, clock: FakeClock) -> AsyncIterator[AsyncTokenVault]:
    async with faces.open_vault(face, mongo_url, providers=[FakeProvider()], keys=keys, clock=clock) as opened:
        yield opened


def everything(database: Database[dict[str, Any]]) -> bytes:
    return b"".join(
        bson.encode(document) for name in database.list_collection_names() for document in database[name].find()
    )


@pytest.mark.requirement("S4")
async def test_no_token_stands_in_any_collection(vault: AsyncTokenVault, database: Database[dict[str, Any]]) -> None:
    for _ in range(2):
        await vault.store("alice", NewToken(SECRET, refresh_token=REFRESH))
    await vault.revoke("alice")
    await vault.store("alice", NewToken(SECRET, refresh_token=REFRESH))
    found = everything(database)
    assert b"alice" in found
    assert SECRET.encode() not in found
    assert REFRESH.encode() not in found
    assert [name for row in database["tokenkeep_history"].find() for name in row if "sealed" in name] == []


async def test_a_time_keeps_its_microseconds(vault: AsyncTokenVault, clock: FakeClock) -> None:
    end = clock.now() + timedelta(microseconds=1_000_001)
    await vault.store("alice", NewToken(SECRET, expires_at=end))
    read = await vault.get_valid("alice", min_validity=timedelta(0))
    assert read is not None
    assert (read.created_at, read.expires_at) == (clock.now(), end)
    assert read.created_at.tzinfo is UTC
    clock.set(end - timedelta(microseconds=1))
    assert await vault.get_valid("alice", min_validity=timedelta(0)) is not None
    clock.set(end)
    assert await vault.get_valid("alice", min_validity=timedelta(0)) is None


@pytest.mark.requirement("D1")
@pytest.mark.parametrize(
    "user",
    ['{"$gt": ""}', "$where", "$$ROOT", "$owner", "a.b", "1:a", "5:alice", "\uff21lice", "ALICE"],
)
async def test_an_operator_in_a_user_id_is_a_name_like_any_other(vault: AsyncTokenVault, user: str) -> None:
    alice = await vault.get_or_create("alice")
    assert await vault.get_valid(user) is None
    assert await vault.history(user) == []
    assert not await vault.revoke(user)
    theirs = await vault.get_or_create(user)
    assert theirs.user_id == user
    assert theirs.access_token != alice.access_token
    assert [info.user_id for info in await vault.history(user)] == [user]
    assert [event.user_id for event in await vault.audit_trail(user)] == [user]
    assert await vault.revoke(user)
    read = await vault.get_valid("alice")
    assert read is not None
    assert read.id == alice.id


@pytest.mark.requirement("D1")
@pytest.mark.parametrize("user", [{"$gt": ""}, ["alice"], None, 7, b"alice"])
async def test_an_operator_that_is_no_text_is_refused(vault: AsyncTokenVault, user: Any) -> None:
    await vault.get_or_create("alice")
    for call in (vault.get_valid, vault.get_or_create, vault.revoke, vault.history, vault.audit_trail):
        with pytest.raises(TypeError, match="user_id must be a str"):
            await call(user)


@pytest.mark.parametrize(
    "metadata", [{"$set": {"a": 1}}, {"a.b": {"$gt": ""}}, {"": 1}, {"n": 2**80}, {"a\x00b": "c\x00"}, {"_id": "x"}]
)
async def test_free_mappings_come_back_whatever_their_keys_mean_to_mongo(
    vault: AsyncTokenVault, metadata: dict[str, Any]
) -> None:
    await vault.store("alice", NewToken(SECRET, metadata=metadata, profile=metadata))
    read = await vault.get_valid("alice")
    assert read is not None
    assert (read.metadata, read.profile) == (metadata, metadata)


@pytest.mark.parametrize(
    "damage",
    [
        {"version": "1"},
        {"version": None},
        {"user_id": "mallory"},
        {"user_id": {"$gt": ""}},
        {"kind": 3},
        {"expires_at": "soon"},
        {"expires_at": 2**62},
        {"created_at": None},
        {"access_sealed": "text"},
        {"profile": "[]"},
        {"profile": "{"},
        {"scope": None},
        {"usage_count": True},
    ],
)
async def test_a_document_edited_by_hand_is_an_error_of_the_store(
    vault: AsyncTokenVault, database: Database[dict[str, Any]], damage: dict[str, Any]
) -> None:
    await vault.store("alice", NewToken(SECRET, expires_in=3600))
    database["tokenkeep_token"].update_one({"user_id": "alice"}, {"$set": damage})
    with pytest.raises(StoreError, match="damaged"):
        await vault.get_valid("alice")


@pytest.mark.parametrize("field", ["id", "version", "access_sealed", "expires_at", "rejected_at", "metadata"])
async def test_a_document_that_lacks_a_field_is_an_error_of_the_store(
    vault: AsyncTokenVault, database: Database[dict[str, Any]], field: str
) -> None:
    await vault.store("alice", NewToken(SECRET, expires_in=3600))
    database["tokenkeep_token"].update_one({"user_id": "alice"}, {"$unset": {field: ""}})
    with pytest.raises(StoreError, match="damaged"):
        await vault.get_valid("alice")


@pytest.mark.requirement("S5")
async def test_a_document_moved_to_another_user_opens_nothing(
    vault: AsyncTokenVault, database: Database[dict[str, Any]]
) -> None:
    await vault.store("alice", NewToken(SECRET))
    stolen = database["tokenkeep_token"].find_one({"user_id": "alice"})
    assert stolen is not None
    own_key = stolen["_id"].replace("5:alice", "7:mallory")
    database["tokenkeep_token"].insert_one({**stolen, "_id": own_key})
    with pytest.raises(StoreError, match="damaged"):
        await vault.get_valid("mallory")
    database["tokenkeep_token"].update_one({"_id": own_key}, {"$set": {"user_id": "mallory"}})
    with pytest.raises(SealingError):
        await vault.get_valid("mallory")


async def test_one_token_is_in_place_by_its_key(vault: AsyncTokenVault, database: Database[dict[str, Any]]) -> None:
    for number in range(1, 4):
        assert (await vault.store("alice", NewToken(f"token-{number}"))).version == number
    [active] = database["tokenkeep_token"].find()
    assert active["_id"] == "7:default4:fake5:alice6:access"
    assert sorted(row["version"] for row in database["tokenkeep_history"].find()) == [1, 2]
    assert [info.version for info in await vault.history("alice")] == [3, 2, 1]


async def test_the_sweep_of_mongo_takes_neither_token_nor_history_nor_trail(
    vault: AsyncTokenVault, database: Database[dict[str, Any]]
) -> None:
    for _ in range(2):
        await vault.store("alice", NewToken(SECRET, expires_in=1))
    database["tokenkeep_step"].insert_one({"_id": b"old", "step": 1, "purge_at": datetime(2020, 1, 1, tzinfo=UTC)})
    before = {name: database[name].count_documents({}) for name in database.list_collection_names()}
    assert database.client.admin.command("secantusAdmin.pruneTtl")["pruned"] == 1
    after = {name: database[name].count_documents({}) for name in database.list_collection_names()}
    assert after == {**before, "tokenkeep_step": 0}
    expiring = {
        (name, index, found["key"][0][0])
        for name in after
        for index, found in database[name].index_information().items()
        if "expireAfterSeconds" in found
    }
    assert expiring == {("tokenkeep_step", "purge", "purge_at")}


async def test_an_index_that_is_missing_or_different_is_named(
    vault: AsyncTokenVault, database: Database[dict[str, Any]]
) -> None:
    assert (await vault.status()).warnings == ()
    database["tokenkeep_history"].drop_index("created")
    database["tokenkeep_audit"].drop_index("user")
    database["tokenkeep_audit"].create_index([("namespace", 1)], name="user")
    warnings = (await vault.status()).warnings
    assert len(warnings) == 2
    assert any("the index created of tokenkeep_history is missing" in warning for warning in warnings)
    assert any("the index user of tokenkeep_audit is another" in warning for warning in warnings)


async def test_the_url_cannot_weaken_a_write(mongo_url: str, face: faces.Face, keys: KeyRing) -> None:
    weak = f"{mongo_url}&w=0&readPreference=secondary&retryWrites=false&readConcernLevel=local"
    async with faces.open_vault(face, weak, providers=[FakeProvider()], keys=keys) as vault:
        token = await vault.get_or_create("alice")
        read = await vault.get_valid("alice")
        assert read is not None
        assert read.id == token.id
