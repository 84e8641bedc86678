"""Watching on real servers: who tells of a new token, and that nothing is missed when he falls silent."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from servers.common import Server, free_port
from servers.mongo import Mongo
from servers.pgbouncer import PgBouncer
from servers.postgres import Postgres
from servers.proxy import FaultProxy
from servers.redis_groups import Cluster
from servers.redis_server import Redis
from servers_plugin import started
from tokenkeep import AcquiredToken, AsyncTokenVault, KeyRing, NewToken, TokenVault
from tokenkeep.errors import StoreUnavailable
from tokenkeep.ports import Bell
from tokenkeep.stores.mongo.bell import ONLY_KEYS
from tokenkeep.stores.sql.servers.address import Address
from tokenkeep.stores.sql.servers.postgresql import EXAMPLE, Link, open_bell
from tokenkeep.testing import faces
from tokenkeep.testing.canary import Canary

NEVER: Final = timedelta(hours=1)
"""An interval that no test lives to see: what is told, the bell has told."""

SOON: Final = timedelta(milliseconds=20)
LONG: Final = 60.0

LISTENERS: Final = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND query ILIKE 'LISTEN%'"
)


class Way(NamedTuple):
    """A store that tells of new tokens.

    Attributes:
        options: for `TokenVault.open`.
        behind: the server that tells, to put a proxy in front of it.
    """

    face: faces.Face
    options: dict[str, Any]
    behind: Server | None


WAYS: Final = (
    *("file/sync", "file/async", "psycopg/sync", "psycopg/async", "asyncpg/async"),
    *("mongo/sync", "mongo/async", "redis/sync", "redis/async"),
    *("redis-itself/sync", "redis-itself/async"),
)
SERVERS: Final = [way for way in WAYS if not way.startswith("file")]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Way:
    kind, _, face = request.param.partition("/")
    options: dict[str, Any] = {"keys": KeyRing.generate()}
    server = None
    if kind == "file":
        options["url"] = f"sqlite:///{tmp_path}/tokens.db"
    elif kind == "redis":
        server = request.getfixturevalue("redis_server")
        options |= {"url": request.getfixturevalue("mariadb_url"), "cache": request.getfixturevalue("redis_url")}
    elif kind == "redis-itself":
        server = request.getfixturevalue("redis_server")
        options["url"] = request.getfixturevalue("redis_url")
    elif kind == "mongo":
        server = request.getfixturevalue("mongo_server")
        options["url"] = request.getfixturevalue("mongo_url")
    else:
        server = request.getfixturevalue("postgres_server")
        options["url"] = request.getfixturevalue("postgres_url").replace("postgresql", f"postgresql+{kind}")
    return Way(face, options, server)


type Opening = Callable[..., Any]


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[Opening]:
    """Open a vault by either face, to the end of the test."""
    async with AsyncExitStack() as stack:

        async def open_one(face: faces.Face, **options: Any) -> AsyncTokenVault:
            return await stack.enter_async_context(faces.open_vault(face, options.pop("url"), **options))

        yield open_one


def through(options: dict[str, Any], proxy: FaultProxy) -> dict[str, Any]:
    """Lead the way to the one who tells through a proxy."""
    name = "cache" if "cache" in options else "url"
    port = urlsplit(options[name]).port
    changed = options[name].replace(f":{port}/", f":{proxy.port}/")
    if name == "url" and "mongo" in changed:
        changed += "&directConnection=true"
    return {**options, name: changed}


async def following(watch: AsyncIterator[AcquiredToken]) -> AcquiredToken:
    return await asyncio.wait_for(anext(watch), LONG)


async def waiting_for(watch: AsyncIterator[AcquiredToken]) -> asyncio.Task[AcquiredToken]:
    """Begin to wait for the next version; what is in place has been read then."""
    task = asyncio.ensure_future(following(watch))
    await asyncio.sleep(0.1)
    assert not task.done()
    return task


async def stored(vault: AsyncTokenVault, name: str, user: str = "alice") -> AcquiredToken:
    return await vault.store(user, NewToken(name, expires_in=3600), provider="acme")


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


# --- told -------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_what_another_vault_puts_in_place_is_told_long_before_the_interval(way: Way, opened: Opening) -> None:
    vault, other = await opened(way.face, **way.options), await opened(way.face, **way.options)
    watch, same, bobs = (vault.watch(user, provider="acme", interval=NEVER) for user in ("alice", "alice", "bob"))
    of_bob = await waiting_for(bobs)
    for number in range(3):
        both = [await waiting_for(one) for one in (watch, same)]
        put = await stored(other, f"paste {number}")
        assert [token.id for token in await asyncio.gather(*both)] == [put.id] * 2
    assert not of_bob.done()
    bob = await stored(other, "bob's", "bob")
    assert (await of_bob).id == bob.id
    of_alice = await waiting_for(watch)
    await other.revoke("alice", provider="acme")
    put = await stored(other, "after the revocation")
    assert (await of_alice).id == put.id


STORE: Final = """
import json, os, sys
from tokenkeep import KeyRing, NewToken, TokenVault
url = json.loads(sys.stdin.readline())
with TokenVault.open(url) as vault:
    for line in sys.stdin:
        print(vault.store("alice", NewToken(line.strip(), expires_in=3600), provider="acme").id, flush=True)
"""


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["file/sync", "psycopg/async"], indirect=True)
async def test_what_another_process_puts_in_place_is_told(way: Way, opened: Opening, tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    way.options["keys"].save(ring)
    vault = await opened(way.face, **way.options)
    watch = vault.watch("alice", provider="acme", interval=NEVER)
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STORE),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TOKENKEEP_KEY_FILE": str(ring)},
    )
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdin.write(f"{json.dumps(way.options['url'].replace('+psycopg', ''))}\n".encode())
    for number in range(3):
        waiting = await waiting_for(watch)
        other.stdin.write(f"paste {number}\n".encode())
        put = (await other.stdout.readline()).decode().strip()
        assert (await waiting).id == put
    await other.communicate()


@pytest.mark.asyncio
@pytest.mark.parametrize("face", ["sync", "async"])
async def test_every_node_of_a_cluster_tells(
    face: faces.Face, mariadb_url: str, redis_cluster: Cluster, opened: Opening
) -> None:
    options = {"url": mariadb_url, "cache": redis_cluster.url, "keys": KeyRing.generate()}
    vault, other = await opened(face, **options), await opened(face, **options)
    watch = vault.watch("alice", provider="acme", interval=NEVER)
    for number in range(3):
        waiting = await waiting_for(watch)
        put = await stored(other, f"paste {number}")
        assert (await waiting).id == put.id


# --- made good --------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("way", SERVERS, indirect=True)
async def test_what_was_put_in_place_while_nobody_could_listen_is_told(way: Way, opened: Opening) -> None:
    assert way.behind is not None
    with FaultProxy(way.behind.port) as proxy:
        vault, other = await opened(way.face, **through(way.options, proxy)), await opened(way.face, **way.options)
        watch = vault.watch("alice", provider="acme", interval=NEVER)
        waiting = await waiting_for(watch)
        put = await stored(other, "heard")
        assert (await waiting).id == put.id
        waiting = await waiting_for(watch)
        proxy.refuse()
        put = await stored(other, "said while nobody listened")
        assert not waiting.done()
        proxy.heal()
        assert (await waiting).id == put.id
        waiting = await waiting_for(watch)
        put = await stored(other, "heard again")
        assert (await waiting).id == put.id
        await vault.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("way", [way for way in SERVERS if not way.startswith("mongo")], indirect=True)
async def test_a_listener_that_is_killed_comes_back_and_misses_nothing(way: Way, opened: Opening) -> None:
    vault, other = await opened(way.face, **way.options), await opened(way.face, **way.options)
    watch = vault.watch("alice", provider="acme", interval=NEVER)
    first = await stored(other, "first")
    assert (await following(watch)).id == first.id
    waiting = asyncio.ensure_future(following(watch))
    for number in range(3):
        await until(lambda: kill_listeners(way) == 1)
        put = await stored(other, f"paste {number}")
        assert (await waiting).id == put.id
        waiting = asyncio.ensure_future(following(watch))
    await vault.close()
    with pytest.raises(StopAsyncIteration):
        await waiting


def kill_listeners(way: Way) -> int:
    if isinstance(way.behind, Redis):
        with way.behind.connect() as client:
            return int(client.execute_command("CLIENT", "KILL", "TYPE", "PUBSUB"))
    assert isinstance(way.behind, Postgres)
    with way.behind.connect(urlsplit(way.options["url"]).path[1:]) as connection:
        pids = connection.execute(LISTENERS).fetchall()
        return sum(connection.execute("SELECT pg_terminate_backend(%s)", pid).fetchone() == (True,) for pid in pids)


@pytest.mark.asyncio
@pytest.mark.parametrize("face", ["sync", "async"])
async def test_where_nobody_can_listen_the_store_is_asked(face: faces.Face, mariadb_url: str, opened: Opening) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    options = {"url": mariadb_url, "cache": nowhere, "keys": KeyRing.generate()}
    vault, other = await opened(face, **options), await opened(face, **options)
    watch = vault.watch("alice", provider="acme", interval=SOON)
    for number in range(3):
        waiting = await waiting_for(watch)
        put = await stored(other, f"paste {number}")
        assert (await waiting).id == put.id


@pytest.mark.asyncio
@pytest.mark.parametrize("face", ["sync", "async"])
async def test_an_outage_of_the_store_delays_and_is_told_of_once(
    face: faces.Face,
    postgres_server: Postgres,
    postgres_url: str,
    opened: Opening,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = {"url": f"{postgres_url}?retry_timeout=0.05&connect_timeout=1", "keys": KeyRing.generate()}

    def told() -> list[str]:
        return [record.message for record in caplog.records if record.message.startswith("watching goes on")]

    with FaultProxy(postgres_server.port) as proxy, caplog.at_level(logging.WARNING, "tokenkeep"):
        vault, other = await opened(face, **through(options, proxy)), await opened(face, **options)
        watch = vault.watch("alice", provider="acme", interval=SOON)
        put = await stored(other, "before")
        assert (await following(watch)).id == put.id
        proxy.refuse()
        with pytest.raises(StoreUnavailable):
            await following(vault.watch("alice", provider="acme"))
        waiting = asyncio.ensure_future(following(watch))
        await until(lambda: len(told()) == 1)
        await asyncio.sleep(SOON.total_seconds() * 10)
        put = await stored(other, "meanwhile")
        proxy.heal()
        assert (await waiting).id == put.id
        assert len(told()) == 1
        await vault.close()


# --- what is held open ------------------------------------------------------------------------------


@contextmanager
def listeners_of(server: Postgres, url: str) -> Iterator[Callable[[], int]]:
    with server.connect(urlsplit(url).path[1:]) as connection:
        yield lambda: len(connection.execute(LISTENERS).fetchall())


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["psycopg/sync", "psycopg/async", "asyncpg/async"], indirect=True)
async def test_all_who_watch_share_one_connection_which_goes_with_the_last(way: Way, opened: Opening) -> None:
    vault = await opened(way.face, **way.options)
    assert isinstance(way.behind, Postgres)
    with listeners_of(way.behind, way.options["url"]) as listeners:
        watches = [vault.watch(user, provider="acme", interval=NEVER) for user in ("alice", "alice", "bob")]
        waiting = [asyncio.ensure_future(anext(watch)) for watch in watches]
        await until(lambda: listeners() == 1)
        await watches[0].aclose()
        await watches[1].aclose()
        assert listeners() == 1
        await watches[2].aclose()
        await until(lambda: listeners() == 0)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [StopAsyncIteration] * 3
        again = vault.watch("alice", provider="acme", interval=NEVER)
        waiting = [asyncio.ensure_future(anext(again))]
        await until(lambda: listeners() == 1)
        put = await stored(vault, "one")
        assert (await waiting[0]).id == put.id


@pytest.mark.asyncio
async def test_a_task_that_is_cancelled_while_it_watches_leaves_nothing_behind(
    postgres_server: Postgres, postgres_url: str
) -> None:
    async with AsyncTokenVault.open(postgres_url, keys=KeyRing.generate()) as vault:

        async def watch() -> None:
            async for _ in vault.watch("alice", provider="acme", interval=NEVER):
                pass

        with listeners_of(postgres_server, postgres_url) as listeners:
            tasks = [asyncio.ensure_future(watch()) for _ in range(3)]
            await until(lambda: listeners() == 1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            del task, tasks
            await until(lambda: listeners() == 0)
        assert len(asyncio.all_tasks()) == 1


@pytest.mark.asyncio
async def test_a_wait_that_was_cancelled_can_be_taken_up_again(tmp_path: Path) -> None:
    async with AsyncTokenVault.open(f"sqlite:///{tmp_path}/tokens.db") as vault:
        watch = vault.watch("alice", provider="acme", interval=NEVER)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 0.01)
        put = await stored(vault, "one")
        assert (await following(watch)).id == put.id


def test_a_loop_that_is_left_stops_listening(tmp_path: Path) -> None:
    with TokenVault.open(f"sqlite:///{tmp_path}/tokens.db") as vault:
        vault.store("alice", NewToken("one"), provider="acme")
        threading.Timer(0.2, vault.store, ["alice", NewToken("two")], {"provider": "acme"}).start()
        for token in vault.watch("alice", provider="acme", interval=NEVER):
            if token.version == 2:
                break
        end = time.monotonic() + LONG
        while any(thread.name == "tokenkeep-aside" for thread in threading.enumerate()):
            assert time.monotonic() < end
            time.sleep(0.01)


FORK: Final = """
import os, sys, threading, time, warnings
from datetime import timedelta
warnings.simplefilter("ignore")
from tokenkeep import NewToken, TokenVault
NEVER = timedelta(hours=1)
vault = TokenVault.open(sys.argv[1])
vault.store("alice", NewToken("before"), provider="acme")
watch = vault.watch("alice", provider="acme", interval=NEVER)
assert next(watch).version == 1
seen = []
thread = threading.Thread(target=lambda: seen.append(next(watch)))
thread.start()
while not any(one.name == "tokenkeep-aside" for one in threading.enumerate()):
    time.sleep(0.01)
time.sleep(0.1)
reading, writing = os.pipe()
child = os.fork()
if not child:
    own = vault.watch("alice", provider="acme", interval=NEVER)
    assert next(own).version == 1
    os.write(writing, b"x")
    assert next(own).version == 2
    vault.close()
    os._exit(0)
os.read(reading, 1)
vault.store("alice", NewToken("after"), provider="acme")
thread.join(30)
assert [token.version for token in seen] == [2]
assert os.waitpid(child, 0)[1] == 0
vault.store("alice", NewToken("at last"), provider="acme")
assert next(watch).version == 3
vault.close()
print("well")
"""


@pytest.mark.parametrize("way", ["file/sync", "psycopg/sync"], indirect=True)
def test_a_forked_child_listens_for_itself(way: Way, tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    way.options["keys"].save(ring)
    ran = subprocess.run(
        [sys.executable, "-c", FORK, way.options["url"]],
        env={**os.environ, "TOKENKEEP_KEY_FILE": str(ring)},
        check=False,
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    assert ran.stdout == "well\n", ran.stderr


# --- what is said -----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_what_is_said_names_nobody_and_holds_no_secret(
    postgres_server: Postgres, postgres_url: str, redis_server: Redis, redis_url: str
) -> None:
    canary = Canary()
    canary.watch("a-token-that-sings", "alice@example.com", "acme-provider")
    options: dict[str, Any] = {"cache": redis_url, "keys": KeyRing.generate()}
    with (
        postgres_server.connect(urlsplit(postgres_url).path[1:]) as listening,
        redis_server.connect() as client,
        client.pubsub() as published,
    ):
        published.psubscribe("*")
        published.get_message(timeout=LONG)
        listening.execute("LISTEN tokenkeep_token")
        async with AsyncTokenVault.open(postgres_url, **options) as vault:
            for _ in range(2):
                await vault.store("alice@example.com", NewToken("a-token-that-sings"), provider="acme-provider")
        said = [f"{message!r}" for message in listening.notifies(timeout=LONG, stop_after=2)]
        said += [f"{published.get_message(timeout=LONG)!r}" for _ in range(2)]
    assert len(said) == 4
    assert len({*said[:2]}) == 1
    assert canary.found_in("\n".join(said)) == []


@pytest.mark.asyncio
async def test_a_change_stream_brings_nothing_but_keys(mongo_server: Mongo, mongo_url: str) -> None:
    with mongo_server.connect() as client, _tokens(client, mongo_url).watch(ONLY_KEYS) as stream:
        async with AsyncTokenVault.open(mongo_url, keys=KeyRing.generate()) as vault:
            await vault.store("alice", NewToken("a-token-that-sings"), provider="acme")
        change = stream.next()
    assert set(change) == {"_id", "documentKey"}


def _tokens(client: Any, url: str) -> Any:
    return client[urlsplit(url).path[1:]]["tokenkeep_token"]


# --- PgBouncer --------------------------------------------------------------------------------------


@pytest.fixture
def pooled_url(postgres_server: Postgres, postgres_url: str) -> Iterator[str]:
    for pooler in started(PgBouncer(postgres_server)):
        yield pooler.url(urlsplit(postgres_url).path[1:])


@pytest.mark.asyncio
@pytest.mark.parametrize("face", ["sync", "async"])
async def test_behind_a_pooler_that_the_url_speaks_of_the_store_is_asked(
    face: faces.Face, pooled_url: str, postgres_server: Postgres, postgres_url: str, opened: Opening
) -> None:
    keys = KeyRing.generate()
    other = await opened(face, url=postgres_url, keys=keys)
    vault = await opened(face, url=f"{pooled_url}?prepare=off", keys=keys)
    watch = vault.watch("alice", provider="acme", interval=SOON)
    with listeners_of(postgres_server, postgres_url) as listeners:
        for number in range(3):
            put = await stored(other, f"paste {number}")
            assert (await following(watch)).id == put.id
        assert listeners() == 0
    await vault.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["psycopg/sync", "psycopg/async", "asyncpg/async"], indirect=True)
async def test_a_pooler_that_nobody_spoke_of_is_found_out(
    way: Way, pooled_url: str, postgres_server: Postgres, postgres_url: str
) -> None:
    def bell(url: str) -> Bell:
        address = Address.read(url.replace("postgresql", way.options["url"].partition(":")[0]), EXAMPLE)
        asynchronous = way.face == "async"
        found = open_bell(Link(address, asynchronous=asynchronous), asynchronous=asynchronous)
        assert found is not None
        return found

    assert await bell(pooled_url).listen() is None
    ear = await bell(postgres_url).listen()
    assert ear is not None
    with listeners_of(postgres_server, postgres_url) as listeners:
        assert listeners() == 1
    await ear.close()
