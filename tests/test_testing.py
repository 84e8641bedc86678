"""The tools that are shipped for tests, tested."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from tokenkeep import NewToken, Secret
from tokenkeep.errors import ProviderRejected, ProviderUnavailable
from tokenkeep.ports import Clock, OneTimeCodes, Provider, Renewing, Revoking
from tokenkeep.testing import (
    FakeClock,
    FakeProvider,
    OneTimeCodeProvider,
    RenewingProvider,
    RevokingProvider,
)


def test_the_clock_stands_still_until_it_is_moved(fake_clock: FakeClock) -> None:
    clock: Clock = fake_clock
    start = clock.now()
    assert start.tzinfo is UTC
    assert clock.now() == fake_clock() == start
    assert fake_clock.advance(timedelta(seconds=5)) == clock.now() == start + timedelta(seconds=5)
    assert fake_clock.advance(timedelta(seconds=-5)) == start


def test_the_clock_takes_any_aware_time_and_shows_utc(fake_clock: FakeClock) -> None:
    india = timezone(timedelta(hours=5, minutes=30))
    assert fake_clock.set(datetime(2026, 1, 6, 3, 30, tzinfo=india)) == datetime(2026, 1, 5, 22, 0, tzinfo=UTC)
    with pytest.raises(ValueError, match="aware"):
        fake_clock.set(datetime(2026, 1, 6))  # noqa: DTZ001  # the point
    with pytest.raises(ValueError, match="aware"):
        FakeClock(datetime(2026, 1, 6))  # noqa: DTZ001  # the point


def test_no_step_of_the_clock_is_lost_between_threads(fake_clock: FakeClock) -> None:
    start = fake_clock.now()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: fake_clock.advance(timedelta(seconds=1)), range(1000)))
    assert fake_clock.now() - start == timedelta(seconds=1000)


def test_the_provider_grants_different_tokens_and_counts(fake_provider: FakeProvider) -> None:
    provider: Provider = fake_provider
    [first], [second] = fake_provider.acquire("alice"), fake_provider.acquire("bob")
    assert provider.name == "fake"
    assert first.access_token != second.access_token
    assert fake_provider.calls == ("alice", "bob")
    assert fake_provider.granted == (first.access_token, second.access_token)


def test_the_provider_follows_its_script_then_its_failures_then_grants(fake_provider: FakeProvider) -> None:
    fake_provider.script(ProviderUnavailable("down"), NewToken("scripted"))
    fake_provider.fail("alice", ProviderRejected("wrong PIN"))
    with pytest.raises(ProviderUnavailable):
        fake_provider.acquire("alice")
    assert [token.access_token for token in fake_provider.acquire("alice")] == [Secret("scripted")]
    with pytest.raises(ProviderRejected):
        fake_provider.acquire("alice")
    assert fake_provider.acquire("bob")
    fake_provider.fail("alice", None)
    assert fake_provider.acquire("alice")
    assert fake_provider.logins == 5


def test_a_held_login_waits_for_the_gate(fake_provider: FakeProvider) -> None:
    done = threading.Event()

    def login() -> None:
        fake_provider.acquire("alice")
        done.set()

    with fake_provider.held() as gate:
        thread = threading.Thread(target=login)
        thread.start()
        gate.wait_for_a_caller()
        assert not done.is_set()
    thread.join(timeout=5)
    assert done.is_set()


def test_a_gate_that_nobody_opens_gives_up(fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenkeep.testing.provider.PATIENCE", 0.01)
    with fake_provider.held() as gate:
        with pytest.raises(TimeoutError):
            gate.wait_for_a_caller()
        with pytest.raises(TimeoutError):
            fake_provider.acquire("alice")


def test_the_journal_has_a_line_for_each_login(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    for user in ("alice", "bob"):
        FakeProvider(journal=journal).acquire(user)
    assert [line.split()[1] for line in journal.read_text().splitlines()] == ["alice", "bob"]


def test_each_power_is_a_class_of_its_own(fake_provider: FakeProvider) -> None:
    powers: list[type] = [Renewing, Revoking, OneTimeCodes]

    def held(provider: FakeProvider) -> list[type]:
        return [power for power in powers if isinstance(provider, power)]

    assert held(fake_provider) == []
    assert held(RenewingProvider()) == [Renewing]
    assert held(RevokingProvider()) == [Revoking]
    assert held(OneTimeCodeProvider()) == [OneTimeCodes]


def test_a_rotating_provider_takes_each_refresh_token_once() -> None:
    provider = RenewingProvider()
    [token] = provider.acquire("alice")
    assert token.refresh_token is not None
    [renewed] = provider.renew("alice", token.refresh_token)
    assert renewed.refresh_token not in {None, token.refresh_token}
    with pytest.raises(ProviderRejected, match="invalid_grant"):
        provider.renew("alice", token.refresh_token)
    assert provider.renewals == 2
