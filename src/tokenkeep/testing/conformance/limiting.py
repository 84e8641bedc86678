"""A limit of sessions for each user, which holds however many log in at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tokenkeep.errors import LimitReached
from tokenkeep.model import Action
from tokenkeep.testing import FakeClock
from tokenkeep.testing.conformance._fixtures import IssuerFixtures, OpenIssuer
from tokenkeep.testing.conformance.issuing import bearer

MINUTE = timedelta(minutes=1)


@pytest.mark.asyncio
class Limiting(IssuerFixtures):
    """`open(..., limit=..., at_limit=...)`."""

    @pytest.mark.requirement("L2")
    async def test_a_hundred_logins_at_once_leave_exactly_as_many_sessions_as_are_allowed(
        self, open_issuer: OpenIssuer
    ) -> None:
        issuer = await open_issuer(limit=5)
        bobs = await issuer.issue("bob")
        issued = await asyncio.gather(*(issuer.issue("alice") for _ in range(100)))
        good = [one.id for one in issued if await issuer.verify(bearer(one)) is not None]
        assert len(good) == 5
        assert {one.id for one in await issuer.tokens("alice")} == set(good)
        assert await issuer.verify(bearer(bobs)) is not None
        trail = await issuer.audit_trail("alice", limit=1000)
        ended = {event.token_id for event in trail if event.action is Action.REVOKED}
        assert ended == {one.id for one in issued} - set(good)

    @pytest.mark.requirement("L2")
    async def test_of_logins_at_once_past_the_limit_all_but_the_allowed_are_refused(
        self, open_issuer: OpenIssuer
    ) -> None:
        issuer = await open_issuer(limit=3, at_limit="refuse")
        outcomes = await asyncio.gather(*(issuer.issue("alice") for _ in range(20)), return_exceptions=True)
        refused = [one for one in outcomes if isinstance(one, LimitReached)]
        assert (len(refused), len(await issuer.tokens("alice"))) == (17, 3)
        assert len(await issuer.audit_trail("alice")) == 3

    @pytest.mark.requirement("L2")
    async def test_the_session_that_was_issued_or_refreshed_longest_ago_ends_for_another(
        self, open_issuer: OpenIssuer, clock: FakeClock
    ) -> None:
        issuer = await open_issuer(limit=2)
        first = await issuer.issue("alice", refresh=True)
        clock.advance(MINUTE)
        second = await issuer.issue("alice", refresh=True)
        clock.advance(MINUTE)
        assert first.refresh_token is not None
        assert second.refresh_token is not None
        renewed = await issuer.refresh(first.refresh_token)
        assert renewed is not None
        clock.advance(MINUTE)
        third = await issuer.issue("alice", refresh=True)
        good = [await issuer.verify(bearer(one)) is not None for one in (first, renewed, second, third)]
        assert good == [True, True, False, True]
        assert await issuer.refresh(second.refresh_token) is None

    @pytest.mark.requirement("L2")
    async def test_what_has_ended_is_not_counted(self, open_issuer: OpenIssuer, clock: FakeClock) -> None:
        issuer = await open_issuer(limit=1, at_limit="refuse", idle=10 * MINUTE, lifetime=timedelta(days=1))
        idle = await issuer.issue("alice")
        with pytest.raises(LimitReached) as refused:
            await issuer.issue("alice")
        assert refused.value.limit == 1
        clock.advance(11 * MINUTE)
        second = await issuer.issue("alice")
        assert await issuer.verify(bearer(idle)) is None
        await issuer.revoke(second)
        await issuer.issue("alice", lifetime=MINUTE)
        clock.advance(MINUTE)
        await issuer.issue("alice")


@pytest.mark.asyncio
class LimitingTogether(IssuerFixtures):
    """The same, from several issuers on one store."""

    @pytest.mark.requirement("L2")
    async def test_logins_at_several_issuers_at_once_keep_the_limit_together(self, open_issuer: OpenIssuer) -> None:
        issuers = [await open_issuer(limit=3) for _ in range(4)]
        issued = await asyncio.gather(*(issuers[number % 4].issue("alice") for number in range(24)))
        good = [one.id for one in issued if await issuers[0].verify(bearer(one)) is not None]
        assert len(good) == 3
