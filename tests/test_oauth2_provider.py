from __future__ import annotations

import base64
import copy
import json
import logging
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenkeep.errors import AcquireInDoubt, ConfigurationError, ProviderError, ProviderRejected, ProviderUnavailable
from tokenkeep.expiry import Lifetime
from tokenkeep.model import AcquiredToken, NewToken
from tokenkeep.ports import OneTimeCodes, Provider, Renewing, Revoking
from tokenkeep.providers import _form_post, _rfc6749
from tokenkeep.providers.oauth2 import OAuth2Provider
from tokenkeep.secret import Secret
from tokenkeep.testing.oauth2 import OMIT, Fault, LocalOAuth2

CANARY = "canary-9b2e71-refresh"


@pytest.fixture
def server() -> Iterator[LocalOAuth2]:
    with LocalOAuth2() as local:
        yield local


def own(server: LocalOAuth2, **changes: Any) -> OAuth2Provider:
    arguments = {"token_endpoint": server.token_endpoint, "client_id": "app", "client_secret": "app-secret"}
    return OAuth2Provider("idp", **(arguments | changes))


def renew(server: LocalOAuth2, refresh_token: str, **changes: Any) -> NewToken:
    provider = own(server, grant="refresh_token", **changes)
    assert isinstance(provider, Renewing)
    tokens = provider.renew("alice", Secret(refresh_token))
    assert isinstance(tokens, tuple)
    (token,) = tokens
    assert isinstance(token, NewToken)
    return token


def acquired(access_token: str, refresh_token: str | None = None) -> AcquiredToken:
    return AcquiredToken(
        id="1",
        namespace="default",
        provider="idp",
        user_id="alice",
        kind="access",
        version=1,
        access_token=Secret(access_token),
        refresh_token=None if refresh_token is None else Secret(refresh_token),
        token_type="Bearer",
        scope=(),
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        expires_at=None,
        last_used_at=None,
        usage_count=0,
        profile={},
        metadata={},
    )


# --- powers ------------------------------------------------------------------------------------------


def test_a_provider_has_just_the_powers_that_it_was_configured_for(server: LocalOAuth2) -> None:
    revoking = {"revocation_endpoint": server.revocation_endpoint}
    powers = {
        (): own(server),
        (Renewing,): own(server, grant="refresh_token"),
        (Revoking,): own(server, **revoking),
        (Renewing, Revoking): own(server, grant="refresh_token", **revoking),
    }
    for expected, provider in powers.items():
        port: Provider = provider
        assert isinstance(port, OAuth2Provider)
        assert tuple(power for power in (Renewing, Revoking, OneTimeCodes) if isinstance(provider, power)) == expected
        assert type(copy.copy(provider)) is type(provider)


def test_a_subclass_of_yours_stays_itself(server: LocalOAuth2) -> None:
    class Ours(OAuth2Provider):
        pass

    assert type(Ours("idp", token_endpoint=server.token_endpoint, client_id="app")) is Ours


def test_its_repr_shows_no_secret(server: LocalOAuth2) -> None:
    assert repr(own(server)) == "OAuth2Provider('idp', grant='client_credentials')"


# --- client_credentials ------------------------------------------------------------------------------


def test_an_application_gets_a_token_of_its_own(server: LocalOAuth2) -> None:
    (token,) = own(server, scope=["orders", "funds"]).acquire("alice")
    assert server.is_live(token.access_token.reveal())
    assert (token.token_type, token.scope, token.refresh_token) == ("Bearer", ("orders", "funds"), None)
    assert token.expires_in == timedelta(hours=1)
    assert server.forms == [{"grant_type": "client_credentials", "scope": "orders funds"}]


def test_id_and_secret_are_form_urlencoded_before_they_become_basic() -> None:
    with LocalOAuth2(client_id="a:b é", client_secret="p@ss:w%rd +") as server:
        provider = own(server, client_id="a:b é", client_secret="p@ss:w%rd +")
        assert server.is_live(provider.acquire("alice")[0].access_token.reveal())
        sent = base64.b64decode((server.authorizations[0] or "").removeprefix("Basic "))
        assert sent == b"a%3Ab+%C3%A9:p%40ss%3Aw%25rd+%2B"
        assert "client_id" not in server.forms[0]


def test_a_public_client_names_itself_in_the_form() -> None:
    with LocalOAuth2(client_secret=None) as server:
        (token,) = own(server, client_secret=None).acquire("alice")
        assert server.is_live(token.access_token.reveal())
        assert server.forms[0]["client_id"] == "app"
        assert server.authorizations == [None]


# --- refresh_token -----------------------------------------------------------------------------------


def test_a_renewal_brings_a_new_pair(server: LocalOAuth2) -> None:
    _, first = server.authorize("orders")
    token = renew(server, first)
    assert server.is_live(token.access_token.reveal())
    assert token.scope == ("orders",)
    assert token.refresh_token not in {None, Secret(first)}
    assert server.forms == [{"grant_type": "refresh_token", "refresh_token": first}]


def test_without_rotation_no_refresh_token_comes_and_the_old_one_stays_good(server: LocalOAuth2) -> None:
    server.rotating = False
    _, first = server.authorize()
    assert [renew(server, first).refresh_token for _ in range(2)] == [None, None]


def test_a_refresh_token_spent_twice_ends_its_family(server: LocalOAuth2) -> None:
    _, first = server.authorize()
    second = renew(server, first)
    with pytest.raises(ProviderRejected, match="authorise the application again") as caught:
        renew(server, first)
    assert caught.value.code == "invalid_grant"
    assert not server.is_live(second.access_token.reveal())


def test_the_first_token_of_a_refresh_grant_comes_from_a_person(server: LocalOAuth2) -> None:
    with pytest.raises(ProviderRejected, match=r"vault\.store\("):
        own(server, grant="refresh_token").acquire("alice")
    assert server.forms == []


# --- what a successful answer may hold ---------------------------------------------------------------


@pytest.mark.requirement("X6")
@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (OMIT, None),
        (None, None),
        (3600, timedelta(hours=1)),
        ("3600", timedelta(hours=1)),
        (" 3600 ", timedelta(hours=1)),
        (3599.9, timedelta(seconds=3599)),
        ("3599.9", timedelta(seconds=3599)),
        (0, None),
        ("0", None),
        (0.5, None),
        (-1, None),
        ("-1", None),
        (True, None),
        (False, None),
        ("", None),
        ("soon", None),
        ("٣٦٠٠", None),
        ([3600], None),
        ({}, None),
        (2**63, timedelta(days=3660)),
        (1e300, timedelta(days=3660)),
        ("999999999999", timedelta(days=3660)),
        ("9999999999999", None),
    ],
)
def test_expires_in_is_read_in_every_form(server: LocalOAuth2, sent: Any, read: timedelta | None) -> None:
    server.fields["expires_in"] = sent
    (token,) = own(server).acquire("alice")
    assert token.expires_in == read


@pytest.mark.requirement("X6")
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_any_expires_in_is_nothing_or_from_a_second_to_ten_years(value: Any) -> None:
    read = _rfc6749.lifetime(value)
    assert read is None or timedelta(seconds=1) <= read <= timedelta(days=3660)


@pytest.mark.parametrize(
    ("fields", "scope", "token_type"),
    [
        ({"scope": "a b  a"}, ("a", "b"), "Bearer"),
        ({"scope": ["a", "b"]}, ("a", "b"), "Bearer"),
        ({"scope": ""}, (), "Bearer"),
        ({"scope": 'a"b'}, (), "Bearer"),
        ({"scope": 7}, (), "Bearer"),
        ({"token_type": "DPoP", "scope": OMIT}, ("asked",), "DPoP"),
        ({"token_type": OMIT, "scope": OMIT}, ("asked",), "Bearer"),
        ({"refresh_token": None, "scope": None}, ("asked",), "Bearer"),
        ({"refresh_token": "", "token_type": "bearer", "scope": OMIT}, ("asked",), "bearer"),
    ],
)
def test_scope_and_type_are_the_servers_word(
    server: LocalOAuth2, fields: dict[str, Any], scope: tuple[str, ...], token_type: str
) -> None:
    server.fields |= fields
    (token,) = own(server, scope=["asked"]).acquire("alice")
    assert (token.scope, token.token_type, token.refresh_token) == (scope, token_type, None)


UNREADABLE: dict[str, Fault] = {
    "no access token": Fault(status=200, body='{"token_type": "Bearer"}'),
    "an empty one": Fault(status=200, body='{"access_token": ""}'),
    "null": Fault(status=200, body='{"access_token": null}'),
    "a number": Fault(status=200, body='{"access_token": 7}'),
    "a line break in it": Fault(status=200, body='{"access_token": "a\\r\\nX-Evil: 1"}'),
    "no ASCII": Fault(status=200, body='{"access_token": "\\u00e9"}'),
    "a refresh token that is none": Fault(status=200, body='{"access_token": "a", "refresh_token": 7}'),
    "a name twice": Fault(status=200, body='{"access_token": "a", "access_token": "b"}'),
    "a list": Fault(status=200, body='["access_token"]'),
    "HTML": Fault(status=200, body="<html>Welcome</html>"),
    "nothing": Fault(status=200),
    "no UTF-8": Fault(status=200, body=b'{"access_token": "\xff"}'),
    "deep nesting": Fault(status=200, body="[" * 100_000),
    "half a document": Fault(status=200, body='{"access_token": "a'),
    "too long a document": Fault(status=200, body='{"pad": "' + "x" * 400_000 + '", "access_token": "a"}'),
    "compressed without being asked": Fault(status=200, body=b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"}),
    "a gateway's time-out": Fault(status=504),
    "a cut": Fault(cut=True),
}


@pytest.mark.parametrize("fault", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_answer_that_did_not_come_is_in_doubt_only_when_something_was_spent(
    server: LocalOAuth2, fault: Fault
) -> None:
    _, first = server.authorize()
    server.faults += [fault, fault]
    with pytest.raises(ProviderUnavailable, match="try again later"):
        own(server).acquire("alice")
    with pytest.raises(AcquireInDoubt, match="its successor lost") as caught:
        renew(server, first)
    assert (caught.value.provider, caught.value.user_id) == ("idp", "alice")
    assert len(server.forms) == 2


def test_a_server_that_does_not_answer_in_time_is_in_doubt_only_when_something_was_spent(
    server: LocalOAuth2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_form_post, "READ_TIMEOUT", 0.1)
    server.faults += [Fault(stall=30), Fault(stall=30)]
    with pytest.raises(ProviderUnavailable, match="ReadTimeout"):
        own(server).acquire("alice")
    with pytest.raises(AcquireInDoubt, match="ReadTimeout"):
        renew(server, server.authorize()[1])


def test_where_nobody_listens_nothing_was_spent() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        provider = OAuth2Provider(
            "idp",
            token_endpoint=f"http://127.0.0.1:{closed.getsockname()[1]}/token",
            client_id="app",
            grant="refresh_token",
        )
        assert isinstance(provider, Renewing)
        with pytest.raises(ProviderUnavailable, match="no connection"):
            provider.renew("alice", Secret(CANARY))


# --- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "invalid_grant",
        "invalid_client",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_request",
        "bad_refresh_token",
    ],
)
@pytest.mark.parametrize("status", [200, 400, 401, 403])
def test_a_refusal_keeps_its_code_and_is_not_repeated(server: LocalOAuth2, code: str, status: int) -> None:
    server.faults.append(Fault.error(code, "Read this.", status=status))
    with pytest.raises(ProviderRejected, match=f"{status}: {code}: Read this.; ") as caught:
        renew(server, CANARY)
    assert caught.value.code == code
    assert len(server.forms) == 1


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        (Fault(status=429), None),
        (Fault(status=429, headers={"Retry-After": "120"}), timedelta(minutes=2)),
        (Fault(status=503, headers={"Retry-After": "999999999"}), timedelta(days=1)),
        (Fault(status=503, headers={"Retry-After": "9" * 5000}), None),
        (Fault(status=503, headers={"Retry-After": "-5"}), None),
        (Fault(status=503, headers={"Retry-After": "later"}), None),
        (Fault(status=503, headers={"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT"}), timedelta(0)),
        (Fault(status=503, headers={"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}), timedelta(days=1)),
        (Fault(status=500, body="<html>" + "x" * 500_000), None),
        (Fault(status=502), None),
        (Fault(status=408), None),
        (Fault.error("temporarily_unavailable", Retry_After="7"), timedelta(seconds=7)),
        (Fault.error("server_error", status=500), None),
        (Fault.error("invalid_grant", status=429), None),
    ],
    ids=lambda value: f"{value.status} {value.headers}"[:40] if isinstance(value, Fault) else str(value),
)
def test_what_passes_may_be_tried_again(server: LocalOAuth2, fault: Fault, wait: timedelta | None) -> None:
    server.faults.append(fault)
    with pytest.raises(ProviderUnavailable) as caught:
        renew(server, CANARY)
    assert caught.value.retry_after == wait


@pytest.mark.requirement("B3")
def test_a_redirect_is_refused_and_the_secret_goes_nowhere_else(server: LocalOAuth2) -> None:
    with LocalOAuth2() as elsewhere:
        for status in (301, 302, 303, 307, 308):
            server.faults.append(Fault(status=status, headers={"Location": elsewhere.token_endpoint}))
            with pytest.raises(ProviderRejected, match="redirects are not followed"):
                renew(server, CANARY)
        assert elsewhere.forms == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 418])
def test_a_page_in_place_of_a_refusal_is_a_refusal_without_a_code(server: LocalOAuth2, status: int) -> None:
    server.faults.append(Fault(status=status, body=f"<html>{CANARY}</html>"))
    with pytest.raises(ProviderRejected, match=f"answered {status}; ") as caught:
        own(server).acquire("alice")
    assert caught.value.code is None
    assert CANARY not in str(caught.value)


def test_the_servers_words_are_cleaned_and_capped(server: LocalOAuth2) -> None:
    server.faults.append(Fault.error("invalid_scope", "a\x1b[31m\r\nb\u202ec\x00" + "y" * 5000))
    with pytest.raises(ProviderRejected) as caught:
        own(server).acquire("alice")
    assert ": a [31m b c yyy" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "words",
    [
        f"unknown token {CANARY}",
        f"unknown token {CANARY[:12]}...",
        "unknown token " + " ".join(CANARY),
        "unknown token " + "\n".join((CANARY[:5], CANARY[5:])),
        "bad secret app-secret",
        "bad header " + base64.b64encode(b"app:app-secret").decode(),
    ],
)
def test_words_that_repeat_a_secret_are_withheld(server: LocalOAuth2, words: str) -> None:
    server.faults += [Fault.error("invalid_grant", words), Fault.error(CANARY, None)]
    with pytest.raises(ProviderRejected, match="repeats a secret and is withheld") as caught:
        renew(server, CANARY)
    assert words.removeprefix("unknown token ") not in str(caught.value)
    with pytest.raises(ProviderRejected) as caught:
        renew(server, CANARY)
    assert caught.value.code is None
    assert CANARY not in str(caught.value)


FAULTS = [
    Fault.error("invalid_grant", f"no {CANARY}"),
    Fault(status=503, body=CANARY),
    Fault(status=200, body=CANARY),
    Fault(status=200, body=json.dumps({"access_token": 7, "refresh_token": CANARY})),
    Fault(cut=True),
]


@pytest.mark.requirement("G1")
@pytest.mark.parametrize("fault", FAULTS)
def test_no_secret_in_logs_tracebacks_or_chained_exceptions(
    server: LocalOAuth2, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.append(fault)
    with caplog.at_level(logging.DEBUG), pytest.raises(ProviderError) as caught:
        renew(server, CANARY)
    basic = base64.b64encode(b"app:app-secret").decode()
    shown = caplog.text + "".join(traceback.format_exception(caught.value))
    assert "httpcore" in caplog.text
    assert not [secret for secret in (CANARY, "app-secret", basic) if secret in shown]
    error: BaseException | None = caught.value
    while error is not None:
        assert type(error).__module__.startswith("tokenkeep.")
        error = error.__cause__ or error.__context__


@pytest.mark.requirement("S13")
@pytest.mark.parametrize("fault", FAULTS)
def test_no_secret_in_the_local_variables_of_a_traceback(server: LocalOAuth2, fault: Fault) -> None:
    server.faults.append(fault)
    with pytest.raises(ProviderError) as caught:
        renew(server, CANARY)
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    ours = [frame for frame in frames if frame.f_globals["__name__"].startswith("tokenkeep.")]
    assert ours
    assert not [frame for frame in ours if CANARY in repr(frame.f_locals) or "app-secret" in repr(frame.f_locals)]


# --- revocation --------------------------------------------------------------------------------------


def test_revoking_ends_the_whole_grant_and_may_be_repeated(server: LocalOAuth2) -> None:
    access, refresh = server.authorize()
    provider = own(server, grant="refresh_token", revocation_endpoint=server.revocation_endpoint)
    assert isinstance(provider, Revoking)
    provider.revoke(acquired(access, refresh))
    provider.revoke(acquired(access, refresh))
    assert not server.is_live(access)
    assert [form["token_type_hint"] for form in server.forms] == ["refresh_token", "access_token"] * 2
    with pytest.raises(ProviderRejected):
        renew(server, refresh)


def test_a_token_without_a_refresh_token_is_revoked_alone(server: LocalOAuth2) -> None:
    provider = own(server, revocation_endpoint=server.revocation_endpoint)
    assert isinstance(provider, Revoking)
    (token,) = provider.acquire("alice")
    provider.revoke(acquired(token.access_token.reveal()))
    assert not server.is_live(token.access_token.reveal())
    assert server.forms[-1]["token_type_hint"] == "access_token"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=503), ProviderUnavailable),
        (Fault(cut=True), ProviderUnavailable),
        (Fault.error("unsupported_token_type"), ProviderRejected),
        (Fault.error("invalid_client", f"not {CANARY}", status=401), ProviderRejected),
    ],
)
def test_a_revocation_that_failed_says_so(server: LocalOAuth2, fault: Fault, error: type[ProviderError]) -> None:
    provider = own(server, revocation_endpoint=server.revocation_endpoint)
    assert isinstance(provider, Revoking)
    server.faults.append(fault)
    with pytest.raises(error) as caught:
        provider.revoke(acquired(CANARY))
    assert CANARY not in str(caught.value)


# --- configuration -----------------------------------------------------------------------------------


@pytest.mark.requirement("B3")
@pytest.mark.parametrize(
    "url",
    [
        "",
        "auth.example.com/token",
        "https://",
        "https:///token",
        "http://auth.example.com/token",
        "http://127.0.0.1.example.com/token",
        "http://localhost.example.com/token",
        "http://127.1/token",
        "http://0.0.0.0/token",
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/token",
        "https://[fe80::1]/token",
        f"https://user:{CANARY}@auth.example.com/token",
        "https://@auth.example.com/token",
        "https://auth.example.com\\@evil.example/token",
        "https://auth.example.com/token#fragment",
        "https://auth.example.com:99999/token",
        "https://auth.example.com:0/token",
        "https://auth.example.com/to ken",
        "https://auth.example.com/token\r\nX: 1",
        "https://ex\u00e4mple.com/token",
        "https://[::1/token",
        "file:///etc/passwd",
        "ftp://auth.example.com/token",
        "javascript:alert(1)",
    ],
)
@pytest.mark.parametrize("argument", ["token_endpoint", "revocation_endpoint"])
def test_an_address_that_is_not_safe_to_send_a_secret_to_is_refused(url: str, argument: str) -> None:
    arguments = {"token_endpoint": "https://auth.example.com/token", "client_id": "app", argument: url}
    with pytest.raises(ValueError, match=f"{argument} must be an address such as https://") as caught:
        OAuth2Provider("idp", **arguments)  # type: ignore[arg-type]
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://auth.example.com/token",
        "HTTPS://auth.example.com:8443/token?tenant=1",
        "https://10.0.0.5/token",
        "http://localhost:8080/token",
        "http://127.0.0.2/token",
        "http://[::1]:8080/token",
    ],
)
def test_tls_or_this_machine_will_do(url: str) -> None:
    assert OAuth2Provider("idp", token_endpoint=url, client_id="app").name == "idp"


def test_a_proxy_of_the_environment_does_not_see_what_goes_to_this_machine(
    server: LocalOAuth2, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalOAuth2() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        own(server).acquire("alice")
        assert (len(server.forms), len(proxy.forms)) == (1, 0)


def test_a_proxy_that_cannot_be_used_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"gopher://user:{CANARY}@127.0.0.1:1")
    provider = OAuth2Provider("idp", token_endpoint="https://auth.example.com/token", client_id="app")
    with pytest.raises(ProviderUnavailable, match="could not be set up") as caught:
        provider.acquire("alice")
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"grant": "password"}, ValueError, "grant must be"),
        ({"client_id": ""}, ValueError, "client_id must have"),
        ({"client_secret": ""}, ValueError, "leave it out for a public client"),
        ({"scope": "a b"}, TypeError, "scope must be a collection"),
        ({"scope": ["a b"]}, ValueError, "scope must hold"),
        ({"expiry": timedelta(hours=1)}, TypeError, "expiry must be an expiry policy"),
        ({"token_endpoint": None}, TypeError, "token_endpoint must be a str"),
    ],
)
def test_bad_arguments_are_refused_when_it_is_made(
    server: LocalOAuth2, changes: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        own(server, **changes)


def test_its_policy_is_handed_to_the_vault(server: LocalOAuth2) -> None:
    assert own(server, expiry=Lifetime(timedelta(hours=1))).expiry == Lifetime(timedelta(hours=1))


def test_without_httpx_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, server: LocalOAuth2) -> None:
    monkeypatch.setattr(_form_post, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r'pip install "tokenkeep\[oauth2\]"'):
        own(server)


def test_importing_the_module_does_not_import_httpx() -> None:
    code = "import sys, tokenkeep.providers.oauth2; print('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
