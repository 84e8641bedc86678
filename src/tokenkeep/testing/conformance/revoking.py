"""The outbox of revocations: a provider that was down is told later, once, and nothing else gets the token."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tokenkeep import AsyncTokenVault, KeyRing
from tokenkeep.errors import ProviderUnavailable
from tokenkeep.model import Action
from tokenkeep.testing import FakeClock, FakeProvider, RevokingProvider
from tokenkeep.testing.conformance._fixtures import OpenVault, VaultFixtures

MINUTE = timedelta(minutes=1)
DOWN = ProviderUnavailable("503")
DAY = timedelta(days=1)


class Killed(BaseException):
    """The process died in the middle of a call to the provider."""


async def told(vault: AsyncTokenVault, user_id: str = "alice") -> list[str]:
    """Return what the trail says of the provider, oldest first."""
    events = await vault.audit_trail(user_id)
    return [event.action.value for event in reversed(events) if event.action.value.startswith("provider_")]


@pytest.mark.asyncio
class Revoking(VaultFixtures):
    """`revoke` while the provider is down, and `purge` after it."""

    @pytest.mark.requirement("K7")
    async def test_a_provider_that_was_down_is_told_again_after_growing_waits_until_it_has_revoked_once(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        provider = RevokingProvider(lifetime=DAY)
        provider.script_revocations(DOWN, DOWN, DOWN)
        vault = await open_vault(provider)
        token = await vault.get_or_create("alice")
        assert await vault.revoke("alice")
        asked: list[int] = []
        for minute in range(12):
            asked += [minute] * (provider.attempts - len(asked))
            clock.advance(MINUTE)
            await vault.purge()
        assert asked == [0, 1, 2, 4]
        assert provider.revoked == (token.access_token,)
        assert await told(vault) == ["provider_revoke_failed"] * 3 + ["provider_revoked"]

    @pytest.mark.requirement("K7")
    async def test_what_waits_for_its_provider_is_counted_and_a_purge_says_what_it_has_done(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        provider = RevokingProvider(kinds=("access", "extended"))
        provider.script_revocations(DOWN, DOWN)
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        assert (await vault.status()).awaiting_revocation == 0
        await vault.revoke("alice")
        assert (await vault.status()).awaiting_revocation == 2
        clock.advance(MINUTE)
        purged = await vault.purge()
        assert (purged.provider_revoked, purged.secrets) == (2, 0)
        status = await vault.status()
        assert (status.awaiting_revocation, status.key_ids) == (0, ())

    @pytest.mark.requirement("K7")
    async def test_a_token_that_waits_for_its_provider_is_handed_out_by_nothing(self, open_vault: OpenVault) -> None:
        provider = RevokingProvider()
        provider.script_revocations(*[DOWN] * 9)
        vault = await open_vault(provider)
        old = await vault.get_or_create("alice")
        await vault.revoke("alice")
        assert await vault.get_valid("alice") is None
        assert await vault.revoke("alice") is False
        await vault.reject(old)
        new = await vault.get_or_create("alice")
        assert (new.version, new.access_token != old.access_token) == (2, True)
        await vault.purge()
        [active, ended] = await vault.history("alice")
        assert (active.id, active.active) == (new.id, True)
        assert (ended.id, ended.active, ended.end_reason) == (old.id, False, "revoked")
        assert Action.REJECTED not in {event.action for event in await vault.audit_trail("alice")}
        read = await vault.get_valid("alice")
        assert read is not None
        assert read.id == new.id

    @pytest.mark.requirement("K7")
    async def test_at_the_end_of_a_token_its_provider_is_told_no_more_and_the_secret_goes(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        provider = RevokingProvider()
        provider.script_revocations(DOWN, DOWN)
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        await vault.revoke("alice")
        clock.advance(timedelta(hours=1))
        await vault.purge()
        assert (provider.attempts, provider.revoked) == (1, ())
        assert await told(vault) == ["provider_revoke_failed", "provider_revoke_abandoned"]
        assert (await vault.status()).awaiting_revocation == 0
        [info] = await vault.history("alice")
        assert info.end_reason == "revoked"

    @pytest.mark.requirement("K7")
    async def test_a_purge_of_tokens_that_are_still_good_leaves_what_waits_for_its_provider(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        provider = RevokingProvider()
        provider.script_revocations(DOWN)
        vault = await open_vault(provider)
        token = await vault.get_or_create("alice")
        await vault.revoke("alice")
        await vault.purge(expired_before=clock.now() + DAY)
        [info] = await vault.history("alice")
        assert info.end_reason == "revoked"
        clock.advance(MINUTE)
        await vault.purge()
        assert provider.revoked == (token.access_token,)

    @pytest.mark.requirement("K7")
    async def test_a_refresh_token_outlives_its_access_token_and_is_revoked_too(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        provider = RevokingProvider(refresh=True)
        provider.script_revocations(DOWN)
        vault = await open_vault(provider)
        token = await vault.get_or_create("alice")
        clock.advance(timedelta(hours=2))
        await vault.revoke("alice")
        clock.advance(MINUTE)
        await vault.purge()
        assert provider.revoked == (token.access_token,)

    @pytest.mark.requirement("K7")
    async def test_whoever_dies_while_telling_the_provider_is_succeeded(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        provider = RevokingProvider()
        provider.script_revocations(Killed())
        vault = await open_vault(provider)
        token = await vault.get_or_create("alice")
        with pytest.raises(Killed):
            await vault.revoke("alice")
        assert await vault.get_valid("alice") is None
        await vault.purge()
        assert provider.attempts == 1
        clock.advance(2 * MINUTE)
        await vault.purge()
        assert provider.revoked == (token.access_token,)


@pytest.mark.asyncio
class RevokingTogether(VaultFixtures):
    """The same, from several vaults on one store."""

    @pytest.mark.requirement("K7")
    async def test_of_many_who_clear_up_at_once_one_tells_the_provider(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        provider = RevokingProvider()
        provider.script_revocations(*[DOWN] * 3)
        vaults = [await open_vault(provider) for _ in range(3)]
        tokens = [await vaults[0].get_or_create(user) for user in ("alice", "bob", "carol")]
        for user in ("alice", "bob", "carol"):
            await vaults[0].revoke(user)
        clock.advance(MINUTE)
        purged = await asyncio.gather(*(vault.purge() for vault in vaults))
        assert sum(one.provider_revoked for one in purged) == 3
        assert (provider.attempts, set(provider.revoked)) == (6, {token.access_token for token in tokens})

    @pytest.mark.requirement("K7")
    async def test_who_does_not_know_the_provider_leaves_it_to_others_and_gives_up_at_the_end(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        provider = RevokingProvider()
        provider.script_revocations(DOWN, DOWN)
        knowing, other = await open_vault(provider), await open_vault(FakeProvider("another"))
        elsewhere = await open_vault(provider, namespace="elsewhere")
        await knowing.get_or_create("alice")
        await knowing.revoke("alice")
        clock.advance(MINUTE)
        await other.purge()
        await elsewhere.purge()
        assert (provider.attempts, (await other.status()).awaiting_revocation) == (1, 1)
        clock.advance(timedelta(hours=1))
        await other.purge()
        assert (provider.attempts, (await other.status()).awaiting_revocation) == (1, 0)

    @pytest.mark.requirement("K7")
    async def test_a_change_of_keys_takes_along_what_waits_for_its_provider(
        self, open_vault: OpenVault, clock: FakeClock, keys: KeyRing
    ) -> None:
        provider = RevokingProvider()
        provider.script_revocations(DOWN)
        vault = await open_vault(provider)
        token = await vault.get_or_create("alice")
        await vault.revoke("alice")
        old = (await vault.status()).key_ids
        keys.add()
        newer = await open_vault(provider, keys=keys)
        rotated = await newer.rotate_keys()
        assert (rotated.resealed, rotated.unused) == (1, old)
        clock.advance(MINUTE)
        await newer.purge()
        assert provider.revoked == (token.access_token,)
