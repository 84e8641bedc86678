"""The Upstox provider: the real client, against the local Upstox."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tokenkeep.errors import (
    AcquireInDoubt,
    ConfigurationError,
    ProviderError,
    ProviderRejected,
    ProviderUnavailable,
)
from tokenkeep.model import AcquiredToken, NewToken
from tokenkeep.ports import OneTimeCodes, Provider, Revoking
from tokenkeep.providers import _upstox_answers, _upstox_login
from tokenkeep.providers.upstox import UpstoxCredentials, UpstoxProvider
from tokenkeep.testing import Canary, FakeClock, _upstox_desk
from tokenkeep.testing.upstox import LOGIN_STEPS, Faults, LocalAccount, LocalUpstox

pytest.importorskip("upstox_totp", reason="the extra [upstox] is not installed")

from curl_cffi.requests import Session

INDIA = ZoneInfo("Asia/Kolkata")
SEED = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
NONE = Faults()


@pytest.fixture
def server() -> Iterator[LocalUpstox]:
    with LocalUpstox() as server:
        yield server


@pytest.fixture
def account(server: LocalUpstox, canary: Canary) -> LocalAccount:
    """An account whose secrets are long enough not to turn up by chance; the canary looks for them in every log."""
    account = server.add_account(pin_code="pin-8d2f1c", password="pass-61c0ae77", client_secret="sec-0f9e8d7c")
    watch(canary, account)
    return account


def watch(canary: Canary, account: LocalAccount) -> None:
    canary.watch(account.pin_code, account.password, account.totp_secret, account.client_secret)


def provider_of(account: LocalAccount, **changes: str) -> UpstoxProvider:
    return UpstoxProvider(account.credentials(**changes), base_domain=account.base_domain)


def some_credentials(**changes: str) -> UpstoxCredentials:
    values = {
        "username": "9876543210",
        "password": "pass-5b1d",
        "pin_code": "pin-71f3",
        "totp_secret": SEED,
        "client_id": "app",
        "client_secret": "sec-c04a",
        "redirect_uri": "https://127.0.0.1/callback",
    }
    return UpstoxCredentials(**(values | changes))


def acquired(token: NewToken) -> AcquiredToken:
    return AcquiredToken(
        id="1",
        namespace="default",
        provider="upstox",
        user_id="alice",
        kind=token.kind,
        version=1,
        access_token=token.access_token,
        refresh_token=None,
        token_type="Bearer",
        scope=(),
        created_at=datetime.now(UTC),
        expires_at=None,
        last_used_at=None,
        usage_count=0,
        profile=token.profile,
        metadata={},
    )


# --- logging in --------------------------------------------------------------------------------------


def test_it_keeps_the_contracts_of_the_ports() -> None:
    provider: Provider = UpstoxProvider(some_credentials())
    assert isinstance(provider, Revoking)
    assert isinstance(provider, OneTimeCodes)
    assert provider.name == "upstox"


def test_a_login_yields_the_access_token_with_the_brokers_profile(account: LocalAccount, canary: Canary) -> None:
    (token,) = provider_of(account).acquire("alice")
    canary.watch(token.access_token)
    assert (token.kind, token.token_type, token.expires_at, token.expires_in) == ("access", "Bearer", None, None)
    assert token.profile == {
        "user_id": account.user_id,
        "user_name": "Asha Rao",
        "email": "asha@example.com",
        "exchanges": ["NSE", "NFO", "BSE", "BFO", "MCX", "CDS"],
        "products": ["D", "CO", "I"],
        "order_types": ["MARKET", "LIMIT", "SL", "SL-M"],
        "user_type": "individual",
        "broker": "UPSTOX",
        "poa": False,
        "ddpi": False,
        "is_active": True,
    }


def test_one_provider_logs_in_again_and_again_each_time_with_a_fresh_client(server: LocalUpstox) -> None:
    accounts = {name: server.add_account() for name in ("alice", "bob", "carol")}
    provider = UpstoxProvider(
        {name: account.credentials() for name, account in accounts.items()}, base_domain=server.base_domain
    )
    ids = {name: provider.acquire(name)[0].profile["user_id"] for name in accounts}
    assert ids == {name: account.user_id for name, account in accounts.items()}


def test_the_extended_token_has_an_end_of_its_own(account: LocalAccount) -> None:
    account.extended = True
    access, extended = provider_of(account).acquire("alice")
    assert (access.kind, extended.kind) == ("access", "extended")
    assert extended.expires_at is not None
    assert timedelta(days=364) < extended.expires_at - datetime.now(UTC) <= timedelta(days=365)


def test_an_extended_token_that_does_not_tell_its_end_lives_for_a_year() -> None:
    with LocalUpstox(clock=FakeClock(datetime(2020, 1, 1, tzinfo=UTC))) as server:
        server.account.extended = True
        _, extended = provider_of(server.account).acquire("alice")
    assert (extended.expires_at, extended.expires_in) == (None, timedelta(days=365))


@pytest.mark.parametrize(
    ("made", "ends"),
    [
        ("2026-01-06T02:30:00", "2026-01-06T03:30:00"),
        ("2026-01-06T03:29:59", "2026-01-06T03:30:00"),
        ("2026-01-06T03:30:00", "2026-01-07T03:30:00"),
    ],
)
def test_the_policy_ends_an_access_token_where_upstox_does(made: str, ends: str) -> None:
    clock = FakeClock(datetime.fromisoformat(made).replace(tzinfo=INDIA))
    with LocalUpstox(clock=clock) as server:
        provider = provider_of(server.account)
        (token,) = provider.acquire("alice")
    end = datetime.fromisoformat(ends).replace(tzinfo=INDIA)
    assert provider.expiry.expires_at(clock.now(), token) == end
    assert provider.expiry.expires_at(clock.now()) == end


# --- whose credentials -------------------------------------------------------------------------------


def test_one_account_serves_any_user(account: LocalAccount) -> None:
    assert provider_of(account).acquire("whoever")[0].profile["user_id"] == account.user_id


def test_a_user_who_is_not_in_the_mapping_is_rejected_by_name(server: LocalUpstox) -> None:
    provider = UpstoxProvider({"alice": server.credentials()}, base_domain=server.base_domain)
    for ask in (provider.acquire, provider.code_window):
        with pytest.raises(ProviderRejected, match="give UpstoxProvider an UpstoxCredentials for 'bob'") as caught:
            ask("bob")
        assert (caught.value.provider, caught.value.user_id) == ("upstox", "bob")
    assert server.logins == []


def test_a_function_gives_the_credentials_of_each_user(server: LocalUpstox) -> None:
    asked: list[str] = []

    def credentials(user_id: str) -> UpstoxCredentials:
        asked.append(user_id)
        return server.credentials()

    UpstoxProvider(credentials, base_domain=server.base_domain).acquire("alice")
    assert asked == ["alice"]


def test_a_function_that_fails_makes_upstox_unavailable_and_its_words_are_not_repeated() -> None:
    def credentials(user_id: str) -> UpstoxCredentials:
        raise OSError(user_id + " swordfish")

    with pytest.raises(ProviderUnavailable, match="OSError") as caught:
        UpstoxProvider(credentials).acquire("alice")
    assert "swordfish" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_function_that_knows_no_such_user_is_a_rejection() -> None:
    def credentials(user_id: str) -> UpstoxCredentials:
        raise KeyError(user_id)

    with pytest.raises(ProviderRejected, match="'alice'"):
        UpstoxProvider(credentials).acquire("alice")


def test_the_environment_names_the_account_and_the_base_domain(
    account: LocalAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in account.environment().items():
        monkeypatch.setenv(name, value)
    assert UpstoxProvider().acquire("alice")[0].profile["user_id"] == account.user_id


def test_missing_variables_are_named(account: LocalAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in account.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("UPSTOX_PIN_CODE")
    monkeypatch.setenv("UPSTOX_TOTP_SECRET", "")
    with pytest.raises(ConfigurationError, match="set UPSTOX_PIN_CODE, UPSTOX_TOTP_SECRET in the environment"):
        UpstoxProvider()


def test_a_malformed_variable_is_a_configuration_error_that_does_not_show_it(
    account: LocalAccount, monkeypatch: pytest.MonkeyPatch, canary: Canary
) -> None:
    for name, value in account.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UPSTOX_TOTP_SECRET", "seed-not-base32")
    canary.watch("seed-not-base32")
    with pytest.raises(ConfigurationError, match="totp_secret must be the base32 seed") as caught:
        UpstoxProvider()
    assert canary.found_in_error(caught.value) == []


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("username", "", "must not be empty"),
        ("password", "  ", "must not be empty"),
        ("pin_code", "12\n34", "must be printable"),
        ("totp_secret", "123456", "must be the base32 seed"),
        ("totp_secret", "JBSWY3DPEHPK3PXP", "must be .* at least 23"),
        ("redirect_uri", "callback", "must be a whole URI"),
        ("client_secret", "a\x00b", "must be printable"),
    ],
)
def test_credentials_that_cannot_be_right_are_refused(field: str, value: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"{field} {complaint}"):
        some_credentials(**{field: value})


def test_blanks_and_small_letters_in_the_seed_are_forgiven() -> None:
    assert some_credentials(totp_secret="jbsw y3dp ehpk 3pxp jbsw y3dp ehpk 3pxp").totp_secret.reveal() == SEED


@pytest.mark.requirement("S13")
def test_credentials_and_provider_show_no_secret(canary: Canary) -> None:
    credentials = some_credentials()
    canary.watch("pass-5b1d", "pin-71f3", SEED, "sec-c04a")
    shown = f"{credentials!r} {credentials} {UpstoxProvider(credentials)!r}"
    assert "9876543210" in shown
    assert canary.found_in(shown) == []


@pytest.mark.parametrize("base_domain", ["127.0.0.1/{stage}", "http://127.0.0.1", "ftp://host/{stage}"])
def test_a_base_domain_that_is_none_is_refused(base_domain: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\{stage\}"):
        UpstoxProvider(some_credentials(), base_domain=base_domain)


# --- what goes wrong ---------------------------------------------------------------------------------

BEFORE_TOKEN = LOGIN_STEPS[:-1]

FAILURES: list[tuple[str, Faults, dict[str, str], type[ProviderError], str]] = [
    ("wrong PIN", Faults(wrong_pin=True), {}, ProviderRejected, "refused the PIN .*4 attempts left.*check pin_code"),
    ("PIN", NONE, {"pin_code": "pin-00000000"}, ProviderRejected, "attempts left"),
    ("TOTP", NONE, {"totp_secret": SEED}, ProviderRejected, "refused the one-time code .*4 attempts.*the clock"),
    ("username", NONE, {"username": "9999999999"}, ProviderRejected, "mobile number"),
    (
        "client id",
        NONE,
        {"client_id": "app-unknown"},
        ProviderRejected,
        "UDAPI100068.*check client_id and redirect_uri",
    ),
    ("redirect", NONE, {"redirect_uri": "https://a.example"}, ProviderRejected, "UDAPI100068"),
    ("client secret", NONE, {"client_secret": "sec-wrong"}, ProviderRejected, "UDAPI100016.*check client_secret"),
    *((f"429 at {step}", Faults(too_many=step), {}, ProviderUnavailable, "no more requests") for step in LOGIN_STEPS),
    *((f"403 at {step}", Faults(blocked=step), {}, ProviderUnavailable, "page instead of") for step in LOGIN_STEPS),
    *((f"500 at {step}", Faults(broken=step), {}, ProviderUnavailable, "status 500") for step in BEFORE_TOKEN),
    *((f"hang-up at {step}", Faults(hang_up=step), {}, ProviderUnavailable, "no answer") for step in BEFORE_TOKEN),
    ("500 at token", Faults(broken="token"), {}, AcquireInDoubt, "may have been granted"),
    ("hang-up at token", Faults(hang_up="token"), {}, AcquireInDoubt, "no answer .*acquire a new one deliberately"),
    ("lost token", Faults(lost_answer="token"), {}, AcquireInDoubt, "may have been granted"),
    ("no token", Faults(without=frozenset({"access_token"})), {}, AcquireInDoubt, "could not read"),
]


@pytest.mark.requirement("G4")
@pytest.mark.parametrize(
    ("faults", "changes", "expected", "sentence"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES]
)
def test_every_failure_is_mapped_and_tells_no_secret(
    account: LocalAccount,
    canary: Canary,
    faults: Faults,
    changes: dict[str, str],
    expected: type[ProviderError],
    sentence: str,
) -> None:
    account.faults = faults
    canary.watch(*(value for name, value in changes.items() if "secret" in name or "pin" in name))
    with pytest.raises(ProviderError, match=sentence) as caught:
        provider_of(account, **changes).acquire("alice")
    assert type(caught.value) is expected
    assert (caught.value.provider, caught.value.user_id) == ("upstox", "alice")
    assert canary.found_in_error(caught.value) == []
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert canary.found_in(frames_of(caught.value)) == []


def frames_of(error: BaseException) -> str:
    """Return the traceback with the local variables of our frames, as error reporters send it."""
    tail = error.__traceback__
    while tail is not None and tail.tb_frame.f_code.co_filename == __file__:
        tail = tail.tb_next
    return "".join(traceback.TracebackException(type(error), error, tail, capture_locals=True).format())


def test_the_client_leaves_no_frame_in_the_traceback(account: LocalAccount) -> None:
    account.faults = Faults(wrong_pin=True)
    with pytest.raises(ProviderRejected) as caught:
        provider_of(account).acquire("alice")
    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert not [file for file in files if "upstox_totp" in file or "curl_cffi" in file]


def test_a_wait_that_upstox_asks_for_is_handed_on(account: LocalAccount) -> None:
    account.faults = Faults(too_many="otp_generate", retry_after=90)
    with pytest.raises(ProviderUnavailable) as caught:
        provider_of(account).acquire("alice")
    assert caught.value.retry_after == timedelta(seconds=90)


def test_nobody_listening_is_unavailable(account: LocalAccount, server: LocalUpstox) -> None:
    server.close()
    with pytest.raises(ProviderUnavailable, match=r"COULDNT_CONNECT.*check the network"):
        provider_of(account).acquire("alice")


@pytest.mark.parametrize(("step", "expected"), [("dialog", ProviderUnavailable), ("token", AcquireInDoubt)])
def test_a_time_out_is_unavailable_until_the_exchange_was_sent(
    account: LocalAccount, monkeypatch: pytest.MonkeyPatch, step: str, expected: type[ProviderError]
) -> None:
    monkeypatch.setattr(_upstox_login, "TIMEOUT", 0.5)
    account.faults = Faults(delay={step: 600})
    with pytest.raises(expected, match="OPERATION_TIMEDOUT"):
        provider_of(account).acquire("alice")


def test_a_token_whose_answer_lacks_ddpi_is_not_lost(account: LocalAccount) -> None:
    account.faults = Faults(without=frozenset({"ddpi", "poa"}))
    (token,) = provider_of(account).acquire("alice")
    assert (token.profile["ddpi"], token.profile["poa"], token.profile["broker"]) == (None, None, "UPSTOX")


def test_a_charset_in_the_content_type_disturbs_nobody(account: LocalAccount) -> None:
    account.faults = Faults(charset=True)
    assert provider_of(account).acquire("alice")[0].kind == "access"


@pytest.fixture
def standing_code(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalUpstox]:
    """Let the client's clock and the server's stand still within one time step."""
    monkeypatch.setattr("pyotp.TOTP.now", lambda codes: codes.at(1_800_000_000))
    with LocalUpstox(seconds=lambda: 1_800_000_000) as server:
        yield server


def test_a_code_that_was_sent_before_is_not_sent_again(standing_code: LocalUpstox) -> None:
    provider = provider_of(standing_code.account)
    provider.acquire("alice")
    with pytest.raises(ProviderUnavailable, match="spent, and was not sent again") as caught:
        provider.acquire("alice")
    assert caught.value.retry_after is not None
    assert timedelta(0) < caught.value.retry_after <= timedelta(seconds=30)
    assert [login.step for login in standing_code.logins] == ["token", "otp_generate"]


def test_a_code_that_another_process_spent_is_a_rejection(standing_code: LocalUpstox) -> None:
    provider_of(standing_code.account).acquire("alice")
    with pytest.raises(ProviderRejected, match="attempts left"):
        provider_of(standing_code.account).acquire("alice")


def test_a_code_that_came_too_late_is_not_sent(account: LocalAccount, server: LocalUpstox) -> None:
    login = _upstox_login.Login(
        account.credentials(),
        base_domain=account.base_domain,
        spent=_upstox_login.SpentCodes(),
        started=time.monotonic() - 11,
    )
    with pytest.raises(ProviderUnavailable, match="was not sent"):
        login.run()
    assert server.logins[-1].step == "otp_generate"


def test_one_account_serves_one_user_and_says_so_to_a_second() -> None:
    provider = UpstoxProvider(some_credentials())
    provider.code_window("alice")
    with pytest.raises(ProviderRejected, match="mapping of users to accounts"):
        provider.acquire("bob")


def test_the_window_of_the_code_belongs_to_the_account_not_to_the_user() -> None:
    provider = UpstoxProvider({"alice": some_credentials(), "bob": some_credentials()})
    assert provider.code_window("alice") == provider.code_window("bob")
    window = provider.code_window("alice")
    assert (window.account, window.period) == ("upstox:9876543210", timedelta(seconds=30))
    assert timedelta(seconds=_upstox_login.SLOWEST_CODE) < window.lead < window.period


@pytest.mark.parametrize(
    "said",
    [
        "your PIN pin-secret is wrong",
        "code 482913 is wrong",
        "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJVUDAwMDEifQ is dead",
    ],
)
def test_what_may_be_a_secret_is_struck_out_of_the_providers_words(said: str) -> None:
    scrubbed = _upstox_answers.scrubbed(said, ["pin-secret"])
    assert "***" in scrubbed
    assert scrubbed.split("***")[0] == said[: scrubbed.index("***")]


def test_a_provider_that_repeats_the_pin_is_not_repeated(
    account: LocalAccount, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = _upstox_desk.Refused(400, "UDAPI100500", f"{account.pin_code} of {account.username} is wrong, 4 left")
    monkeypatch.setattr(_upstox_desk.Desk, "_counted", lambda *_: refused)
    account.faults = Faults(wrong_pin=True)
    with pytest.raises(ProviderRejected, match="is wrong, 4 left") as caught:
        provider_of(account).acquire("alice")
    assert account.username not in str(caught.value)
    assert canary.found_in_error(caught.value) == []


@pytest.mark.requirement("G3")
def test_the_providers_words_stay_on_one_line_and_short() -> None:
    scrubbed = _upstox_answers.scrubbed("no\r\n\x1b[31mway" + " ah" * 500, [])
    assert scrubbed.isprintable()
    assert len(scrubbed) <= 200


# --- revoking ----------------------------------------------------------------------------------------


def test_a_revoked_token_is_dead_at_upstox_and_revoking_it_again_is_no_error(account: LocalAccount) -> None:
    provider = provider_of(account)
    token = acquired(provider.acquire("alice")[0])
    provider.revoke(token)
    with Session() as session:
        bearer = {"Authorization": f"Bearer {token.access_token.reveal()}"}
        assert (
            session.get(account.base_domain.format(stage="api") + "/v2/user/profile", headers=bearer).status_code == 401
        )
    provider.revoke(token)


@pytest.mark.parametrize(
    ("faults", "sentence"),
    [
        (Faults(broken="logout"), "status 500 at the logout"),
        (Faults(too_many="logout"), "no more requests"),
        (Faults(blocked="logout"), "page instead of JSON"),
        (Faults(hang_up="logout"), "no answer"),
    ],
)
def test_a_logout_that_upstox_does_not_answer_may_be_repeated(
    account: LocalAccount, canary: Canary, faults: Faults, sentence: str
) -> None:
    provider = provider_of(account)
    token = acquired(provider.acquire("alice")[0])
    canary.watch(token.access_token)
    account.faults = faults
    with pytest.raises(ProviderUnavailable, match=sentence) as caught:
        provider.revoke(token)
    assert canary.found_in_error(caught.value) == []
    assert canary.found_in(frames_of(caught.value)) == []
    assert caught.value.user_id == "alice"


# --- the client is kept quiet and far away -------------------------------------------------------------


@pytest.mark.requirement("G1")
def test_the_clients_logger_emits_nothing_whatever_the_application_sets(account: LocalAccount) -> None:
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger, keep = logging.getLogger("upstox-totp"), Keep()
    logger.addHandler(keep)
    logger.setLevel(logging.DEBUG)
    try:
        provider_of(account).acquire("alice")
    finally:
        logger.removeHandler(keep)
    assert records == []


def in_a_new_process(script: str, **environment: str) -> str:
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    return done.stdout


@pytest.mark.requirement("G1")
def test_a_whole_login_at_debug_writes_no_secret(account: LocalAccount, canary: Canary) -> None:
    script = """
import logging
logging.basicConfig(level=logging.DEBUG)
from tokenkeep.providers.upstox import UpstoxProvider
print("logged in:", UpstoxProvider().acquire("alice"))
print("handlers:", logging.getLogger("upstox-totp").handlers)
"""
    output = in_a_new_process(script, UPSTOX_DEBUG="true", **account.environment())
    assert "logged in: [NewToken(" in output
    assert "handlers: []" in output
    assert "upstox-totp:" not in output
    assert canary.found_in(output) == []
    assert "eyJ" not in output


def test_importing_the_provider_does_not_import_the_client() -> None:
    script = """
import sys
import tokenkeep.providers.upstox
print(sorted({name.partition(".")[0] for name in sys.modules} & {"upstox_totp", "curl_cffi", "pyotp", "pydantic"}))
"""
    assert in_a_new_process(script).strip() == "[]"


def test_without_the_client_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "upstox_totp", None)
    with pytest.raises(ConfigurationError, match=r'pip install "tokenkeep\[upstox\]"'):
        UpstoxProvider(some_credentials()).acquire("alice")


def test_against_upstox_itself_the_client_keeps_its_pauses() -> None:
    login = _upstox_login.Login(some_credentials(), base_domain=None, spent=_upstox_login.SpentCodes(), started=0.0)
    with login._client() as client:
        assert (client.base_domain, client.config.sleep_time) == ("https://{stage}.upstox.com", 1000)
