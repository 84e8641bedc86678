from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastapi_apps import plain
from service_apps import Service, in_process
from tokenkeep import AsyncTokenVault, NewToken, TokenVault
from tokenkeep.errors import AcquireInDoubt, ProviderError, ProviderRejected, ProviderUnavailable, TokenKeepError
from tokenkeep.metrics import Metrics
from tokenkeep.ports import OneTimeCodes, Renewing, Revoking
from tokenkeep.providers import FunctionProvider
from tokenkeep.providers.upstox import UpstoxProvider
from tokenkeep.service.watched import MOST, Watched
from tokenkeep.testing import FakeClock, FakeProvider, RenewingProvider, RevokingProvider

PAGE = Path(__file__).resolve().parents[1] / "docs" / "service.md"
HOUR = timedelta(hours=1)
BROKER = {"provider": "broker"}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"tokenkeep_{name}", labels)


# --- providers ---


OUTCOMES = {
    "granted": None,
    "rejected": ProviderRejected("wrong PIN"),
    "unavailable": ProviderUnavailable("busy"),
    "in_doubt": AcquireInDoubt("lost"),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "awaited"])
async def test_each_call_of_a_provider_is_counted_by_outcome_and_timed(outcome: str, *, asynchronous: bool) -> None:
    def log_in(_: str) -> NewToken:
        error = OUTCOMES[outcome]
        if error is not None:
            raise error
        return NewToken("a token", expires_in=60)

    async def log_in_later(user: str) -> NewToken:
        await asyncio.sleep(0)
        return log_in(user)

    metrics = Metrics()
    provider = metrics.measured(FunctionProvider("p", log_in_later if asynchronous else log_in))
    async with AsyncTokenVault.open("sqlite://", providers=[provider]) as vault:
        error = None
        try:
            await vault.get_or_create("alice")
        except ProviderError as raised:
            error = raised
    assert (error is None) == (outcome == "granted")
    assert {word: value(metrics, "logins_total", provider="p", outcome=word) for word in OUTCOMES} == {
        word: 1 if word == outcome else 0 for word in OUTCOMES
    }
    assert value(metrics, "login_duration_seconds_count", provider="p") == 1


def test_a_measured_provider_has_the_powers_of_the_one_inside() -> None:
    for inner in (FakeProvider(), RenewingProvider(), RevokingProvider(), UpstoxProvider({})):
        measured = Metrics().measured(inner)
        for power in (Renewing, Revoking, OneTimeCodes):
            assert isinstance(measured, power) == isinstance(inner, power)
        assert (measured.name, measured.expiry) == (inner.name, inner.expiry)


def test_a_renewal_is_counted_like_a_login(fake_clock: FakeClock) -> None:
    metrics, inner = Metrics(), RenewingProvider("p")
    with TokenVault.open("sqlite://", providers=[metrics.measured(inner)], clock=fake_clock) as vault:
        vault.acquire("alice")
        vault.acquire("alice")
    assert value(metrics, "logins_total", provider="p", outcome="granted") == 2


# --- the service ---


@pytest.fixture
async def service(tmp_path: Path, fake_clock: FakeClock) -> AsyncIterator[Service]:
    watched = [("broker", "alice")]
    async with in_process(f"sqlite:///{tmp_path}/t.db", clock=fake_clock, watched=watched) as service:
        yield service


async def scraped(service: Service) -> str:
    async with service.asking("metrics") as http:
        answer = await http.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return answer.text


async def test_a_missing_token_of_a_watched_account_shows_and_so_does_the_end_of_one(
    service: Service, fake_clock: FakeClock
) -> None:
    numbers = service.metrics
    await scraped(service)
    assert value(numbers, "accounts", **BROKER, state="missing") == 1
    assert value(numbers, "token_seconds_left", **BROKER) is None
    async with service.asking("token:*") as http:
        await http.post("/accounts/broker/alice/token")
        fake_clock.advance(timedelta(minutes=10))
        await http.post("/accounts/broker/bob/token")
        await http.get("/accounts/broker/nobody/token")
    await scraped(service)
    assert value(numbers, "accounts", **BROKER, state="valid") == 2
    assert value(numbers, "accounts", **BROKER, state="missing") == 0
    assert value(numbers, "token_seconds_left", **BROKER) == 50 * 60
    await service.vault.store(
        "bob", NewToken("x", kind="extended", expires_in=36000), provider="broker"
    )  # is no access
    fake_clock.advance(timedelta(minutes=55))
    await scraped(service)
    assert value(numbers, "accounts", **BROKER, state="valid") == 1
    assert value(numbers, "accounts", **BROKER, state="missing") == 1
    assert value(numbers, "token_seconds_left", **BROKER) == 5 * 60


async def test_reading_the_metrics_counts_as_no_use_of_a_token(service: Service) -> None:
    async with service.asking("token:*") as http:
        await http.post("/accounts/broker/alice/token")
    for _ in range(3):
        await scraped(service)
    assert (await service.vault.statistics("alice", provider="broker")).total_usage == 1


@pytest.mark.requirement("G1")
async def test_no_label_names_a_user_a_path_or_what_a_stranger_sends(service: Service) -> None:
    async with service.asking("token:*", "report:*") as http:
        for user in ("carol", "dave"):
            await http.post(f"/accounts/broker/{user}/token")
            await http.get(f"/accounts/broker/{user}")
            await http.get(f"/accounts/of-nobody/{user}/token")
            await http.post(f"/accounts/of-nobody/{user}/token")
        for number in range(20):
            await http.get(f"/stranger-{number}")
            await http.request(f"STRANGER{number}", "/livez")
    told = await scraped(service)
    assert not re.search("carol|dave|of-nobody|stranger", told, re.IGNORECASE)
    assert value(service.metrics, "http_requests_total", route="-", status="404") == 20
    assert value(service.metrics, "http_requests_total", route="-", status="405") == 20
    routes = {
        sample.labels["route"]
        for family in text_string_to_metric_families(told)
        for sample in family.samples
        if "route" in sample.labels
    }
    assert "POST /accounts/{provider}/{user_id}/token" in routes


async def test_who_waits_for_a_login_is_told_from_who_finds_a_token(service: Service) -> None:
    async with service.asking("token:*") as http:
        answers = await asyncio.gather(*(http.post("/accounts/broker/alice/token") for _ in range(5)))
        await http.post("/accounts/broker/alice/token")
    assert {answer.json()["version"] for answer in answers} == {1}
    assert value(service.metrics, "tokens_handed_out_total", **BROKER) == 6
    assert value(service.metrics, "logins_total", **BROKER, outcome="granted") == 1
    waited = value(service.metrics, "token_wait_seconds_count", **BROKER)
    assert waited is not None
    assert 1 <= waited <= 5


async def test_tokens_that_are_asked_about_are_counted(service: Service) -> None:
    good = plain(await service.issued.issue("alice"))
    async with service.asking("introspect") as http:
        for token in (good, good, "nonsense"):
            await http.post("/oauth/introspect", data={"token": token})
    assert value(service.metrics, "verifications_total", outcome="good") == 2
    assert value(service.metrics, "verifications_total", outcome="bad") == 1


FAILURES: list[tuple[TokenKeepError, int]] = [
    (ProviderRejected("sesame"), 502),
    (ProviderUnavailable("sesame", retry_after=timedelta(seconds=7)), 503),
    (AcquireInDoubt("sesame"), 503),
]


@pytest.mark.requirement("G4")
@pytest.mark.parametrize(("error", "status"), FAILURES, ids=[type(error).__name__ for error, _ in FAILURES])
async def test_a_failure_at_the_provider_is_named_without_its_words(
    service: Service, monkeypatch: pytest.MonkeyPatch, error: TokenKeepError, status: int
) -> None:
    def fail(_: str) -> NewToken:
        raise error

    provider = service.vault._opened.core._registry.providers["broker"]
    monkeypatch.setattr(provider, "_inner", FunctionProvider("broker", fail))
    async with service.asking("token:*") as http:
        answer = await http.post("/accounts/broker/alice/token")
    assert (answer.status_code, answer.json()["error"]) == (status, type(error).__name__)
    assert "sesame" not in answer.text
    assert answer.headers.get("retry-after") in ({"7", "5"} if status == 503 else {None})


async def test_the_accounts_that_are_watched_are_bounded(service: Service, fake_clock: FakeClock) -> None:
    watched = Watched()
    for number in range(MOST + 50):
        watched.add("broker", f"user {number}")
    left = await watched.left(service.vault, fake_clock.now())
    assert len(left["broker"]) == MOST


# --- the page ---


def exposed(metrics: Metrics) -> set[str]:
    families = text_string_to_metric_families(metrics.text().decode())
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in families}


def test_every_metric_is_documented_and_every_documented_one_is_there() -> None:
    names = exposed(Metrics())
    documented = set(re.findall(r"\btokenkeep_[a-z_]+", PAGE.read_text()))
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in documented} == names
    assert all(re.fullmatch(r"tokenkeep_[a-z_]+", name) for name in names)
