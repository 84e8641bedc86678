"""The local Upstox against the real client: it must be as strict as the one it stands for."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pytest

from tokenkeep.errors import ProviderError, ProviderRejected
from tokenkeep.providers.upstox import UpstoxCredentials, UpstoxProvider
from tokenkeep.testing import FakeClock
from tokenkeep.testing.upstox import LOGIN_STEPS, Faults, LocalAccount, LocalUpstox

pytest.importorskip("upstox_totp", reason="the extra [upstox] is not installed")

from curl_cffi.requests import Session
from upstox_totp import UpstoxError, UpstoxTOTP

INDIA = ZoneInfo("Asia/Kolkata")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def server(clock: FakeClock) -> Iterator[LocalUpstox]:
    with LocalUpstox(clock=clock) as server:
        yield server


def log_in(account: LocalAccount) -> str:
    provider = UpstoxProvider(account.credentials(), base_domain=account.base_domain)
    return provider.acquire("alice")[0].access_token.reveal()


def real_client(account: LocalAccount) -> Any:
    names = ("username", "password", "pin_code", "totp_secret", "client_id", "client_secret", "redirect_uri")
    client = UpstoxTOTP(**{name: getattr(account, name) for name in names})
    client.base_domain = account.base_domain
    client.config.sleep_time = 0
    return client


def call(account: LocalAccount, method: Any, path: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
    with Session() as session:
        stage = "service" if path.startswith("/login") else "api"
        response = session.request(method, account.base_domain.format(stage=stage) + path, **arguments)
        return response.status_code, json.loads(response.content)


def profile(account: LocalAccount, token: str) -> tuple[int, dict[str, Any]]:
    return call(account, "GET", "/v2/user/profile", headers={"Authorization": f"Bearer {token}"})


def claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return decoded


def test_the_real_client_logs_in_with_all_fields_of_a_grant(server: LocalUpstox) -> None:
    with real_client(server.account) as client:
        data = client.app_token.get_access_token().data
    assert (data.user_id, data.broker, data.ddpi, data.extended_token) == ("UP0001", "UPSTOX", False, None)
    status, document = profile(server.account, data.access_token)
    assert (status, document["data"]["user_name"]) == (200, "Asha Rao")


def test_the_steps_of_a_login_are_told_in_their_order_and_the_login_is_counted(
    server: LocalUpstox, clock: FakeClock
) -> None:
    told: list[tuple[str, str]] = []
    server.on_step = lambda account, step: told.append((account, step))
    log_in(server.account)
    assert told == [("UP0001", step) for step in LOGIN_STEPS]
    assert [(login.account, login.at, login.step, login.granted) for login in server.logins] == [
        ("UP0001", clock.now(), "token", True)
    ]


@pytest.mark.parametrize(
    ("made", "ends"),
    [
        ("2026-01-06T02:30:00", "2026-01-06T03:30:00"),
        ("2026-01-06T03:29:59", "2026-01-06T03:30:00"),
        ("2026-01-06T03:30:00", "2026-01-07T03:30:00"),
        ("2026-01-06T23:00:00", "2026-01-07T03:30:00"),
    ],
)
def test_a_token_ends_at_the_next_half_past_three_in_india(
    server: LocalUpstox, clock: FakeClock, made: str, ends: str
) -> None:
    clock.set(datetime.fromisoformat(made).replace(tzinfo=INDIA))
    token = log_in(server.account)
    end = datetime.fromisoformat(ends).replace(tzinfo=INDIA)
    assert claims(token)["exp"] == end.timestamp()
    clock.set(end - timedelta(seconds=1))
    assert profile(server.account, token)[0] == 200
    clock.set(end)
    status, document = profile(server.account, token)
    assert (status, document["errors"][0]["error_code"]) == (401, "UDAPI100050")


def test_an_extended_token_comes_where_the_account_has_it_and_lives_for_a_year(
    server: LocalUpstox, clock: FakeClock
) -> None:
    account = server.add_account(extended=True)
    with real_client(account) as client:
        extended = client.app_token.get_access_token().data.extended_token
    assert claims(extended)["exp"] == (clock.now() + timedelta(days=365)).timestamp()


def test_a_logout_ends_the_token_and_a_second_one_finds_it_dead(server: LocalUpstox) -> None:
    bearer = {"Authorization": f"Bearer {log_in(server.account)}"}
    assert call(server.account, "DELETE", "/v2/logout", headers=bearer) == (200, {"status": "success", "data": True})
    status, document = call(server.account, "DELETE", "/v2/logout", headers=bearer)
    assert (status, document["errors"][0]["error_code"]) == (401, "UDAPI100050")


def test_a_one_time_code_is_accepted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000
    monkeypatch.setattr("pyotp.TOTP.now", lambda codes: codes.at(now))
    with LocalUpstox(seconds=lambda: now) as server:
        log_in(server.account)
        with pytest.raises(ProviderRejected, match="4 attempts left"):
            log_in(server.account)
        server.faults = Faults(replay_refused=False)
        assert log_in(server.account)
        server.faults = Faults()
        now += 30
        assert log_in(server.account)


def test_a_code_of_another_time_is_refused() -> None:
    with (
        LocalUpstox(seconds=lambda: datetime.now(UTC).timestamp() + 3600) as server,
        pytest.raises(ProviderRejected, match="Invalid OTP"),
    ):
        log_in(server.account)


def test_five_wrong_pins_lock_the_account_even_for_the_right_one(server: LocalUpstox) -> None:
    server.faults = Faults(replay_refused=False, wrong_pin=True)
    for left in (4, 3, 2, 1, 0):
        with pytest.raises(ProviderRejected, match=f"{left} attempts left"):
            log_in(server.account)
    server.faults = Faults(replay_refused=False)
    with pytest.raises(ProviderRejected, match="locked"):
        log_in(server.account)


def test_an_authorization_code_is_spent_by_one_exchange(server: LocalUpstox) -> None:
    account = server.account
    with real_client(account) as client:
        code = parse_qs(urlsplit(client.app_token.oauth_authorization().data.redirectUri).query)["code"][0]
    form = {
        "code": code,
        "client_id": account.client_id,
        "client_secret": account.client_secret,
        "redirect_uri": account.redirect_uri,
        "grant_type": "authorization_code",
    }
    assert call(account, "POST", "/v2/login/authorization/token", data=form)[0] == 200
    status, document = call(account, "POST", "/v2/login/authorization/token", data=form)
    assert (status, document["errors"][0]["error_code"]) == (401, "UDAPI100057")


def test_a_step_without_the_cookie_of_the_dialog_is_refused(server: LocalUpstox) -> None:
    data = {"mobileNumber": server.account.username, "userId": server.account.user_id}
    status, document = call(server.account, "POST", "/login/open/v6/auth/1fa/otp/generate", json={"data": data})
    assert (status, document["success"]) == (401, False)


def test_a_step_out_of_turn_is_refused(server: LocalUpstox) -> None:
    with real_client(server.account) as client:
        client.app_token.get_user_id_and_user_type()
        url = server.base_domain.format(stage="service") + "/login/open/v3/auth/2fa"
        pin = base64.b64encode(server.account.pin_code.encode()).decode()
        json_data = {"data": {"twoFAMethod": "SECRET_PIN", "inputText": pin}}
        assert client.session.post(url, json=json_data).status_code == 401


def test_the_client_reads_a_refusal_as_it_reads_that_of_upstox(server: LocalUpstox) -> None:
    server.faults = Faults(wrong_pin=True)
    with real_client(server.account) as client, pytest.raises(UpstoxError, match="attempts left") as caught:
        client.app_token.get_access_token()
    assert caught.value.error_code.name == "UNKNOWN"


def test_a_second_login_can_end_the_tokens_of_the_first(server: LocalUpstox) -> None:
    account = server.account
    first = log_in(account)
    account.faults = Faults(replay_refused=False, one_session=True)
    second = log_in(account)
    assert [profile(account, token)[0] for token in (first, second)] == [401, 200]


def test_faults_of_one_account_leave_the_others_alone(server: LocalUpstox) -> None:
    server.account.faults = Faults(blocked="dialog")
    with pytest.raises(ProviderError, match="page"):
        log_in(server.account)
    assert log_in(server.add_account())


@pytest.mark.parametrize("step", LOGIN_STEPS)
def test_a_request_that_is_hung_up_on_is_not_sent_again(server: LocalUpstox, step: str) -> None:
    told: list[str] = []
    server.on_step = lambda _, step: told.append(step)
    server.faults = Faults(hang_up=step)
    with pytest.raises(ProviderError):
        log_in(server.account)
    assert told == list(LOGIN_STEPS[: LOGIN_STEPS.index(step) + 1])


def test_many_connect_at_once(server: LocalUpstox) -> None:
    token = log_in(server.account)
    with ThreadPoolExecutor(64) as pool:
        statuses = set(pool.map(lambda _: profile(server.account, token)[0], range(128)))
    assert statuses == {200}


def test_closing_wakes_whoever_waits_in_a_delay(server: LocalUpstox) -> None:
    server.faults = Faults(delay={"dialog": 600})
    with ThreadPoolExecutor(1) as pool:

        def close(*_: str) -> None:
            pool.submit(server.close)

        server.on_step = close
        with pytest.raises(ProviderError):
            log_in(server.account)


def test_two_accounts_with_one_client_id_are_refused(server: LocalUpstox) -> None:
    with pytest.raises(ValueError, match="is taken"):
        server.add_account(client_id=server.account.client_id)


def test_an_account_shows_none_of_its_secrets(server: LocalUpstox) -> None:
    account = server.account
    secrets = (account.password, account.pin_code, account.totp_secret, account.client_secret)
    assert not [secret for secret in secrets if secret in repr(account)]


def test_it_runs_as_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "tokenkeep.testing.upstox", "--extended"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            for name, value in told["environment"].items():
                monkeypatch.setenv(name, value)
            tokens = UpstoxProvider(UpstoxCredentials.from_env()).acquire("alice")
        finally:
            process.terminate()
    assert [token.kind for token in tokens] == ["access", "extended"]
    assert told["base_domain"] == told["environment"]["TOKENKEEP_UPSTOX_BASE_DOMAIN"]
