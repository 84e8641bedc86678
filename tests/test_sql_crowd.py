"""Many at once, on real servers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from servers.mariadb import MariaDB
from servers.postgres import Postgres
from tokenkeep import AsyncTokenVault, KeyRing, TokenIssuer, TokenVault
from tokenkeep.testing import FakeProvider

PROCESSES, THREADS = 8, 50
WORKERS = Path(__file__).with_name("workers.py")


@pytest.fixture(params=["postgres", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    ring = KeyRing.generate()
    ring.save(tmp_path / "keys")
    return ring


def rows(request: pytest.FixtureRequest, url: str, statement: str) -> list[Any]:
    database = url.rpartition("/")[2]
    if url.startswith("postgresql"):
        postgres: Postgres = request.getfixturevalue("postgres_server")
        with postgres.connect(database) as connection:
            return connection.execute(statement.encode()).fetchall()
    mariadb: MariaDB = request.getfixturevalue("mariadb_server")
    with mariadb.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


@pytest.mark.requirement("R7")
@pytest.mark.usefixtures("keys")
def test_eight_processes_of_fifty_callers_on_a_cold_key_share_one_login(
    request: pytest.FixtureRequest, url: str, tmp_path: Path
) -> None:
    options = {
        "url": url, "keys": str(tmp_path / "keys"), "folder": str(tmp_path), "threads": THREADS, "processes": PROCESSES,
    }  # fmt: skip
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKERS), "crowd", json.dumps(options)],
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("TOKENKEEP_")},
        )
        for _ in range(PROCESSES)
    ]
    answers = {worker.communicate(timeout=90)[0].strip() for worker in workers}
    assert [worker.returncode for worker in workers] == [0] * PROCESSES
    assert len(answers) == 1
    assert len(json.loads(answers.pop())) == 1
    assert len((tmp_path / "journal").read_text().splitlines()) == 1
    assert rows(request, url, "SELECT count(*) FROM tokenkeep_token") == [(1,)]
    assert rows(request, url, "SELECT usage_count FROM tokenkeep_token") == [(PROCESSES * THREADS,)]


async def test_explicit_logins_at_the_same_moment_leave_one_active_row(
    request: pytest.FixtureRequest, url: str, keys: KeyRing
) -> None:
    provider = FakeProvider()
    async with (
        AsyncTokenVault.open(url, providers=[provider], keys=keys) as one,
        AsyncTokenVault.open(url, providers=[provider], keys=keys) as other,
    ):
        await asyncio.gather(*(vault.acquire("alice") for vault in (one, other)))
        assert rows(request, url, "SELECT count(*) FROM tokenkeep_token WHERE active = 1") == [(1,)]


def test_sixteen_threads_that_count_uses_in_two_vaults_lose_none(url: str, keys: KeyRing) -> None:
    with (
        TokenVault.open(url, providers=[FakeProvider()], keys=keys) as one,
        TokenVault.open(url, providers=[FakeProvider()], keys=keys) as other,
    ):
        users = [f"user {number}" for number in range(5)]
        for user in users:
            one.get_or_create(user)

        def use(number: int) -> None:
            vault = (one, other)[number % 2]
            for turn in range(50):
                assert vault.get_valid(users[turn % 5]) is not None
                if turn % 10 == 9:
                    vault.statistics(users[0])  # which writes what was counted

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(use, range(16)))
        one.statistics("user 0")
        other.statistics("user 0")
        assert [one.statistics(user).total_usage for user in users] == [1 + 16 * 10] * 5


def test_the_schema_is_made_once_however_many_open_a_cold_database(url: str, keys: KeyRing) -> None:
    def opened(_: int) -> int | None:
        with TokenVault.open(url, keys=keys) as vault:
            return vault.status().schema_version

    with ThreadPoolExecutor(8) as pool:
        versions = set(pool.map(opened, range(8)))
    assert len(versions) == 1
    assert None not in versions


def test_sessions_that_are_used_and_ended_at_once_do_not_get_in_each_others_way(url: str, keys: KeyRing) -> None:
    with TokenIssuer.open(url, lifetime=timedelta(hours=1), keys=keys) as issuer:
        issued = [issuer.issue("alice", refresh=True) for _ in range(12)]

        def end(number: int) -> int:
            if number % 3:
                return int(issuer.revoke(issued[number]))
            return issuer.revoke_all("alice", keep=issued[11])

        with ThreadPoolExecutor(12) as pool:
            list(pool.map(end, range(11)))
        assert {token.id for token in issuer.tokens("alice")} == {issued[11].id}
