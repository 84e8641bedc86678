import base64
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote_plus

import httpx
import pytest
from fastapi import FastAPI

from fastapi_apps import client, plain
from tokenkeep import AsyncTokenIssuer, IssuedToken, KeyRing, Secret
from tokenkeep.fastapi import Bearer, Clients, oauth_router
from tokenkeep.testing import FakeClock

GATEWAY = ("gateway", "a secret: with everything/+ü")
INTROSPECT, REVOKE = "/oauth/introspect", "/oauth/revoke"


@pytest.fixture
async def issuer(tmp_path: Path, fake_clock: FakeClock) -> AsyncIterator[AsyncTokenIssuer]:
    async with AsyncTokenIssuer.open(
        f"sqlite:///{tmp_path}/app.db", lifetime=timedelta(hours=1), keys=KeyRing.generate(), clock=fake_clock
    ) as issuer:
        yield issuer


@pytest.fixture
def app(issuer: AsyncTokenIssuer) -> FastAPI:
    app = FastAPI()
    app.include_router(oauth_router(issuer, Clients({"gateway": Secret(GATEWAY[1]), "other": "x" * 16})))
    return app


def basic(client_id: str, secret: str) -> dict[str, str]:
    """Write credentials as RFC 6749 section 2.3.1 has it."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def gateway(app: FastAPI) -> httpx.AsyncClient:
    return client(app, headers=basic(*GATEWAY))


@pytest.mark.requirement("Z4", "C7")
async def test_introspection_tells_what_an_active_token_stands_for(app: FastAPI, issuer: AsyncTokenIssuer) -> None:
    token = await issuer.issue("alice", scopes={"orders:write", "orders:read"}, name="laptop", metadata={"a": 1})
    async with gateway(app) as http:
        answer = await http.post(INTROSPECT, data={"token": plain(token), "token_type_hint": "access_token"})
    assert answer.json() == {
        "active": True, "sub": "alice", "scope": "orders:read orders:write", "token_type": "Bearer",
        "iat": 1767594600, "exp": 1767598200,
    }  # fmt: skip
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.requirement("Z4")
async def test_of_what_is_not_active_nothing_is_said(issuer: AsyncTokenIssuer, fake_clock: FakeClock) -> None:
    app = FastAPI()
    secrets = {"gateway": GATEWAY[1]}
    app.include_router(oauth_router(issuer, Clients(secrets), may_see=lambda _, token: token.user_id != "carol"))
    expired = await issuer.issue("alice", lifetime=timedelta(minutes=1))
    revoked = await issuer.issue("alice")
    foreign = await issuer.issue("carol")
    pair = await issuer.issue("alice", refresh=True)
    assert pair.refresh_token is not None
    await issuer.revoke(revoked)
    fake_clock.advance(timedelta(minutes=1))
    tokens = [plain(expired), plain(revoked), plain(foreign), pair.refresh_token.reveal(), pair.id, "x", "\x00é", "a b"]
    async with gateway(app) as http:
        answers = [await http.post(INTROSPECT, data={"token": token}) for token in tokens]
    assert {(answer.status_code, tuple(answer.headers.raw), answer.content) for answer in answers} == {
        (200, tuple(answers[0].headers.raw), b'{"active":false}')
    }


@pytest.mark.requirement("Z4", "O5")
async def test_nobody_asks_without_credentials_of_their_own(app: FastAPI, issuer: AsyncTokenIssuer) -> None:
    token = plain(await issuer.issue("alice"))
    right = basic(*GATEWAY)["Authorization"]
    wrong: list[list[tuple[str, str]]] = [
        [],
        [("Authorization", f"Bearer {token}")],
        [("Authorization", "Basic")],
        [("Authorization", "Basic !!!")],
        [("Authorization", "Basic " + base64.b64encode(b"\xff\xfe:x").decode())],
        [("Authorization", "Basic " + "A" * 5000)],
        [("Authorization", right), ("Authorization", right)],
        list(basic("gateway", "").items()),
        list(basic("gateway", "x" * 16).items()),
        list(basic("nobody", GATEWAY[1]).items()),
        list(basic("", "").items()),
    ]
    answers = set()
    async with client(app) as http:
        for headers in wrong:
            for path in (INTROSPECT, REVOKE):
                answer = await http.post(path, data={"token": token}, headers=headers)
                answers.add((answer.status_code, answer.headers["www-authenticate"], answer.content))
    assert answers == {(401, 'Basic realm="oauth"', b'{"error":"invalid_client"}')}
    assert await issuer.verify(token) is not None


@pytest.mark.requirement("K6")
async def test_revocation_ends_a_token_and_says_the_same_of_one_that_is_not_known(
    app: FastAPI, issuer: AsyncTokenIssuer
) -> None:
    token = plain(await issuer.issue("alice"))
    async with gateway(app) as http:
        answers = [
            await http.post(REVOKE, data={"token": text, "token_type_hint": hint})
            for text, hint in ((token, "refresh_token"), (token, "access_token"), ("never issued", "x"), ("\x00", ""))
        ]
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b"")}
    assert await issuer.verify(token) is None


@pytest.mark.requirement("K6")
async def test_revoking_a_refresh_token_ends_what_it_brought(app: FastAPI, issuer: AsyncTokenIssuer) -> None:
    pair = await issuer.issue("alice", refresh=True)
    assert pair.refresh_token is not None
    async with gateway(app) as http:
        await http.post(REVOKE, data={"token": pair.refresh_token.reveal(), "token_type_hint": "access_token"})
    assert await issuer.verify(plain(pair)) is None
    assert await issuer.refresh(pair.refresh_token) is None


@pytest.mark.requirement("K6")
async def test_a_public_id_revokes_nothing_here(app: FastAPI, issuer: AsyncTokenIssuer) -> None:
    token = await issuer.issue("alice")
    async with gateway(app) as http:
        assert (await http.post(REVOKE, data={"token": token.id})).status_code == 200
    assert await issuer.verify(plain(token)) is not None


@pytest.mark.requirement("K6")
async def test_a_client_ends_no_access_token_of_another(issuer: AsyncTokenIssuer) -> None:
    def owns(caller: str, token: IssuedToken) -> bool:
        return token.metadata.get("client_id") == caller

    app = FastAPI()
    app.include_router(oauth_router(issuer, Clients({"gateway": GATEWAY[1]}), may_see=owns))
    theirs = plain(await issuer.issue("alice", metadata={"client_id": "other"}))
    ours = plain(await issuer.issue("alice", metadata={"client_id": "gateway"}))
    async with gateway(app) as http:
        for token in (theirs, ours):
            assert (await http.post(REVOKE, data={"token": token})).status_code == 200
    assert await issuer.verify(theirs) is not None
    assert await issuer.verify(ours) is None


@pytest.mark.requirement("Z4", "V6")
@pytest.mark.parametrize("path", [INTROSPECT, REVOKE])
async def test_a_token_comes_in_a_form_and_in_no_other_way(app: FastAPI, issuer: AsyncTokenIssuer, path: str) -> None:
    token = plain(await issuer.issue("alice"))
    async with gateway(app) as http:
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            assert (await http.request(method, f"{path}?token={token}")).status_code == 405
        bad = [
            await http.post(f"{path}?token={token}"),
            await http.post(f"{path}?token={token}", data={"x": "y"}),
            await http.post(path, json={"token": token}),
            await http.post(path, files={"token": token.encode()}),
            await http.post(path, data={"token": ""}),
            await http.post(path, data={"token": [token, token]}),
            await http.post(path, data={"token": token, "token_type_hint": ["1", "2"]}),
            await http.post(path, data={"token": "x" * 9000}),
            await http.post(path, data={f"x{n}": "y" for n in range(2000)}),
            await http.post(path, content=b"token=\xff", headers={"Content-Type": "application/x-www-form-urlencoded"}),
            await http.post(path, content=b"token=%ff", headers={"Content-Type": "application/x-www-form-urlencoded"}),
        ]
    assert {(answer.status_code, answer.content) for answer in bad} == {(400, b'{"error":"invalid_request"}')}
    assert await issuer.verify(token) is not None


@pytest.mark.requirement("V3")
async def test_a_database_that_fails_is_not_taken_for_an_answer(
    app: FastAPI, issuer: AsyncTokenIssuer, tmp_path: Path
) -> None:
    token = plain(await issuer.issue("alice"))
    with sqlite3.connect(tmp_path / "app.db") as connection:
        connection.execute("ALTER TABLE tokenkeep_issued RENAME TO elsewhere")
    connection.close()
    async with gateway(app) as http:
        for path in (INTROSPECT, REVOKE):
            answer = await http.post(path, data={"token": token})
            assert (answer.status_code, answer.content) == (503, b'{"error":"temporarily_unavailable"}')
            assert int(answer.headers["retry-after"]) > 0


async def test_a_bearer_token_can_say_who_asks(issuer: AsyncTokenIssuer) -> None:
    app = FastAPI()
    app.include_router(oauth_router(issuer, Bearer(issuer, scopes={"introspect"}), prefix="/internal"))
    gate, alice = await issuer.issue("gate", scopes={"introspect"}), await issuer.issue("alice")
    async with client(app) as http:
        for who, status in ((gate, 200), (alice, 403)):
            headers = {"Authorization": f"Bearer {plain(who)}"}
            answer = await http.post("/internal/introspect", data={"token": plain(alice)}, headers=headers)
            assert answer.status_code == status


@pytest.mark.requirement("O1")
def test_clients_without_a_real_secret_are_refused() -> None:
    for secrets in ({}, {"gateway": ""}, {"gateway": "x" * 15}, {"good": "x" * 16, "bad": "short"}):
        with pytest.raises(ValueError, match="at least 16 characters"):
            Clients(secrets)
