"""Three MariaDB nodes that all take writes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event

from crowd_control import Workers
from servers.common import Database
from servers.galera import Cluster, Node
from servers_plugin import started
from sql_emptying import used_in_mariadb
from sql_ways import shown
from tokenkeep import KeyRing, NewToken, TokenIssuer, TokenVault
from tokenkeep.errors import StoreUnavailable
from tokenkeep.testing import FakeProvider, faces

HOUR = timedelta(hours=1)
WORKERS = Path(__file__).with_name("workers.py")
PROCESSES, THREADS = 6, 20
LONGEST = 20 + 20 + 3 * 3 + 4
"""What docs/scaling.md promises for the bounds below, and four seconds for a busy machine."""

running = contextmanager(started)
FACES: tuple[faces.Face, ...] = ("sync", "async")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ExitStack() as stack:
        nodes: list[Node] = []
        for _ in range(3):
            nodes.append(stack.enter_context(running(Node(nodes[0] if nodes else None))))
        cluster = Cluster(tuple(nodes))
        cluster.wait_for(3)
        yield cluster


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> Iterator[Database]:
    database = cluster.nodes[0].database()
    yield database
    cluster.nodes[0].drop(database)


@pytest.fixture
def urls(cluster: Cluster, database: Database) -> Iterator[list[str]]:
    """One URL for each node; afterwards nobody is connected to the first, and the tables are empty."""
    for _ in used_in_mariadb(cluster.nodes[0], database):
        yield [node.url(database.name) for node in cluster.nodes]


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    ring = KeyRing.generate()
    ring.save(tmp_path / "keys")
    return ring


def asked(node: Node, database: Database, statement: str) -> list[Any]:
    with node.connect(database.name) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


@pytest.mark.requirement("R7")
@pytest.mark.usefixtures("keys")
def test_processes_spread_over_three_nodes_share_one_login(
    cluster: Cluster, database: Database, urls: list[str], tmp_path: Path
) -> None:
    crew = []
    for number in range(PROCESSES):
        options = {
            "url": urls[number % 3], "keys": str(tmp_path / "keys"), "folder": str(tmp_path), "threads": THREADS,
            "processes": PROCESSES,
        }  # fmt: skip
        crew.append(
            subprocess.Popen(
                [sys.executable, str(WORKERS), "crowd", json.dumps(options)],
                stdout=subprocess.PIPE,
                text=True,
                env={name: value for name, value in os.environ.items() if not name.startswith("TOKENKEEP_")},
            )
        )
    answers = {worker.communicate(timeout=90)[0].strip() for worker in crew}
    assert [worker.returncode for worker in crew] == [0] * PROCESSES
    assert len(answers) == 1
    assert len(json.loads(answers.pop())) == 1
    assert len((tmp_path / "journal").read_text().splitlines()) == 1
    assert asked(cluster.nodes[2], database, "SELECT count(*), sum(usage_count) FROM tokenkeep_token") == [
        (1, PROCESSES * THREADS)
    ]


def test_the_tables_are_made_once_whichever_nodes_are_asked(cluster: Cluster) -> None:
    for _ in range(2):
        database = cluster.nodes[0].database()

        def opened(number: int, name: str = database.name) -> int | None:
            with TokenIssuer.open(cluster.nodes[number % 3].url(name), lifetime=HOUR) as issuer:
                issuer.issue("alice")
                return issuer.status().schema_version

        with ThreadPoolExecutor(6) as pool:
            assert None not in set(pool.map(opened, range(6)))
        assert asked(cluster.nodes[1], database, "SELECT count(*) FROM tokenkeep_issued") == [(6,)]
        cluster.nodes[0].drop(database)


def test_writers_of_one_row_on_three_nodes_are_undone_and_tried_again_unseen(
    cluster: Cluster, urls: list[str], keys: KeyRing
) -> None:
    before = conflicts(cluster)
    vaults = [TokenVault.open(url, providers=[FakeProvider()], keys=keys) for url in urls]
    rounds = 25
    with vaults[0], vaults[1], vaults[2]:
        vaults[0].get_or_create("alice")

        def work(number: int) -> None:
            vault = vaults[number % 3]
            for _ in range(rounds):
                assert vault.get_valid("alice") is not None
                vault.statistics("alice")  # which writes what was counted

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        assert vaults[1].statistics("alice").total_usage == 1 + 6 * rounds
    assert conflicts(cluster) > before, "the nodes never got in each other's way"


def conflicts(cluster: Cluster) -> int:
    names = ("wsrep_local_cert_failures", "wsrep_local_bf_aborts")
    return sum(int(node.status(name)) for node in cluster.nodes for name in names)


@pytest.mark.requirement("K1")
@pytest.mark.parametrize("face", FACES)
async def test_what_one_node_acknowledged_another_never_denies(
    face: faces.Face, cluster: Cluster, urls: list[str]
) -> None:
    """The second node holds up what comes from the others, so that it does not know yet."""
    async with (
        faces.open_issuer(face, urls[0], lifetime=HOUR) as here,
        faces.open_issuer(face, urls[1], lifetime=HOUR) as there,
    ):
        issued = await here.issue("alice")
        assert await there.verify(shown(issued)) is not None
        with cluster.nodes[1].connect() as connection, connection.cursor() as cursor:
            cursor.execute("FLUSH TABLES WITH READ LOCK")
            try:
                assert await here.revoke(issued) is True
                answer = asyncio.ensure_future(there.verify(shown(issued)))
                await asyncio.wait([answer], timeout=0.3)
                assert not answer.done(), "it answered before it could know"
            finally:
                cursor.execute("UNLOCK TABLES")
        assert await answer is None


@pytest.mark.parametrize("face", FACES)
async def test_reports_are_asked_of_the_replica_and_what_decides_is_not(
    face: faces.Face, cluster: Cluster, database: Database, urls: list[str]
) -> None:
    there = cluster.nodes[1]
    asked(there, database, "SET GLOBAL log_output = 'TABLE', general_log = ON")
    try:
        url = f"{urls[0]}?replica={there.host}:{there.port}"
        async with faces.open_vault(face, url, keys=KeyRing.generate()) as vault:
            token = await vault.store("alice", NewToken("a"), provider="p")
            assert await vault.get_valid("alice", provider="p") is not None
            assert [info.id for info in await vault.history("alice", provider="p")] == [token.id]
            assert len(await vault.audit_trail("alice")) == 1
            assert [tier.name for tier in (await vault.status()).tiers] == ["mariadb", "replica"]
    finally:
        asked(there, database, "SET GLOBAL general_log = OFF")
    log = "SELECT argument FROM mysql.general_log WHERE command_type = 'Query' AND argument LIKE '%tokenkeep\\_%'"
    asked_there = [text.decode() if isinstance(text, bytes) else text for [text] in asked(there, database, log)]
    asked(there, database, "TRUNCATE mysql.general_log")
    assert any("FROM tokenkeep_audit" in text for text in asked_there)
    assert [text for text in asked_there if "sealed" in text or "tokenkeep_lease" in text] == []


@pytest.mark.parametrize("face", FACES)
async def test_a_read_only_server_is_passed_over_where_there_are_others(
    face: faces.Face,
    cluster: Cluster,
    database: Database,
    urls: list[str],  # noqa: ARG001  # which empties the tables
) -> None:
    read_only = cluster.nodes[1]
    asked(read_only, database, "SET GLOBAL read_only = ON")
    try:
        async with faces.open_issuer(face, several(cluster, database, 1), lifetime=HOUR) as issuer:
            await issuer.issue("alice")
            others = "SELECT * FROM information_schema.processlist WHERE db = database() AND id <> connection_id()"
            assert asked(read_only, database, others) == []
    finally:
        asked(read_only, database, "SET GLOBAL read_only = OFF")


def test_a_lent_engine_on_a_cluster_is_told_what_it_lacks(urls: list[str], keys: KeyRing) -> None:
    engine = create_engine(urls[0].replace("mariadb:", "mariadb+pymysql:"))
    with TokenVault.open(engine, keys=keys) as vault:
        assert [text for text in vault.status().warnings if "wsrep_sync_wait" in text] != []
    engine.dispose()

    @event.listens_for(engine, "connect")
    def _set(connection: Any, _: object) -> None:
        connection.cursor().execute("SET SESSION wsrep_sync_wait = 7")

    with TokenVault.open(engine, keys=keys) as vault:
        assert [text for text in vault.status().warnings if "wsrep_sync_wait" in text] == []
    engine.dispose()
    with TokenVault.open(urls[0], keys=keys) as vault:
        assert [text for text in vault.status().warnings if "wsrep_sync_wait" in text] == []


def several(cluster: Cluster, database: Database, first: int) -> str:
    """Return a URL that names all nodes, in an order of its own."""
    order = [cluster.nodes[(first + step) % 3] for step in range(3)]
    alone = order[0].url(database.name)
    return alone.replace(f"{order[0].host}:{order[0].port}", ",".join(f"{node.host}:{node.port}" for node in order))


async def test_a_node_that_is_cut_off_from_the_others_answers_nothing_and_is_left_for_another(
    cluster: Cluster, database: Database, urls: list[str]
) -> None:
    cut_off = cluster.nodes[2]
    async with (
        faces.open_issuer("sync", several(cluster, database, 2), lifetime=HOUR) as sync,
        faces.open_issuer("async", several(cluster, database, 2), lifetime=HOUR) as asynchronous,
        faces.open_issuer("async", f"{urls[2]}?retry_timeout=0", lifetime=HOUR) as alone,
    ):
        issued = [await issuer.issue("alice") for issuer in (sync, asynchronous, alone)]
        try:
            isolate(cut_off, "1")
            with pytest.raises(StoreUnavailable, match="not part of its cluster"):
                await alone.verify(shown(issued[2]))
            for issuer in (sync, asynchronous):
                for one in issued:
                    assert await issuer.verify(shown(one)) is not None
                assert await issuer.revoke(await issuer.issue("bob")) is True
        finally:
            isolate(cut_off, "0")
            cluster.wait_for(3)
        assert await alone.verify(shown(issued[2])) is not None


def isolate(node: Node, how: str) -> None:
    with node.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"SET GLOBAL wsrep_provider_options = 'gmcast.isolate={how}'")
    end = time.monotonic() + 60
    while how == "1" and node.status("wsrep_ready") != "OFF":
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.requirement("K4")
def test_a_node_is_killed_while_they_work_and_the_others_go_on(
    cluster: Cluster, database: Database, keys: KeyRing, tmp_path: Path
) -> None:
    """The last test of this cluster: the node stays dead."""
    bounds = "retry_timeout=20&statement_timeout=20&connect_timeout=3&pool_size=4"
    with Workers() as crew:
        workers = [
            crew.start(
                "failover_worker.py",
                url=f"{several(cluster, database, number % 3)}?{bounds}",
                keys=str(tmp_path / "keys"),
                face=FACES[number % 2],
                number=number,
            )
            for number in range(4)
        ]
        for worker in workers:
            worker.hear(working=True)
        cluster.nodes[2].kill()
        for worker in workers:
            worker.tell("failed")
        for worker in workers:
            worker.hear(recovered=True)
            worker.leave()
        told: list[dict[str, Any]] = [worker.everything("told")[0] for worker in workers]
    assert [wrong for one in told for wrong in one["wrong"]] == []
    assert max(one["longest"] for one in told) < LONGEST
    url = cluster.nodes[1].url(database.name)
    with TokenVault.open(url, keys=keys) as vault, TokenIssuer.open(url, lifetime=HOUR, keys=keys) as issuer:
        for one in told:
            for user, text in one["stored"].items():
                read = vault.get_valid(user, provider="p")
                assert read is not None
                assert read.access_token.reveal() == text
            assert [token for token in one["revoked"] if issuer.verify(token) is not None] == []
            assert [token for token in one["alive"] if issuer.verify(token) is None] == []
