from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
import redis
from pymongo import MongoClient

from servers import common
from servers.common import Died, Missing, Server, program, service_ids
from servers.mariadb import MariaDB
from servers.mongo import Mongo
from servers.postgres import Postgres
from servers.proxy import FaultProxy
from servers.redis_server import Redis

TESTS = Path(__file__).parent


@pytest.fixture(params=["postgres", "mariadb", "redis", "mongo"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


def test_postgres_answers_and_each_database_is_empty(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_user_tables").fetchone()
        durable = connection.execute("SHOW synchronous_commit").fetchone()
    assert row == (0,)
    assert durable == ("on",)


def test_postgres_refuses_a_wrong_password(postgres_url: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres_url.replace(Postgres.password, "wrong"))


def test_mariadb_answers_and_each_database_is_empty(mariadb_server: MariaDB) -> None:
    database = mariadb_server.database()
    with mariadb_server.connect(database.name) as connection, connection.cursor() as cursor:
        assert cursor.execute("SHOW TABLES") == 0
    mariadb_server.drop(database)
    with pytest.raises(pymysql.OperationalError, match="Unknown database"):
        mariadb_server.connect(database.name)


def test_redis_answers_and_each_database_is_empty(redis_server: Redis) -> None:
    first, second = redis_server.database(), redis_server.database()
    assert first != second
    with redis.Redis.from_url(first.url) as one, redis.Redis.from_url(second.url) as other:
        one.set("a", "b")
        assert other.dbsize() == 0
        redis_server.drop(first)
        assert one.dbsize() == 0


def test_mongo_answers_and_each_database_is_empty(mongo_url: str) -> None:
    with closing(MongoClient[dict[str, Any]](mongo_url)) as client:
        database = client.get_default_database()
        assert database.list_collection_names() == []
        database["things"].insert_one({"_id": 1})
        assert database["things"].count_documents({}) == 1
        assert client.admin.command("hello")["setName"]


def test_a_server_belongs_to_nobody_but_this_run(server: Server) -> None:
    assert server.host == "127.0.0.1"
    assert server.folder.stat().st_mode & 0o077 == 0
    assert server.folder.stat().st_uid == (server.ids[0] if server.ids else os.geteuid())
    assert (server.run_as == ()) == (server.ids is None) or os.geteuid() != 0


@pytest.mark.parametrize("make", [Postgres, MariaDB, Redis, lambda: Mongo("--sync-on-commit")])
def test_a_server_that_was_killed_comes_back_with_what_it_held(
    request: pytest.FixtureRequest, make: Callable[[], Server]
) -> None:
    server = make()
    request.getfixturevalue(f"{server.name}_server")  # skips where there is none
    server.start()
    try:
        database = server.database()
        write(server, database.name)
        server.kill()
        with pytest.raises(Exception, match=r"(?i)refused|connect"):
            server.ask()
        server.restart()
        assert read(server, database.name) == 7
        folder, pid = server.folder, server.pid
    finally:
        server.stop()
    assert not folder.exists()
    assert gone(pid)


def write(server: Server, name: str) -> None:
    if isinstance(server, Postgres):
        with server.connect(name) as connection:
            connection.execute("CREATE TABLE t AS SELECT 7 AS n")
    elif isinstance(server, MariaDB):
        with server.connect(name) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE t AS SELECT 7 AS n")
    elif isinstance(server, Redis):
        with server.connect(int(name)) as client:
            client.set("n", 7)
    elif isinstance(server, Mongo):
        with server.connect() as client:
            client[name]["t"].insert_one({"n": 7})


def read(server: Server, name: str) -> int | None:
    if isinstance(server, Postgres):
        with server.connect(name) as connection:
            row = connection.execute("SELECT n FROM t").fetchone()
        return None if row is None else int(row[0])
    if isinstance(server, MariaDB):
        with server.connect(name) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT n FROM t")
            [(number,)] = cursor.fetchall()
        return int(number)
    if isinstance(server, Redis):
        with server.connect(int(name)) as client:
            return int(client.get("n"))
    assert isinstance(server, Mongo)
    with server.connect() as client:
        return int((client[name]["t"].find_one() or {})["n"])


def gone(pid: int, within: float = 15) -> bool:
    patience = time.monotonic() + within
    while time.monotonic() < patience:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


DYING_RUN = """
import sys
sys.path.insert(0, sys.argv[1])
from servers.redis_server import Redis
server = Redis()
server.start()
print(server.pid, server.folder, flush=True)
sys.stdin.read()
"""


def test_a_run_that_is_killed_leaves_no_server_and_no_folder(redis_server: Redis) -> None:
    assert redis_server.pid
    run = subprocess.Popen(
        [sys.executable, "-c", DYING_RUN, str(TESTS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with run:
        assert run.stdout is not None
        pid, folder = run.stdout.readline().split()
        assert Path(folder).is_dir()
        run.send_signal(signal.SIGKILL)
    assert gone(int(pid))
    patience = time.monotonic() + 15
    while Path(folder).exists() and time.monotonic() < patience:
        time.sleep(0.02)
    assert not Path(folder).exists()


def test_a_server_that_cannot_start_says_why(redis_server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    assert redis_server.pid
    monkeypatch.setattr(common, "ATTEMPTS", 1)
    with pytest.raises(Died, match="no-such-option"), Redis.running("--no-such-option", "1"):
        pass


def test_a_program_that_is_not_installed_is_missing() -> None:
    with pytest.raises(Missing, match="no-such-server is not installed"):
        program("no-such-server")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs a server as somebody else")
def test_root_runs_a_server_as_an_ordinary_user() -> None:
    ids = service_ids("no-such-user")
    assert ids is not None
    assert ids[0] != 0


# --- the proxy ---------------------------------------------------------------------------------------


@pytest.fixture
def through(redis_server: Redis) -> Iterator[tuple[FaultProxy, socket.socket]]:
    """A proxy before Redis, and a connection through it that never reconnects by itself."""
    with FaultProxy(redis_server.port) as proxy, socket.create_connection((proxy.host, proxy.port), 5) as connection:
        assert say(connection, b"PING") == b"+PONG\r\n"
        yield proxy, connection


def say(connection: socket.socket, line: bytes) -> bytes:
    connection.sendall(line + b"\r\n")
    return connection.recv(100_000)


def dead(connection: socket.socket) -> bool:
    try:
        return say(connection, b"PING") == b""
    except ConnectionError:
        return True


def test_the_proxy_lets_through_what_it_was_not_told_to_spoil(through: Any) -> None:
    proxy, connection = through
    assert say(connection, b"SET through yes") == b"+OK\r\n"
    assert say(connection, b"GET through") == b"$3\r\nyes\r\n"
    assert proxy.connections == 1


def test_the_proxy_cuts_what_is_open(through: Any) -> None:
    proxy, connection = through
    proxy.cut()
    assert dead(connection)
    with socket.create_connection((proxy.host, proxy.port), 5) as another:
        assert say(another, b"PING") == b"+PONG\r\n"


def test_the_proxy_refuses_and_heals(through: Any) -> None:
    proxy, _ = through
    proxy.refuse()
    with socket.create_connection((proxy.host, proxy.port), 5) as refused:
        assert dead(refused)
    proxy.heal()
    with socket.create_connection((proxy.host, proxy.port), 5) as another:
        assert say(another, b"PING") == b"+PONG\r\n"


def test_the_proxy_is_a_black_hole(through: Any) -> None:
    proxy, connection = through
    connection.settimeout(0.1)
    proxy.black_hole()
    with pytest.raises(TimeoutError):
        say(connection, b"PING")
    proxy.heal()
    connection.settimeout(5)
    assert connection.recv(100) == b"+PONG\r\n"


def test_the_proxy_loses_a_reply_to_what_was_done(through: Any, redis_server: Redis) -> None:
    proxy, connection = through
    connection.settimeout(0.5)
    proxy.lose_replies()
    with pytest.raises(TimeoutError):
        say(connection, b"SET done yes")
    with redis_server.connect() as client:
        assert client.get("done") == b"yes"


def test_the_proxy_cuts_in_the_middle_of_a_reply(through: Any) -> None:
    proxy, connection = through
    say(connection, b"SET long " + b"x" * 1000)
    proxy.cut_replies_after(100)
    received = b""
    with suppress(ConnectionError):
        connection.sendall(b"GET long\r\n")
        while data := connection.recv(100_000):
            received += data
    assert len(received) <= 100


def test_the_proxy_is_slow(through: Any) -> None:
    proxy, connection = through
    proxy.latency(0.03)
    began = time.monotonic()
    say(connection, b"PING")
    assert time.monotonic() - began >= 0.06
