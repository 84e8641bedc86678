"""What is special about moving a store out of Redis or into it; tests/test_db_copy.py has what all have in common."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as Client

from servers.redis_groups import Cluster
from servers.redis_server import Redis
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
from tokenkeep import TokenIssuer, TokenVault
from tokenkeep._stepping import run
from tokenkeep.errors import StoreError
from tokenkeep.ports import Room
from tokenkeep.stores.redis.store.names import Names, Whose

NAMES = Names("tokenkeep")
ALICE, BOB = Whose.of("default", "alice"), Whose.of("default", "bob")


@pytest.fixture
def client(redis_url: str, redis_server: Redis) -> Iterator[Client]:
    with closing(redis_server.connect(int(redis_url.rpartition("/")[2]))) as client:
        yield client


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/tokens.db"


@pytest.mark.parametrize("kind", ["postgres_url", "mongo_url"])
def test_a_store_that_began_on_redis_moves_away_and_back(
    request: pytest.FixtureRequest, redis_url: str, client: Client, kind: str
) -> None:
    elsewhere: str = request.getfixturevalue(kind)
    fill_all(redis_url)
    with TokenIssuer.open(redis_url, lifetime=HOUR, keys=KEYS) as issuer:
        known = issuer.issue("dora").token
    assert known is not None
    with TokenVault.open(redis_url, keys=KEYS) as vault:
        history, trail = vault.history("alice", provider="p"), vault.audit_trail("alice")
    out = copied(redis_url, elsewhere)
    assert numbers(out) == {**EVERYTHING, Room.ISSUED: 4, Room.AUDIT: 9, Room.HEADS: 4}
    with TokenVault.open(elsewhere, keys=KEYS) as vault:
        assert vault.history("alice", provider="p") == history
        assert vault.audit_trail("alice") == trail
    client.flushdb()
    assert digests(copied(elsewhere, redis_url)) == digests(out)
    for url in (elsewhere, redis_url):
        check_that_programs_go_on(url)
        with TokenIssuer.open(url, lifetime=HOUR, keys=KEYS) as issuer:
            assert issuer.verify(known) is not None


def test_a_store_goes_by_way_of_a_cluster_where_programs_worked_meanwhile(
    sqlite_url: str, redis_cluster: Cluster, tmp_path: Path
) -> None:
    cluster = f"{redis_cluster.url}?prefix={uuid.uuid4().hex}"
    fill_all(sqlite_url)
    assert numbers(copied(sqlite_url, cluster)) == EVERYTHING
    before = read(sqlite_url, Room.AUDIT)
    check_that_programs_go_on(cluster)
    back = f"sqlite:///{tmp_path}/back.db"
    copied(cluster, back)
    assert read(back, Room.AUDIT)[: len(before)] == before
    with TokenVault.open(back, keys=KEYS) as vault:
        token = vault.get_valid("alice", provider="p")
        assert token is not None
        assert token.access_token.reveal() == "next"
        assert vault.check_audits().intact


def test_a_lease_that_failed_and_a_step_are_the_same_there(sqlite_url: str, redis_url: str, client: Client) -> None:
    fill_all(sqlite_url)
    copied(sqlite_url, redis_url)
    backend = opened(redis_url)
    try:
        state = run(backend.leases.lease_state(ACCOUNT))
        assert (state.failure, state.reason, state.held_for) == ("ProviderError", "a\ufffdb", 0)
        assert state.retry_in is not None
        assert 0 < state.retry_in <= 60
        assert run(backend.leases.take_lease(ACCOUNT, "other", HOUR)) is not None
        assert not run(backend.leases.claim_step(b"s" * 32, after=6, upto=8))
    finally:
        run(backend.health.close())
    assert 6 * 86400 < client.ttl(NAMES.step(b"s" * 32)) <= 7 * 86400


def test_a_refresh_token_is_traded_once_whichever_side_of_the_copy(sqlite_url: str, redis_url: str) -> None:
    with TokenIssuer.open(sqlite_url, lifetime=HOUR, keys=KEYS) as issuer:
        first = issuer.issue("bob", refresh=True).refresh_token
        assert first is not None
        second = issuer.refresh(first)
        assert second is not None
        gone = issuer.issue("bob")
        issuer.revoke(gone)
    copied(sqlite_url, redis_url)
    with TokenIssuer.open(redis_url, lifetime=HOUR, keys=KEYS) as issuer:
        assert issuer.verify(second.token or "") is not None
        assert issuer.verify(gone.token or "") is None
        assert second.refresh_token is not None
        assert issuer.refresh(second.refresh_token) is not None
        assert issuer.refresh(first) is None  # which is theft by now, so the family ends
        assert issuer.verify(second.token or "") is None


def test_the_history_of_redis_says_which_key_it_had(redis_url: str, sqlite_url: str) -> None:
    fill_all(redis_url)
    copied(redis_url, sqlite_url)
    ended = [row for row in read(sqlite_url, Room.TOKENS) if row["active"] is None]
    assert [row["access_sealed"] for row in ended] == [None] * 3
    assert {row["key_id"] for row in ended} == {KEYS.key_ids[0]}


def test_what_was_copied_stands_in_redis_as_if_redis_had_written_it(
    redis_url: str, sqlite_url: str, client: Client
) -> None:
    fill_all(redis_url)
    written = shapes(client)
    copied(redis_url, sqlite_url)
    client.flushdb()
    copied(sqlite_url, redis_url)
    assert shapes(client) == written


def shapes(client: Client) -> dict[bytes, Any]:
    """What there is, but for who held a lease, a NUL in a reason, ids of entries, and answers of a minute ago."""
    found: dict[bytes, Any] = {}
    for key in client.scan_iter():
        kind = client.type(key)
        if b":r:" in key:
            continue
        if kind == b"hash":
            moving = (b"owner:", b"until:", b"reason:")
            held: dict[bytes, bytes] = client.hgetall(key)  # type: ignore[assignment]  # nothing is decoded
            found[key] = {field: value for field, value in held.items() if not field.startswith(moving)}
        if kind == b"zset":
            found[key] = client.zrange(key, 0, -1, withscores=True)
        if kind == b"stream":
            found[key] = [fields for _, fields in client.xrange(key) or ()]
        if kind == b"string":
            found[key] = client.get(key)
    return found


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        pytest.param(NAMES.place(ALICE), b"D1:paccess", b"{}", id="a token that is none"),
        pytest.param(NAMES.place(ALICE), b"U1:paccess", b"many", id="uses that are no number"),
        pytest.param(NAMES.place(ALICE), b"user", b'["default","eve"]', id="a lease of somebody else"),
        pytest.param(NAMES.chain(ALICE), b"user", b'["default","eve"]', id="a head of somebody else"),
        pytest.param(NAMES.chain(ALICE), b"digest", b"no", id="a digest that is none"),
        pytest.param(NAMES.keys, KEYS.key_ids[0].encode(), b"no", id="a key that is none"),
        pytest.param(NAMES.issued(BOB), b"D" + bytes(16), b"[]", id="an issued token that is none"),
    ],
)
def test_a_damaged_value_is_refused(
    redis_url: str, sqlite_url: str, client: Client, key: bytes, field: bytes, value: bytes
) -> None:
    fill(redis_url)
    client.hset(key, field, value)
    with pytest.raises(StoreError, match="a value is damaged"):
        copied(redis_url, sqlite_url)


def test_a_token_that_was_put_under_another_user_is_refused(redis_url: str, sqlite_url: str, client: Client) -> None:
    fill(redis_url)
    client.rename(NAMES.history(ALICE), NAMES.history(BOB))
    with pytest.raises(StoreError, match="a value is damaged"):
        copied(redis_url, sqlite_url)


def test_what_could_not_be_read_is_not_taken_for_the_end(redis_url: str, client: Client) -> None:
    fill(redis_url)
    backend = opened(redis_url)
    assert backend.transfer is not None
    key, field = NAMES.chain(ALICE), b"digest"
    whole = client.hget(key, field)
    assert whole is not None
    try:
        client.hset(key, field, b"no")
        for _ in range(2):
            with pytest.raises(StoreError, match="a value is damaged"):
                run(backend.transfer.read_rows(Room.HEADS, after=None, limit=100))
        client.hset(key, field, whole)
        assert len(run(backend.transfer.read_rows(Room.HEADS, after=None, limit=100))) == 3
    finally:
        run(backend.health.close())
