"""The service in this process: who is let in to what, and what they are answered."""

import logging
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from fastapi_apps import SITE, plain
from service_apps import Service, basic, in_process, token_of
from tokenkeep import AsyncTokenIssuer, NewToken
from tokenkeep.errors import ConfigurationError
from tokenkeep.metrics import Metrics
from tokenkeep.service import callers
from tokenkeep.service.application import OPEN
from tokenkeep.service.edge import LONGEST_BODY, Edge
from tokenkeep.testing import FakeClock

ALICE = "/accounts/broker/alice"


@pytest.fixture
async def service(tmp_path: Path, fake_clock: FakeClock) -> AsyncIterator[Service]:
    async with in_process(f"sqlite:///{tmp_path}/t.db", clock=fake_clock) as service:
        yield service


# --- who is let in ---


def routes_of(app: Any) -> Iterator[APIRoute]:
    """Every route, of the routers that were put in too; one of an unknown kind is a failure."""
    for route in app.routes:
        inner = getattr(route, "original_router", None)
        if isinstance(route, APIRoute):
            yield route
        else:
            assert inner is not None, f"what is {route!r}?"
            yield from routes_of(inner)


def asked(app: Any) -> list[tuple[str, str]]:
    names = {"provider": "broker", "user_id": "alice"}
    return [
        (method, route.path_format.format(**names))
        for route in routes_of(app)
        for method in sorted(route.methods or ())
    ]


def inside(service: Service) -> FastAPI:
    app = service.app._app
    assert isinstance(app, FastAPI)
    return app


@pytest.mark.requirement("O5", "Z1")
async def test_no_route_answers_without_credentials_or_with_those_of_somebody_else(service: Service) -> None:
    application = plain(await service.issued.issue("alice", scopes={"*"}))
    same_prefix = AsyncTokenIssuer.open(
        service.url, lifetime=timedelta(hours=1), prefix=callers.PREFIX, keys=service.keys
    )
    async with same_prefix:
        foreign = plain(await same_prefix.issue("alice", scopes={"*"}))
    revoked = await service.callers.issue(callers.KEPT_UNDER, scopes={"*"}, name="bot")
    await service.callers.revoke(revoked)
    wrong = ["nonsense", application, foreign, plain(revoked), "tkc_" + "0" * 52]
    headers: list[dict[str, str]] = [{}, {"Authorization": "Bearer"}, {"Authorization": "Basic"}]
    headers += [{"Authorization": f"Bearer {token}"} for token in wrong] + [basic("bot", token) for token in wrong]
    routes = [(method, path) for method, path in asked(inside(service)) if path not in OPEN]
    assert {path for _, path in routes} >= {"/", "/status", "/metrics", ALICE, f"{ALICE}/token", "/oauth/revoke"}
    async with service.client() as http:
        answers = [
            (method, path, await http.request(method, path, headers=credentials))
            for method, path in routes
            for credentials in headers
        ]
    assert not [(method, path) for method, path, answer in answers if answer.status_code != 401]
    assert all("WWW-Authenticate" in answer.headers for _, _, answer in answers)
    assert (await service.vault.statistics("alice", provider="broker")).total_tokens == 0


@pytest.mark.requirement("Z1")
async def test_a_good_caller_without_the_scope_is_refused_by_every_route(service: Service) -> None:
    nothing_of_use = await service.token("token:broker/bob", "report:broker/bob", "orders:read")
    async with service.client(nothing_of_use) as http:
        answers = {
            (method, path): (await http.request(method, path)).status_code
            for method, path in asked(inside(service))
            if path not in OPEN | {"/"}
        }
    assert set(answers.values()) == {403}


@pytest.mark.requirement("Z1", "Z5")
async def test_no_route_makes_or_changes_a_token_of_a_caller_or_of_the_application(service: Service) -> None:
    issued = await service.issued.issue("alice", scopes={"orders:read"})
    wished = {
        "scopes": "*",
        "scope": "*",
        "user_id": "root",
        "expires_at": "2099-01-01",
        "lifetime": "99999",
        "version": 1,
    }
    async with service.asking("*") as http:
        before = (await service.callers.tokens(callers.KEPT_UNDER), await service.issued.tokens("alice"))
        for method, path in asked(inside(service)):
            ways: list[dict[str, Any]] = [
                {"json": wished},
                {"data": wished | {"token": "nonsense"}},
                {"params": wished},
            ]
            for extra in ways:
                assert (await http.request(method, path, **extra)).status_code < 500
        after = (await service.callers.tokens(callers.KEPT_UNDER), await service.issued.tokens("alice"))
    assert [[(token.id, token.scopes, token.expires_at) for token in tokens] for tokens in before] == [
        [(token.id, token.scopes, token.expires_at) for token in tokens] for tokens in after
    ]
    assert [token.id for token in after[1]] == [issued.id]
    assert await service.issued.tokens("root") == []


SCOPES = {
    "token:broker/alice": {"GET /token", "POST /token", "POST /token/reject"},
    "token:broker/*": {"GET /token", "POST /token", "POST /token/reject"},
    "token:*": {"GET /token", "POST /token", "POST /token/reject"},
    "token:kite/*": set[str](),
    "token:broker/alic": set[str](),
    "report:broker/alice": {"GET "},
    "status": {"GET /status"},
    "metrics": {"GET /metrics"},
    "introspect": {"POST /oauth/introspect"},
    "revoke": {"POST /oauth/revoke"},
}


@pytest.mark.requirement("Z1")
@pytest.mark.parametrize("scope", SCOPES)
async def test_a_scope_opens_its_routes_and_no_other(service: Service, scope: str) -> None:
    async with service.asking(scope) as http:
        opened = {
            f"{method} {path.removeprefix(ALICE)}"
            for method, path in asked(inside(service))
            if path not in OPEN | {"/"}
            and (await http.request(method, path, params={"version": 1})).status_code not in {401, 403}
        }
    assert opened == SCOPES[scope]


@pytest.mark.requirement("Z3")
async def test_however_the_path_is_written_a_caller_gets_the_tokens_of_their_account_and_no_other(
    service: Service,
) -> None:
    """Every answer that has a token has the token of the very account that the scope names."""
    random = Random(20261122)  # noqa: S311  # the same paths in every run
    parts = ["alice", "bob", "broker", "kite", "..", ".", "%2F", "%2f", "/", "%00", "%252F", "*", "%2A", "%61lice"]
    parts += ["ALICE", " ", "%20", "a", "token", "reject", ";", "?", "#", "%FF", "é", "%C3%A9", ",", "//"]
    paths = [
        "/accounts/broker/" + "".join(random.choices(parts, k=random.randint(1, 4))) + "/token" for _ in range(250)
    ]
    paths += [f"/accounts/{''.join(random.choices(parts, k=2))}/alice/token" for _ in range(50)]
    paths += [f"{ALICE}/token", "/accounts/broker/%61lice/token", f"{ALICE}/token?user_id=bob&provider=kite"]
    mine = token_of("alice")
    async with service.asking("token:broker/alice") as http:
        answers = {path: await http.post(raw(http, path)) for path in paths}
    served = {path for path, answer in answers.items() if answer.status_code == 200}
    assert served >= {*paths[-3:]}
    assert {answers[path].json()["access_token"] for path in served} == {mine}
    assert all(unquote(path).startswith("/accounts/broker/alice/token") for path in served)
    assert not [path for path in {*paths} - served if token_of("") in answers[path].text or mine in answers[path].text]
    everybody = {info.user_id for info in await service.vault.created_between(*always(), limit=1000)}
    assert everybody == {"alice"}


def raw(http: httpx.AsyncClient, path: str) -> httpx.URL:
    """A URL whose path is sent as it is written."""
    path = quote(path, safe="/%?=&;#*,. ").replace(" ", "%20").replace("#", "%23")
    target, _, query = path.partition("?")
    return http.base_url.copy_with(raw_path=f"{target}?{query}".encode() if query else target.encode())


def always() -> tuple[Any, Any]:
    return datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


ODD = ["org/alice", "a b", "*", "ü", "a%2Fb", "..", "x" * 255, "token", "a;b=c?d#e", "'\"<>"]


@pytest.mark.requirement("Z3")
@pytest.mark.parametrize("user", ODD, ids=range(len(ODD)))
async def test_an_odd_user_id_is_just_a_user(service: Service, user: str) -> None:
    path = f"/accounts/broker/{quote(user, safe='').replace('.', '%2E')}/token"
    async with service.asking(callers.scope_for("token", "broker", user)) as http:
        assert (await http.post(raw(http, path))).json()["access_token"] == token_of(user)
        assert (await http.post(f"{ALICE}/token")).status_code == 403


@pytest.mark.parametrize(
    "path", ["/accounts/broker/%FF/token", "/accounts/broker/a%00b/token", f"/accounts/{'p' * 65}/a/token"]
)
async def test_a_path_that_names_no_account_is_refused_in_a_sentence(service: Service, path: str) -> None:
    async with service.asking("*") as http:
        answer = await http.get(raw(http, path))
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json()["detail"].endswith(".")


@pytest.mark.parametrize(
    "scope", ["token", "token:upstox", "report:a/b/c", "status:a/b", "token:a/b c", "admin", "token:a/ü"]
)
def test_a_scope_that_means_nothing_is_refused_when_a_caller_is_made(scope: str) -> None:
    with pytest.raises(ConfigurationError, match="no scope of the service"):
        callers.checked([scope])


def test_a_caller_needs_a_scope() -> None:
    with pytest.raises(ConfigurationError, match="may do nothing"):
        callers.checked([])


# --- tokens ---


@pytest.mark.requirement("C7", "Z3")
async def test_a_token_is_handed_out_with_what_is_needed_and_nothing_more(service: Service) -> None:
    async with service.asking("token:broker/alice") as http:
        answer = await http.post(f"{ALICE}/token")
        again = await http.get(f"{ALICE}/token")
    assert answer.json() == {
        "access_token": token_of("alice"),
        "token_type": "Bearer",
        "expires_in": 3600,
        "expires_at": "2026-01-05T07:30:00Z",
        "scope": "",
        "kind": "access",
        "version": 1,
    }
    assert again.json() == answer.json()
    assert {answer.headers["cache-control"], again.headers["cache-control"]} == {"no-store"}


async def test_get_never_logs_in_and_post_does_where_there_is_none(service: Service) -> None:
    async with service.asking("token:broker/alice") as http:
        missing = await http.get(f"{ALICE}/token")
        assert (missing.status_code, missing.json()["error"]) == (404, "NoToken")
        await http.post(f"{ALICE}/token")
        assert (await http.get(f"{ALICE}/token", params={"min_validity": 3599})).status_code == 200
        assert (await http.get(f"{ALICE}/token", params={"min_validity": 3601})).status_code == 404


async def test_a_rejected_version_is_not_handed_out_again_and_a_newer_one_stays(service: Service) -> None:
    async with service.asking("token:broker/alice") as http:
        await http.post(f"{ALICE}/token")
        for _ in range(2):
            assert (await http.post(f"{ALICE}/token/reject", params={"version": 1})).status_code == 204
        assert (await http.get(f"{ALICE}/token")).status_code == 404
        assert (await http.post(f"{ALICE}/token")).json()["version"] == 2
        await http.post(f"{ALICE}/token/reject", params={"version": 1})
        assert (await http.get(f"{ALICE}/token")).json()["version"] == 2


async def test_where_nobody_can_log_in_there_is_just_no_token(service: Service) -> None:
    async with service.asking("token:kite/alice") as http:
        assert (await http.post("/accounts/kite/alice/token")).status_code == 404
        await service.vault.store("alice", NewToken("brought", expires_in=3600), provider="kite")
        assert (await http.post("/accounts/kite/alice/token")).json()["access_token"] == "brought"


async def test_bad_parameters_are_named_and_not_repeated(service: Service) -> None:
    async with service.asking("token:broker/alice") as http:
        answer = await http.get(f"{ALICE}/token", params={"min_validity": "sesame"})
        rejecting = await http.post(f"{ALICE}/token/reject", params={"version": "sesame"})
        odd = [{"min_validity": "nan"}, {"min_validity": "inf"}, {"min_validity": "-1"}, {"kind": ""}, {"kind": "a\0"}]
        assert [(await http.post(f"{ALICE}/token", params=each)).status_code for each in odd] == [422] * len(odd)
    assert (answer.status_code, rejecting.status_code) == (422, 422)
    assert "min_validity" in answer.json()["detail"]
    assert "sesame" not in answer.text + rejecting.text


async def test_a_report_tells_what_is_known_without_a_secret(service: Service) -> None:
    async with service.asking("token:broker/alice", "report:broker/alice") as http:
        await http.post(f"{ALICE}/token")
        told = await http.get(ALICE)
    assert told.json()["statistics"]["total_tokens"] == 1
    assert [(token["version"], token["active"], token["usage_count"]) for token in told.json()["tokens"]] == [
        (1, True, 1)
    ]
    assert "a@b.c" not in told.text
    assert token_of("alice") not in told.text


# --- the application's own tokens ---


@pytest.mark.requirement("Z4", "O5")
async def test_a_caller_asks_about_and_ends_tokens_by_password_or_as_a_bearer(service: Service) -> None:
    token = plain(await service.issued.issue("alice", scopes={"orders:read"}))
    caller = await service.token("introspect", "revoke", name="gateway")
    ways = [basic("gateway", caller), {"Authorization": f"Bearer {caller}"}]
    async with service.client() as http:
        for way in ways:
            answer = await http.post("/oauth/introspect", data={"token": token}, headers=way)
            assert (answer.json()["active"], answer.json()["sub"]) == (True, "alice")
            assert (await http.post("/oauth/introspect", data={"token": caller}, headers=way)).json() == {
                "active": False
            }
        other_name = await http.post("/oauth/introspect", data={"token": token}, headers=basic("gate", caller))
        assert (other_name.status_code, other_name.json()) == (401, {"error": "invalid_client"})
        await http.post("/oauth/revoke", data={"token": token}, headers=ways[0])
        assert (await http.post("/oauth/introspect", data={"token": token}, headers=ways[1])).json() == {
            "active": False
        }


# --- what surrounds every answer ---


@pytest.mark.requirement("O2")
@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect", "/nothing", "/status/"])
async def test_the_service_describes_itself_to_nobody(service: Service, path: str) -> None:
    async with service.asking("*") as http:
        answer = await http.get(path)
    assert (answer.status_code, answer.json()["detail"]) == (404, "Not Found")


async def test_a_body_that_is_too_long_is_not_read(service: Service) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1024
            yield b"x" * 1024

    form = {"Content-Type": "application/x-www-form-urlencoded"}
    async with service.client(headers=basic("bot", await service.token("introspect")) | form) as http:
        announced = await http.post("/oauth/introspect", content=b"x" * (LONGEST_BODY + 1))
        absurd = await http.post("/oauth/introspect", content=b"", headers={"Content-Length": "9" * 5000})
        assert (await http.post("/oauth/introspect", content=endless())).status_code == 400
    assert (announced.status_code, absurd.status_code) == (413, 413)
    assert read <= LONGEST_BODY + 1024


async def test_headers_that_are_too_long_are_refused(service: Service) -> None:
    async with service.asking("token:*") as http:
        answers = [await http.get("/livez", headers={"X-Long": "x" * size}) for size in (15_000, 17_000)]
        answers.append(await http.get("/livez", params={"q": "x" * 17_000}))
    assert [answer.status_code for answer in answers] == [200, 431, 431]


async def test_a_body_that_goes_on_past_the_bound_is_cut_off_for_any_application() -> None:
    taken = 0

    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal taken
        while (message := await receive()).get("more_body"):
            taken += len(message["body"])
        await PlainTextResponse("read")(scope, receive, send)

    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 1024

    transport = httpx.ASGITransport(app=Edge(reading, Metrics()))
    async with httpx.AsyncClient(transport=transport, base_url=SITE) as http:
        answers = [await http.post("/", content=chunks(count)) for count in (16, 17, 1000)]
    assert [answer.status_code for answer in answers] == [200, 413, 413]
    assert taken <= 3 * LONGEST_BODY


@pytest.mark.requirement("G4")
async def test_a_defect_is_answered_and_logged_without_its_words(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object, **__: object) -> None:
        msg = "postgresql://user:sesame@db"
        raise RuntimeError(msg)

    monkeypatch.setattr(service.vault, "get_valid", broken)
    async with service.asking("token:broker/alice") as http:
        answer = await http.get(f"{ALICE}/token")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "RuntimeError at test_service.py:" in caplog.text
    assert "sesame" not in answer.text + caplog.text


@pytest.mark.requirement("G1")
async def test_the_access_log_says_who_asked_for_what_without_query_or_token(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tokenkeep.service.access")
    token = await service.token("token:*", name="bot\nforged")
    async with service.client(token) as http:
        await http.post(f"{ALICE}/token", params={"min_validity": 5})
        await http.get(f"{ALICE}/token", params={"access_token": token})
        await http.get(f"/{token}")
        await http.request("BREW", f"{ALICE}/token")
    told = [record.getMessage() for record in caplog.records if record.name.endswith("access")]
    lines = [re.sub(r" [0-9]+ ms$", "", line) for line in told]
    assert lines == [
        f"127.0.0.1 'bot\ufffdforged' POST {ALICE}/token 200",
        f"127.0.0.1 '-' GET {ALICE}/token 400",
        "127.0.0.1 '-' - 404",
        "127.0.0.1 '-' - 405",
    ]
    assert token not in caplog.text


# --- health and the page ---


@pytest.mark.requirement("O2")
async def test_health_is_told_to_anybody_in_a_word(service: Service) -> None:
    async with service.client() as http:
        alive, ready = await http.get("/livez"), await http.get("/readyz")
    assert (alive.json(), ready.json()) == ({"status": "alive"}, {"status": "ready"})


async def test_the_store_is_asked_once_a_second_however_many_ask(service: Service, statements: list[str]) -> None:
    async with service.client() as http:
        assert [(await http.get("/readyz")).status_code for _ in range(20)] == [200] * 20
    assert len(statements) <= 3


async def test_status_tells_of_the_store(service: Service) -> None:
    async with service.asking("status") as http:
        told = (await http.get("/status")).json()
    assert (told["healthy"], told["tiers"]) == (True, [{"name": "sqlite", "healthy": True, "reason": None}])


@pytest.mark.requirement("Z3")
async def test_the_page_shows_a_caller_the_accounts_they_may_see_and_escapes_them(service: Service) -> None:
    hostile = "<script>alert(1)</script>"
    for user in ("alice", "bob", hostile):
        await service.vault.get_or_create(user)
    mine = await service.token("report:broker/alice", name="ann")
    everything = await service.token("*", name="root")
    async with service.client() as http:
        assert (await http.get("/")).status_code == 401
        page = await http.get("/", headers=basic("ann", mine))
        assert ("alice" in page.text, "bob" in page.text, "Store" in page.text) == (True, False, False)
        whole = await http.get("/", headers=basic("root", everything))
    assert ("bob" in whole.text, "Store" in whole.text, hostile in whole.text) == (True, True, False)
    assert "&lt;script&gt;" in whole.text
    assert "default-src 'none'" in whole.headers["content-security-policy"]
    assert not [user for user in ("alice", "bob") if token_of(user) in whole.text]
