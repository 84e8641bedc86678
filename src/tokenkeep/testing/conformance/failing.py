"""What happens when the provider does not give."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tokenkeep import NewToken
from tokenkeep.errors import AcquireInDoubt, ProviderError, ProviderRejected, ProviderUnavailable
from tokenkeep.model import Action
from tokenkeep.testing import FakeClock, FakeProvider
from tokenkeep.testing.conformance._fixtures import OpenVault, VaultFixtures


@pytest.mark.asyncio
class Failing(VaultFixtures):
    """Failures, back-off and batches."""

    async def test_the_error_names_the_provider_and_the_user_and_is_in_the_trail(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        provider.fail("alice", ProviderRejected("wrong PIN, 2 attempts left"))
        vault = await open_vault(provider)
        with pytest.raises(ProviderRejected, match="2 attempts left"):
            await vault.get_or_create("alice")
        newest = (await vault.audit_trail("alice"))[0]
        assert newest.action is Action.ACQUIRE_FAILED
        assert newest.token_id is None

    async def test_a_rejected_login_is_never_repeated_by_itself(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        provider.script(ProviderRejected("wrong PIN"))
        vault = await open_vault(provider)
        for _ in range(3):
            with pytest.raises(ProviderRejected):
                await vault.get_or_create("alice")
            clock.advance(timedelta(days=1))
        assert provider.logins == 1

    async def test_after_a_rejected_login_an_explicit_one_is_tried_and_heals(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        provider.script(ProviderRejected("wrong PIN"))
        vault = await open_vault(provider)
        with pytest.raises(ProviderRejected):
            await vault.get_or_create("alice")
        token = await vault.acquire("alice")
        assert (await vault.get_or_create("alice")).id == token.id
        clock.advance(timedelta(hours=1))
        assert (await vault.get_or_create("alice")).version == token.version + 1

    async def test_after_a_rejected_login_a_stored_token_heals(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        provider.script(ProviderRejected("wrong PIN"))
        vault = await open_vault(provider)
        with pytest.raises(ProviderRejected):
            await vault.get_or_create("alice")
        await vault.store("alice", NewToken("pasted-token", expires_in=60))
        clock.advance(timedelta(hours=1))
        assert (await vault.get_or_create("alice")).version == 2
        assert provider.logins == 2

    async def test_an_unavailable_provider_is_left_alone_until_the_time_it_asked_for(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        provider.script(ProviderUnavailable("too many requests", retry_after=timedelta(seconds=90)))
        vault = await open_vault(provider)
        with pytest.raises(ProviderUnavailable):
            await vault.get_or_create("alice")
        clock.advance(timedelta(seconds=80))
        with pytest.raises(ProviderUnavailable) as refused:
            await vault.get_or_create("alice")
        assert provider.logins == 1
        assert refused.value.retry_after is not None
        assert timedelta(0) < refused.value.retry_after <= timedelta(seconds=10)
        clock.advance(timedelta(seconds=11))
        assert (await vault.get_or_create("alice")).version == 1

    async def test_back_off_of_one_user_does_not_stop_another(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        provider.fail("alice", ProviderUnavailable("down"))
        vault = await open_vault(provider)
        with pytest.raises(ProviderUnavailable):
            await vault.get_or_create("alice")
        assert (await vault.get_or_create("bob")).user_id == "bob"

    async def test_an_explicit_login_does_not_wait_for_the_back_off(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        provider.script(ProviderUnavailable("down", retry_after=timedelta(hours=1)))
        vault = await open_vault(provider)
        with pytest.raises(ProviderUnavailable):
            await vault.get_or_create("alice")
        assert (await vault.acquire("alice")).version == 1

    async def test_back_off_grows_with_each_failure_and_ends_with_a_success(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        waits: list[timedelta] = []
        provider.fail("alice", ProviderUnavailable("down"))
        for _ in range(4):
            with pytest.raises(ProviderUnavailable):
                await vault.acquire("alice")
            with pytest.raises(ProviderUnavailable) as refused:
                await vault.get_or_create("alice")
            assert refused.value.retry_after is not None
            waits.append(refused.value.retry_after)
        assert provider.logins == 4
        assert timedelta(0) < waits[0] < waits[-1]
        provider.fail("alice", None)
        clock.advance(waits[-1] + timedelta(seconds=1))
        assert (await vault.get_or_create("alice")).version == 1

    async def test_anything_unexpected_from_a_provider_leaves_the_login_in_doubt(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        provider.script(KeyError("ddpi"))
        vault = await open_vault(provider)
        with pytest.raises(AcquireInDoubt):
            await vault.get_or_create("alice")
        with pytest.raises(AcquireInDoubt):
            await vault.get_or_create("alice")
        assert provider.logins == 1
        assert (await vault.audit_trail("alice"))[0].action is Action.ACQUIRE_IN_DOUBT
        assert (await vault.acquire("alice")).version == 1

    async def test_callers_who_waited_for_an_attempt_share_its_failure(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        provider.script(ProviderUnavailable("down"))
        vault = await open_vault(provider)
        with provider.held() as gate:
            callers = [asyncio.ensure_future(vault.get_or_create("alice")) for _ in range(10)]
            await asyncio.to_thread(gate.wait_for_a_caller)
            gate.open()
            results = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(result) for result in results] == [ProviderUnavailable] * 10
        assert provider.logins == 1

    async def test_a_provider_that_names_no_token_is_an_error(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        provider.script([])
        vault = await open_vault(provider)
        with pytest.raises(ProviderError):
            await vault.get_or_create("alice")

    async def test_in_a_batch_one_failure_stops_nobody(self, open_vault: OpenVault, provider: FakeProvider) -> None:
        provider.fail("bob", ProviderRejected("wrong PIN"))
        provider.fail("dave", KeyError("surprise"))
        vault = await open_vault(provider)
        seen: list[tuple[int, int]] = []
        users = ["alice", "bob", "carol", "dave", "erin"]
        results = await vault.acquire_many(users, concurrency=2, progress=lambda *step: seen.append(step))
        assert [result.user_id for result in results] == users
        assert [result.ok for result in results] == [True, False, True, False, True]
        assert isinstance(results[1].error, ProviderRejected)
        assert isinstance(results[3].error, AcquireInDoubt)
        assert all((result.token is None) != (result.error is None) for result in results)
        assert sorted(seen) == [(done, 5) for done in range(1, 6)]
        assert sorted(provider.calls) == users

    async def test_a_batch_of_nobody_is_an_empty_list(self, open_vault: OpenVault, provider: FakeProvider) -> None:
        vault = await open_vault(provider)
        assert await vault.acquire_many([]) == []
        assert provider.logins == 0
