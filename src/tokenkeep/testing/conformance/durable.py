"""What stores hold that lead two openings of one URL to the same data: sharing, keys, counts."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tokenkeep import KeyRing
from tokenkeep.errors import ProviderRejected, ProviderUnavailable, SealingError, UnknownKey
from tokenkeep.testing import FakeClock, FakeProvider, RenewingProvider, faces
from tokenkeep.testing.conformance._fixtures import OpenVault, VaultFixtures


class Interrupted(Exception):
    """Somebody stops a long piece of work."""


@pytest.mark.asyncio
class Sharing(VaultFixtures):
    """Several vaults on one store, as several processes would have them."""

    async def test_a_token_is_there_when_the_vault_is_opened_again(
        self, url: str, face: faces.Face, keys: KeyRing, clock: FakeClock, provider: FakeProvider
    ) -> None:
        async with faces.open_vault(face, url, providers=[provider], keys=keys, clock=clock) as vault:
            token = await vault.get_or_create("alice")
        async with faces.open_vault(face, url, providers=[provider], keys=keys, clock=clock) as vault:
            assert (await vault.get_or_create("alice")).access_token == token.access_token
            assert (await vault.statistics("alice")).total_usage == 2
        assert provider.logins == 1

    async def test_the_two_faces_share_one_store(
        self, url: str, keys: KeyRing, clock: FakeClock, provider: FakeProvider
    ) -> None:
        options = {"providers": [provider], "keys": keys, "clock": clock}
        async with faces.open_vault("sync", url, **options) as one, faces.open_vault("async", url, **options) as other:
            assert (await one.get_or_create("alice")).id == (await other.get_or_create("alice")).id
        assert provider.logins == 1

    async def test_two_vaults_on_a_cold_key_share_one_login(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vaults = [await open_vault(provider) for _ in range(3)]
        tokens = await asyncio.gather(*(vault.get_or_create("alice") for vault in vaults * 4))
        assert len({token.id for token in tokens}) == 1
        assert provider.logins == 1

    async def test_the_waiters_of_another_vault_share_a_failure(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        leader, follower = await open_vault(provider), await open_vault(provider)
        provider.script(ProviderRejected("wrong PIN"))
        with provider.held() as gate:
            first = asyncio.ensure_future(leader.get_or_create("alice"))
            await asyncio.to_thread(gate.wait_for_a_caller)
            second = asyncio.ensure_future(follower.get_or_create("alice"))
            await asyncio.sleep(0)
            gate.open()
            results = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(result) for result in results] == [ProviderRejected, ProviderRejected]
        assert provider.logins == 1

    async def test_back_off_is_seen_by_a_vault_that_was_not_there(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        provider.script(ProviderUnavailable("down", retry_after=timedelta(minutes=5)))
        with pytest.raises(ProviderUnavailable):
            await (await open_vault(provider)).get_or_create("alice")
        with pytest.raises(ProviderUnavailable):
            await (await open_vault(provider)).get_or_create("alice")
        assert provider.logins == 1

    async def test_a_revocation_is_seen_by_the_other_vault_at_once(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        one, other = await open_vault(provider), await open_vault(provider)
        await one.get_or_create("alice")
        assert await other.get_valid("alice") is not None
        await one.revoke("alice")
        assert await other.get_valid("alice") is None

    async def test_uses_of_two_vaults_are_added_up(self, open_vault: OpenVault, provider: FakeProvider) -> None:
        one, other = await open_vault(provider), await open_vault(provider)
        for vault in (one, other, one):
            await vault.get_or_create("alice")
        await one.close()
        await other.close()
        assert (await (await open_vault(provider)).statistics("alice")).total_usage == 3

    @pytest.mark.requirement("Z2")
    async def test_namespaces_with_the_same_ids_never_meet(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        red, blue = await open_vault(provider, namespace="red"), await open_vault(provider, namespace="blue")
        reds = await red.get_or_create("alice")
        assert await blue.get_valid("alice") is None
        blues = await blue.get_or_create("alice")
        assert reds.access_token != blues.access_token
        with pytest.raises(ValueError, match="namespace"):
            await blue.reject(reds)
        await blue.revoke("alice")
        read = await red.get_valid("alice")
        assert read is not None
        assert read.id == reds.id
        start, end = clock.now() - timedelta(days=1), clock.now() + timedelta(days=1)
        assert {info.namespace for info in await red.created_between(start, end)} == {"red"}
        assert {info.namespace for info in await blue.history("alice")} == {"blue"}
        assert {event.token_id for event in await red.audit_trail("alice")} == {reds.id}
        clock.advance(timedelta(days=1))
        await blue.purge(audit_before=clock.now())
        assert len(await red.audit_trail("alice")) == 1


@pytest.mark.asyncio
class Keys(VaultFixtures):
    """Key rings: the right one, a wrong one, several, rotation."""

    @pytest.mark.requirement("S4")
    async def test_a_ring_without_the_key_fails_at_opening_with_its_id(
        self, open_vault: OpenVault, keys: KeyRing, provider: FakeProvider
    ) -> None:
        await (await open_vault(provider)).get_or_create("alice")
        with pytest.raises(UnknownKey) as refused:
            await open_vault(provider, keys=KeyRing.generate())
        assert refused.value.key_ids == keys.key_ids

    async def test_a_new_key_seals_and_the_old_one_still_opens(
        self, open_vault: OpenVault, keys: KeyRing, provider: FakeProvider
    ) -> None:
        old = await (await open_vault(provider)).get_or_create("alice")
        keys.add()
        vault = await open_vault(provider)
        read = await vault.get_valid("alice")
        assert read is not None
        assert read.access_token == old.access_token
        await vault.get_or_create("bob")
        assert (await vault.status()).key_ids == tuple(sorted(keys.key_ids))

    async def test_a_rotation_reseals_every_row_tells_its_progress_and_frees_the_old_key(
        self, open_vault: OpenVault, keys: KeyRing, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        before = [await vault.get_or_create(f"user {number}") for number in range(25)]
        old = keys.key_id
        keys.add()
        await vault.close()
        vault = await open_vault(provider)
        progress: list[object] = []
        rotated = await vault.rotate_keys(lambda *step: progress.append(step))
        assert rotated.key_id == keys.key_id != old
        assert rotated.resealed == 25
        assert rotated.unused == (old,)
        assert progress
        assert (await vault.status()).key_ids == (keys.key_id,)
        for token in before:
            read = await vault.get_valid(token.user_id)
            assert read is not None
            assert read.access_token == token.access_token

    async def test_a_rotation_that_was_interrupted_goes_on_where_it_stopped(
        self, open_vault: OpenVault, keys: KeyRing, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        for number in range(10):
            await vault.get_or_create(f"user {number}")
        keys.add()
        vault = await open_vault(provider)

        def stop(*_: object) -> None:
            raise Interrupted

        with pytest.raises(Interrupted):
            await vault.rotate_keys(stop)
        again = await open_vault(provider)
        await again.rotate_keys()
        assert (await again.rotate_keys()).resealed == 0
        assert (await again.status()).key_ids == (keys.key_id,)
        assert await again.get_valid("user 3") is not None

    async def test_the_refresh_token_moves_to_the_new_key_too(
        self, open_vault: OpenVault, keys: KeyRing, clock: FakeClock
    ) -> None:
        provider = RenewingProvider()
        await (await open_vault(provider)).get_or_create("alice")
        keys.add()
        vault = await open_vault(provider)
        await vault.rotate_keys()
        clock.advance(timedelta(hours=1))
        assert (await vault.get_or_create("alice")).version == 2
        assert (provider.logins, provider.renewals) == (1, 1)

    async def test_without_the_key_no_token_comes_out(self, open_vault: OpenVault, provider: FakeProvider) -> None:
        await (await open_vault(provider)).get_or_create("alice")
        with pytest.raises(SealingError):
            await open_vault(keys=KeyRing.generate())
