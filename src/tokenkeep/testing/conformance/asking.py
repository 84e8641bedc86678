"""Bad input is refused by name before anything is asked of the store; odd input works."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from tokenkeep import AsyncTokenVault, NewToken
from tokenkeep.testing import FakeClock, FakeProvider
from tokenkeep.testing.conformance._fixtures import OpenVault, VaultFixtures

REFUSED = {
    "empty": "",
    "256 characters": "x" * 256,
    "NUL": "ali\x00ce",
    "lone surrogate": "ali\ud800ce",
}

ODD = {
    "255 characters": "x" * 255,
    "255 emoji": "🗝" * 255,
    "quotes": "Robert'); DROP TABLE tokens;--\"`",
    "percent": "100%s %(name)s %",
    "right to left": "علي",
    "combining": "e\u0301",
    "backslash": "\\x00\\'",
    "newline": "ali\r\nce",
    "space": " ",
}

type Call = Callable[[AsyncTokenVault, str], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "get_valid": lambda vault, user: vault.get_valid(user),
    "get_or_create": lambda vault, user: vault.get_or_create(user),
    "acquire": lambda vault, user: vault.acquire(user),
    "acquire_many": lambda vault, user: vault.acquire_many(["alice", user]),
    "store": lambda vault, user: vault.store(user, NewToken("x")),
    "watch": lambda vault, user: anext(vault.watch(user)),
    "revoke": lambda vault, user: vault.revoke(user),
    "forget": lambda vault, user: vault.forget(user),
    "history": lambda vault, user: vault.history(user),
    "statistics": lambda vault, user: vault.statistics(user),
    "dashboard": lambda vault, user: vault.dashboard(user),
    "audit_trail": lambda vault, user: vault.audit_trail(user),
}


@pytest.mark.asyncio
class Asking(VaultFixtures):
    """The arguments of the vault."""

    @pytest.mark.requirement("V7")
    @pytest.mark.parametrize("user", REFUSED.values(), ids=REFUSED)
    async def test_a_bad_user_id_is_refused_by_every_method_and_reaches_nobody(
        self, open_vault: OpenVault, provider: FakeProvider, user: str
    ) -> None:
        vault = await open_vault(provider)
        for name, call in CALLS.items():
            with pytest.raises(ValueError, match="user_id") as refused:
                await call(vault, user)
            assert "user_id" in str(refused.value), name
        assert provider.logins == 0

    @pytest.mark.requirement("D1")
    @pytest.mark.parametrize("user", ODD.values(), ids=ODD)
    async def test_an_odd_user_id_is_just_a_user(
        self, open_vault: OpenVault, provider: FakeProvider, user: str
    ) -> None:
        vault = await open_vault(provider)
        await vault.get_or_create("alice")
        token = await vault.get_or_create(user)
        read = await vault.get_valid(user)
        assert read is not None
        assert read.id == token.id
        assert [info.user_id for info in await vault.history(user)] == [user]
        assert {event.user_id for event in await vault.audit_trail(user)} == {user}
        assert await vault.revoke(user)
        assert await vault.get_valid("alice") is not None

    async def test_user_ids_that_look_alike_are_different_users(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        alikes = ["alice", "Alice", "ALICE", "alice ", "alicé", "alice\u0301", "álice", "alice/x", "alice%"]
        vault = await open_vault(provider)
        tokens = [await vault.get_or_create(user) for user in alikes]
        assert len({token.access_token.reveal() for token in tokens}) == len(alikes)
        assert provider.calls == tuple(alikes)

    async def test_naive_times_are_refused(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        naive = datetime(2026, 1, 1)  # noqa: DTZ001  # the point
        with pytest.raises(ValueError, match="aware"):
            await vault.created_between(naive, clock.now())
        with pytest.raises(ValueError, match="aware"):
            await vault.created_between(clock.now(), naive)
        with pytest.raises(ValueError, match="aware"):
            await vault.purge(expired_before=naive)
        with pytest.raises(ValueError, match="aware"):
            await vault.purge(audit_before=naive)
        with pytest.raises(ValueError, match="aware"):
            await vault.store("alice", NewToken("x", expires_at=naive))

    @pytest.mark.parametrize("span", [timedelta(seconds=-1), timedelta(days=40_000)], ids=["negative", "absurd"])
    async def test_an_absurd_min_validity_is_refused(
        self, open_vault: OpenVault, provider: FakeProvider, span: timedelta
    ) -> None:
        vault = await open_vault(provider)
        with pytest.raises(ValueError, match="min_validity"):
            await vault.get_valid("alice", min_validity=span)
        with pytest.raises(ValueError, match="min_validity"):
            await vault.get_or_create("alice", min_validity=span)
        assert provider.logins == 0

    @pytest.mark.requirement("X6")
    @pytest.mark.parametrize("seconds", [-1, 1e12, float("nan"), float("inf")])
    async def test_an_absurd_lifetime_of_a_new_token_is_refused(self, seconds: float) -> None:
        with pytest.raises(ValueError, match="expires_in"):
            NewToken("x", expires_in=seconds)

    @pytest.mark.parametrize("limit", [0, -1])
    async def test_a_limit_below_one_is_refused(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock, limit: int
    ) -> None:
        vault = await open_vault(provider)
        for call in (
            vault.history("alice", limit=limit),
            vault.audit_trail("alice", limit=limit),
            vault.created_between(clock.now(), clock.now() + timedelta(days=1), limit=limit),
        ):
            with pytest.raises(ValueError, match="limit"):
                await call
        with pytest.raises(ValueError, match="concurrency"):
            await vault.acquire_many(["alice"], concurrency=limit)
        assert provider.logins == 0
