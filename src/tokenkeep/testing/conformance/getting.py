"""Reading, and logging in when there is nothing to read."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tokenkeep import NewToken, Secret
from tokenkeep.errors import AcquireInDoubt, ConfigurationError, ProviderError, ProviderRejected, ProviderUnavailable
from tokenkeep.expiry import FixedTime, Lifetime
from tokenkeep.providers import FunctionProvider
from tokenkeep.testing import FakeClock, FakeProvider
from tokenkeep.testing.conformance._fixtures import OpenVault, VaultFixtures

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


@pytest.mark.asyncio
class Getting(VaultFixtures):
    """`get_valid` and `get_or_create`."""

    async def test_reading_a_cold_vault_gives_none_and_calls_nobody(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        assert await vault.get_valid("alice") is None
        assert provider.logins == 0

    async def test_the_first_call_logs_in_and_the_later_ones_share_its_token(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        first = await vault.get_or_create("alice")
        second = await vault.get_or_create("alice")
        read = await vault.get_valid("alice")
        assert provider.calls == ("alice",)
        assert read is not None
        assert first.id == second.id == read.id
        assert first.access_token == second.access_token == read.access_token == provider.granted[0]
        assert first.version == 1
        assert first.created_at == clock.now()
        assert first.expires_at == clock.now() + HOUR

    async def test_a_token_carries_all_that_the_provider_said(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        profile = {"user_name": "आलिस", "exchanges": ["NSE", "BSE"], "ddpi": True, "poa": None, "limits": {"a": 1.5}}
        provider.script(
            NewToken(
                "said-access-token",
                refresh_token="said-refresh-token",
                expires_in=90,
                token_type="DPoP",
                scope=("orders:read", "orders:write"),
                profile=profile,
                metadata={"device": 'a "laptop"'},
            )
        )
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        token = await vault.get_valid("alice")
        assert token is not None
        assert token.access_token.reveal() == "said-access-token"
        assert token.refresh_token == Secret("said-refresh-token")
        assert token.expires_at == clock.now() + timedelta(seconds=90)
        assert (token.namespace, token.provider, token.user_id, token.kind) == ("default", "fake", "alice", "access")
        assert token.token_type == "DPoP"
        assert token.scope == ("orders:read", "orders:write")
        assert token.profile == profile
        assert token.metadata == {"device": 'a "laptop"'}
        assert token.persisted

    async def test_a_token_of_60_kilobytes_and_any_unicode_comes_back_as_it_was(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        plain = "t🗝\x00'\"%" * 7_500
        provider.script(NewToken(plain))
        vault = await open_vault(provider)
        assert (await vault.get_or_create("alice")).access_token.reveal() == plain
        read = await vault.get_valid("alice")
        assert read is not None
        assert read.access_token.reveal() == plain

    @pytest.mark.requirement("X5")
    async def test_a_token_is_good_until_just_before_its_end_and_not_at_it(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        clock.advance(HOUR - SECOND)
        assert await vault.get_valid("alice", min_validity=timedelta(0)) is not None
        clock.advance(SECOND)
        assert await vault.get_valid("alice", min_validity=timedelta(0)) is None

    async def test_a_token_with_less_validity_left_than_asked_for_is_not_read(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        clock.advance(timedelta(minutes=50))
        assert await vault.get_valid("alice", min_validity=timedelta(minutes=11)) is None
        assert await vault.get_valid("alice", min_validity=timedelta(minutes=9)) is not None

    async def test_a_token_that_ended_is_replaced_by_one_login(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        old = await vault.get_or_create("alice")
        clock.advance(HOUR)
        new = await vault.get_or_create("alice")
        assert provider.logins == 2
        assert new.version == old.version + 1
        assert new.access_token != old.access_token

    async def test_a_token_without_an_end_is_good_for_years(self, open_vault: OpenVault, clock: FakeClock) -> None:
        provider = FakeProvider(lifetime=None)
        vault = await open_vault(provider)
        first = await vault.get_or_create("alice")
        clock.advance(timedelta(days=3000))
        assert first.expires_at is None
        assert (await vault.get_or_create("alice")).id == first.id

    async def test_the_policy_of_the_provider_decides_when_the_token_does_not_say(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        vault = await open_vault(FakeProvider(lifetime=None, expiry=Lifetime(timedelta(minutes=5))))
        assert (await vault.get_or_create("alice")).expires_at == clock.now() + timedelta(minutes=5)

    @pytest.mark.requirement("X6")
    async def test_a_token_that_is_dead_on_arrival_is_never_read_back_as_good(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        provider.script(NewToken("dead-on-arrival", expires_in=0))
        vault = await open_vault(provider)
        with pytest.raises(ProviderError):
            await vault.get_or_create("alice")
        assert await vault.get_valid("alice", min_validity=timedelta(0)) is None

    async def test_a_provider_whose_tokens_are_dead_on_arrival_is_not_asked_at_each_call(
        self, open_vault: OpenVault
    ) -> None:
        provider = FakeProvider(lifetime=timedelta(0))
        vault = await open_vault(provider)
        for _ in range(5):
            with pytest.raises(ProviderError):
                await vault.get_or_create("alice")
        assert provider.logins == 1

    async def test_twenty_callers_on_a_cold_key_share_one_login(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        tokens = await asyncio.gather(*(vault.get_or_create("alice") for _ in range(20)))
        assert provider.logins == 1
        assert len({token.id for token in tokens}) == 1

    async def test_different_users_do_not_wait_for_each_other(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        other = FakeProvider("other")
        vault = await open_vault(provider, other)
        with provider.held() as gate:
            slow = asyncio.ensure_future(vault.get_or_create("alice", provider="fake"))
            await asyncio.to_thread(gate.wait_for_a_caller)
            quick = await asyncio.wait_for(vault.get_or_create("bob", provider="other"), timeout=5)
            assert not slow.done()
        assert (await slow).user_id == "alice"
        assert quick.user_id == "bob"

    async def test_a_reader_is_not_held_up_by_a_login(self, open_vault: OpenVault, provider: FakeProvider) -> None:
        vault = await open_vault(provider)
        old = await vault.get_or_create("alice")
        with provider.held() as gate:
            login = asyncio.ensure_future(vault.acquire("alice"))
            await asyncio.to_thread(gate.wait_for_a_caller)
            read = await asyncio.wait_for(vault.get_valid("alice"), timeout=5)
            assert read is not None
            assert read.id == old.id
        assert (await login).version == old.version + 1

    async def test_at_0245_in_india_no_login_is_made_that_would_gain_nothing(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        provider = FakeProvider(lifetime=None, expiry=FixedTime("03:30", tz="Asia/Kolkata"))
        vault = await open_vault(provider)
        yesterday = await vault.get_or_create("alice")
        assert yesterday.expires_at is not None
        clock.set(yesterday.expires_at - timedelta(minutes=45))
        for _ in range(10):
            tokens = await asyncio.gather(*(vault.get_or_create("alice", min_validity=HOUR) for _ in range(5)))
            assert {token.id for token in tokens} == {yesterday.id}
        assert provider.logins == 1
        clock.set(yesterday.expires_at)
        today = await asyncio.gather(*(vault.get_or_create("alice") for _ in range(20)))
        assert provider.logins == 2
        assert {token.expires_at for token in today} == {yesterday.expires_at + timedelta(days=1)}

    async def test_a_token_is_renewed_before_its_end_when_the_new_one_outlives_it(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        early = FakeProvider(lifetime=None, expiry=Lifetime(HOUR))
        vault = await open_vault(early)
        old = await vault.get_or_create("alice")
        clock.advance(timedelta(minutes=55))
        new = await vault.get_or_create("alice", min_validity=timedelta(minutes=30))
        assert early.logins == 2
        assert new.expires_at is not None
        assert old.expires_at is not None
        assert new.expires_at > old.expires_at
        assert provider.logins == 0

    async def test_when_an_early_renewal_fails_the_token_that_is_still_good_is_served(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        provider = FakeProvider(lifetime=None, expiry=Lifetime(HOUR))
        vault = await open_vault(provider)
        old = await vault.get_or_create("alice")
        clock.advance(timedelta(minutes=55))
        provider.fail("alice", ProviderUnavailable("down for maintenance"))
        for _ in range(3):
            assert (await vault.get_or_create("alice", min_validity=timedelta(minutes=30))).id == old.id
        assert provider.logins == 2
        clock.advance(timedelta(minutes=5))
        with pytest.raises(ProviderUnavailable):
            await vault.get_or_create("alice")

    async def test_one_login_yields_every_kind_that_the_provider_grants(self, open_vault: OpenVault) -> None:
        provider = FakeProvider(kinds=("access", "extended"))
        vault = await open_vault(provider)
        access = await vault.get_or_create("alice")
        extended = await vault.get_or_create("alice", kind="extended")
        assert provider.logins == 1
        assert (access.kind, extended.kind) == ("access", "extended")
        assert access.access_token != extended.access_token
        assert access.id != extended.id

    async def test_a_kind_that_the_login_does_not_yield_is_an_error_and_not_another_kind(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        assert await vault.get_valid("alice", kind="extended") is None
        with pytest.raises((ProviderRejected, AcquireInDoubt, ConfigurationError)):
            await vault.get_or_create("alice", kind="extended")

    async def test_with_two_providers_the_caller_must_say_which(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider, FakeProvider("other"))
        for call in (vault.get_valid, vault.get_or_create, vault.acquire, vault.revoke):
            with pytest.raises((ConfigurationError, ValueError), match="provider"):
                await call("alice")
        mine = await vault.get_or_create("alice", provider="fake")
        theirs = await vault.get_or_create("alice", provider="other")
        assert (mine.provider, theirs.provider) == ("fake", "other")
        assert mine.access_token != theirs.access_token

    async def test_an_unknown_provider_is_a_configuration_error_that_names_the_known_ones(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        with pytest.raises((ConfigurationError, ValueError), match="fake"):
            await vault.get_or_create("alice", provider="fakir")

    async def test_functions_serve_as_providers_be_they_sync_or_async(self, open_vault: OpenVault) -> None:
        async def asynchronous(user_id: str) -> NewToken:
            await asyncio.sleep(0)
            return NewToken(f"async-{user_id}", expires_in=60)

        def synchronous(user_id: str) -> str:
            return f"sync-{user_id}"

        vault = await open_vault(FunctionProvider("a", asynchronous), FunctionProvider("s", synchronous))
        assert (await vault.get_or_create("alice", provider="a")).access_token.reveal() == "async-alice"
        assert (await vault.get_or_create("alice", provider="s")).access_token.reveal() == "sync-alice"
