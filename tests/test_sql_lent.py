"""An engine of the caller's is used and left as it was."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tokenkeep import AsyncTokenIssuer, AsyncTokenVault, KeyRing, TokenIssuer, TokenVault
from tokenkeep.errors import ConfigurationError
from tokenkeep.testing import FakeProvider

HOUR = timedelta(hours=1)


@pytest.fixture(params=["postgresql+psycopg", "mariadb+pymysql"])
def sync_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue("postgres_url" if "postgres" in request.param else "mariadb_url")
    return f"{request.param}{url[url.index('://') :]}"


@pytest.fixture(params=["postgresql+psycopg", "postgresql+asyncpg", "mariadb+asyncmy"])
def async_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue("postgres_url" if "postgres" in request.param else "mariadb_url")
    return f"{request.param}{url[url.index('://') :]}"


def test_an_engine_serves_both_services_and_stays_open(sync_url: str) -> None:
    engine, keys = create_engine(sync_url), KeyRing.generate()
    with TokenVault.open(engine, providers=[FakeProvider()], keys=keys) as vault:
        token = vault.get_or_create("alice")
        read = vault.get_valid("alice")
        assert read is not None
        assert read.id == token.id
    with TokenIssuer.open(engine, lifetime=HOUR, keys=keys) as issuer:
        issued = issuer.issue("alice")
        assert issued.token is not None
        assert issuer.verify(issued.token) is not None
    assert engine.pool.checkedin() > 0  # type: ignore[attr-defined]  # the pools that these engines have
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM tokenkeep_token")).scalar() == 1
        assert not connection.get_execution_options()
    assert not any(vars(engine.dispatch).get(hook) for hook in ("do_connect", "begin"))
    engine.dispose()


async def test_an_async_engine_serves_both_services_and_stays_open(async_url: str) -> None:
    engine, keys = create_async_engine(async_url), KeyRing.generate()
    async with AsyncTokenVault.open(engine, providers=[FakeProvider()], keys=keys) as vault:
        await vault.get_or_create("alice")
        assert await vault.get_valid("alice") is not None
    async with AsyncTokenIssuer.open(engine, lifetime=HOUR, keys=keys) as issuer:
        issued = await issuer.issue("alice")
        assert issued.token is not None
        assert await issuer.verify(issued.token) is not None
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM tokenkeep_token"))).scalar() == 1
    await engine.dispose()


def test_an_engine_of_the_wrong_kind_is_refused_with_the_right_one() -> None:
    asynchronous: AsyncEngine = create_async_engine("postgresql+psycopg://localhost/x")
    with pytest.raises(ConfigurationError, match="Engine, not AsyncEngine"):
        TokenVault.open(asynchronous, keys=KeyRing.generate())


@pytest.mark.parametrize("service", [AsyncTokenVault, AsyncTokenIssuer])
async def test_a_sync_engine_is_refused_by_the_async_face(service: Any) -> None:
    engine: Engine = create_engine("postgresql+psycopg://localhost/x")
    options = {"lifetime": HOUR} if service is AsyncTokenIssuer else {}
    with pytest.raises(ConfigurationError, match="AsyncEngine, not Engine"):
        service.open(engine, keys=KeyRing.generate(), **options)


def test_a_sqlite_engine_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigurationError, match="give the URL instead"):
        TokenVault.open(create_engine("sqlite://"), keys=KeyRing.generate())


def test_what_is_no_engine_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="not object"):
        TokenVault.open(object(), keys=KeyRing.generate())  # type: ignore[arg-type]  # which is the point
