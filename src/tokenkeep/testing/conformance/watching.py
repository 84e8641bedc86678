"""Watching: each new version once, in order, whoever put it in place; by reading alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

import pytest

from tokenkeep import AcquiredToken, AsyncTokenVault, NewToken
from tokenkeep.testing import FakeClock, FakeProvider
from tokenkeep.testing.conformance._fixtures import OpenVault, VaultFixtures

SOON: Final = timedelta(milliseconds=20)
LONG: Final = 30.0
"""Seconds after which nothing comes any more."""


async def following(watch: AsyncIterator[AcquiredToken]) -> AcquiredToken:
    """Return the next version."""
    return await asyncio.wait_for(anext(watch), LONG)


async def stored(vault: AsyncTokenVault, name: str, user: str = "alice") -> AcquiredToken:
    """Put a token in place."""
    return await vault.store(user, NewToken(name, expires_in=3600))


@pytest.mark.asyncio
class Watching(VaultFixtures):
    """`watch`."""

    async def test_a_watch_begins_with_the_token_in_place_and_goes_on_with_each_newer_one(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        first = await vault.get_or_create("alice")
        watch = vault.watch("alice", interval=SOON)
        assert (await following(watch)).access_token == first.access_token
        for number in range(3):
            put = await stored(vault, f"paste {number}")
            seen = await following(watch)
            assert (seen.id, seen.version, seen.access_token) == (put.id, put.version, put.access_token)
        login = await vault.acquire("alice")
        assert (await following(watch)).id == login.id
        assert provider.logins == 2

    async def test_a_watch_of_nothing_waits_for_the_first_token_and_asks_no_provider(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        waiting = asyncio.ensure_future(following(vault.watch("alice", interval=SOON)))
        await asyncio.sleep(SOON.total_seconds() * 3)
        assert provider.logins == 0
        put = await stored(vault, "from the webhook")
        assert (await waiting).id == put.id

    async def test_versions_come_once_and_in_order_however_fast_they_are_made(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        seen: list[AcquiredToken] = []

        async def see_until(version: int) -> None:
            async for token in vault.watch("alice", interval=SOON):
                seen.append(token)
                if token.version == version:
                    return

        watching = asyncio.ensure_future(asyncio.wait_for(see_until(12), LONG))
        put = {(await stored(vault, f"paste {number}")).access_token.reveal() for number in range(12)}
        await watching
        assert [token.version for token in seen] == sorted({token.version for token in seen})
        assert len({token.id for token in seen}) == len(seen)
        assert {token.access_token.reveal() for token in seen} <= put

    async def test_what_was_revoked_is_passed_over_and_what_comes_later_is_told(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        watch = vault.watch("alice", interval=SOON)
        old = await stored(vault, "old")
        assert (await following(watch)).id == old.id
        await vault.revoke("alice")
        waiting = asyncio.ensure_future(following(watch))
        await asyncio.sleep(SOON.total_seconds() * 3)
        assert not waiting.done()
        new = await stored(vault, "new")
        assert (await waiting).id == new.id

    async def test_what_was_rejected_or_has_ended_is_passed_over(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        await vault.reject(await stored(vault, "refused"))
        waiting = asyncio.ensure_future(following(vault.watch("alice", interval=SOON)))
        await asyncio.sleep(SOON.total_seconds() * 3)
        good = await stored(vault, "good")
        assert (await waiting).id == good.id
        clock.advance(timedelta(hours=2))
        waiting = asyncio.ensure_future(following(vault.watch("alice", interval=SOON)))
        await asyncio.sleep(SOON.total_seconds() * 3)
        better = await stored(vault, "better")
        assert (await waiting).id == better.id

    async def test_each_token_that_is_handed_out_counts_one_use(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        await stored(vault, "one")
        watch = vault.watch("alice", interval=SOON)
        assert (await following(watch)).usage_count == 1
        waiting = asyncio.ensure_future(following(watch))
        await asyncio.sleep(SOON.total_seconds() * 3)
        await stored(vault, "two")
        await waiting
        assert (await vault.statistics("alice")).total_usage == 2

    async def test_all_who_watch_are_told_and_each_of_his_own_user_and_kind(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        watches = [vault.watch("alice", interval=SOON), vault.watch("alice", interval=SOON)]
        other, extended = vault.watch("bob", interval=SOON), vault.watch("alice", kind="extended", interval=SOON)
        put, bobs = await stored(vault, "alice's"), await stored(vault, "bob's", "bob")
        year = await vault.store("alice", NewToken("a year", kind="extended"))
        assert {(await following(watch)).id for watch in watches} == {put.id}
        assert (await following(other)).id == bobs.id
        assert (await following(extended)).id == year.id

    async def test_closing_the_vault_ends_every_watch(self, open_vault: OpenVault, provider: FakeProvider) -> None:
        vault = await open_vault(provider)
        await stored(vault, "one")
        watches = [vault.watch("alice", interval=timedelta(hours=1)) for _ in range(2)]
        for watch in watches:
            await following(watch)
        waiting = [asyncio.ensure_future(following(watch)) for watch in watches]
        await asyncio.sleep(SOON.total_seconds())
        await vault.close()
        assert [type(end) for end in await asyncio.gather(*waiting, return_exceptions=True)] == [StopAsyncIteration] * 2

    async def test_closing_a_watch_ends_it_and_no_other(self, open_vault: OpenVault, provider: FakeProvider) -> None:
        vault = await open_vault(provider)
        ended, other = (vault.watch("alice", interval=SOON) for _ in range(2))
        waiting = asyncio.ensure_future(following(ended))
        await asyncio.sleep(SOON.total_seconds())
        await ended.aclose()
        await ended.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting
        put = await stored(vault, "one")
        assert (await following(other)).id == put.id
        with pytest.raises(StopAsyncIteration):
            await following(ended)

    async def test_an_absurd_interval_is_refused(self, open_vault: OpenVault, provider: FakeProvider) -> None:
        vault = await open_vault(provider)
        with pytest.raises(ValueError, match="interval"):
            vault.watch("alice", interval=timedelta(0))


@pytest.mark.asyncio
class WatchingOthers(VaultFixtures):
    """`watch`, and another vault that changes the token."""

    async def test_what_another_vault_puts_in_place_is_told(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        watch = (await open_vault(provider)).watch("alice", interval=SOON)
        other = await open_vault(provider)
        for number in range(3):
            put = await stored(other, f"paste {number}")
            assert (await following(watch)).id == put.id
        await other.revoke("alice")
        login = await other.get_or_create("alice")
        assert (await following(watch)).id == login.id
