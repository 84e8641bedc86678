"""The token of a vault on each request, with both clients: httpx, and httpx2, which came of it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tokenkeep import AsyncTokenVault, KeyRing, NewToken, TokenVault
from tokenkeep.errors import ProviderRejected
from tokenkeep.httpx import VaultAuth
from tokenkeep.model import Action
from tokenkeep.providers.upstox import UpstoxProvider
from tokenkeep.testing import FakeProvider
from tokenkeep.testing.upstox import LocalUpstox

KEYS = KeyRing.generate()


class Broker:
    """An API that accepts some tokens, keeps what it was sent, and can send a client elsewhere.

    Attributes:
        good: tells which bearers are accepted.
        seen: path, Authorization and body of each request, in order.
        elsewhere: where `/moved` leads.
    """

    def __init__(self) -> None:
        self.good: Callable[[str], bool] = bool
        self.seen: list[tuple[str, str, bytes]] = []
        self.elsewhere = ""
        broker = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                authorization = self.headers.get("Authorization", "")
                broker.seen.append((self.path, authorization, self.body()))
                if self.path == "/moved":
                    self.reply(307, b"", Location=broker.elsewhere)
                elif self.path == "/forbidden" or not broker.good(authorization.removeprefix("Bearer ")):
                    self.reply(401, b'{"errors":[{"error_code":"UDAPI100050"}]}')
                else:
                    self.reply(200, b"{}")

            do_GET = do_POST = answer  # noqa: N815  # the names that http.server asks for

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", "0")))
                chunks = b""
                while size := int(self.rfile.readline(), 16):
                    chunks += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return chunks

            def reply(self, status: int, body: bytes, **headers: str) -> None:
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(body))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the signature of http.server
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def bearers(self) -> list[str]:
        return [authorization.removeprefix("Bearer ") for _, authorization, _ in self.seen]

    @contextmanager
    def serving(self) -> Iterator[Broker]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield self
        self._server.shutdown()
        self._server.server_close()
        thread.join()


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    return import_module(request.param)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker().serving() as broker:
        yield broker


@pytest.fixture
def vault(tmp_path: Path, fake_provider: FakeProvider) -> Iterator[TokenVault]:
    with TokenVault.open(f"sqlite:///{tmp_path}/tokens.db", providers=[fake_provider], keys=KEYS) as vault:
        yield vault


@pytest.fixture
async def async_vault(tmp_path: Path, fake_provider: FakeProvider) -> AsyncIterator[AsyncTokenVault]:
    url = f"sqlite:///{tmp_path}/tokens.db"
    async with AsyncTokenVault.open(url, providers=[fake_provider], keys=KEYS) as vault:
        yield vault


@pytest.fixture
def http(library: Any, vault: TokenVault, broker: Broker) -> Iterator[Any]:
    auth = VaultAuth(vault, "alice")
    with library.Client(auth=auth, base_url=broker.address, trust_env=False) as client:
        yield client


def granted(provider: FakeProvider) -> list[str]:
    return [secret.reveal() for secret in provider.granted]


def test_the_users_token_is_on_each_request(http: Any, broker: Broker, fake_provider: FakeProvider) -> None:
    assert [http.get("/orders").status_code for _ in range(3)] == [200, 200, 200]
    assert broker.bearers == granted(fake_provider) * 3
    assert fake_provider.calls == ("alice",)


def test_on_401_exactly_that_token_is_rejected_and_the_request_is_sent_once_more(
    http: Any, broker: Broker, vault: TokenVault, fake_provider: FakeProvider
) -> None:
    http.get("/orders")
    broker.good = lambda bearer: bearer != granted(fake_provider)[0]
    assert http.post("/orders", content=b"buy one").status_code == 200
    first, second = granted(fake_provider)
    assert broker.bearers == [first, first, second]
    assert [body for _, _, body in broker.seen[1:]] == [b"buy one", b"buy one"]
    newest, oldest = vault.history("alice")
    assert oldest.rejected_at is not None
    assert newest.rejected_at is None
    assert [event.action for event in vault.audit_trail("alice")].count(Action.REJECTED) == 1


def test_a_newer_token_that_another_process_fetched_meanwhile_is_used_and_not_rejected(
    http: Any, broker: Broker, vault: TokenVault, fake_provider: FakeProvider
) -> None:
    http.get("/orders")

    def good(bearer: str) -> bool:
        if fake_provider.logins == 1:
            vault.acquire("alice")  # while the request is under way
        return bearer != granted(fake_provider)[0]

    broker.good = good
    assert http.get("/orders").status_code == 200
    assert broker.bearers[-1] == granted(fake_provider)[1]
    assert fake_provider.logins == 2


def test_when_the_new_token_is_refused_too_no_login_is_spent_on_it_for_a_minute(
    library: Any, broker: Broker, vault: TokenVault, fake_provider: FakeProvider
) -> None:
    seconds = [0.0]
    auth = VaultAuth(vault, "alice", monotonic=lambda: seconds[0])
    with library.Client(auth=auth, base_url=broker.address, trust_env=False) as http:
        assert http.get("/forbidden").status_code == 401
        assert (fake_provider.logins, len(broker.seen)) == (2, 2)
        for _ in range(5):
            assert http.get("/forbidden").status_code == 401
        assert (fake_provider.logins, len(broker.seen)) == (2, 7)
        assert http.get("/orders").status_code == 200
        seconds[0] = 60.0
        assert http.get("/forbidden").status_code == 401
        assert fake_provider.logins == 3


def test_a_body_that_cannot_be_sent_twice_is_not_but_the_next_request_has_a_new_token(
    http: Any, broker: Broker, fake_provider: FakeProvider
) -> None:
    broker.good = lambda bearer: bearer != granted(fake_provider)[0]
    streamed = http.post("/orders", content=(chunk for chunk in (b"buy ", b"one")))
    assert streamed.status_code == 401
    assert [body for _, _, body in broker.seen] == [b"buy one"]
    assert http.get("/orders").status_code == 200
    assert fake_provider.logins == 2


def test_any_other_refusal_leaves_the_token_alone(http: Any, broker: Broker, fake_provider: FakeProvider) -> None:
    broker.elsewhere = f"{broker.address}/orders"
    assert http.get("/moved").status_code == 307
    assert http.get("/moved", follow_redirects=True).status_code == 200
    assert broker.bearers == granted(fake_provider) * 3


@pytest.mark.requirement("B3")
def test_a_redirect_takes_no_token_to_another_origin(
    http: Any, broker: Broker, vault: TokenVault, fake_provider: FakeProvider
) -> None:
    with Broker().serving() as other:
        broker.elsewhere = f"{other.address}/collect"
        answer = http.post("/moved", content=b"order", follow_redirects=True)
    assert [authorization for _, authorization, _ in other.seen] == [""]
    assert answer.status_code == 401  # from there; it says nothing of the token
    assert fake_provider.logins == 1
    assert vault.history("alice")[0].rejected_at is None


@pytest.mark.requirement("B3")
def test_a_token_can_be_kept_to_the_origins_that_were_named(
    library: Any, broker: Broker, vault: TokenVault, fake_provider: FakeProvider
) -> None:
    with Broker().serving() as other:
        auth = VaultAuth(vault, "alice", origins=[broker.address.upper()])
        with library.Client(auth=auth, trust_env=False) as http:
            assert http.get(f"{other.address}/").status_code == 401
            assert http.get(f"{broker.address}/").status_code == 200
    assert other.bearers == [""]
    assert broker.bearers == granted(fake_provider)


@pytest.mark.parametrize("origin", ["api.example.org", "https://", "ftp://x", "https://x/path", "https://a@x/"])
def test_an_origin_is_written_as_one(vault: TokenVault, origin: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        VaultAuth(vault, "alice", origins=[origin])


def test_what_the_provider_refuses_the_request_raises(http: Any, broker: Broker, fake_provider: FakeProvider) -> None:
    fake_provider.fail("alice", ProviderRejected("wrong PIN", provider="fake"))
    with pytest.raises(ProviderRejected):
        http.get("/orders")
    assert broker.seen == []


async def test_the_asynchronous_client_does_the_same(
    library: Any, broker: Broker, async_vault: AsyncTokenVault, fake_provider: FakeProvider
) -> None:
    auth = VaultAuth(async_vault, "alice", provider="fake", kind="access")
    broker.good = lambda bearer: bearer != granted(fake_provider)[0]
    async with library.AsyncClient(auth=auth, base_url=broker.address, trust_env=False) as http:
        assert (await http.post("/orders", json={"buy": 1})).status_code == 200
        assert (await http.get("/forbidden")).status_code == 401
        assert (await http.get("/forbidden")).status_code == 401

    async def chunks() -> AsyncIterator[bytes]:
        yield b"buy one"

    async with library.AsyncClient(auth=VaultAuth(async_vault, "bob"), trust_env=False) as http:
        broker.good = lambda _: False
        assert (await http.post(f"{broker.address}/orders", content=chunks())).status_code == 401
    assert fake_provider.calls == ("alice", "alice", "alice", "bob")


async def test_a_vault_and_a_client_of_different_faces_are_told_apart(
    library: Any, vault: TokenVault, async_vault: AsyncTokenVault
) -> None:
    with (
        library.Client(auth=VaultAuth(async_vault, "alice")) as http,
        pytest.raises(TypeError, match="TokenVault"),
    ):
        http.get("http://127.0.0.1:9/")
    async with library.AsyncClient(auth=VaultAuth(vault, "alice")) as http:
        with pytest.raises(TypeError, match="AsyncTokenVault"):
            await http.get("http://127.0.0.1:9/")


def test_a_token_that_upstox_calls_invalid_is_replaced_by_a_real_login(library: Any, tmp_path: Path) -> None:
    with LocalUpstox() as upstox:
        provider = UpstoxProvider(upstox.credentials(), base_domain=upstox.base_domain)
        url = f"sqlite:///{tmp_path}/upstox.db"
        with TokenVault.open(url, providers=[provider], keys=KEYS) as vault:
            vault.store("alice", NewToken("killed by a login elsewhere", expires_in=3600))
            api = upstox.base_domain.format(stage="api")
            with library.Client(auth=VaultAuth(vault, "alice"), base_url=api, trust_env=False) as http:
                refused = http.get("/v2/user/profile", auth=None)
                assert (refused.status_code, refused.json()["errors"][0]["error_code"]) == (401, "UDAPI100050")
                assert http.get("/v2/user/profile").status_code == 200
            assert [login.granted for login in upstox.logins] == [True]
