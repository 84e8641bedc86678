"""Removing a user: tokens, their history and what else is known go, the trail stays whole."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tokenkeep import NewToken
from tokenkeep.errors import ProviderUnavailable
from tokenkeep.model import Action
from tokenkeep.testing import FakeClock, FakeProvider, RevokingProvider
from tokenkeep.testing.conformance._fixtures import IssuerFixtures, OpenIssuer, OpenVault, VaultFixtures
from tokenkeep.testing.conformance.issuing import bearer


@pytest.mark.asyncio
class ForgettingAcquired(VaultFixtures):
    """`TokenVault.forget`."""

    @pytest.mark.requirement("K9")
    async def test_a_user_who_is_forgotten_leaves_no_token_and_no_history_of_any_provider(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        bank, shop = RevokingProvider("bank", kinds=("access", "extended")), FakeProvider("shop")
        vault = await open_vault(bank, shop)
        for user in ("alice", "bob"):
            for _ in range(2):
                await vault.acquire(user, provider="bank")
            await vault.acquire(user, provider="shop")
            await vault.store(user, NewToken("from a webhook"), provider="not registered")
        forgotten = await vault.forget("alice")
        assert (forgotten.tokens, forgotten.awaiting_revocation) == (6, 0)
        assert len(bank.revoked) == 2
        for provider in ("bank", "shop", "not registered"):
            assert await vault.get_valid("alice", provider=provider) is None
            assert await vault.history("alice", provider=provider) == []
            assert (await vault.statistics("alice", provider=provider)).total_tokens == 0
            assert await vault.get_valid("bob", provider=provider) is not None
        day = timedelta(days=1)
        made = await vault.created_between(clock.now() - day, clock.now() + day)
        assert ({info.user_id for info in made}, len(made)) == ({"bob"}, 6)
        assert (await vault.forget("alice")).tokens == 0

    @pytest.mark.requirement("K9")
    async def test_who_was_forgotten_may_come_back_and_begins_anew(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        for _ in range(2):
            await vault.acquire("alice")
        await vault.forget("alice")
        new = await vault.get_or_create("alice")
        read = await vault.get_valid("alice")
        assert read is not None
        assert (new.version, read.id) == (1, new.id)

    @pytest.mark.requirement("K9")
    async def test_the_failed_login_of_a_user_is_forgotten_too(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        provider.script(ProviderUnavailable("down", retry_after=timedelta(days=1)))
        for _ in range(2):
            with pytest.raises(ProviderUnavailable):
                await vault.get_or_create("alice")
        await vault.forget("alice")
        assert (await vault.get_or_create("alice")).version == 1
        assert provider.logins == 2

    @pytest.mark.requirement("K9")
    async def test_what_a_provider_has_still_to_be_told_stays_until_it_was(
        self, open_vault: OpenVault, clock: FakeClock
    ) -> None:
        provider = RevokingProvider()
        provider.script_revocations(ProviderUnavailable("503"))
        vault = await open_vault(provider)
        for _ in range(2):
            await vault.acquire("alice")
        forgotten = await vault.forget("alice")
        assert (forgotten.tokens, forgotten.awaiting_revocation) == (1, 1)
        assert await vault.get_valid("alice") is None
        clock.advance(timedelta(minutes=1))
        await vault.purge()
        forgotten = await vault.forget("alice")
        assert (forgotten.tokens, forgotten.awaiting_revocation, len(provider.revoked)) == (1, 0, 1)
        assert await vault.history("alice") == []

    @pytest.mark.requirement("K9")
    async def test_the_trail_of_who_was_forgotten_stays_and_holds_no_profile(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        await vault.acquire("alice")
        await vault.forget("alice")
        trail = await vault.audit_trail("alice")
        assert [event.action for event in trail] == [Action.FORGOTTEN, Action.REVOKED, Action.CREATED]
        assert "the person" not in repr(trail)


@pytest.mark.asyncio
class ForgettingIssued(IssuerFixtures):
    """`TokenIssuer.forget`."""

    @pytest.mark.requirement("K9")
    async def test_a_user_who_is_forgotten_leaves_no_issued_token(self, open_issuer: OpenIssuer) -> None:
        issuer = await open_issuer()
        mine = [await issuer.issue("alice", client="a browser", name="my phone") for _ in range(3)]
        pair = await issuer.issue("alice", refresh=True)
        await issuer.revoke(mine[0].id)
        bobs = await issuer.issue("bob", refresh=True)
        assert (await issuer.forget("alice")).tokens == 5
        assert [await issuer.verify(bearer(issued)) for issued in (*mine, pair)] == [None] * 4
        assert pair.refresh_token is not None
        assert await issuer.refresh(pair.refresh_token) is None
        assert (await issuer.statistics("alice")).total_tokens == 0
        assert await issuer.verify(bearer(bobs)) is not None
        trail = await issuer.audit_trail("alice")
        assert trail[0].action is Action.FORGOTTEN
        assert not any(word in repr(trail) for word in ("a browser", "my phone"))
        assert (await issuer.forget("alice")).tokens == 0
