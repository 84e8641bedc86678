from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from tokenkeep import TokenVault
from tokenkeep.testing import FakeClock, OneTimeCodeProvider
from tokenkeep.threads import Threads


def test_a_login_that_begins_too_late_for_its_claim_claims_another_code(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    provider = OneTimeCodeProvider()
    claims: list[int] = []
    call = Threads.call

    async def late(self: Threads, function: Callable[..., Any | Awaitable[Any]], *args: object) -> Any:
        claims.append(len(provider.calls))
        if len(claims) == 1:  # the thread that logs in gets its turn only after the step is over
            clock.advance(timedelta(minutes=1))
        return await call(self, function, *args)

    monkeypatch.setattr(Threads, "call", late)
    with TokenVault.open("sqlite://", providers=[provider], clock=clock) as vault:
        assert vault.get_or_create("alice").version == 1
    assert claims == [0, 0], "two claims, and no login between them"
    assert len(provider.calls) == 1
