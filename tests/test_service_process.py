"""`tokenkeep serve`: a process of its own with uvicorn on a free port, at a local Upstox."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from fastapi_apps import plain
from servers import certificates
from servers.postgres import Postgres
from servers.proxy import FaultProxy
from service_apps import basic, serving
from tokenkeep import KeyRing, NewToken, TokenIssuer, TokenVault
from tokenkeep.cli import exits, main
from tokenkeep.cli.accounts import login_of
from tokenkeep.errors import ConfigurationError, ProviderRejected
from tokenkeep.providers.upstox import UpstoxProvider
from tokenkeep.service.callers import KEPT_UNDER, open_callers
from tokenkeep.service.running import Address
from tokenkeep.testing import Canary
from tokenkeep.testing.upstox import Faults, LocalAccount, LocalUpstox, Step

ALICE = "/accounts/upstox/alice"


@pytest.fixture(scope="module")
def upstox() -> Iterator[LocalUpstox]:
    with LocalUpstox() as server:
        yield server


@pytest.fixture
def account(upstox: LocalUpstox) -> LocalAccount:
    """An account of this test alone."""
    return upstox.add_account()


def caller(url: str, *scopes: str, keys: KeyRing | None = None) -> str:
    with open_callers(url, "default", keys=keys) as issuer:
        return plain(issuer.issue(KEPT_UNDER, scopes=scopes, name="bot"))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.requirement("G1", "G4", "O2", "C7")
def test_no_secret_stands_in_any_log_metric_page_or_error_and_no_answer_names_the_server(
    account: LocalAccount, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/t.db"
    mine, canary = caller(url, "*"), Canary()
    with TokenIssuer.open(url, lifetime=timedelta(hours=1)) as issuer:
        issued = plain(issuer.issue("carol"))
    keys = [line for line in (tmp_path / "t.db.key").read_text().splitlines() if not line.startswith("#")]
    canary.watch(mine, issued, *keys, account.password, account.pin_code, account.totp_secret, account.client_secret)
    options = ["--account", "alice", "--issued-prefix", "tk", "--audit-reads", "--json"]
    with (
        serving(tmp_path, *options, TOKENKEEP_URL=url, **account.environment()) as service,
        service.client(mine) as http,
    ):
        missing = http.get(f"{ALICE}/token")
        account.faults = Faults(too_many=Step.PIN)
        unavailable = http.post(f"{ALICE}/token")
        with TokenVault.open(url) as vault:  # another login would wait for another code
            vault.store("alice", NewToken("the token of alice's account", expires_in=3600), provider="upstox")
        granted = http.post(f"{ALICE}/token")
        canary.watch(granted.json()["access_token"])
        answers = [missing, unavailable]
        answers += [http.get(path) for path in ("/", "/status", "/metrics", ALICE, f"/{mine}", "/readyz")]
        answers += [http.get(f"{ALICE}/token", params={"access_token": mine, "password": account.password})]
        answers += [http.post("/accounts/upstox/bob/token"), http.get(f"{ALICE}/token?kind={mine}")]
        answers += [http.post("/oauth/introspect", data={"token": issued}), http.put(ALICE, content=mine)]
        answers += [http.get("/", headers=basic("bot", mine)), http.get("/", headers=basic(mine, "bot"))]
        codes = [answer.status_code for answer in answers]
        long = http.get("/livez", headers={"X-Long": "x" * 20_000})
        assert long.status_code in {400, 431}  # uvicorn's answer where it comes in pieces, and ours
        assert codes == [404, 503, 401, 200, 200, 200, 404, 200, 400, 502, 404, 200, 405, 200, 401]
        logged = service.log
    assert unavailable.json()["error"] == "ProviderUnavailable"
    assert "Retry-After" in unavailable.headers
    assert not [finding for answer in answers for finding in canary.found_in(answer.text + str(answer.headers))]
    assert not canary.found_in(logged)
    assert str(tmp_path) not in logged + "".join(answer.text for answer in answers)
    assert {answer.headers["cache-control"] for answer in [granted, *answers]} == {"no-store"}
    assert not [
        answer for answer in [granted, *answers] if "server" in answer.headers or "x-powered-by" in answer.headers
    ]
    lines = [json.loads(line) for line in logged.splitlines()]
    assert {line["source"] for line in lines} == {"tokenkeep.service", "tokenkeep.service.access"}
    assert f"'bot' POST {ALICE}/token 200" in logged
    with TokenVault.open(url) as vault:
        assert [event.action for event in vault.audit_trail("alice") if event.action == "used"]


def test_a_login_under_way_is_finished_and_uses_are_written_before_the_service_ends(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/t.db"
    mine, reached, go_on = caller(url, "token:*"), threading.Event(), threading.Event()

    def held(_: str, step: str) -> None:
        if step == Step.TOKEN:
            reached.set()
            assert go_on.wait(60)

    answers: list[httpx.Response] = []
    with LocalUpstox(on_step=held) as upstox:
        environment = upstox.environment()
        with serving(tmp_path, "--account", "alice", TOKENKEEP_URL=url, **environment) as service:
            port = int(service.address.rpartition(":")[2])
            with service.client(mine) as http:
                asking = threading.Thread(target=lambda: answers.append(http.post(f"{ALICE}/token")))
                asking.start()
                assert reached.wait(60)
                service.process.send_signal(signal.SIGTERM)
                until(lambda: not listens(port))
                assert service.process.poll() is None
                go_on.set()
                asking.join(60)
            assert service.process.wait(60) == -signal.SIGTERM
    assert [answer.status_code for answer in answers] == [200]
    with TokenVault.open(url) as vault:
        [info] = vault.history("alice", provider="upstox")
    assert (info.active, info.usage_count) == (True, 1)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.requirement("G4")
def test_on_postgresql_an_outage_is_told_and_ends_by_itself(
    account: LocalAccount, postgres_server: Postgres, postgres_url: str, tmp_path: Path
) -> None:
    keys = KeyRing.generate()
    keys.save(tmp_path / "keys")
    mine = caller(postgres_url, "*", keys=keys)
    before, _, after = postgres_url.rpartition(":")
    with FaultProxy(postgres_server.port) as proxy:
        bounds = "statement_timeout=1&connect_timeout=1&retry_timeout=0.5&pool_timeout=2"
        through = f"{before}:{proxy.port}/{after.partition('/')[2]}?{bounds}"
        named = {"TOKENKEEP_URL": through, "TOKENKEEP_KEY_FILE": str(tmp_path / "keys")}
        with (
            serving(tmp_path, "--account", "alice", **named, **account.environment()) as service,
            service.client(mine) as http,
        ):
            assert http.post(f"{ALICE}/token").status_code == 200
            assert "tokenkeep_store_up 1.0" in http.get("/metrics").text
            proxy.refuse()
            until(lambda: http.get("/readyz").status_code == 503)
            refused = http.get(f"{ALICE}/token")
            told = http.get("/metrics").text
            proxy.heal()
            until(lambda: http.get("/readyz").status_code == 200)
            assert http.get(f"{ALICE}/token").status_code == 200
    assert (refused.status_code, refused.json()["detail"]) == (503, "This cannot be checked now.")
    assert refused.headers["retry-after"] == "5"
    assert "tokenkeep_store_up 0.0" in told
    assert 'tokenkeep_accounts{provider="upstox"' not in told
    assert str(proxy.port) not in service.log
    assert before not in service.log


@pytest.mark.requirement("O5")
def test_with_its_files_it_serves_tls(tmp_path: Path) -> None:
    url, files = f"sqlite:///{tmp_path}/t.db", certificates.make(tmp_path)
    mine = caller(url, "status")
    trust = ssl.create_default_context(cafile=str(files.authority))
    options = ["--host", "0.0.0.0", "--tls-cert", str(files.certificate), "--tls-key", str(files.key)]  # noqa: S104
    with serving(tmp_path, *options, TOKENKEEP_URL=url) as service:
        assert service.address.startswith("https://0.0.0.0:")
        there = f"https://127.0.0.1:{service.address.rpartition(':')[2]}"
        with service.client(mine, base_url=there, verify=trust) as http:
            assert http.get("/status").json()["healthy"] is True


# --- what does not start ---


type Run = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call `tokenkeep serve`, which does not start; return why."""
    monkeypatch.chdir(tmp_path)

    def refused(*arguments: object, code: int = exits.FAILED) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["serve", *map(str, arguments)])
        assert ended.value.code == code
        return capsys.readouterr().err

    return refused


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "tokens.example.org"])  # noqa: S104
def test_it_refuses_to_send_tokens_over_a_network_in_clear(host: str) -> None:
    with pytest.raises(ConfigurationError, match="tokens would cross the network in clear"):
        Address(host=host, port=8000)
    assert (
        Address(host=host, port=8000, behind_proxy=True).url(80) == f"http://{f'[{host}]' if ':' in host else host}:80"
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_this_machine_alone_it_serves_in_clear(host: str) -> None:
    assert Address(host=host, port=8000).url(8000).startswith("http://")


def test_no_answer_waits_for_the_acknowledgement_of_its_beginning() -> None:
    async def without_delay() -> bool:
        accepted: list[int] = []

        class Accepting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                sock = transport.get_extra_info("socket")
                accepted.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                transport.close()

        listening = Address(host="127.0.0.1", port=0).listening()
        async with await asyncio.get_running_loop().create_server(Accepting, sock=listening):
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            await reader.read()
            writer.close()
            await writer.wait_closed()
        return accepted == [1]

    assert asyncio.run(without_delay())


def test_on_a_network_the_command_does_not_start(refused: Run) -> None:
    assert "--behind-proxy" in refused("--host", "0.0.0.0")  # noqa: S104


def test_it_refuses_files_of_tls_that_are_none(refused: Run, tmp_path: Path) -> None:
    caller("sqlite:///tokens.db", "*")
    files = certificates.make(tmp_path)
    assert "takes both files" in refused("--tls-cert", files.certificate)
    for certificate, key in (
        (files.key, files.key),
        (files.certificate, files.authority),
        (tmp_path / "no", files.key),
    ):
        assert "cannot be used" in refused("--tls-cert", certificate, "--tls-key", key)


def test_a_port_that_is_taken_is_said(refused: Run) -> None:
    caller("sqlite:///tokens.db", "*")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "choose another --host or --port" in refused("--port", taken.getsockname()[1])


def test_a_database_that_is_not_there_is_said(refused: Run) -> None:
    assert "there is no database" in refused(code=exits.STORE)


def test_an_account_that_is_not_in_the_environment_is_said(refused: Run) -> None:
    assert "UPSTOX_USERNAME" in refused("--account", "alice")


def test_the_account_in_the_environment_is_one_users(account: LocalAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in account.environment().items():
        monkeypatch.setenv(name, value)
    provider = login_of("upstox", "alice")
    assert isinstance(provider, UpstoxProvider)
    with pytest.raises(ProviderRejected):
        provider.code_window("bob")
    assert provider.code_window("alice").account.endswith(account.username)
