"""Changing what is there: a new login, a token that arrived another way, refusals, renewals, revocation."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tokenkeep import NewToken, Secret
from tokenkeep.errors import ProviderRejected, ProviderUnavailable
from tokenkeep.model import Action, EndReason
from tokenkeep.testing import FakeClock, FakeProvider, RenewingProvider, RevokingProvider
from tokenkeep.testing.conformance._fixtures import OpenVault, VaultFixtures


@pytest.mark.asyncio
class Changing(VaultFixtures):
    """`acquire`, `store`, `reject`, renewal and `revoke`."""

    async def test_an_explicit_login_replaces_a_token_that_was_good(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        old = await vault.get_or_create("alice")
        new = await vault.acquire("alice")
        read = await vault.get_valid("alice")
        assert read is not None
        assert read.id == new.id != old.id
        assert new.version == old.version + 1

    async def test_explicit_logins_at_the_same_moment_leave_one_active_token(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        tokens = await asyncio.gather(*(vault.acquire("alice") for _ in range(8)))
        history = await vault.history("alice", limit=100)
        assert sum(info.active for info in history) == 1
        assert len(history) == provider.logins
        assert max(token.version for token in tokens) == history[0].version

    async def test_a_token_that_arrived_another_way_is_served_and_noted_as_stored(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        end = clock.now() + timedelta(hours=3)
        stored = await vault.store("alice", NewToken("from-the-webhook", expires_at=end))
        read = await vault.get_or_create("alice")
        assert read.id == stored.id
        assert read.access_token.reveal() == "from-the-webhook"
        assert read.expires_at == end
        assert provider.logins == 0
        assert (await vault.audit_trail("alice"))[0].action is Action.STORED

    async def test_a_stored_token_replaces_what_was_there(self, open_vault: OpenVault, provider: FakeProvider) -> None:
        vault = await open_vault(provider)
        old = await vault.get_or_create("alice")
        new = await vault.store("alice", NewToken("from-the-webhook", expires_in=60))
        assert new.version == old.version + 1
        history = await vault.history("alice")
        assert [(info.version, info.active, info.end_reason) for info in history] == [
            (new.version, True, None),
            (old.version, False, EndReason.REPLACED),
        ]

    async def test_storing_one_kind_leaves_the_others_alone(self, open_vault: OpenVault) -> None:
        vault = await open_vault(FakeProvider(kinds=("access", "extended")))
        access = await vault.get_or_create("alice")
        await vault.store("alice", NewToken("a-year-of-reading", kind="extended", expires_in=timedelta(days=365)))
        read = await vault.get_valid("alice")
        extended = await vault.get_valid("alice", kind="extended")
        assert read is not None
        assert read.id == access.id
        assert extended is not None
        assert extended.access_token.reveal() == "a-year-of-reading"
        assert extended.version == 2

    async def test_a_refused_token_is_not_served_again_and_the_next_call_logs_in(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        refused = await vault.get_or_create("alice")
        await vault.reject(refused)
        assert await vault.get_valid("alice") is None
        assert (await vault.get_or_create("alice")).version == refused.version + 1
        assert provider.logins == 2
        assert Action.REJECTED in [event.action for event in await vault.audit_trail("alice")]

    async def test_a_refusal_of_an_older_version_leaves_the_newer_one_alone(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        old = await vault.get_or_create("alice")
        new = await vault.acquire("alice")
        await vault.reject(old)
        read = await vault.get_valid("alice")
        assert read is not None
        assert read.id == new.id

    async def test_many_refusals_of_one_version_lead_to_one_login(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        refused = await vault.get_or_create("alice")

        async def reject_and_ask_again() -> int:
            await vault.reject(refused)
            token = await vault.get_or_create("alice")
            return token.version

        versions = await asyncio.gather(*(reject_and_ask_again() for _ in range(10)))
        assert set(versions) == {refused.version + 1}
        assert provider.logins == 2

    async def test_a_refresh_token_is_spent_instead_of_a_login(self, open_vault: OpenVault, clock: FakeClock) -> None:
        provider = RenewingProvider()
        vault = await open_vault(provider)
        first = await vault.get_or_create("alice")
        for renewal in range(1, 4):
            clock.advance(timedelta(hours=1))
            token = await vault.get_or_create("alice")
            assert token.version == first.version + renewal
            assert provider.renewals == renewal
        assert provider.logins == 1

    async def test_a_renewal_without_a_new_refresh_token_keeps_the_old_one(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        provider = RenewingProvider(rotating=False)
        vault = await open_vault(provider)
        first = await vault.get_or_create("alice")
        for _ in range(3):
            clock.advance(timedelta(hours=1))
            token = await vault.get_or_create("alice")
            assert token.refresh_token == first.refresh_token
        assert (provider.logins, provider.renewals) == (1, 3)

    async def test_a_refused_access_token_keeps_its_refresh_token_for_the_renewal(self, open_vault: OpenVault) -> None:
        provider = RenewingProvider()
        vault = await open_vault(provider)
        await vault.reject(await vault.get_or_create("alice"))
        assert (await vault.get_or_create("alice")).version == 2
        assert (provider.logins, provider.renewals) == (1, 1)

    async def test_many_callers_at_the_end_of_a_token_spend_the_refresh_token_once(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        provider = RenewingProvider()
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        clock.advance(timedelta(hours=1))
        tokens = await asyncio.gather(*(vault.get_or_create("alice") for _ in range(15)))
        assert len({token.id for token in tokens}) == 1
        assert (provider.logins, provider.renewals) == (1, 1)

    async def test_when_the_refresh_token_is_refused_a_login_takes_its_place(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        provider = RenewingProvider()
        provider.script_renewals(ProviderRejected("invalid_grant"))
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        clock.advance(timedelta(hours=1))
        assert (await vault.get_or_create("alice")).version == 2
        assert (provider.logins, provider.renewals) == (2, 1)

    async def test_a_renewal_that_could_not_be_asked_for_keeps_the_refresh_token(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        provider = RenewingProvider()
        provider.script_renewals(ProviderUnavailable("connection refused", retry_after=timedelta(seconds=5)))
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        clock.advance(timedelta(hours=1))
        with pytest.raises(ProviderUnavailable):
            await vault.get_or_create("alice")
        clock.advance(timedelta(seconds=6))
        assert (await vault.get_or_create("alice")).version == 2
        assert (provider.logins, provider.renewals) == (1, 2)

    @pytest.mark.requirement("K7")
    async def test_revoking_ends_all_kinds_here_and_at_the_provider(self, open_vault: OpenVault) -> None:
        provider = RevokingProvider(kinds=("access", "extended"))
        vault = await open_vault(provider)
        tokens = [await vault.get_or_create("alice"), await vault.get_or_create("alice", kind="extended")]
        assert await vault.revoke("alice") is True
        assert await vault.get_valid("alice") is None
        assert await vault.get_valid("alice", kind="extended") is None
        assert {token.access_token for token in tokens} == set(provider.revoked)
        actions = [event.action for event in await vault.audit_trail("alice")]
        assert Action.REVOKED in actions
        assert Action.PROVIDER_REVOKED in actions

    async def test_revoking_what_is_not_there_is_false_and_may_be_repeated(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        assert await vault.revoke("alice") is False
        await vault.get_or_create("alice")
        assert await vault.revoke("alice") is True
        assert await vault.revoke("alice") is False

    @pytest.mark.requirement("K7")
    @pytest.mark.parametrize("error", [ProviderUnavailable("503"), KeyError("surprise")], ids=["known", "unexpected"])
    async def test_a_provider_that_cannot_revoke_does_not_keep_the_token_alive_here(
        self, open_vault: OpenVault, error: Exception
    ) -> None:
        provider = RevokingProvider()
        provider.script_revocations(error)
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        assert await vault.revoke("alice") is True
        assert await vault.get_valid("alice") is None
        assert Action.PROVIDER_REVOKE_FAILED in [event.action for event in await vault.audit_trail("alice")]

    @pytest.mark.requirement("K5")
    async def test_a_token_revoked_during_a_read_does_not_come_back(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        reads = [asyncio.ensure_future(vault.get_valid("alice")) for _ in range(10)]
        assert await vault.revoke("alice")
        await asyncio.gather(*reads)
        await vault.statistics("alice")
        assert await vault.get_valid("alice") is None
        assert not any(info.active for info in await vault.history("alice"))

    async def test_a_revoked_user_may_log_in_again_and_versions_go_on(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        first = await vault.get_or_create("alice")
        await vault.revoke("alice")
        assert (await vault.get_or_create("alice")).version == first.version + 1

    async def test_revoking_one_user_leaves_the_others_alone(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        bobs = await vault.get_or_create("bob")
        await vault.revoke("alice")
        read = await vault.get_valid("bob")
        assert read is not None
        assert read.access_token == bobs.access_token != Secret("")
