"""Faults in the middle: at any byte of an answer nobody is let in, no connection leaks, no rotation loses a row."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from crowd_control import Workers
from servers.mariadb import MariaDB
from servers.postgres import Postgres
from servers.proxy import FaultProxy
from tokenkeep import AsyncTokenIssuer, IssuedToken, KeyRing, TokenIssuer, TokenVault
from tokenkeep.digest import TokenForm
from tokenkeep.errors import StoreError
from tokenkeep.testing import FakeProvider
from tokenkeep.testing.conformance.issuing import bearer

HOUR = timedelta(hours=1)
USERS = [f"user {number}" for number in range(12)]


@pytest.fixture(params=["postgresql", "mariadb"])
def proxied(request: pytest.FixtureRequest) -> Iterator[tuple[FaultProxy, str, str]]:
    """A proxy, the way through it with no patience for a lost connection, and the way around it."""
    kind = request.param
    server: Postgres | MariaDB = request.getfixturevalue(
        "postgres_server" if kind == "postgresql" else "mariadb_server"
    )
    direct: str = request.getfixturevalue("postgres_url" if kind == "postgresql" else "mariadb_url")
    before, _, after = direct.rpartition(":")
    _, _, database = after.partition("/")
    with FaultProxy(server.port) as proxy:
        bounds = "statement_timeout=2&connect_timeout=2&retry_timeout=0&pool_timeout=2"
        yield proxy, f"{before}:{proxy.port}/{database}?{bounds}", direct


@pytest.mark.requirement("V3")
def test_wherever_an_answer_breaks_off_no_revoked_or_unknown_token_is_let_in(
    proxied: tuple[FaultProxy, str, str],
) -> None:
    proxy, through, direct = proxied
    keys = KeyRing.generate()
    outcomes = {"error": 0, "refused": 0, "good": 0}
    with (
        TokenIssuer.open(direct, lifetime=HOUR, keys=keys) as around,
        TokenIssuer.open(through, lifetime=HOUR, keys=keys) as issuer,
    ):
        good, revoked = around.issue("alice"), around.issue("alice")
        assert issuer.verify(bearer(revoked)) is not None
        around.revoke(revoked)
        unknown = TokenForm("tk", keys=keys).new(good.expires_at).reveal()
        for left in (*range(0, 60, 10), *range(60, 2500, 125)):
            for token in (bearer(revoked), unknown, bearer(good)):
                _let_in(issuer, good)
                proxy.cut_replies_after(left)
                found: IssuedToken | str | None = "error"
                with suppress(StoreError):
                    found = issuer.verify(token)
                proxy.heal()
                if token != bearer(good):
                    assert found in {None, "error"}, left
                else:
                    assert found is not None
                outcomes["error" if found == "error" else "refused" if found is None else "good"] += 1
        assert issuer.verify(bearer(good)) is not None
    assert all(outcomes.values()), outcomes


def _let_in(issuer: TokenIssuer, good: IssuedToken) -> None:
    """Have a connection that works."""
    for _ in range(5):
        with suppress(StoreError):
            assert issuer.verify(bearer(good)) is not None
            return
    pytest.fail("a connection that was cut does not come back")


@pytest.mark.requirement("D6")
@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+asyncpg", "mariadb"])
async def test_a_thousand_cancelled_calls_leak_no_connection(request: pytest.FixtureRequest, driver: str) -> None:
    url: str = request.getfixturevalue("mariadb_url" if driver == "mariadb" else "postgres_url")
    url = f"{driver}{url[url.index(':') :]}?pool_size=4&pool_timeout=10"
    async with AsyncTokenIssuer.open(url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        token = bearer(await issuer.issue("alice"))
        assert await issuer.verify(token) is not None
        pool = issuer._opened._backend.issued._database.engine.pool  # type: ignore[attr-defined]
        kept, cancelled = pool.checkedout(), 0
        for turns in range(100):
            calls = [issuer.verify(token), issuer.issue("bob"), issuer.tokens("alice"), issuer.statistics("bob")]
            tasks: list[asyncio.Future[object]] = [asyncio.ensure_future(call) for call in calls]
            tasks += [asyncio.ensure_future(issuer.verify(token)) for _ in range(6)]
            for _ in range(turns % 25):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            cancelled += sum(isinstance(one, asyncio.CancelledError) for one in ended)
            assert not [one for one in ended if isinstance(one, StoreError)]
        assert cancelled > 300
        found = await asyncio.gather(*(issuer.verify(token) for _ in range(8)), issuer.tokens("alice"))
        assert all(found)
        for _ in range(1000):  # what was cancelled is taken back beside everything else
            if pool.checkedout() == kept:
                break
            await asyncio.sleep(0.01)
        assert pool.checkedout() == kept


# --- a rotation that is killed on PostgreSQL -------------------------------------------------------------


@pytest.mark.requirement("S7")
def test_a_rotation_that_is_killed_anywhere_on_postgresql_loses_no_token(postgres_url: str, tmp_path: Path) -> None:
    keys, provider = KeyRing.generate(), FakeProvider(refresh=True)
    with TokenVault.open(postgres_url, providers=[provider], keys=keys) as vault:
        for user in USERS:
            vault.get_or_create(user)
    with Workers() as workers:
        for kill in range(4):
            keys.add()
            keys.save(tmp_path / "keys")
            worker = workers.start(
                "rotating_worker.py", url=postgres_url, keys=str(tmp_path / "keys"), stop=6 if kill == 3 else 99
            )
            worker.hear(done=2 * kill)
            time.sleep(0.002 * kill)
            worker.signal(signal.SIGKILL)
            assert worker.death() == signal.SIGKILL
            with TokenVault.open(postgres_url, providers=[provider], keys=keys) as vault:
                assert all(vault.get_valid(user) is not None for user in USERS)
    with TokenVault.open(postgres_url, providers=[provider], keys=keys) as vault:
        rotated = vault.rotate_keys()
        assert rotated.resealed == 6
        assert len(rotated.unused) == 4
        for key_id in rotated.unused:
            keys.drop(key_id)
    with TokenVault.open(postgres_url, providers=[provider], keys=keys) as vault:
        tokens = [vault.get_valid(user) for user in USERS]
    assert {token.access_token for token in tokens if token} <= set(provider.granted)
    assert all(token is not None and token.refresh_token is not None for token in tokens)
