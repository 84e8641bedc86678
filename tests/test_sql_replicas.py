"""What is asked of which server, where a standby answers reports."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from servers.postgres import Postgres
from servers.postgres_standby import Pair, replicated
from servers.proxy import FaultProxy
from sql_ways import WAYS, Way
from tokenkeep import KeyRing, NewToken
from tokenkeep.errors import ConfigurationError, StoreUnavailable
from tokenkeep.model import Action
from tokenkeep.stores.sql.opening import open_mariadb, open_postgresql
from tokenkeep.stores.sql.servers import replica
from tokenkeep.stores.sql.servers.address import Address
from tokenkeep.testing import faces

HOUR = timedelta(hours=1)
KEYS = KeyRing.generate()
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
DECIDING = (
    "sealed",
    "digest",
    "key_id",
    "version)",
    "tokenkeep_lease",
    "tokenkeep_key",
    "tokenkeep_step",
    "tokenkeep_meta",
)
"""What stands in every statement that decides something, and in no report."""


@pytest.fixture(scope="module")
def servers(postgres_server: Postgres) -> Iterator[Pair]:  # noqa: ARG001  # where one runs, two do
    with replicated() as pair:
        yield pair


class Lagging:
    """A database whose standby knows of one token of alice and of nothing later."""

    def __init__(self, pair: Pair, driver: str) -> None:
        self.pair = pair
        self.database = pair.primary.database()
        self.driver = driver
        self.primary = pair.primary.port
        self.standby = pair.standby.port

    def url(self, hosts: str, **options: str) -> str:
        before, _, _ = self.database.url.rpartition("@")
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"{before}@{hosts}/{self.database.name}?{query}".replace("postgresql", self.driver, 1)

    @property
    def reporting(self) -> str:
        return self.url(f"127.0.0.1:{self.primary}", replica=f"127.0.0.1:{self.standby}")


@pytest.fixture(params=[way for way in WAYS if way[1].startswith("postgresql")], ids="-".join)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture
def face(way: Way) -> faces.Face:
    return way[0]


@pytest.fixture
async def lagging(servers: Pair, way: Way) -> Any:
    lagging = Lagging(servers, way[1])
    async with faces.open_vault(way[0], lagging.url(f"127.0.0.1:{lagging.primary}"), keys=KEYS) as vault:
        await vault.store("alice", NewToken("first"), provider="p")
    servers.standby.catch_up()
    servers.standby.pause_replay()
    yield lagging
    with servers.standby.connect() as connection:
        connection.execute("SELECT pg_wal_replay_resume()")
    servers.primary.drop(lagging.database)


def test_only_a_primary_can_be_asked_for() -> None:
    from tokenkeep.stores.sql.servers import postgresql  # noqa: PLC0415  # as an opening does

    for wanted in ("any", "standby", "prefer-standby", "read-only"):
        address = Address.read(f"postgresql://h1,h2/x?target_session_attrs={wanted}", "")
        with pytest.raises(ConfigurationError, match="replica=host"):
            postgresql.Link(address, asynchronous=False)


def test_hosts_and_replicas_are_read_with_their_usual_ports() -> None:
    one = Address.read("postgresql+asyncpg://u:p%40w@h1,h2:6000/x?replica=h3,h4:6001&application_name=a", "")
    assert one.places == (("h1", 5432), ("h2", 6000))
    reporting = one.of_replica()
    assert reporting is not None
    assert reporting.places == (("h3", 5432), ("h4", 6001))
    assert (reporting.url.password, reporting.url.database, reporting.options) == ("p@w", "x", one.options)
    assert reporting.hosts == ("h3", "h4")
    assert reporting.of_replica() is None
    other = Address.read("mariadb://u@h1,h2/x?replica=h3", "").of_replica()
    assert other is not None
    assert other.places == (("h3", 3306),)
    assert Address.read("mariadb://u@h1,h2/x", "").places == (("h1", 3306), ("h2", 3306))
    assert Address.read("mariadb://u@h1:4000/x", "").places == (("h1", 4000),)


@pytest.mark.parametrize("scheme", ["postgresql", "mariadb"])
def test_a_link_to_a_replica_that_is_not_verified_is_said(scheme: str) -> None:
    opener = {"postgresql": open_postgresql, "mariadb": open_mariadb}[scheme]
    for hosts, said in (("127.0.0.1", 0), ("127.0.0.1/x?replica=far.example", 1)):
        url = f"{scheme}://u@{hosts}" if "/" in hosts else f"{scheme}://u@{hosts}/x"
        health: Any = opener(url, asynchronous=False, actor="a", clock=None).backend.health
        assert len(health._link) == said


async def test_a_standby_that_is_named_first_is_passed_over(face: faces.Face, lagging: Lagging) -> None:
    both = lagging.url(f"127.0.0.1:{lagging.standby},127.0.0.1:{lagging.primary}")
    before = len(lagging.pair.standby.log.read_text())
    async with (
        faces.open_vault(face, both, keys=KEYS) as vault,
        faces.open_issuer(face, both, lifetime=HOUR, keys=KEYS) as issuer,
    ):
        for number in range(6):
            token = await vault.store("alice", NewToken(f"new {number}"), provider="p")
            read = await vault.get_valid("alice", provider="p")
            assert read is not None
            assert read.version == token.version
            issued = await issuer.issue("alice")
            assert issued.token is not None
            assert await issuer.verify(issued.token) is not None
            await issuer.revoke(issued)
            assert await issuer.verify(issued.token) is None
    assert "tokenkeep_" not in lagging.pair.standby.log.read_text()[before:]


async def test_a_standby_alone_is_refused_with_the_way_out(face: faces.Face, lagging: Lagging) -> None:
    alone = lagging.url(f"127.0.0.1:{lagging.standby}", retry_timeout="0")
    with pytest.raises(StoreUnavailable, match="name the primary, or every host"):
        async with faces.open_issuer(face, alone, lifetime=HOUR) as issuer:
            await issuer.statistics("alice")


@pytest.mark.requirement("K1")
async def test_reports_may_come_from_a_replica_and_nothing_that_decides_does(
    face: faces.Face, lagging: Lagging
) -> None:
    logs = lagging.pair.standby.log, lagging.pair.primary.log
    async with (
        faces.open_vault(face, lagging.reporting, keys=KEYS) as vault,
        faces.open_issuer(face, lagging.reporting, lifetime=HOUR, keys=KEYS) as issuer,
    ):
        before = [len(log.read_text()) for log in logs]
        issued = await issuer.issue("alice")
        assert issued.token is not None
        token = await vault.store("alice", NewToken("second"), provider="p")
        read = await vault.get_valid("alice", provider="p")
        assert read is not None
        assert read.version == token.version
        assert await issuer.verify(issued.token) is not None
        assert [session.id for session in await issuer.tokens("alice")] == [issued.id]
        assert await issuer.revoke(issued) is True
        assert await issuer.verify(issued.token) is None
        await vault.reject(token)
        assert await vault.get_valid("alice", provider="p") is None
        assert await vault.revoke("alice", provider="p") is True
        await vault.rotate_keys()
        assert (await vault.status()).healthy
        # the past, as the standby knows it
        assert [info.version for info in await vault.history("alice", provider="p")] == [1]
        assert (await vault.statistics("alice", provider="p")).active_tokens == 1
        assert len(await vault.created_between(LONG_AGO, datetime.now(UTC) + HOUR)) == 1
        assert [event.action for event in await vault.audit_trail("alice")] == [Action.STORED]
        assert (await vault.dashboard("alice", provider="p")).statistics.total_tokens == 1
        assert await issuer.audit_trail("alice") != []
        assert (await issuer.statistics("alice")).total_tokens == 0
    of_standby, of_primary = (log.read_text()[start:] for log, start in zip(logs, before, strict=True))
    assert [word for word in DECIDING if word in of_standby] == []
    assert of_standby.count("ORDER BY tokenkeep_audit.id DESC") == 3
    assert "ORDER BY tokenkeep_audit.id DESC" not in of_primary
    assert [word for word in DECIDING[:2] if word not in of_primary] == []


async def test_a_replica_that_is_down_leaves_its_work_to_the_primary_until_it_is_back(
    face: faces.Face, lagging: Lagging, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultProxy(lagging.standby) as proxy, caplog.at_level(logging.WARNING, "tokenkeep"):
        url = lagging.url(f"127.0.0.1:{lagging.primary}", replica=f"127.0.0.1:{proxy.port}")
        async with faces.open_vault(face, url, keys=KEYS) as vault:
            await vault.store("alice", NewToken("second"), provider="p")
            assert len(await vault.history("alice", provider="p")) == 1
            proxy.refuse()
            with monkeypatch.context() as restless:
                restless.setattr(replica, "RESTS", 0.0)
                for _ in range(3):
                    assert len(await vault.history("alice", provider="p")) == 2
            said = [record.getMessage() for record in caplog.records if "replica" in record.getMessage()]
            assert len(said) == 1
            assert "the primary answers" in said[0]
            status = await vault.status()
            assert [(tier.name, tier.healthy) for tier in status.tiers] == [("postgresql", True), ("replica", False)]
            proxy.heal()
            assert len(await vault.history("alice", provider="p")) == 2, "it rests for a moment"
            assert (await vault.status()).healthy
            assert len(await vault.history("alice", provider="p")) == 1


async def test_a_first_host_that_is_silent_takes_its_own_time_and_no_more(face: faces.Face, lagging: Lagging) -> None:
    with FaultProxy(lagging.primary) as proxy:
        proxy.black_hole()
        hosts = f"127.0.0.1:{proxy.port},127.0.0.1:{lagging.primary}"
        async with faces.open_vault(face, lagging.url(hosts, connect_timeout="1"), keys=KEYS) as vault:
            assert await vault.get_valid("alice", provider="p") is not None
