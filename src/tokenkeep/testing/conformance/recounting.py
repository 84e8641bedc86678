"""What the vault tells of the past: history, figures, the trail, and what a purge leaves of them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tokenkeep import NewToken
from tokenkeep.model import Action, EndReason, TokenInfo
from tokenkeep.testing import FakeClock, FakeProvider
from tokenkeep.testing.conformance._fixtures import OpenVault, VaultFixtures

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def versions(history: list[TokenInfo]) -> list[int]:
    """Return the versions in the order of the history."""
    return [info.version for info in history]


@pytest.mark.asyncio
class Recounting(VaultFixtures):
    """`history`, `statistics`, `dashboard`, `created_between`, `audit_trail`, `purge`, `status`."""

    async def test_history_is_newest_first_and_as_long_as_asked_for(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        for _ in range(12):
            await vault.acquire("alice")
            clock.advance(MINUTE)
        assert versions(await vault.history("alice")) == [12, 11, 10, 9, 8, 7, 6, 5, 4, 3]
        assert versions(await vault.history("alice", limit=2)) == [12, 11]
        assert len(await vault.history("alice", limit=100)) == 12
        assert await vault.history("bob") == []

    async def test_history_tells_of_all_kinds_and_of_no_secret(self, open_vault: OpenVault) -> None:
        provider = FakeProvider(kinds=("access", "extended"), refresh=True)
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        history = await vault.history("alice")
        assert {info.kind for info in history} == {"access", "extended"}
        assert all(info.active for info in history)
        assert not any(secret.reveal() in repr(history) for secret in provider.granted)
        assert not any(hasattr(info, name) for info in history for name in ("access_token", "refresh_token"))

    async def test_each_use_is_counted_once(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        assert (await vault.get_or_create("alice")).usage_count == 1
        clock.advance(MINUTE)
        for count in (2, 3):
            token = await vault.get_valid("alice")
            assert token is not None
            assert token.usage_count == count
        figures = await vault.statistics("alice")
        assert (figures.total_tokens, figures.active_tokens, figures.total_usage) == (1, 1, 3)
        assert figures.avg_usage_per_token == pytest.approx(3.0)
        assert figures.last_generation == clock.now() - MINUTE
        assert figures.last_usage == clock.now()
        assert [(info.usage_count, info.last_used_at) for info in await vault.history("alice")] == [(3, clock.now())]

    async def test_uses_side_by_side_lose_none(self, open_vault: OpenVault, provider: FakeProvider) -> None:
        vault = await open_vault(provider)
        await vault.get_or_create("alice")

        async def use_25_times() -> None:
            for _ in range(25):
                await vault.get_valid("alice")

        await asyncio.gather(*(use_25_times() for _ in range(16)))
        assert (await vault.statistics("alice")).total_usage == 401

    async def test_figures_of_an_unknown_user_are_zero(self, open_vault: OpenVault, provider: FakeProvider) -> None:
        vault = await open_vault(provider)
        figures = await vault.statistics("nobody")
        assert (figures.total_tokens, figures.active_tokens, figures.total_usage) == (0, 0, 0)
        assert figures.avg_usage_per_token == pytest.approx(0.0)
        assert figures.last_generation is None
        assert figures.last_usage is None

    async def test_figures_of_several_tokens_show_the_mean(self, open_vault: OpenVault, provider: FakeProvider) -> None:
        vault = await open_vault(provider)
        for _ in range(3):
            await vault.get_valid("alice")
            await vault.get_or_create("alice")
        await vault.acquire("alice")
        figures = await vault.statistics("alice")
        assert (figures.total_tokens, figures.active_tokens) == (2, 1)
        assert figures.avg_usage_per_token == pytest.approx(figures.total_usage / 2)

    async def test_an_expired_token_is_not_counted_as_active(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        clock.advance(HOUR)
        assert (await vault.statistics("alice")).active_tokens == 0
        assert not (await vault.history("alice"))[0].active

    async def test_the_dashboard_shows_figures_events_and_the_active_token(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        token = await vault.acquire("alice")
        board = await vault.dashboard("alice")
        assert board.user_id == "alice"
        assert board.statistics == await vault.statistics("alice")
        assert board.active_token is not None
        assert board.active_token.id == token.id
        assert board.recent_activity == (await vault.audit_trail("alice"))[:10]
        assert (await vault.dashboard("bob")).active_token is None

    async def test_the_span_of_created_between_includes_its_start_and_not_its_end(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        start = clock.now()
        for user in ("alice", "bob", "alice"):
            await vault.acquire(user)
            clock.advance(MINUTE)
        everything = await vault.created_between(start, start + 3 * MINUTE)
        assert [(info.user_id, info.version) for info in everything] == [("alice", 2), ("bob", 1), ("alice", 1)]
        assert versions(await vault.created_between(start, start + 2 * MINUTE, user_id="alice")) == [1]
        assert versions(await vault.created_between(start, start + 3 * MINUTE, limit=1)) == [2]
        assert await vault.created_between(start + 3 * MINUTE, start + HOUR) == []

    @pytest.mark.requirement("G3")
    async def test_the_trail_tells_who_did_what_when_newest_first(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        first = await vault.get_or_create("alice")
        clock.advance(MINUTE)
        second = await vault.acquire("alice")
        clock.advance(MINUTE)
        await vault.reject(second)
        trail = await vault.audit_trail("alice")
        assert trail[0].action is Action.REJECTED
        assert trail[0].at == clock.now()
        assert trail[0].token_id == second.id
        assert trail[-1].action is Action.CREATED
        assert trail[-1].token_id == first.id
        assert [event.at for event in trail] == sorted((event.at for event in trail), reverse=True)
        assert all("@" in event.actor and event.user_id == "alice" for event in trail)
        assert len(await vault.audit_trail("alice", limit=1)) == 1
        assert await vault.audit_trail("bob") == []

    async def test_reads_are_not_written_to_the_trail(self, open_vault: OpenVault, provider: FakeProvider) -> None:
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        before = await vault.audit_trail("alice")
        for _ in range(5):
            await vault.get_valid("alice")
        assert await vault.audit_trail("alice") == before

    @pytest.mark.requirement("S11")
    async def test_a_purge_erases_the_secret_of_an_expired_token_and_keeps_its_history(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        dead = await vault.get_or_create("alice")
        clock.advance(timedelta(minutes=30))
        alive = await vault.get_or_create("bob")
        clock.advance(timedelta(minutes=45))
        assert (await vault.purge()).secrets == 1
        assert (await vault.purge()).secrets == 0
        history = await vault.history("alice")
        assert [info.id for info in history] == [dead.id]
        assert history[0].end_reason is EndReason.EXPIRED
        read = await vault.get_valid("bob")
        assert read is not None
        assert read.id == alive.id

    async def test_a_purge_works_through_more_than_one_batch(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        for number in range(30):
            await vault.store(f"user {number}", NewToken(f"token-{number}", expires_in=60))
        clock.advance(HOUR)
        assert (await vault.purge()).secrets == 30

    async def test_the_trail_outlives_the_token_and_goes_when_asked(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        await vault.revoke("alice")
        assert len(await vault.audit_trail("alice")) >= 2
        clock.advance(timedelta(days=1))
        assert (await vault.purge(audit_before=clock.now())).audit_events >= 2
        remaining = await vault.audit_trail("alice")
        assert all(event.action not in {Action.CREATED, Action.REVOKED} for event in remaining)

    async def test_a_healthy_store_says_so(self, open_vault: OpenVault, provider: FakeProvider) -> None:
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        status = await vault.status()
        assert status.healthy
        assert status.tiers
        assert all(tier.reason is None for tier in status.tiers)
        assert status.schema_version is not None
        assert len(status.key_ids) == 1
