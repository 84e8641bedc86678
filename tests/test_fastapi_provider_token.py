from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI

from fastapi_apps import bearing, client
from tokenkeep import AcquiredToken, AsyncTokenIssuer, AsyncTokenVault, KeyRing
from tokenkeep.errors import (
    AcquireInDoubt,
    ConfigurationError,
    ProviderRejected,
    ProviderUnavailable,
)
from tokenkeep.fastapi import Bearer, ProviderToken
from tokenkeep.testing import FakeProvider

KEYS = KeyRing.generate()


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[AsyncTokenIssuer]:
    async with AsyncTokenIssuer.open(f"sqlite:///{tmp_path}/app.db", lifetime=timedelta(hours=1), keys=KEYS) as issuer:
        yield issuer


@pytest.fixture
async def vault(tmp_path: Path, fake_provider: FakeProvider) -> AsyncIterator[AsyncTokenVault]:
    url = f"sqlite:///{tmp_path}/app.db"
    async with AsyncTokenVault.open(url, providers=[fake_provider], keys=KEYS) as vault:
        yield vault


@pytest.fixture
def app(issuer: AsyncTokenIssuer, vault: AsyncTokenVault) -> FastAPI:
    app = FastAPI()
    bearer = Bearer(issuer)

    @app.get("/funds")
    async def funds(token: Annotated[AcquiredToken, Depends(ProviderToken(vault, bearer))]) -> str:
        return token.user_id

    @app.get("/desk")
    async def desk(
        token: Annotated[
            AcquiredToken,
            Depends(ProviderToken(vault, bearer, scopes={"desk"}, user_id=lambda who: f"desk of {who.user_id}")),
        ],
    ) -> str:
        return token.user_id

    @app.get("/elsewhere")
    async def elsewhere(
        token: Annotated[AcquiredToken, Depends(ProviderToken(vault, bearer, provider="unknown"))],
    ) -> str:
        return token.user_id

    return app


@pytest.mark.requirement("Z3")
async def test_an_endpoint_gets_the_provider_token_of_whoever_asks(
    app: FastAPI, issuer: AsyncTokenIssuer, fake_provider: FakeProvider
) -> None:
    alice, bob = await issuer.issue("alice"), await issuer.issue("bob", scopes={"desk"})
    async with client(app) as http:
        for _ in range(2):
            assert (await http.get("/funds", headers=bearing(alice))).json() == "alice"
        assert (await http.get("/funds?user_id=alice", headers=bearing(bob))).json() == "bob"
        assert (await http.get("/desk", headers=bearing(bob))).json() == "desk of bob"
        assert (await http.get("/desk", headers=bearing(alice))).status_code == 403
        assert (await http.get("/funds")).status_code == 401
    assert fake_provider.calls == ("alice", "bob", "desk of bob")


@pytest.mark.requirement("G4")
@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (ProviderRejected("PIN 123456 is wrong", provider="fake"), 502, None),
        (ProviderUnavailable("PIN 123456", provider="fake", retry_after=timedelta(seconds=90.5)), 503, "91"),
        (ProviderUnavailable("PIN 123456", provider="fake"), 503, "5"),
        (AcquireInDoubt("PIN 123456", provider="fake"), 503, "5"),
    ],
    ids=["rejected", "unavailable-with-a-time", "unavailable", "in-doubt"],
)
async def test_what_goes_wrong_at_the_provider_is_no_server_error_and_tells_nothing(
    app: FastAPI,
    issuer: AsyncTokenIssuer,
    fake_provider: FakeProvider,
    error: Exception,
    status: int,
    retry_after: str | None,
) -> None:
    alice = await issuer.issue("alice")
    fake_provider.fail("alice", error)
    async with client(app) as http:
        answer = await http.get("/funds", headers=bearing(alice))
    assert answer.status_code == status
    assert "123456" not in answer.text
    assert answer.json()["detail"].endswith(".")
    assert (answer.headers.get("retry-after") == retry_after) or (
        retry_after == "5" and int(answer.headers["retry-after"]) > 0
    )


async def test_a_provider_that_nobody_registered_is_a_mistake_of_the_program(
    app: FastAPI, issuer: AsyncTokenIssuer
) -> None:
    alice = await issuer.issue("alice")
    async with client(app) as http:
        with pytest.raises(ConfigurationError, match="unknown"):
            await http.get("/elsewhere", headers=bearing(alice))
