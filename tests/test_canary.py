from __future__ import annotations

import base64
import copy
import dataclasses
import json
import logging
import pickle
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tokenkeep import KeyRing, NewToken, Secret, TokenIssuer, TokenVault
from tokenkeep.errors import ProviderError, ProviderRejected, SealingError
from tokenkeep.expiry import Lifetime
from tokenkeep.providers import FunctionProvider
from tokenkeep.providers.upstox import UpstoxProvider
from tokenkeep.testing import Canary, FakeClock, FakeProvider, RenewingProvider, RevokingProvider
from tokenkeep.testing.conformance.issuing import bearer
from tokenkeep.testing.upstox import LocalUpstox

HOUR = timedelta(hours=1)


def key_texts(file: Path) -> list[str]:
    """The keys in a key file, and their random parts alone."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    return [*lines, *(line.rsplit("_", 1)[-1] if len(line.rsplit("_", 1)[-1]) == 43 else line[-43:] for line in lines)]


class Scenario:
    """Does to a vault and an issuer all that can be done, and keeps every value and error that comes out."""

    def __init__(self, folder: Path, canary: Canary) -> None:
        self.folder = folder
        self.canary = canary
        self.url = f"sqlite:///{folder}/tokens.db"
        self.clock = FakeClock()
        self.keys = KeyRing.generate()
        self.shown: list[Any] = [self.keys, self.clock]
        self.errors: list[BaseException] = []
        self.providers = (
            FakeProvider("plain", kinds=("access", "extended"), refresh=True),
            RenewingProvider("renewing"),
            RevokingProvider("revoking"),
        )

    def save_keys(self) -> None:
        self.keys.save(self.folder / "keys")
        self.canary.watch(*key_texts(self.folder / "keys"), label="key")

    def fails(self, call: Any, *args: Any, **options: Any) -> None:
        try:
            self.shown.append(call(*args, **options))
        except Exception as error:  # noqa: BLE001  # whatever comes out is searched
            self.errors.append(error)

    def vault(self) -> None:
        with TokenVault.open(self.url, providers=self.providers, keys=self.keys, clock=self.clock) as vault:
            for name in ("plain", "renewing", "revoking"):
                self.shown += [vault.get_or_create("alice", provider=name), vault.acquire("bob", provider=name)]
                self.clock.advance(HOUR)
                self.shown.append(vault.get_or_create("alice", provider=name))
                vault.reject(vault.get_or_create("alice", provider=name))
                self.shown.append(vault.acquire_many(["alice", "carol"], provider=name))
            pasted = Secret(f"pasted-{secrets.token_hex(16)}")
            self.canary.watch(pasted, label="pasted token")
            self.shown += [vault.store("dora", NewToken(pasted, expires_in=60), provider="plain"), vault.status()]
            for provider in self.providers:
                provider.fail("erin", ProviderRejected("wrong PIN"))
                self.fails(vault.get_or_create, "erin", provider=provider.name)
            for ask in (vault.history, vault.statistics, vault.dashboard):
                self.shown.append(ask("alice", provider="renewing") if ask != vault.dashboard else None)
            self.shown.append(vault.audit_trail("alice"))
            self.shown.append(vault.created_between(self.clock.now() - timedelta(days=9), self.clock.now()))
            self.keys.add()
            self.save_keys()
        with TokenVault.open(self.url, providers=self.providers, keys=self.keys, clock=self.clock) as vault:
            self.shown += [vault.rotate_keys(), vault.revoke("bob", provider="revoking"), vault, self.keys]
            self.clock.advance(HOUR)
            self.shown.append(vault.purge())
        self.fails(lambda: TokenVault.open(self.url, keys=KeyRing.generate()).__enter__())

    def issuer(self) -> None:
        with TokenIssuer.open(self.url, lifetime=HOUR, keys=self.keys, clock=self.clock) as issuer:
            for number in range(5):
                issued = issuer.issue("alice", scopes={"orders:read"}, name=f"device {number}")
                self.canary.watch(bearer(issued), bearer(issued)[3:46], label="issued token")
                self.shown += [issued, issuer.verify(bearer(issued))]
            issuer.revoke(bearer(issued))
            self.fails(issuer.verify, bearer(issued), scopes={"not a scope"})
            self.fails(issuer.revoke_all, "alice", keep=bearer(issued))
            self.shown += [issuer.tokens("alice"), issuer.audit_trail("alice"), issuer.statistics("alice"), issuer]

    def run(self) -> None:
        self.save_keys()
        self.vault()
        self.issuer()
        for provider in self.providers:
            self.canary.watch(*provider.granted, label=f"token of {provider.name}")


@pytest.fixture
def scenario(tmp_path: Path, canary: Canary) -> Scenario:
    """All is done; at the end of the test the canary searches the log records too."""
    scenario = Scenario(tmp_path, canary)
    scenario.run()
    return scenario


@pytest.mark.requirement("S1")
@pytest.mark.requirement("G1")
def test_after_a_whole_scenario_no_secret_stands_in_any_file_but_the_keys_in_theirs(scenario: Scenario) -> None:
    assert (scenario.folder / "tokens.db").stat().st_size > 0
    assert scenario.canary.found_in_files(scenario.folder, but={scenario.folder / "keys"}) == []


@pytest.mark.requirement("S1")
def test_while_the_database_is_open_its_log_and_shared_memory_hold_no_secret(tmp_path: Path, canary: Canary) -> None:
    provider = FakeProvider(refresh=True)
    path = tmp_path / "tokens.db"
    with TokenVault.open(f"sqlite:///{path}", providers=[provider], keys=KeyRing.generate()) as vault:
        for number in range(20):
            vault.get_or_create(f"user {number}")
        canary.watch(*provider.granted)
        assert (tmp_path / "tokens.db-wal").stat().st_size > 0
        assert canary.found_in_files(tmp_path) == []


@pytest.mark.requirement("S13")
def test_no_value_that_came_out_shows_a_secret_unless_it_is_asked_to(scenario: Scenario) -> None:
    assert len(scenario.shown) > 30
    for value in scenario.shown:
        shown = [repr(value), str(value), f"{value}", json.dumps(value, default=str)]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            shown.append(repr(dataclasses.asdict(copy.copy(value))))
        for text in shown:
            assert scenario.canary.found_in(text, type(value).__name__) == []


@pytest.mark.requirement("S13")
def test_a_token_cannot_be_pickled_by_mistake(scenario: Scenario) -> None:
    tokens = [value for value in scenario.shown if hasattr(value, "access_token")]
    assert tokens
    for token in tokens:
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(token)


@pytest.mark.requirement("G4")
def test_no_error_that_came_out_shows_a_secret_or_the_url(scenario: Scenario) -> None:
    assert {type(error) for error in scenario.errors} > {ProviderRejected}
    scenario.canary.watch(str(scenario.folder), label="path")
    for error in scenario.errors:
        assert scenario.canary.found_in_error(error) == []


@pytest.mark.requirement("G1")
def test_the_log_was_listened_to_at_debug(scenario: Scenario, caplog: pytest.LogCaptureFixture) -> None:
    records = caplog.get_records("setup")
    assert any(record.name.startswith("sqlalchemy.engine") for record in records)
    assert not scenario.canary.found_in_records(records)


@pytest.mark.requirement("G4")
def test_an_error_of_a_provider_that_blurts_out_its_secret_does_not_reach_the_database(
    tmp_path: Path, canary: Canary
) -> None:
    blurted = f"blurted-{secrets.token_hex(16)}"
    canary.watch(blurted)

    def blurt(_: str) -> str:
        raise KeyError(blurted)

    provider = FunctionProvider("blurting", blurt, expiry=Lifetime(HOUR))
    with TokenVault.open(f"sqlite:///{tmp_path}/tokens.db", providers=[provider], keys=KeyRing.generate()) as vault:
        with pytest.raises(ProviderError) as failed:
            vault.get_or_create("alice")
        assert blurted not in f"{failed.value} {failed.value!r}"
        assert canary.found_in(repr(vault.audit_trail("alice"))) == []
    assert canary.found_in_files(tmp_path) == []


def test_a_key_file_is_made_beside_the_database_for_its_owner_alone(tmp_path: Path, canary: Canary) -> None:
    provider = FakeProvider()
    with TokenVault.open(f"sqlite:///{tmp_path}/tokens.db", providers=[provider]) as vault:
        vault.get_or_create("alice")
    [file] = tmp_path.glob("*.key")
    assert file.stat().st_mode & 0o777 == 0o600
    canary.watch(*key_texts(file), label="key")
    canary.watch(*provider.granted)
    assert canary.found_in_files(tmp_path, but={file}) == []


@pytest.mark.requirement("S4")
@pytest.mark.requirement("G1")
def test_a_real_login_at_the_local_upstox_leaves_no_secret_of_the_account_anywhere(
    tmp_path: Path, canary: Canary
) -> None:
    pytest.importorskip("upstox_totp", reason="the extra [upstox] is not installed")
    shown: list[Any] = []
    with LocalUpstox() as server:
        account = server.add_account(pin_code="pin-8d2f1c", password="pass-61c0ae77", client_secret="sec-0f9e8d7c")
        canary.watch(account.pin_code, account.password, account.totp_secret, account.client_secret, label="credential")
        provider = UpstoxProvider(account.credentials(), base_domain=account.base_domain)
        bobs = server.add_account(pin_code="pin-5f3c1a")
        wrong = UpstoxProvider(bobs.credentials(pin_code="pin-00bad0"), name="wrong", base_domain=bobs.base_domain)
        canary.watch("pin-00bad0", label="wrong PIN")
        keys = KeyRing.generate()
        url = f"sqlite:///{tmp_path}/tokens.db"
        with TokenVault.open(url, providers=[provider, wrong], keys=keys) as vault:
            token = vault.get_or_create("alice", provider="upstox")
            canary.watch(token.access_token, label="Upstox token")
            with pytest.raises(ProviderError) as refused:
                vault.acquire("bob", provider="wrong")
            shown += [
                provider,
                wrong,
                account.credentials(),
                token,
                vault.audit_trail("alice"),
                vault.audit_trail("bob"),
            ]
            vault.revoke("alice", provider="upstox")
    assert canary.found_in_error(refused.value) == []
    assert [finding for value in shown for finding in canary.found_in(repr(value), type(value).__name__)] == []
    assert canary.found_in_files(tmp_path) == []


# --- the canary itself: it must sing


@pytest.mark.parametrize(
    "disguise",
    [
        lambda plain: plain,
        lambda plain: plain.encode().hex(),
        lambda plain: base64.b64encode(plain.encode()).decode(),
        lambda plain: base64.b64encode(f"x:{plain}".encode()).decode(),
        lambda plain: base64.b64encode(f"{plain}{plain}".encode()).decode(),
        lambda plain: base64.urlsafe_b64encode(f"u:{plain}\n".encode()).decode(),
        lambda plain: quote(plain, safe=""),
        lambda plain: f"b'{plain}'",
    ],
)
@pytest.mark.parametrize("plain", ["s3cret/with+signs=", "a-plain-token-0123456789", "~~??>>ÿ-token-of-bytes"])
def test_the_canary_finds_a_secret_in_each_disguise(disguise: Any, plain: str) -> None:
    canary = Canary()
    canary.watch(plain, label="it")
    assert canary.found_in(f"before {disguise(plain)} after", "here") == ["it in here"]
    assert canary.found_in("before and after") == []


def test_the_canary_searches_files_names_records_and_errors(tmp_path: Path) -> None:
    canary = Canary()
    canary.watch("sesame-open")
    (tmp_path / "a").write_bytes(b"\x00sesame-open\x00")
    (tmp_path / "sesame-open.txt").touch()
    assert len(canary.found_in_files(tmp_path)) == 2
    assert len(canary.found_in_files(tmp_path, but={tmp_path / "a"})) == 1
    record = logging.LogRecord("x", logging.DEBUG, "", 0, "it is %s", ("sesame-open",), None)
    assert canary.found_in_records([record]) == ["secret in a log record of x"]
    error = SealingError("harmless")
    error.__cause__ = KeyError("sesame-open")
    assert canary.found_in_error(error) == ["secret in a KeyError"]
    assert canary.found_in_error(SealingError("harmless")) == []


def test_a_secret_too_short_to_recognise_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        Canary().watch("123")
