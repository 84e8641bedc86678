import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request, Response
from starlette.responses import JSONResponse

from fastapi_apps import SITE, bearing, client, plain
from tokenkeep import AsyncTokenIssuer, IssuedToken, KeyRing
from tokenkeep.fastapi import Bearer, SessionCookie, Sessions, oauth_router, token_answer
from tokenkeep.testing import FakeClock

OWN = {"Origin": SITE}
COOKIE = "__Host-session"


@pytest.fixture
async def issuer(tmp_path: Path, fake_clock: FakeClock) -> AsyncIterator[AsyncTokenIssuer]:
    async with AsyncTokenIssuer.open(
        f"sqlite:///{tmp_path}/app.db", lifetime=timedelta(hours=1), keys=KeyRing.generate(), clock=fake_clock
    ) as issuer:
        yield issuer


def application(issuer: AsyncTokenIssuer, clock: FakeClock, cookie: SessionCookie | None, **options: Any) -> FastAPI:
    """Log anybody in who says who they are; the tests are about what comes after."""
    fresh = options.pop("fresh", None)
    sessions = Sessions(Bearer(issuer, cookie=cookie), clock=clock, **options)
    app = FastAPI()
    app.include_router(sessions.router(fresh=fresh))

    @app.post("/login/{user_id}")
    async def login(user_id: str, request: Request, response: Response, name: str | None = None) -> Any:
        issued = await sessions.begin(request, response, user_id, name=name, refresh=cookie is None)
        return user_id if cookie else token_answer(issued)

    @app.post("/password")
    async def password(mine: Annotated[IssuedToken, Depends(sessions.require_fresh(timedelta(minutes=5)))]) -> str:
        return mine.user_id

    return app


@pytest.fixture
def app(issuer: AsyncTokenIssuer, fake_clock: FakeClock) -> FastAPI:
    return application(issuer, fake_clock, SessionCookie())


@pytest.fixture
def bearer_app(issuer: AsyncTokenIssuer, fake_clock: FakeClock) -> FastAPI:
    return application(issuer, fake_clock, None)


@pytest.mark.requirement("L2")
async def test_a_login_past_the_limit_is_refused_where_the_issuer_refuses(
    tmp_path: Path, fake_clock: FakeClock
) -> None:
    async with AsyncTokenIssuer.open(
        f"sqlite:///{tmp_path}/app.db", lifetime=timedelta(hours=1), limit=2, at_limit="refuse", clock=fake_clock
    ) as issuer:
        app = application(issuer, fake_clock, None)
        async with client(app) as http:
            answers = [(await http.post("/login/alice")).status_code for _ in range(3)]
            assert answers == [200, 200, 409]
            assert (await http.post("/login/bob")).status_code == 200


async def mine(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    answer = await http.get("/sessions")
    assert answer.status_code == 200
    sessions: list[dict[str, Any]] = answer.json()
    return sessions


@pytest.mark.requirement("L5", "C7")
async def test_a_login_sets_a_cookie_that_no_script_and_no_other_site_gets(app: FastAPI) -> None:
    async with client(app) as http:
        answer = await http.post("/login/alice", headers=OWN)
    cookie = answer.headers["set-cookie"]
    name, _, rest = cookie.partition("=")
    value, *attributes = rest.split("; ")
    assert name == COOKIE
    assert {attribute.lower() for attribute in attributes} == {
        "httponly", "secure", "samesite=lax", "path=/", "max-age=3600",
    }  # fmt: skip
    assert len(name) + len(value) < 4096
    assert "no-store" in answer.headers["cache-control"]
    assert value not in answer.text


@pytest.mark.requirement("C7")
async def test_a_token_goes_out_as_the_standard_says_and_into_no_cache(bearer_app: FastAPI) -> None:
    async with client(bearer_app) as http:
        answer = await http.post("/login/alice")
    assert answer.json().keys() == {"access_token", "token_type", "expires_in", "scope", "refresh_token"}
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("Bearer", 3600)
    assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers


@pytest.mark.requirement("L1", "T7")
async def test_people_see_their_sessions_and_which_is_this_one(app: FastAPI, fake_clock: FakeClock) -> None:
    async with (
        client(app, headers=OWN | {"User-Agent": "Desktop"}) as desktop,
        client(app, headers=OWN | {"User-Agent": "Phone"}, address="198.51.100.3") as phone,
        client(app, headers=OWN) as other,
    ):
        await desktop.post("/login/alice?name=work")
        fake_clock.advance(timedelta(seconds=30))
        await phone.post("/login/alice")
        await other.post("/login/bob")
        answer = await desktop.get("/sessions")
        tokens = [one.cookies[COOKIE] for one in (desktop, phone, other)]
    newest, oldest = answer.json()
    assert oldest == {
        "id": oldest["id"], "name": "work", "client": "Desktop", "address": "203.0.113.7", "current": True,
        "created_at": "2026-01-05T06:30:00Z", "expires_at": "2026-01-05T07:30:00Z",
        "last_used_at": oldest["last_used_at"],
    }  # fmt: skip
    assert (newest["client"], newest["address"], newest["current"]) == ("Phone", "198.51.100.3", False)
    assert oldest["last_used_at"] is not None
    assert not [token for token in tokens if token in answer.text]
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.requirement("L1")
async def test_people_end_one_of_their_sessions_and_nobody_elses(app: FastAPI) -> None:
    async with client(app, headers=OWN) as desktop, client(app, headers=OWN) as phone, client(app, headers=OWN) as bob:
        for http, user in ((desktop, "alice"), (phone, "alice"), (bob, "bob")):
            await http.post(f"/login/{user}")
        theirs = next(session["id"] for session in await mine(desktop) if not session["current"])
        refused = await bob.delete(f"/sessions/{theirs}")
        unknown = await bob.delete(f"/sessions/{'0' * 32}")
        assert (
            (refused.status_code, refused.content) == (unknown.status_code, unknown.content) == (404, refused.content)
        )
        assert (await phone.get("/sessions")).status_code == 200
        assert (await desktop.delete(f"/sessions/{theirs}")).status_code == 204
        assert (await phone.get("/sessions")).status_code == 401
        assert (await desktop.delete(f"/sessions/{theirs}")).status_code == 404
        for odd in ("x", "%00", "..%2f..", "a" * 5000, theirs.upper()):
            assert (await desktop.delete(f"/sessions/{odd}")).status_code == 404
        assert len(await mine(bob)) == 1


@pytest.mark.requirement("L1", "K2")
async def test_people_end_all_their_other_sessions(app: FastAPI, issuer: AsyncTokenIssuer) -> None:
    async with client(app, headers=OWN) as desktop, client(app, headers=OWN) as phone, client(app, headers=OWN) as bob:
        for http, user in ((desktop, "alice"), (phone, "alice"), (bob, "bob")):
            await http.post(f"/login/{user}")
        await issuer.issue("alice", name="a script")
        assert (await desktop.delete("/sessions/others")).json() == {"ended": 2}
        assert [session["current"] for session in await mine(desktop)] == [True]
        assert (await phone.get("/sessions")).status_code == 401
        assert len(await mine(bob)) == 1


async def test_logging_out_ends_the_token_and_drops_the_cookie(app: FastAPI) -> None:
    async with client(app, headers=OWN) as http:
        await http.post("/login/alice")
        cookie = {"Cookie": f"{COOKIE}={http.cookies[COOKIE]}"}
        answer = await http.delete("/sessions/current")
        assert answer.status_code == 204
        assert f'{COOKIE}="";' in answer.headers["set-cookie"]
        assert "max-age=0" in answer.headers["set-cookie"].lower()
        assert COOKIE not in http.cookies
        assert (await http.get("/sessions", headers=cookie)).status_code == 401


async def test_ending_this_session_by_its_id_drops_the_cookie_too(app: FastAPI) -> None:
    async with client(app, headers=OWN) as http:
        await http.post("/login/alice")
        [session] = await mine(http)
        assert (await http.delete(f"/sessions/{session['id']}")).status_code == 204
        assert COOKIE not in http.cookies


@pytest.mark.requirement("T5", "T6")
async def test_a_new_login_gives_a_new_token_and_ends_the_one_that_was_brought(app: FastAPI) -> None:
    async with client(app, headers=OWN) as http:
        made_up = {"Cookie": f"{COOKIE}=tk_{'a' * 51}"}
        assert (await http.get("/sessions", headers=made_up)).status_code == 401
        first = await http.post("/login/alice", headers=made_up)
        assert f"tk_{'a' * 51}" not in first.headers["set-cookie"]
        old = http.cookies[COOKIE]
        await http.post("/login/alice")
        assert http.cookies[COOKIE] != old
        assert len(await mine(http)) == 1
    async with client(app) as http:
        assert (await http.get("/sessions", headers={"Cookie": f"{COOKIE}={old}"})).status_code == 401


@pytest.mark.requirement("T6")
async def test_a_public_id_in_the_cookie_ends_nobodys_session(app: FastAPI) -> None:
    async with client(app, headers=OWN) as alice, client(app, headers=OWN) as mallory:
        await alice.post("/login/alice")
        [session] = await mine(alice)
        await mallory.post("/login/mallory", headers={"Cookie": f"{COOKIE}={session['id']}"})
        assert len(await mine(alice)) == 1


@pytest.mark.requirement("L5")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": SITE}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": SITE, "Sec-Fetch-Site": "same-origin"}, 200),
        ({}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "https://app.example.org.evil.example"}, 403),
        ({"Origin": "https://app.example.org:444"}, 403),
        ({"Origin": "http://app.example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": SITE}, 403),
        ({"Sec-Fetch-Site": ""}, 403),
        ({"Referer": f"{SITE}/"}, 403),
    ],
    ids=str,
)
async def test_a_request_with_a_cookie_changes_something_only_from_our_own_pages(
    app: FastAPI, headers: dict[str, str], status: int
) -> None:
    async with client(app) as http:
        await http.post("/login/alice", headers=OWN)
        assert (await http.get("/sessions", headers=headers)).status_code == 200
        assert (await http.delete("/sessions/others", headers=headers)).status_code == status


@pytest.mark.requirement("L5")
async def test_another_site_logs_nobody_in(app: FastAPI) -> None:
    async with client(app) as http:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            answer = await http.post("/login/mallory", headers=headers)
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers
        assert (await http.post("/login/alice")).status_code == 200  # no browser: nobody whose cookies are used


async def test_a_trusted_origin_may_use_the_cookie(issuer: AsyncTokenIssuer, fake_clock: FakeClock) -> None:
    app = application(issuer, fake_clock, SessionCookie(trusted_origins=["https://www.example.org"]))
    headers = {"Origin": "https://www.example.org", "Sec-Fetch-Site": "same-site"}
    async with client(app, headers=headers) as http:
        await http.post("/login/alice")
        assert (await http.delete("/sessions/others")).status_code == 200


async def test_a_header_needs_no_origin(bearer_app: FastAPI) -> None:
    async with client(bearer_app) as http:
        token = (await http.post("/login/alice")).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Sec-Fetch-Site": "cross-site", "Origin": "https://spa.example"}
        assert (await http.delete("/sessions/others", headers=headers)).status_code == 200


@pytest.mark.requirement("L5")
async def test_only_this_machine_gets_a_plain_cookie_and_only_when_it_was_switched_on(
    issuer: AsyncTokenIssuer, fake_clock: FakeClock
) -> None:
    switched_on = application(issuer, fake_clock, SessionCookie(plain_loopback=True))
    at_home: dict[str, Any] = {"address": "127.0.0.1", "base_url": "http://localhost:8000"}
    async with client(switched_on, **at_home) as http:
        cookie = (await http.post("/login/alice")).headers["set-cookie"]
        assert cookie.startswith("session=")
        assert "secure" not in cookie.lower()
        assert "httponly" in cookie.lower()
        assert len(await mine(http)) == 1
    elsewhere: list[dict[str, Any]] = [
        at_home | {"address": "203.0.113.7"},
        at_home | {"base_url": "http://app.example.org"},
        at_home | {"base_url": "https://localhost:8000"},
    ]
    for options in elsewhere:
        async with client(switched_on, **options) as http:
            cookie = (await http.post("/login/alice")).headers["set-cookie"]
            assert cookie.startswith("__Host-session=")
            assert "secure" in cookie.lower()
            plain_cookie = {"Cookie": cookie.partition(";")[0].removeprefix("__Host-")}
        async with client(switched_on, **options) as http:
            assert (await http.get("/sessions", headers=plain_cookie)).status_code == 401
    switched_off = application(issuer, fake_clock, SessionCookie())
    async with client(switched_off, **at_home) as http:
        assert (await http.post("/login/alice")).headers["set-cookie"].startswith("__Host-session=")


@pytest.mark.requirement("L3", "G3")
async def test_what_a_device_says_of_itself_is_cut_cleaned_and_shown_as_text(app: FastAPI) -> None:
    async with client(app, headers=OWN) as http:
        hostile = b"<script>alert(1)</script>\x1b[31m\x00\xff" + b"A" * 1_000_000
        await http.post("/login/alice?name=<b>x%0d%0aSet-Cookie:%20y", headers={b"User-Agent": hostile})
        [session] = await mine(http)
    assert len(session["client"]) == 255
    assert session["client"].startswith("<script>alert(1)</script>\ufffd[31m\ufffd")
    assert not re.search(r"[\x00-\x1f]", session["name"] + session["client"])


@pytest.mark.requirement("L3")
@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.7", ["6.6.6.6"], "203.0.113.7"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.3"], "198.51.100.3"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.3, 10.0.0.2"], "198.51.100.3"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.3"], "198.51.100.3"),
        ("10.0.0.1", ["198.51.100.3, <script>"], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
    ],
)
async def test_only_a_proxy_of_ours_is_believed_about_an_address(
    issuer: AsyncTokenIssuer, fake_clock: FakeClock, peer: str, forwarded: list[str], expected: str
) -> None:
    trusting = application(issuer, fake_clock, None, trusted_proxies=["10.0.0.0/8"])
    wary = application(issuer, fake_clock, None)
    headers = [("X-Forwarded-For", value) for value in forwarded]
    for app, address in ((trusting, expected), (wary, peer.removeprefix("::ffff:"))):
        async with client(app, address=peer) as http:
            token = (await http.post("/login/alice", headers=headers)).json()["access_token"]
            answer = await http.get("/sessions", headers={"Authorization": f"Bearer {token}"})
            assert next(session for session in answer.json() if session["current"])["address"] == address


@pytest.mark.requirement("L6", "L8")
async def test_a_sensitive_action_wants_a_recent_login_which_no_refresh_replaces(
    bearer_app: FastAPI, issuer: AsyncTokenIssuer, fake_clock: FakeClock
) -> None:
    async with client(bearer_app) as http:
        login = (await http.post("/login/alice")).json()
        headers = {"Authorization": f"Bearer {login['access_token']}"}
        fake_clock.advance(timedelta(minutes=5))
        assert (await http.post("/password", headers=headers)).status_code == 200
        fake_clock.advance(timedelta(seconds=1))
        answer = await http.post("/password", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == (
            'Bearer realm="api", error="insufficient_user_authentication", max_age="300"'
        )
        renewed = await issuer.refresh(login["refresh_token"])
        assert renewed is not None
        assert (await http.post("/password", headers=bearing(renewed))).status_code == 401
        again = (await http.post("/login/alice")).json()
        headers = {"Authorization": f"Bearer {again['access_token']}"}
        assert (await http.post("/password", headers=headers)).status_code == 200


@pytest.mark.requirement("L8", "Z1")
async def test_a_token_that_no_login_began_is_no_session(bearer_app: FastAPI, issuer: AsyncTokenIssuer) -> None:
    script = await issuer.issue("alice", scopes={"*"}, name="a script")
    async with client(bearer_app) as http:
        for method, path in (("GET", "/sessions"), ("DELETE", "/sessions/others"), ("POST", "/password")):
            assert (await http.request(method, path, headers=bearing(script))).status_code == 403
    assert await issuer.verify(plain(script)) is not None


@pytest.mark.requirement("L1")
async def test_ending_other_sessions_can_want_a_recent_login(issuer: AsyncTokenIssuer, fake_clock: FakeClock) -> None:
    app = application(issuer, fake_clock, SessionCookie(), fresh=timedelta(minutes=15))
    async with client(app, headers=OWN) as http:
        await http.post("/login/alice")
        fake_clock.advance(timedelta(minutes=16))
        assert (await http.delete("/sessions/others")).status_code == 401
        [session] = await mine(http)
        assert (await http.delete(f"/sessions/{session['id']}")).status_code == 401
        assert (await http.delete("/sessions/current")).status_code == 204


@pytest.mark.requirement("Z5")
async def test_a_login_cannot_forge_when_and_from_where_it_was(issuer: AsyncTokenIssuer, fake_clock: FakeClock) -> None:
    sessions = Sessions(Bearer(issuer), clock=fake_clock)
    app = FastAPI()

    @app.post("/login")
    async def login(request: Request, response: Response) -> JSONResponse:
        issued = await sessions.begin(request, response, "alice", metadata=await request.json())
        return token_answer(issued)

    forged = {"session": {"auth_time": 2_000_000_000, "address": "6.6.6.6"}, "team": "blue"}
    async with client(app) as http:
        token = (await http.post("/login", content=json.dumps(forged))).json()["access_token"]
    found = await issuer.verify(token)
    assert found is not None
    assert found.metadata == {
        "session": {"auth_time": int(fake_clock.now().timestamp()), "address": "203.0.113.7"},
        "team": "blue",
    }


@pytest.mark.parametrize("name", ["", "a=b", "a;b", "a b", "é", "x" * 65])
def test_a_cookie_has_a_name_that_every_browser_takes(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        SessionCookie(name)


def test_settings_that_weaken_the_cookie_are_refused() -> None:
    with pytest.raises(ValueError, match="samesite"):
        SessionCookie(samesite="none")  # type: ignore[arg-type]
    for origin in ("app.example.org", "https://app.example.org/", "*", "null"):
        with pytest.raises(ValueError, match="origin"):
            SessionCookie(trusted_origins=[origin])
    with pytest.raises(TypeError, match="collection"):
        SessionCookie(trusted_origins="https://app.example.org")


async def test_what_was_not_issued_just_now_cannot_be_shown(issuer: AsyncTokenIssuer) -> None:
    [token] = await issuer.tokens((await issuer.issue("alice")).user_id)
    request = Request({"type": "http", "headers": [], "scheme": "https", "client": None})
    with pytest.raises(ValueError, match="just now"):
        token_answer(token)
    with pytest.raises(ValueError, match="just now"):
        SessionCookie().put(request, Response(), token)


@pytest.mark.requirement("Z1")
async def test_no_route_makes_a_token_of_a_token_and_a_refresh_makes_none_that_is_wider(
    issuer: AsyncTokenIssuer, fake_clock: FakeClock
) -> None:
    bearer = Bearer(issuer)
    app = FastAPI()
    app.include_router(Sessions(bearer, clock=fake_clock).router())
    app.include_router(oauth_router(issuer, bearer))
    narrow = await issuer.issue("alice", scopes={"read"}, refresh=True)
    wide = {"scopes": ["*"], "scope": "*", "user_id": "admin", "expires_in": 10**9, "refresh": True}
    asked = 0
    async with client(app) as http:
        for path, methods in app.openapi()["paths"].items():
            for method in methods:
                for body in ({"json": wide}, {"data": {**wide, "token": "x"}}, {"params": wide}):
                    where = path.replace("{session_id}", "0" * 32).replace("{id}", "0" * 32)
                    answer = await http.request(method, where, headers=bearing(narrow), **body)  # type: ignore[arg-type]
                    assert answer.status_code < 500
                    assert "access_token" not in answer.text
                    asked += 1
    assert asked >= 15
    for user in ("alice", "admin"):
        assert {one.id for one in await issuer.tokens(user)} <= {narrow.id}
    other = await issuer.issue("alice", scopes={"read"}, refresh=True)
    assert other.refresh_token is not None
    refreshed = await issuer.refresh(other.refresh_token)
    assert refreshed is not None
    assert refreshed.scopes == {"read"}
