"""Single-flight, crashes, forks and exits on MongoDB, timed by the server's own clock."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from servers.mongo import Mongo
from tokenkeep import AsyncTokenVault, KeyRing, NewToken, TokenVault
from tokenkeep.errors import StoreUnavailable
from tokenkeep.testing import FakeProvider, faces

WORKERS = Path(__file__).with_name("workers.py")


@pytest.fixture
def database(mongo_server: Mongo, mongo_url: str) -> Iterator[Database[dict[str, Any]]]:
    with mongo_server.connect() as client:
        yield client[mongo_url.rpartition("/")[2].partition("?")[0]]


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    ring = KeyRing.generate()
    ring.save(tmp_path / "keys")
    return ring


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


def assert_consistent(database: Database[dict[str, Any]]) -> None:
    """Each token has its event, each event its token, each version is there once and none is missing."""
    tokens = [*database["tokenkeep_token"].find(), *database["tokenkeep_history"].find()]
    ids = [row.get("id", row["_id"]) for row in tokens]
    noted = [row["token_id"] for row in database["tokenkeep_audit"].find() if row["action"] in {"created", "stored"}]
    assert Counter(noted) == Counter(ids)
    assert max(Counter(ids).values()) == 1
    versions: dict[str, list[int]] = {}
    for row in tokens:
        versions.setdefault(row["user_id"], []).append(row["version"])
    assert all(sorted(found) == list(range(1, len(found) + 1)) for found in versions.values())


@pytest.mark.requirement("R7")
def test_eight_processes_of_25_threads_on_a_cold_key_share_one_login(
    mongo_url: str, keys: KeyRing, database: Database[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "asking").touch()
    options: dict[str, Any] = {"keys": str(tmp_path / "keys"), "folder": str(tmp_path), "threads": 25, "processes": 8}
    answers = [answer(worker) for worker in [start("crowd", url=mongo_url, **options) for _ in range(8)]]
    assert len((tmp_path / "journal").read_text().splitlines()) == 1
    assert len({json.dumps(tokens) for tokens in answers}) == 1
    assert [len(tokens) for tokens in answers] == [1] * 8
    assert database["tokenkeep_token"].count_documents({}) == 1
    with TokenVault.open(mongo_url, keys=keys, providers=[FakeProvider()]) as vault:
        assert vault.statistics("alice").total_usage == 200
    assert_consistent(database)


async def test_a_hundred_tasks_on_a_cold_key_share_one_login(mongo_url: str, keys: KeyRing) -> None:
    provider = FakeProvider()
    async with AsyncTokenVault.open(mongo_url, providers=[provider], keys=keys) as vault:
        tokens = await asyncio.gather(*(vault.get_or_create("alice") for _ in range(100)))
    assert provider.logins == 1
    assert len({token.id for token in tokens}) == 1


@pytest.mark.parametrize("face", ["sync", "async"])
async def test_writers_of_one_user_never_leave_two_tokens_or_lose_one(
    mongo_url: str, face: faces.Face, keys: KeyRing, database: Database[dict[str, Any]]
) -> None:
    async with (
        faces.open_vault(face, mongo_url, providers=[FakeProvider()], keys=keys) as one,
        faces.open_vault(face, mongo_url, providers=[FakeProvider()], keys=keys) as other,
    ):
        jobs = [vault.store("alice", NewToken(f"token-{n}")) for n in range(10) for vault in (one, other)]
        stored = await asyncio.gather(*jobs)
    assert sorted(token.version for token in stored) == list(range(1, 21))
    [active] = database["tokenkeep_token"].find()
    assert active["version"] == 20
    assert_consistent(database)


@pytest.mark.requirement("R7")
def test_a_leader_that_is_killed_is_succeeded_when_its_lease_ends(
    mongo_url: str, keys: KeyRing, database: Database[dict[str, Any]], tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    journal.touch()
    leader = start("stuck_leader", url=mongo_url, keys=str(tmp_path / "keys"), folder=str(tmp_path))
    patience = time.monotonic() + 30
    while not journal.read_text() and time.monotonic() < patience:
        time.sleep(0.01)
    leader.send_signal(signal.SIGKILL)
    leader.communicate()
    database["tokenkeep_lease"].update_one({}, {"$set": {"until": 1}})  # as though its ten seconds were over
    provider = FakeProvider()
    with TokenVault.open(mongo_url, providers=[provider], keys=keys) as vault:
        assert vault.get_or_create("alice").version == 1
    assert provider.logins == 1
    [lease] = database["tokenkeep_lease"].find()
    assert (lease["fence"], lease["owner"]) == (2, None)


def test_a_lease_is_timed_by_the_clock_of_the_server(
    mongo_url: str, keys: KeyRing, database: Database[dict[str, Any]]
) -> None:
    provider = FakeProvider()
    with (
        TokenVault.open(mongo_url, providers=[provider], keys=keys) as vault,
        ThreadPoolExecutor(1) as pool,
        provider.held() as gate,
    ):
        asked = pool.submit(vault.get_or_create, "alice")
        gate.wait_for_a_caller()
        [lease] = database["tokenkeep_lease"].find()
        now = database.command("hello")["localTime"].timestamp() * 1_000_000
        assert 0 < lease["until"] - now <= 10_000_000
        gate.open()
        asked.result(timeout=20)


def test_uses_are_written_by_a_process_that_ends_without_closing(mongo_url: str, keys: KeyRing, tmp_path: Path) -> None:
    assert answer(start("leave_without_closing", url=mongo_url, keys=str(tmp_path / "keys"), uses=5)) == 5
    with TokenVault.open(mongo_url, keys=keys, providers=[FakeProvider()]) as vault:
        assert vault.statistics("alice").total_usage == 5


def test_a_loop_that_ends_without_closing_ends_the_process_at_once_and_quietly(
    mongo_url: str, keys: KeyRing, tmp_path: Path
) -> None:
    """Its last counts are lost (docs/backends.md); the token is not."""
    began = time.monotonic()
    worker = start("leave_a_loop_without_closing", strict=False, url=mongo_url, keys=str(tmp_path / "keys"), uses=5)
    assert answer(worker) == 5
    assert time.monotonic() - began < 8
    with TokenVault.open(mongo_url, keys=keys, providers=[FakeProvider()]) as vault:
        assert vault.get_valid("alice") is not None


def test_a_fork_takes_no_connection_and_no_count_of_its_parent(mongo_url: str, keys: KeyRing, tmp_path: Path) -> None:
    assert answer(start("fork", url=mongo_url, keys=str(tmp_path / "keys"))) == [0, "made-in-the-child"]
    with TokenVault.open(mongo_url, keys=keys, providers=[FakeProvider()]) as vault:
        assert vault.statistics("alice").total_usage == 6


@contextmanager
def failing(server: Mongo, mode: Any, command: str, fault: dict[str, Any]) -> Iterator[None]:
    """Let the server fail a command of tokenkeep's clients, by its own fail points."""
    data = {"failCommands": [command], "appName": "tokenkeep", **fault}
    with server.connect() as client:
        client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)
        try:
            yield
        finally:
            client.admin.command("configureFailPoint", "failCommand", mode="off")


@pytest.mark.requirement("G5")
@pytest.mark.parametrize("command", ["update", "insert", "delete"])
@pytest.mark.parametrize("skip", range(3))
@pytest.mark.parametrize("fault", [{"closeConnection": True}, {"errorCode": 11601}], ids=["cut", "interrupted"])
def test_a_change_that_fails_anywhere_is_whole_or_not_there(
    mongo_server: Mongo,
    mongo_url: str,
    keys: KeyRing,
    database: Database[dict[str, Any]],
    command: str,
    skip: int,
    fault: dict[str, Any],
) -> None:
    url = f"{mongo_url}&timeoutMS=700"
    with TokenVault.open(url, providers=[FakeProvider()], keys=keys) as vault:
        vault.store("alice", NewToken("before"))
        with failing(mongo_server, {"skip": skip}, command, fault):
            for change in (lambda: vault.store("alice", NewToken("after")), lambda: vault.revoke("alice")):
                with suppress(StoreUnavailable):
                    change()
        assert_consistent(database)
        revoked = database["tokenkeep_history"].count_documents({"end_reason": "revoked"})
        assert database["tokenkeep_audit"].count_documents({"action": "revoked"}) == revoked


@pytest.mark.requirement("G5")
@pytest.mark.parametrize("command", ["find", "update", "insert", "delete", "aggregate", "commitTransaction"])
def test_a_connection_that_breaks_once_anywhere_goes_unseen(
    mongo_server: Mongo, mongo_url: str, keys: KeyRing, database: Database[dict[str, Any]], command: str
) -> None:
    with TokenVault.open(mongo_url, providers=[FakeProvider()], keys=keys) as vault:
        vault.store("alice", NewToken("before"))
        with failing(mongo_server, {"times": 1}, command, {"closeConnection": True}):
            assert vault.store("alice", NewToken("after")).version == 2
        with failing(mongo_server, {"times": 1}, command, {"closeConnection": True}):
            assert vault.revoke("alice")
    assert_consistent(database)
    assert database["tokenkeep_token"].count_documents({}) == 0


@pytest.mark.requirement("G5")
def test_a_server_killed_under_load_comes_back_without_half_a_change(mongo_server: Mongo, keys: KeyRing) -> None:
    assert mongo_server.pid
    with Mongo.running("--sync-on-commit") as server:
        url = f"{server.url('load')}&timeoutMS=2000"
        done: list[tuple[str, int]] = []
        stop = threading.Event()

        def write(user: str) -> None:
            with TokenVault.open(url, providers=[FakeProvider()], keys=keys) as vault:
                while not stop.is_set():
                    with suppress(StoreUnavailable):
                        done.append((user, vault.store(user, NewToken("token")).version))

        with ThreadPoolExecutor(4) as pool:
            with TokenVault.open(url, providers=[FakeProvider()], keys=keys) as vault:
                vault.store("first", NewToken("token"))
            writers = [pool.submit(write, f"user {number}") for number in range(4)]
            for _ in range(3):
                seen = len(done)
                while len(done) < seen + 20:
                    time.sleep(0.01)
                server.kill()
                server.restart()
            stop.set()
            for writer in writers:
                writer.result(timeout=60)
        with server.connect() as client:
            database = client["load"]
            assert_consistent(database)
            there = {
                (row["user_id"], row["version"])
                for name in ("tokenkeep_token", "tokenkeep_history")
                for row in database[name].find()
            }
    assert len(done) >= 60
    assert set(done) <= there
