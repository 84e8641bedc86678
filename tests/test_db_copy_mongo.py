"""What is special about moving a store out of MongoDB or into it; tests/test_db_copy.py has what all have in common."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import Binary, ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from store_copies import (
    ACCOUNT,
    EVERYTHING,
    HOUR,
    KEYS,
    check_that_programs_go_on,
    copied,
    digests,
    fill,
    fill_all,
    numbers,
    opened,
    read,
)
from tokenkeep import NewToken, TokenIssuer, TokenVault
from tokenkeep._stepping import run
from tokenkeep.errors import StoreError
from tokenkeep.ports import Room
from tokenkeep.stores.mongo.documents import key_of, parts_of
from tokenkeep.stores.plain import from_json, to_json
from trail_tampering import MongoTamper


@pytest.fixture
def documents(mongo_url: str) -> Iterator[Database[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](mongo_url) as client:
        yield client.get_default_database()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/tokens.db"


def test_a_store_that_began_on_mongo_moves_to_postgresql_and_back(
    mongo_url: str, postgres_url: str, documents: Database[dict[str, Any]]
) -> None:
    fill_all(mongo_url)
    with TokenIssuer.open(mongo_url, lifetime=HOUR, keys=KEYS) as issuer:
        known = issuer.issue("dora").token
    assert known is not None
    with TokenVault.open(mongo_url, keys=KEYS) as vault:
        history, trail = vault.history("alice", provider="p"), vault.audit_trail("alice")
    out = copied(mongo_url, postgres_url)
    assert numbers(out) == {**EVERYTHING, Room.ISSUED: 4, Room.AUDIT: 9, Room.HEADS: 4}
    with TokenVault.open(postgres_url, keys=KEYS) as vault:
        assert vault.history("alice", provider="p") == history
        assert vault.audit_trail("alice") == trail
    documents.client.drop_database(documents.name)
    assert digests(copied(postgres_url, mongo_url)) == digests(out)
    for url in (postgres_url, mongo_url):
        check_that_programs_go_on(url)
        with TokenIssuer.open(url, lifetime=HOUR, keys=KEYS) as issuer:
            assert issuer.verify(known) is not None


def test_a_store_goes_by_way_of_mongo_where_programs_worked_meanwhile(
    sqlite_url: str, mongo_url: str, tmp_path: Path
) -> None:
    fill_all(sqlite_url)
    there = copied(sqlite_url, mongo_url)
    assert numbers(there) == EVERYTHING
    before = read(sqlite_url, Room.AUDIT)
    check_that_programs_go_on(mongo_url)
    back = f"sqlite:///{tmp_path}/back.db"
    copied(mongo_url, back)
    assert read(back, Room.AUDIT)[: len(before)] == before
    with TokenVault.open(back, keys=KEYS) as vault:
        token = vault.get_valid("alice", provider="p")
        assert token is not None
        assert token.access_token.reveal() == "next"
        assert vault.check_audits().intact


def test_a_lease_that_failed_and_a_step_are_the_same_there(
    sqlite_url: str, mongo_url: str, documents: Database[dict[str, Any]]
) -> None:
    fill_all(sqlite_url)
    copied(sqlite_url, mongo_url)
    backend = opened(mongo_url)
    try:
        state = run(backend.leases.lease_state(ACCOUNT))
        assert (state.failure, state.reason, state.held_for) == ("ProviderError", "a\ufffdb", 0)
        assert state.retry_in is not None
        assert 0 < state.retry_in <= 60
        assert run(backend.leases.take_lease(ACCOUNT, "other", HOUR)) is not None
        assert not run(backend.leases.claim_step(b"s" * 32, after=6, upto=8))
    finally:
        run(backend.health.close())
    step = documents["tokenkeep_step"].find_one()
    assert step is not None
    days = step["purge_at"] - datetime.now(UTC).replace(tzinfo=None)
    assert timedelta(days=6) < days < timedelta(days=8)


def give_new_ids(documents: Database[dict[str, Any]]) -> None:
    """ObjectIds against the order of the chains, as of programs whose clocks differ."""
    audit = documents["tokenkeep_audit"]
    events = list(audit.find(sort=[("sequence", -1)]))
    audit.delete_many({})
    for event in events:
        audit.insert_one({**event, "_id": ObjectId()})


def test_a_chain_is_whole_in_sql_whatever_the_order_of_object_ids(
    mongo_url: str, sqlite_url: str, documents: Database[dict[str, Any]]
) -> None:
    fill_all(mongo_url)
    give_new_ids(documents)
    copied(mongo_url, sqlite_url)
    with TokenVault.open(sqlite_url, keys=KEYS) as vault:
        checked = vault.check_audits()
        assert (checked.intact, checked.proved) == (True, EVERYTHING[Room.AUDIT])


def unchain(documents: Database[dict[str, Any]], where: dict[str, Any]) -> None:
    """Make events such as there were before there were chains."""
    nothing = dict.fromkeys(("sequence", "digest", "proof", "key_id"), "")
    documents["tokenkeep_audit"].update_many(where, {"$unset": nothing})


def test_events_from_before_there_were_chains_move_both_ways(
    mongo_url: str, sqlite_url: str, documents: Database[dict[str, Any]]
) -> None:
    fill_all(mongo_url)
    unchain(documents, {"user_id": "alice"})
    documents["tokenkeep_audit_head"].delete_one({"user_id": "alice"})
    assert read(mongo_url, Room.AUDIT, limit=1) == read(mongo_url, Room.AUDIT)
    with TokenVault.open(mongo_url, keys=KEYS) as vault:
        vault.store("alice", NewToken("chained", expires_in=3600), provider="p")
    copied(mongo_url, sqlite_url)
    documents.client.drop_database(documents.name)
    copied(sqlite_url, mongo_url)
    for url in (sqlite_url, mongo_url):
        with TokenVault.open(url, keys=KEYS) as vault:
            vault.store("alice", NewToken("later", expires_in=3600), provider="p")
            checked = vault.check_audit("alice")
            assert (checked.intact, checked.unchained > 3, checked.events > 1) == (True, True, True)


def test_numbers_of_sql_come_before_any_object_id(mongo_url: str, documents: Database[dict[str, Any]]) -> None:
    """An unchained event that was copied, and a chain that began only here."""
    fill_all(mongo_url)
    audit = documents["tokenkeep_audit"]
    first = audit.find_one_and_delete({"user_id": "gone"}, sort=[("sequence", 1)])
    assert first is not None
    audit.delete_many({"user_id": "gone"})
    documents["tokenkeep_audit_head"].delete_one({"user_id": "gone"})
    audit.insert_one({**first, "_id": 5, "sequence": None, "digest": None, "proof": None, "key_id": None})
    with TokenVault.open(mongo_url, keys=KEYS) as vault:
        vault.store("gone", NewToken("x", expires_in=3600), provider="p")
        checked = vault.check_audit("gone")
        assert (checked.intact, checked.unchained) == (True, 1)


def test_an_event_that_was_put_in_does_not_become_an_old_one(mongo_url: str, sqlite_url: str) -> None:
    fill_all(mongo_url)
    MongoTamper(mongo_url).put_in("alice")
    with pytest.raises(StoreError, match="an event of the trail is in no chain"):
        copied(mongo_url, sqlite_url)


def test_history_keeps_no_secret_but_says_which_key_it_had(
    mongo_url: str, sqlite_url: str, documents: Database[dict[str, Any]]
) -> None:
    fill_all(mongo_url)
    documents["tokenkeep_history"].update_one({"user_id": "gone"}, {"$unset": {"key_id": ""}})  # an older one
    copied(mongo_url, sqlite_url)
    ended = [row for row in read(sqlite_url, Room.TOKENS) if row["active"] is None]
    assert [row["access_sealed"] for row in ended] == [None] * 3
    assert sorted(row["key_id"] for row in ended) == ["", KEYS.key_ids[0], KEYS.key_ids[0]]


def test_documents_that_were_copied_look_like_those_that_mongo_wrote(
    sqlite_url: str, mongo_url: str, documents: Database[dict[str, Any]]
) -> None:
    """A field that is there and empty would put every token into the index of families."""
    fill_all(mongo_url)
    names = ("token", "history", "issued", "audit", "audit_head", "key", "step")
    written = {name: shapes(documents, name) for name in names}
    copied(mongo_url, sqlite_url)
    documents.client.drop_database(documents.name)
    copied(sqlite_url, mongo_url)
    assert {name: shapes(documents, name) for name in names} == written


def shapes(documents: Database[dict[str, Any]], name: str) -> set[frozenset[str]]:
    nothing = {"generation"}  # an access token of a family has none, which is said or not
    return {frozenset(document) - nothing for document in documents[f"tokenkeep_{name}"].find()}


@pytest.mark.parametrize(
    ("collection", "change"),
    [
        pytest.param("tokenkeep_token", {"profile": {"$where": "1"}}, id="a mapping for text"),
        pytest.param("tokenkeep_token", {"scope": [{"$gt": ""}]}, id="an operator among scopes"),
        pytest.param("tokenkeep_token", {"user_id": "eve"}, id="a token of somebody else"),
        pytest.param("tokenkeep_token", {"id": 7}, id="an id that is a number"),
        pytest.param("tokenkeep_history", {"created_at": 2**62}, id="a time past all times"),
        pytest.param("tokenkeep_issued", {"digest": Binary(b"d" * 32, 5)}, id="bytes of another kind"),
        pytest.param("tokenkeep_issued", {"usage_count": True}, id="true for a number"),
        pytest.param("tokenkeep_audit", {"sequence": "1"}, id="text for a number"),
        pytest.param("tokenkeep_audit_head", {"user_id": "eve"}, id="a head of somebody else"),
    ],
)
def test_a_damaged_document_is_refused(
    mongo_url: str, sqlite_url: str, documents: Database[dict[str, Any]], collection: str, change: dict[str, Any]
) -> None:
    fill(mongo_url)
    documents[collection].update_one({}, {"$set": change})
    with pytest.raises(StoreError, match="a document is damaged"):
        copied(mongo_url, sqlite_url)


@pytest.mark.parametrize("name", ["key", "step", "lease", "history", "issued", "audit", "audit_head"])
def test_a_document_that_reading_on_would_pass_over_is_refused(
    mongo_url: str, sqlite_url: str, documents: Database[dict[str, Any]], name: str
) -> None:
    fill(mongo_url)
    documents[f"tokenkeep_{name}"].insert_one({"_id": datetime.now(UTC)})
    with pytest.raises(StoreError, match="a document is damaged"):
        copied(mongo_url, sqlite_url)


@pytest.mark.parametrize("names", [(), ("",), ("a", "b"), ("7:x", ":"), ("é\x00", "", "3:")])
def test_joined_names_come_apart_again(names: tuple[str, ...]) -> None:
    assert tuple(parts_of(key_of(*names))) == names


@pytest.mark.parametrize("key", ["x", "1:", "5:abc", "+1:a", "01:a", "-1:a", "1:a1"])
def test_what_joins_no_names_does_not_come_apart(key: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # of any text
        parts_of(key)


def test_a_free_mapping_is_text_that_every_database_takes() -> None:
    value = {"é": "\ud800", "nul": "\x00"}
    to_json(value).encode()
    assert from_json(to_json(value)) == value
