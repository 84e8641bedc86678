"""Redis as the store itself: what was acknowledged stays, whatever befalls the server, and nobody meets another."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError

from servers.proxy import FaultProxy
from servers.redis_groups import Cluster, Watched
from servers.redis_server import Redis
from tokenkeep import AsyncTokenIssuer, AsyncTokenVault, IssuedToken, KeyRing, NewToken, TokenIssuer, TokenVault
from tokenkeep._stepping import run
from tokenkeep.errors import ConfigurationError, ProviderRejected, SchemaMismatch, StoreError, StoreUnavailable
from tokenkeep.model import Action
from tokenkeep.stores.redis.client import AT_ONCE
from tokenkeep.stores.redis.lines import Lines
from tokenkeep.stores.redis.store.database import Database
from tokenkeep.stores.redis.store.health import SCHEMA_VERSION
from tokenkeep.stores.redis.store.names import Names, Whose
from tokenkeep.stores.redis.store.opening import open_redis
from tokenkeep.stores.redis.store.scripts import Script
from tokenkeep.stores.redis.store.sweeping import Sweep
from tokenkeep.stores.redis.store.tokens import _USES as USES
from tokenkeep.testing import FakeClock, FakeProvider, RenewingProvider, faces

HOUR: Final = timedelta(hours=1)
NAMES: Final = Names("tokenkeep")
WORKERS: Final = Path(__file__).with_name("workers.py")
HOSTILE: Final = (
    "alice",
    "{alice}",
    "}{alice",
    "alice}:a",
    "ali\nce",
    "*",
    "[a-z]lice",
    "alice\\",
    '"alice"',
    "al\r\nFLUSHALL\r\nice",
    '{"$gt": ""}',
    "5:alice",
)
"""User ids that mean something to Redis, to its hash tags and patterns, to JSON and to our own keys."""


@pytest.fixture
def keys() -> KeyRing:
    return KeyRing.generate()


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> faces.Face:
    chosen: faces.Face = request.param
    return chosen


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A server that the test may hurt, and that keeps what it acknowledges."""
    with Redis.running("--appendfsync", "always") as server:
        yield server


def bearer(issued: IssuedToken | None) -> str:
    assert issued is not None
    assert issued.token is not None
    return issued.token.reveal()


def start(work: str, *, strict: bool = True, **options: Any) -> subprocess.Popen[str]:
    warnings = "error" if strict else "ignore"
    return subprocess.Popen(
        [sys.executable, "-W", f"{warnings}::ResourceWarning", str(WORKERS), work, json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("TOKENKEEP_")},
    )


def answer(worker: subprocess.Popen[str]) -> Any:
    out, errors = worker.communicate(timeout=90)
    assert worker.returncode == 0, errors
    assert errors == ""
    return json.loads(out)


# --- whose keys are whose ----------------------------------------------------------------------------


@pytest.mark.requirement("D1")
async def test_no_user_id_meets_the_keys_of_another(redis_url: str, keys: KeyRing, face: faces.Face) -> None:
    provider = FakeProvider()
    async with (
        faces.open_vault(face, redis_url, providers=[provider], keys=keys) as vault,
        faces.open_issuer(face, redis_url, lifetime=HOUR, keys=keys) as issuer,
    ):
        tokens = {user: await vault.get_or_create(user) for user in HOSTILE}
        issued = {user: await issuer.issue(user) for user in HOSTILE}
        assert len({token.access_token.reveal() for token in tokens.values()}) == len(HOSTILE)
        for user in HOSTILE[1:]:
            assert await issuer.revoke_all(user) == 1
            assert await vault.revoke(user) is True
            assert {event.user_id for event in await vault.audit_trail(user)} == {user}
            assert len(await vault.history(user)) == 1
        read = await vault.get_valid("alice")
        assert read is not None
        assert read.id == tokens["alice"].id
        who = await issuer.verify(bearer(issued["alice"]))
        assert who is not None
        assert who.user_id == "alice"


@pytest.mark.parametrize("kinds", ["acehiowx"])
def test_all_keys_of_a_user_share_a_slot_and_users_do_not(kinds: str) -> None:
    slots = set()
    for user in HOSTILE:
        whose = Whose.of("default", user)
        every = [
            NAMES.place,
            NAMES.chain,
            NAMES.trail,
            NAMES.history,
            NAMES.issued,
            NAMES.order,
            NAMES.living,
            NAMES.by_end,
        ]
        assert len(every) == len(kinds)
        [slot] = {key_slot(name(whose)) for name in every} | {key_slot(NAMES.answer(whose))}
        slots.add(slot)
        assert NAMES.whose(NAMES.place(whose)) == whose
        assert whose.is_in("default")
        assert not whose.is_in("defaul")
    assert len(slots) > 6
    assert Whose.of("1:a", "b") != Whose.of("1", "a1:b")


@pytest.mark.parametrize("prefix", ["", "a{b}", "a*", "a b", "a\n", "x" * 65])
def test_a_prefix_that_means_something_to_redis_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix="):
        Names(prefix)


@pytest.mark.requirement("Z2")
def test_a_token_of_another_namespace_is_not_ended(redis_url: str, keys: KeyRing) -> None:
    with (
        TokenIssuer.open(redis_url, lifetime=HOUR, keys=keys, namespace="red") as red,
        TokenIssuer.open(redis_url, lifetime=HOUR, keys=keys, namespace="blue") as blue,
    ):
        issued = red.issue("alice")
        assert blue.revoke(issued.id) is False
        assert red.verify(bearer(issued)) is not None


def test_a_token_that_was_moved_to_another_user_is_an_error(redis_url: str, keys: KeyRing) -> None:
    with TokenVault.open(redis_url, providers=[FakeProvider()], keys=keys) as vault:
        vault.get_or_create("alice")
        vault.get_or_create("mallory")
        client = vault._opened._backend.tokens._database.clients.client()  # type: ignore[attr-defined]
        alices, mallorys = (NAMES.place(Whose.of("default", user)) for user in ("alice", "mallory"))
        client.copy(alices, mallorys, replace=True)
        with pytest.raises(StoreError, match="damaged"):
            vault.get_valid("mallory")
        client.delete(mallorys)
        client.set(mallorys, "a string")
        with pytest.raises(StoreError, match="WRONGTYPE"):
            vault.get_valid("mallory")
        client.delete(mallorys)


# --- what was acknowledged stays ---------------------------------------------------------------------


class Writer(threading.Thread):
    """Stores tokens of one user after another, issues and revokes others, and notes what was acknowledged."""

    def __init__(self, number: int, vault: TokenVault, issuer: TokenIssuer, stop: threading.Event) -> None:
        super().__init__()
        self.number, self.vault, self.issuer, self.stop = number, vault, issuer, stop
        self.stored: dict[str, str] = {}
        self.revoked: list[IssuedToken] = []
        self.longest = 0.0

    def run(self) -> None:
        turn = 0
        while not self.stop.is_set():
            turn += 1
            user, began = f"user {self.number}-{turn % 20}", time.perf_counter()
            try:
                token = self.vault.store(user, NewToken(f"token {turn}"))
                if token.persisted:
                    self.stored[user] = token.access_token.reveal()
                issued = self.issuer.issue(user)
                if self.issuer.revoke(issued):
                    self.revoked.append(issued)
            except StoreError:
                self.stored.pop(user, None)  # it may have happened or not
            self.longest = max(self.longest, time.perf_counter() - began)


def written(vault: TokenVault, issuer: TokenIssuer, count: int, meanwhile: Callable[[], None]) -> list[Writer]:
    """Let four writers write, do something to the server after `count` revocations, and let them end."""
    stop = threading.Event()
    writers = [Writer(number, vault, issuer, stop) for number in range(4)]
    for writer in writers:
        writer.start()
    for wanted, then in ((count, meanwhile), (2 * count, lambda: None)):
        patience = time.monotonic() + 60
        while sum(len(writer.revoked) for writer in writers) < wanted and time.monotonic() < patience:
            time.sleep(0.005)
        then()
    stop.set()
    for writer in writers:
        writer.join()
    return writers


def assert_nothing_undone(vault: TokenVault, issuer: TokenIssuer, writers: list[Writer], least: int) -> None:
    revoked = [issued for writer in writers for issued in writer.revoked]
    assert len(revoked) >= least
    assert [issued.id for issued in revoked if issuer.verify(bearer(issued)) is not None] == []
    for writer in writers:
        for user, token in writer.stored.items():
            read = vault.get_valid(user)
            assert read is not None
            assert read.access_token.reveal() == token
    for user in {issued.user_id for issued in revoked}:
        trail = issuer.audit_trail(user, limit=10_000)
        noted = [event.token_id for event in trail if event.action is Action.REVOKED]
        assert len(noted) == len(set(noted))
        assert {issued.id for issued in revoked if issued.user_id == user} <= set(noted)


@pytest.mark.requirement("K4")
def test_what_was_acknowledged_outlives_a_redis_that_is_killed(own_redis: Redis, keys: KeyRing) -> None:
    url = own_redis.url(0)

    def crash() -> None:
        own_redis.kill()
        own_redis.restart()

    with (
        TokenVault.open(url, keys=keys, providers=[FakeProvider()]) as vault,
        TokenIssuer.open(url, lifetime=HOUR, keys=keys) as issuer,
    ):
        writers = written(vault, issuer, 200, crash)
        assert_nothing_undone(vault, issuer, writers, 400)


BOUND: Final = 15.0
"""Seconds for a store, an issue and a revocation during a failover: 5 of looking for the server again in each."""


# On a busy machine redis-py's asynchronous cluster client drops a connection that timed out and does not close it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_master_of_the_cluster_killed_in_the_middle_loses_no_token_that_it_had_passed_on(keys: KeyRing) -> None:
    with Cluster.running() as cluster:
        url = f"{cluster.url}?timeout=1"
        with (
            TokenVault.open(url, keys=keys, providers=[FakeProvider()]) as vault,
            TokenIssuer.open(url, lifetime=HOUR, keys=keys) as issuer,
        ):
            before = {f"early {number}": f"token {number}" for number in range(30)}
            for user, token in before.items():
                vault.store(user, NewToken(token))
            ended = [issuer.issue(user) for user in before]
            for issued in ended:
                assert issuer.revoke(issued)
            passed_on(cluster)
            kill = cluster.master_of(NAMES.place(Whose.of("default", "early 1"))).kill
            async with AsyncTokenVault.open(url, keys=keys, providers=[FakeProvider()]) as reading:
                done = asyncio.Event()
                reader = asyncio.ensure_future(read_all_the_time(reading, before, done))
                writers = await asyncio.to_thread(written, vault, issuer, 60, kill)
                done.set()
                assert await reader < BOUND
                for user, token in before.items():
                    read = await reading.get_valid(user)
                    assert read is not None
                    assert read.access_token.reveal() == token
            assert max(writer.longest for writer in writers) < BOUND
            assert [issued.id for issued in ended if issuer.verify(bearer(issued)) is not None] == []
            assert vault.statistics("early 1").total_tokens == 1
    gc.collect()


async def read_all_the_time(vault: AsyncTokenVault, right: dict[str, str], done: asyncio.Event) -> float:
    """Read until it is done; return how long the longest call took. None gives a wrong token, or none."""
    longest = 0.0
    while not done.is_set():
        for user, token in right.items():
            began = time.perf_counter()
            with suppress(StoreUnavailable):
                read = await vault.get_valid(user)
                assert read is not None
                assert read.access_token.reveal() == token
            longest = max(longest, time.perf_counter() - began)
    return longest


def passed_on(cluster: Cluster) -> None:
    """Return when every replica has what its master acknowledged."""
    for node in cluster.nodes:
        if cluster.said(node, "INFO")["role"] == "master":
            with node.connect() as client:
                assert client.wait(1, 10_000) == 1


async def test_sentinels_bring_the_store_to_the_new_master(keys: KeyRing, face: faces.Face) -> None:
    with Watched.running() as watched:
        url = f"{watched.url}&timeout=1&retry_timeout=20"
        async with faces.open_vault(face, url, keys=keys, providers=[FakeProvider()]) as vault:
            first = await vault.store("alice", NewToken("first-token"))
            with watched.master.connect() as client:
                assert client.wait(2, 10_000) == 2
            watched.master.kill()
            read = await vault.get_valid("alice")
            assert read is not None
            assert read.id == first.id
            assert (await vault.store("alice", NewToken("second-token"))).version == 2
            assert [info.version for info in await vault.history("alice")] == [2, 1]


# --- answers that are lost, servers that are slow, callers that go away ------------------------------


@pytest.fixture
def proxy(redis_server: Redis) -> Iterator[FaultProxy]:
    with FaultProxy(redis_server.port) as between:
        yield between


@pytest.fixture
def through(redis_url: str, redis_server: Redis, proxy: FaultProxy) -> str:
    return redis_url.replace(str(redis_server.port), str(proxy.port), 1)


class LostAnswer:
    """Lets a connection break after the server has done what it was asked, before its answer arrives."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.left = number
        ask = Lines.ask

        async def asked(lines: Lines, *words: bytes) -> Any:
            answered = await ask(lines, *words)
            self.left -= 1
            if self.left == -1:
                raise RedisConnectionError
            return answered

        monkeypatch.setattr(Lines, "ask", asked)

    @property
    def was_lost(self) -> bool:
        return self.left < 0


@pytest.mark.requirement("R4")
async def test_whatever_answer_is_lost_a_change_counts_once(
    redis_url: str, redis_server: Redis, keys: KeyRing, face: faces.Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same every time, with another answer lost each time, to the last."""
    for number in itertools.count():
        with monkeypatch.context() as patch:
            lost = LostAnswer(patch, number)
            async with (
                faces.open_vault(face, redis_url, providers=[RenewingProvider()], keys=keys) as vault,
                faces.open_issuer(face, redis_url, lifetime=HOUR, keys=keys) as issuer,
            ):
                await everything_once(vault, issuer, f"user {number}")
        if not lost.was_lost:
            break
    assert number > 20
    with redis_server.connect(int(redis_url.rpartition("/")[2])) as client:
        places = [NAMES.place(Whose.of("default", f"user {done}")) for done in range(number)]
        assert {client.hget(place, "fence:fake") for place in places} == {b"3"}  # no lease was taken twice


async def everything_once(vault: AsyncTokenVault, issuer: AsyncTokenIssuer, user: str) -> None:
    token = await vault.get_or_create(user)
    assert token.persisted
    await vault.reject(token)
    assert (await vault.store(user, NewToken("another"))).version == 2
    assert await vault.get_valid(user) is not None
    assert (await vault.statistics(user)).total_usage == 2
    assert await vault.revoke(user) is True
    issued = await issuer.issue(user, refresh=True)
    assert issued.refresh_token is not None
    refreshed = await issuer.refresh(issued.refresh_token)
    assert await issuer.verify(bearer(refreshed)) is not None
    assert (await issuer.statistics(user)).total_usage == 1
    stolen = await issuer.issue(user, refresh=True)
    assert await issuer.revoke(stolen) is True
    assert await issuer.revoke_all(user) == 4
    trail = Counter([event.action for event in await vault.audit_trail(user)])
    assert trail == {
        Action.CREATED: 3,
        Action.REJECTED: 1,
        Action.STORED: 1,
        Action.REFRESHED: 1,
        Action.REVOKED: 7,
    }


@pytest.mark.requirement("D6")
async def test_a_server_that_falls_silent_is_an_error_within_the_bound(
    through: str, proxy: FaultProxy, keys: KeyRing, face: faces.Face
) -> None:
    url = f"{through}?timeout=0.2&retry_timeout=0.3"
    async with faces.open_vault(face, url, providers=[FakeProvider()], keys=keys) as vault:
        await vault.get_or_create("alice")
        proxy.black_hole()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no answer in time") as refused:
            await vault.get_valid("alice")
        assert time.monotonic() - began < 5
        assert str(proxy.port) not in repr(refused.value)
        assert refused.value.__cause__ is refused.value.__context__ is None
        assert not (await vault.status()).healthy
        proxy.heal()
        assert await vault.get_valid("alice") is not None


async def test_callers_who_are_cancelled_leave_nobody_a_wrong_answer(
    through: str, proxy: FaultProxy, keys: KeyRing
) -> None:
    async with AsyncTokenIssuer.open(through, lifetime=HOUR, keys=keys) as issuer:
        bearers = {f"user {number}": bearer(await issuer.issue(f"user {number}")) for number in range(10)}
        proxy.latency(0.01)
        for turn in range(10):
            asked = [asyncio.ensure_future(issuer.verify(token)) for token in bearers.values()]
            await asyncio.sleep(0.004 * turn)
            for task in asked[::2]:
                task.cancel()
            found = await asyncio.gather(*asked, return_exceptions=True)
            for user, who in zip(bearers, found, strict=True):
                assert isinstance(who, asyncio.CancelledError) or (isinstance(who, IssuedToken) and who.user_id == user)


async def test_a_crowd_larger_than_the_connections_waits_for_its_turn(redis_url: str, keys: KeyRing) -> None:
    url = f"{redis_url}?retry_timeout=0&timeout=10"
    async with AsyncTokenIssuer.open(url, lifetime=HOUR, keys=keys) as issuer:
        token = bearer(await issuer.issue("alice"))
        who = await asyncio.gather(*(issuer.verify(token) for _ in range(5 * AT_ONCE)))
        assert {one.user_id for one in who if one is not None} == {"alice"}
        assert None not in who


async def test_a_script_that_the_server_forgot_is_sent_again(
    redis_url: str, redis_server: Redis, keys: KeyRing, face: faces.Face
) -> None:
    async with faces.open_vault(face, redis_url, providers=[FakeProvider()], keys=keys) as vault:
        await vault.get_or_create("alice")
        with redis_server.connect() as client:
            client.script_flush()
        assert (await vault.acquire("alice")).version == 2


def test_uses_that_could_be_counted_are_not_counted_again_when_others_could_not(
    redis_url: str, keys: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when one master of a cluster is away, and each flush fails for its users only."""
    with TokenVault.open(redis_url, providers=[FakeProvider()], keys=keys) as vault:
        for user in ("alice", "bob"):
            vault.get_or_create(user)
        do, away = Database.run, NAMES.place(Whose.of("default", "bob"))

        async def failing(database: Database, script: Script, keys: list[bytes], *arguments: Any) -> Any:
            if script is USES and away in keys:
                msg = "away"
                raise StoreUnavailable(msg)
            return await do(database, script, keys, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Database, "run", failing)
            for _ in range(3):
                vault.get_valid("alice")
                vault.get_valid("bob")
                with pytest.raises(StoreUnavailable):
                    vault.statistics("alice")
        vault.get_valid("alice")
        assert [vault.statistics(user).total_usage for user in ("alice", "bob")] == [5, 4]


RIGHTS: Final = (
    *("~tokenkeep:*", "+@read", "+@write", "+@scripting", "+@connection", "-@dangerous"),
    *("+time", "+info", "+config|get", "+cluster|slots"),
)
"""What docs/backends.md asks to grant."""


async def test_a_user_with_the_rights_that_are_documented_can_do_everything(
    redis_url: str, redis_server: Redis, keys: KeyRing, face: faces.Face
) -> None:
    text = (Path(__file__).parents[1] / "docs" / "backends.md").read_text()
    assert " ".join(RIGHTS) in text
    with redis_server.connect() as client:
        client.execute_command("ACL", "SETUSER", "keeper", "on", ">hunter2", *RIGHTS)
        try:
            url = redis_url.replace("redis://", "redis://keeper:hunter2@")
            async with (
                faces.open_vault(face, url, providers=[RenewingProvider()], keys=keys) as vault,
                faces.open_issuer(face, url, lifetime=HOUR, keys=keys) as issuer,
            ):
                await everything_once(vault, issuer, "alice")
                await vault.purge()
                await issuer.purge()
                await vault.rotate_keys()
                assert (await vault.status()).warnings
        finally:
            client.execute_command("ACL", "DELUSER", "keeper")


# --- single-flight, forks, exits ---------------------------------------------------------------------


@pytest.mark.requirement("R7")
def test_eight_processes_of_25_threads_on_a_cold_key_share_one_login(
    redis_url: str, keys: KeyRing, tmp_path: Path
) -> None:
    keys.save(tmp_path / "keys")
    (tmp_path / "asking").touch()
    options: dict[str, Any] = {"keys": str(tmp_path / "keys"), "folder": str(tmp_path), "threads": 25, "processes": 8}
    answers = [answer(worker) for worker in [start("crowd", url=redis_url, **options) for _ in range(8)]]
    assert len((tmp_path / "journal").read_text().splitlines()) == 1
    assert len({json.dumps(tokens) for tokens in answers}) == 1
    with TokenVault.open(redis_url, keys=keys, providers=[FakeProvider()]) as vault:
        assert vault.statistics("alice").total_usage == 200
        assert [event.action for event in vault.audit_trail("alice")].count(Action.CREATED) == 1


def test_a_fork_takes_no_connection_and_no_count_of_its_parent(redis_url: str, keys: KeyRing, tmp_path: Path) -> None:
    keys.save(tmp_path / "keys")
    assert answer(start("fork", url=redis_url, keys=str(tmp_path / "keys"))) == [0, "made-in-the-child"]
    with TokenVault.open(redis_url, keys=keys, providers=[FakeProvider()]) as vault:
        assert vault.statistics("alice").total_usage == 6


@pytest.mark.parametrize("work", ["leave_without_closing", "leave_a_loop_without_closing"])
def test_uses_are_written_by_a_process_that_ends_without_closing(
    redis_url: str, keys: KeyRing, tmp_path: Path, work: str
) -> None:
    keys.save(tmp_path / "keys")
    assert answer(start(work, strict=False, url=redis_url, keys=str(tmp_path / "keys"), uses=5)) == 5
    with TokenVault.open(redis_url, keys=keys, providers=[FakeProvider()]) as vault:
        assert vault.statistics("alice").total_usage == 5


# --- what is everybody's -----------------------------------------------------------------------------


def test_a_sweep_goes_over_every_server_and_every_user_once(
    redis_cluster: Cluster, keys: KeyRing, clock: FakeClock
) -> None:
    url = f"{redis_cluster.url}?prefix=sweep"
    with (
        TokenVault.open(url, providers=[FakeProvider()], keys=keys, clock=clock) as vault,
        TokenIssuer.open(url, lifetime=HOUR, keys=keys, clock=clock) as issuer,
    ):
        users = [f"user {number}" for number in range(60)]
        for user in users:
            vault.get_or_create(user)
            issuer.issue(user)
        made = vault.created_between(clock.now() - HOUR, clock.now() + HOUR)
        assert sorted(info.user_id for info in made) == sorted(users)
        assert len(vault.created_between(clock.now() - HOUR, clock.now() + HOUR, limit=7)) == 7
        clock.advance(2 * HOUR)
        assert vault.purge(audit_before=clock.now()).secrets == 60
        assert issuer.purge().tokens == 60
        assert vault.audit_trail(users[0]) == []
        assert [info.active for info in vault.history(users[0])] == [False]
        clock.advance(timedelta(days=400))
        assert vault.purge().tokens == 60
        assert vault.history(users[0]) == []
        left = [key for node in redis_cluster.nodes for key in masters_keys(redis_cluster, node, "sweep")]
        assert {key.rpartition(b":")[2] for key in left} <= {b"a", b"c", b"keys", b"schema"} | answers(left)


def test_a_sweep_finds_everything_when_the_server_is_killed_in_the_middle(own_redis: Redis) -> None:
    backend = open_redis(own_redis.url(0), asynchronous=False, actor="me", clock=None).backend
    database: Database = backend.keys._database  # type: ignore[attr-defined]
    with own_redis.connect() as client:
        places = [NAMES.place(Whose.of("default", f"user {number}")) for number in range(3000)]
        client.mset(dict.fromkeys(places, b""))
    sweep = Sweep(database, NAMES.every(b"a", "default"))
    found: list[bytes] = []
    while (place := run(sweep.next())) is not None:
        found.append(place)
        if len(found) == 400:
            own_redis.kill()
            own_redis.restart()
    assert sorted(found) == sorted(places)
    run(backend.health.close())


def masters_keys(cluster: Cluster, node: Any, prefix: str) -> list[bytes]:
    if cluster.said(node, "INFO")["role"] != "master":
        return []
    with node.connect() as client:
        return list(client.scan_iter(match=f"{prefix}:*", count=1000))


def answers(keys: list[bytes]) -> set[bytes]:
    """The last part of the keys that are gone a minute after their change."""
    return {key.rpartition(b":")[2] for key in keys if b":r:" in key}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_nothing_of_a_token_its_history_or_its_trail_ever_ends_by_itself(
    redis_url: str, redis_server: Redis, keys: KeyRing
) -> None:
    with (
        TokenVault.open(redis_url, providers=[RenewingProvider()], keys=keys) as vault,
        TokenIssuer.open(redis_url, lifetime=HOUR, keys=keys) as issuer,
    ):
        vault.get_or_create("alice")
        vault.acquire("alice")
        issuer.revoke(issuer.issue("alice", refresh=True))
        with redis_server.connect(int(redis_url.rpartition("/")[2])) as client:
            ending = [key for key in client.scan_iter() if client.ttl(key) >= 0]
        assert ending
        assert all(b":r:" in key for key in ending)


@pytest.mark.requirement("S1")
def test_what_stands_in_redis_shows_no_token(own_redis: Redis, keys: KeyRing) -> None:
    url = own_redis.url(0)
    with (
        TokenVault.open(url, providers=[FakeProvider()], keys=keys) as vault,
        TokenIssuer.open(url, lifetime=HOUR, keys=keys) as issuer,
    ):
        secrets = [vault.store("alice", NewToken("plain-access-token", refresh_token="plain-refresh-token"))]
        issued = issuer.issue("alice", refresh=True)
        assert issued.refresh_token is not None
        files = b"".join(path.read_bytes() for path in own_redis.folder.rglob("*") if path.is_file())
        assert secrets[0].id.encode() in files
        for plain in (b"plain-access-token", b"plain-refresh-token", bearer(issued).encode()):
            assert plain not in files
        assert issued.refresh_token.reveal().encode() not in files


# --- settings ----------------------------------------------------------------------------------------


@pytest.mark.requirement("D10")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--appendonly", "no"), ["appendonly=no"]),
        (("--appendfsync", "everysec"), ["appendfsync=everysec"]),
        (("--appendfsync", "no"), ["appendfsync=no"]),
        (("--appendfsync", "always"), []),
        (("--appendfsync", "always", "--maxmemory-policy", "volatile-lru"), ["volatile"]),
        (("--appendfsync", "always", "--maxmemory-policy", "allkeys-lru"), ["allkeys"]),
        (("--appendonly", "no", "--rename-command", "CONFIG", ""), ["appendonly=no"]),
        (("--rename-command", "CONFIG", "", "--rename-command", "INFO", ""), ["could not be asked"]),
    ],
    ids=lambda value: " ".join(word.removeprefix("--") for word in value) if isinstance(value, tuple) else "",
)
def test_a_setting_of_redis_that_loses_data_is_said(
    options: tuple[str, ...], said: list[str], keys: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        Redis.running(*options) as server,
        caplog.at_level(logging.WARNING, "tokenkeep"),
        TokenVault.open(server.url(0), keys=keys) as vault,
    ):
        warnings = vault.status().warnings if "INFO" not in options else settings_alone(vault)
        assert len(warnings) == len(said)
        assert all(words in warning for words, warning in zip(said, warnings, strict=True))
        logged = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(logged) == len(said) - (said == ["appendfsync=everysec"])


def settings_alone(vault: TokenVault) -> tuple[str, ...]:
    """Ask past `status`, which counts keys first, and for that needs INFO."""
    warnings: tuple[str, ...] = run(vault._opened._backend.health.warnings())
    return warnings


@pytest.mark.requirement("D10")
def test_a_redis_that_throws_tokens_away_when_it_is_full_is_refused(keys: KeyRing) -> None:
    with (
        Redis.running("--maxmemory-policy", "allkeys-lru", "--maxmemory", "64mb") as server,
        pytest.raises(ConfigurationError, match="noeviction"),
    ):
        TokenVault.open(server.url(0), keys=keys).__enter__()


def test_a_redis_that_is_full_says_so_and_loses_nothing(own_redis: Redis, keys: KeyRing) -> None:
    with TokenVault.open(own_redis.url(0), providers=[FakeProvider()], keys=keys) as vault:
        vault.get_or_create("alice")
        with own_redis.connect() as client:
            client.config_set("maxmemory", "1mb")
        with pytest.raises(StoreUnavailable, match="full"):
            vault.acquire("bob")
        assert vault.get_valid("alice") is not None
        with own_redis.connect() as client:
            client.config_set("maxmemory", "0")
        assert vault.get_or_create("bob").version == 1
    with TokenVault.open(own_redis.url(0), providers=[FakeProvider()], keys=keys) as vault:
        assert vault.statistics("alice").total_tokens == 1


def test_a_newer_schema_is_refused(redis_url: str, redis_server: Redis, keys: KeyRing) -> None:
    with redis_server.connect(int(redis_url.rpartition("/")[2])) as client:
        client.set(NAMES.schema, SCHEMA_VERSION + 1)
        with pytest.raises(SchemaMismatch, match="newer tokenkeep"):
            TokenVault.open(redis_url, keys=keys).__enter__()
        client.set(NAMES.schema, "two")
        with pytest.raises(SchemaMismatch, match="no schema version"):
            TokenVault.open(redis_url, keys=keys).__enter__()


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@127.0.0.1:1/0?max_staleness=1",
        "redis://user:hunter2@127.0.0.1:1/0?prefix=a%7Bb%7D",
        "redis://user:hunter2@127.0.0.1:1/0?retry_timeout=60",
        "rediss://user:hunter2@127.0.0.1:1/0?ssl_ca_certs=/nowhere.pem",
        "redis+cluster://user:hunter2@127.0.0.1:1/3",
        "redis://user:hunter2@127.0.0.1:1/tokens",
    ],
)
def test_a_bad_url_is_refused_with_the_way_out_and_without_the_password(url: str, keys: KeyRing) -> None:
    with pytest.raises(ConfigurationError) as refused:
        TokenVault.open(url, keys=keys)
    assert "hunter2" not in str(refused.value)


async def test_a_url_of_the_wrong_form_is_told_which_is_right(
    redis_url: str, redis_cluster: Cluster, keys: KeyRing, face: faces.Face
) -> None:
    single = redis_url.replace("redis://", "redis+cluster://").rpartition("/")[0]
    member = f"redis://{redis_cluster.nodes[0].host}:{redis_cluster.nodes[0].port}/0"
    for url, said in ((single, "write the URL as redis://"), (member, r"redis\+cluster://")):
        with pytest.raises(StoreError, match=said):
            await used(faces.open_vault(face, url, keys=keys, providers=[FakeProvider()]))


async def used(vault: AsyncTokenVault) -> None:
    async with vault:
        for number in range(9):
            await vault.get_or_create(f"user {number}")


def test_a_cluster_that_is_gone_is_an_error_of_ours(keys: KeyRing) -> None:
    url = "redis+cluster://127.0.0.1:1,127.0.0.1:2?retry_timeout=0.2"
    with pytest.raises(StoreUnavailable, match="cannot be reached") as refused:
        TokenVault.open(url, keys=keys).__enter__()
    assert "127.0.0.1" not in repr(refused.value)


def test_text_that_utf_8_cannot_hold_comes_back_or_is_replaced(redis_url: str, keys: KeyRing) -> None:
    provider = FakeProvider()
    provider.fail("alice", ProviderRejected("broken \ud800 text"))
    with TokenVault.open(redis_url, providers=[provider], keys=keys) as vault:
        with pytest.raises(ProviderRejected):
            vault.get_or_create("alice")
        assert vault.audit_trail("alice")[0].detail["reason"] == "broken \ud800 text"
        with pytest.raises(ProviderRejected, match="broken \\? text"):
            vault.get_or_create("alice")
        vault.store("alice", NewToken("t", metadata={"näme": "🗝 \u0000 \x7f"}))
        read = vault.get_valid("alice")
        assert read is not None
        assert read.metadata == {"näme": "🗝 \u0000 \x7f"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.replace("redis://", "redis://nobody:hunter2@"), "user name or the password"),
        (lambda url: url.replace("redis://", "redis://reader:hunter2@"), "lacks a right"),
        (lambda url: url.rpartition(":")[0] + ":1/0?retry_timeout=0", "cannot be reached"),
    ],
    ids=["wrong password", "no right", "nobody there"],
)
async def test_who_cannot_get_in_is_told_what_to_do_and_no_address(
    redis_url: str, redis_server: Redis, keys: KeyRing, face: faces.Face, change: Callable[[str], str], said: str
) -> None:
    with redis_server.connect() as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">hunter2", "~*", "+@read", "+select")
        try:
            with pytest.raises(StoreError, match=said) as refused:
                async with faces.open_vault(face, change(redis_url), keys=keys):
                    pass
        finally:
            client.execute_command("ACL", "DELUSER", "reader")
    shown = f"{refused.value!r} {refused.value.__cause__!r} {refused.value.__context__!r}"
    assert not [word for word in ("hunter2", "127.0.0.1", str(redis_server.port)) if word in shown]
