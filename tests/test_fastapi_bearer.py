import logging
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, Security, WebSocket

from fastapi_apps import bearing, client, plain, served
from tokenkeep import AsyncTokenIssuer, IssuedToken, KeyRing, TokenIssuer
from tokenkeep.fastapi import Bearer, SessionCookie, lifespan
from tokenkeep.testing import FakeClock

REALM = 'Bearer realm="api"'
INVALID = f'{REALM}, error="invalid_token"'


@pytest.fixture
async def issuer(tmp_path: Path, fake_clock: FakeClock) -> AsyncIterator[AsyncTokenIssuer]:
    async with AsyncTokenIssuer.open(
        f"sqlite:///{tmp_path}/app.db", lifetime=timedelta(hours=1), keys=KeyRing.generate(), clock=fake_clock
    ) as issuer:
        yield issuer


@pytest.fixture
def bearer(issuer: AsyncTokenIssuer) -> Bearer:
    return Bearer(issuer, cookie=SessionCookie())


@pytest.fixture
def app(issuer: AsyncTokenIssuer, bearer: Bearer) -> FastAPI:
    app = FastAPI()

    @app.get("/me")
    async def me(mine: Annotated[IssuedToken, Depends(bearer)]) -> str:
        return mine.user_id

    @app.post("/orders")
    async def order(
        mine: Annotated[IssuedToken, Depends(Bearer(issuer, scopes={"orders:write", "orders:read"}))],
    ) -> str:
        return mine.user_id

    @app.get("/orders")
    async def orders(mine: Annotated[IssuedToken, Security(bearer, scopes=["orders:read"])]) -> str:
        return mine.user_id

    return app


async def test_a_good_token_gives_the_endpoint_its_owner(app: FastAPI, issuer: AsyncTokenIssuer) -> None:
    token = await issuer.issue("alice")
    async with client(app) as http:
        assert (await http.get("/me", headers=bearing(token))).json() == "alice"
        assert (await http.get("/me", headers={"Authorization": f"bEARER   {plain(token)} "})).json() == "alice"


@pytest.mark.requirement("V8")
async def test_without_credentials_the_challenge_has_no_error_code(app: FastAPI) -> None:
    async with client(app) as http:
        for headers in ({}, {"Authorization": "Basic YWxpY2U6c2VjcmV0"}, {"Cookie": "theme=dark"}):
            answer = await http.get("/me", headers=headers)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == REALM


@pytest.mark.requirement("V8", "V9")
async def test_unknown_expired_revoked_and_malformed_tokens_are_answered_byte_for_byte_alike(
    app: FastAPI, issuer: AsyncTokenIssuer, fake_clock: FakeClock, tmp_path: Path
) -> None:
    expired = await issuer.issue("alice", lifetime=timedelta(minutes=1))
    revoked = await issuer.issue("alice")
    await issuer.revoke(revoked)
    with TokenIssuer.open(
        f"sqlite:///{tmp_path}/other.db", lifetime=timedelta(hours=1), keys=KeyRing.generate()
    ) as other:
        unknown = other.issue("alice")
    fake_clock.advance(timedelta(minutes=1))
    answers = set()
    async with client(app) as http:
        for text in (plain(expired), plain(revoked), plain(unknown), "tk_short", "", "a b", "x" * 8000):
            answer = await http.get("/me", headers={"Authorization": f"Bearer {text}"})
            answers.add((answer.status_code, tuple(answer.headers.raw), answer.content))
        cookie = await http.get("/me", headers={"Cookie": f"__Host-session={plain(revoked)}"})
        answers.add((cookie.status_code, tuple(cookie.headers.raw), cookie.content))
    assert len(answers) == 1
    status, headers, _ = answers.pop()
    assert status == 401
    assert (b"www-authenticate", INVALID.encode()) in [(name.lower(), value) for name, value in headers]


@pytest.mark.requirement("V8", "Z1")
async def test_a_token_without_the_scopes_is_told_which_are_needed(app: FastAPI, issuer: AsyncTokenIssuer) -> None:
    nothing = await issuer.issue("alice")
    reader = await issuer.issue("alice", scopes={"orders:read"})
    everything = await issuer.issue("alice", scopes={"*"})
    async with client(app) as http:
        answer = await http.post("/orders", headers=bearing(reader))
        assert answer.status_code == 403
        assert answer.headers["WWW-Authenticate"] == (
            f'{REALM}, error="insufficient_scope", scope="orders:read orders:write"'
        )
        assert (await http.post("/orders", headers=bearing(everything))).status_code == 200
        assert (await http.get("/orders", headers=bearing(reader))).status_code == 200
        assert (await http.get("/orders", headers=bearing(nothing))).status_code == 403


@pytest.mark.requirement("V6", "V8")
async def test_two_tokens_at_once_are_a_bad_request(app: FastAPI, issuer: AsyncTokenIssuer) -> None:
    token = await issuer.issue("alice")
    header, cookie = f"Bearer {plain(token)}", f"__Host-session={plain(token)}"
    async with client(app) as http:
        for pairs in (
            [("Authorization", header), ("Authorization", header)],
            [("Authorization", header), ("Authorization", "Basic eDp5")],
            [("Authorization", header), ("Cookie", cookie)],
            [("Cookie", cookie), ("Cookie", cookie)],
            [("Cookie", f"{cookie}; {cookie}")],
        ):
            answer = await http.get("/me", headers=pairs)
            assert answer.status_code == 400
            assert 'error="invalid_request"' in answer.headers["WWW-Authenticate"]


@pytest.mark.requirement("V1")
async def test_what_a_client_says_of_itself_changes_nothing(app: FastAPI, issuer: AsyncTokenIssuer) -> None:
    token = await issuer.issue("alice")
    claims = {"X-User-Id": "bob", "X-Forwarded-User": "bob", "X-Scopes": "*", "Remote-User": "bob"}
    async with client(app) as http:
        assert (await http.get("/me?user_id=bob&scope=*", headers=bearing(token) | claims)).json() == "alice"
        assert (await http.post("/orders?scope=*", headers=bearing(token) | claims)).status_code == 403
        assert (await http.get("/me", headers=claims)).status_code == 401


@pytest.mark.requirement("V6", "G1")
async def test_a_token_in_the_url_is_refused_and_not_logged_by_the_server(
    app: FastAPI, issuer: AsyncTokenIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    token = plain(await issuer.issue("alice"))
    caplog.set_level(logging.WARNING, "httpx")  # the client of this test logs its own URLs
    caplog.set_level(logging.WARNING, "httpcore")
    caplog.set_level(logging.DEBUG)
    with served(app, log_level="info", access_log=True, log_config=None) as address:
        async with httpx.AsyncClient(base_url=address) as http:
            for query in (f"access_token={token}", f"a=1&ACCESS_TOKEN={token}&b=2"):
                assert (await http.get(f"/me?{query}")).status_code == 400
            both = await http.get(f"/me?access_token={token}", headers={"Authorization": f"Bearer {token}"})
            assert both.status_code == 400
            assert (await http.get("/me?x_access_token=x")).status_code == 401
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert len(lines) == 4
    assert "access_token=[removed]" in lines[0]
    assert "a=1&ACCESS_TOKEN=[removed]&b=2" in lines[1]
    assert not [record for record in caplog.records if token in record.getMessage()]


@pytest.mark.requirement("B1", "V7")
async def test_a_bad_token_of_any_shape_costs_at_most_one_look_up(
    app: FastAPI, issuer: AsyncTokenIssuer, statements: list[str]
) -> None:
    await issuer.issue("alice")
    other = AsyncTokenIssuer.open("sqlite://", lifetime=timedelta(hours=1), keys=KeyRing.generate())
    guessed = plain(await other.issue("mallory"))
    await other.close()
    raw = [b"\x00", b"\xff\xfe", "٣".encode(), b"tk_" + b"0" * 43 + b"00000000", b"tk_" + b"x" * 60_000, b",", b"="]
    async with client(app) as http:
        statements.clear()
        for value in raw:
            answer = await http.get("/me", headers={b"Authorization": b"Bearer " + value})
            assert answer.status_code == 401
        assert statements == []
        assert (await http.get("/me", headers={"Authorization": f"Bearer {guessed}"})).status_code == 401
    assert len(statements) <= 1


@pytest.mark.requirement("V3", "G4")
async def test_when_the_database_fails_nobody_is_let_in(
    app: FastAPI, issuer: AsyncTokenIssuer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = await issuer.issue("alice")
    with sqlite3.connect(tmp_path / "app.db") as connection:
        connection.execute("ALTER TABLE tokenkeep_issued RENAME TO elsewhere")
    connection.close()
    async with client(app) as http:
        answer = await http.get("/me", headers=bearing(token))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "WWW-Authenticate" not in answer.headers
    assert plain(token) not in answer.text
    assert str(tmp_path) not in answer.text
    assert "tokenkeep_issued" not in answer.text
    assert [record for record in caplog.records if record.name == "tokenkeep.fastapi"]


async def test_a_websocket_is_let_in_by_the_same_dependency(issuer: AsyncTokenIssuer, bearer: Bearer) -> None:
    app = FastAPI()

    @app.websocket("/feed")
    async def feed(socket: WebSocket, mine: Annotated[IssuedToken, Depends(bearer)]) -> None:
        await socket.accept()
        await socket.send_text(mine.user_id)
        await socket.close()

    token = await issuer.issue("alice")
    cookie = [(b"cookie", f"__Host-session={plain(token)}".encode()), (b"host", b"app.example.org")]
    ours, theirs = (b"origin", b"https://app.example.org"), (b"origin", b"https://evil.example")
    assert await handshake(app, [(b"authorization", f"Bearer {plain(token)}".encode())]) == "alice"
    assert await handshake(app, [*cookie, ours]) == "alice"
    for headers in ([], cookie, [*cookie, theirs]):
        assert await handshake(app, headers) is None


async def handshake(app: FastAPI, headers: list[tuple[bytes, bytes]]) -> str | None:
    """Return the first text that the server sends; `None` when it does not accept."""
    sent: list[dict[str, object]] = []
    scope = {"type": "websocket", "scheme": "wss", "path": "/feed", "query_string": b"", "headers": headers}

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message)

    await app(scope | {"client": ("203.0.113.7", 1), "subprotocols": []}, receive, send)
    return next((str(message["text"]) for message in sent if message.get("text")), None)


async def test_the_document_names_the_schemes_and_the_scopes(app: FastAPI) -> None:
    document = app.openapi()
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert document["components"]["securitySchemes"]["cookie"] == {
        "type": "apiKey", "in": "cookie", "name": "__Host-session",
    }  # fmt: skip
    assert document["paths"]["/me"]["get"]["security"] == [{"bearer": []}, {"cookie": []}]
    assert document["paths"]["/orders"]["post"]["security"] == [{"bearer": ["orders:read", "orders:write"]}]
    assert {"bearer": ["orders:read"]} in document["paths"]["/orders"]["get"]["security"]
    assert "parameters" not in document["paths"]["/me"]["get"]


async def test_a_bearer_wants_the_face_that_does_not_block(tmp_path: Path) -> None:
    with (
        TokenIssuer.open(f"sqlite:///{tmp_path}/a.db", lifetime=timedelta(hours=1)) as issuer,
        pytest.raises(TypeError, match="AsyncTokenIssuer"),
    ):
        Bearer(issuer)  # type: ignore[arg-type]


@pytest.mark.parametrize("realm", ['a"b', "a\\b", "a\r\nSet-Cookie: x", "é"])
async def test_a_realm_cannot_break_the_header(issuer: AsyncTokenIssuer, realm: str) -> None:
    with pytest.raises(ValueError, match="realm"):
        Bearer(issuer, realm=realm)


async def test_the_lifespan_opens_before_and_closes_after_and_writes_what_was_counted(tmp_path: Path) -> None:
    url, keys = f"sqlite:///{tmp_path}/app.db", KeyRing.generate()
    issuer = AsyncTokenIssuer.open(url, lifetime=timedelta(hours=1), keys=keys)
    bearer = Bearer(issuer)
    app = FastAPI(lifespan=lifespan(issuer))

    @app.get("/me")
    async def me(mine: Annotated[IssuedToken, Depends(bearer)]) -> str:
        return mine.user_id

    with TokenIssuer.open(url, lifetime=timedelta(hours=1), keys=keys) as other:
        token = other.issue("alice")
        with served(app) as address:
            async with httpx.AsyncClient() as http:
                assert (await http.get(f"{address}/me", headers=bearing(token))).json() == "alice"
        assert other.statistics("alice").total_usage == 1
