"""Ending issued tokens, and what is known of them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tokenkeep.model import Action
from tokenkeep.testing import FakeClock
from tokenkeep.testing.conformance._fixtures import IssuerFixtures, OpenIssuer
from tokenkeep.testing.conformance.issuing import MALFORMED, bearer

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.mark.asyncio
class Ending(IssuerFixtures):
    """`revoke`, `revoke_all`, `tokens`, `purge`, `statistics`, `audit_trail`, `status`."""

    @pytest.mark.requirement("K1")
    async def test_a_revoked_token_is_nobody_at_once(self, open_issuer: OpenIssuer) -> None:
        issuer = await open_issuer()
        token = bearer(await issuer.issue("alice"))
        assert await issuer.verify(token) is not None
        assert await issuer.revoke(token) is True
        assert await issuer.verify(token) is None
        assert await issuer.tokens("alice") == []

    async def test_a_token_is_revoked_by_its_id_too(self, open_issuer: OpenIssuer) -> None:
        issuer = await open_issuer()
        issued = await issuer.issue("alice")
        assert await issuer.revoke(issued.id) is True
        assert await issuer.verify(bearer(issued)) is None

    async def test_revoking_may_be_repeated_and_is_then_false(self, open_issuer: OpenIssuer) -> None:
        issuer = await open_issuer()
        issued = await issuer.issue("alice")
        await issuer.revoke(issued.id)
        assert await issuer.revoke(issued.id) is False
        assert await issuer.revoke(bearer(issued)) is False

    @pytest.mark.requirement("K6")
    @pytest.mark.parametrize("token", MALFORMED.values(), ids=MALFORMED)
    async def test_revoking_what_is_no_token_is_false_and_ends_nobody(
        self, open_issuer: OpenIssuer, token: str
    ) -> None:
        issuer = await open_issuer()
        good = bearer(await issuer.issue("alice"))
        assert await issuer.revoke(token) is False
        assert await issuer.verify(good) is not None

    @pytest.mark.requirement("K2")
    async def test_all_tokens_of_a_user_end_together_and_nobody_elses(self, open_issuer: OpenIssuer) -> None:
        issuer = await open_issuer()
        mine = [bearer(await issuer.issue("alice")) for _ in range(5)]
        bobs = bearer(await issuer.issue("bob"))
        assert await issuer.revoke_all("alice") == 5
        assert [await issuer.verify(token) for token in mine] == [None] * 5
        assert await issuer.verify(bobs) is not None
        assert await issuer.revoke_all("alice") == 0

    @pytest.mark.requirement("K2")
    async def test_all_others_end_and_the_one_that_is_kept_stays(self, open_issuer: OpenIssuer) -> None:
        issuer = await open_issuer()
        kept, *others = [await issuer.issue("alice") for _ in range(4)]
        assert await issuer.revoke_all("alice", keep=kept.id) == 3
        assert await issuer.verify(bearer(kept)) is not None
        assert [await issuer.verify(bearer(issued)) for issued in others] == [None] * 3

    async def test_the_one_to_keep_may_be_named_by_the_token(self, open_issuer: OpenIssuer) -> None:
        issuer = await open_issuer()
        kept, other = [await issuer.issue("alice") for _ in range(2)]
        assert await issuer.revoke_all("alice", keep=bearer(kept)) == 1
        assert await issuer.verify(bearer(kept)) is not None
        assert await issuer.verify(bearer(other)) is None

    @pytest.mark.requirement("K5")
    async def test_a_verification_under_way_does_not_bring_a_revoked_token_back(self, open_issuer: OpenIssuer) -> None:
        issuer = await open_issuer(idle=timedelta(minutes=10))
        token = bearer(await issuer.issue("alice"))
        under_way = [asyncio.ensure_future(issuer.verify(token)) for _ in range(10)]
        assert await issuer.revoke(token)
        await asyncio.gather(*under_way)
        await issuer.statistics("alice")
        assert await issuer.verify(token) is None

    async def test_living_tokens_are_listed_newest_first(self, open_issuer: OpenIssuer, clock: FakeClock) -> None:
        issuer = await open_issuer()
        issued = []
        for name in ("laptop", "phone", "server"):
            issued.append(await issuer.issue("alice", name=name))
            clock.advance(MINUTE)
        await issuer.revoke(issued[1].id)
        assert [token.name for token in await issuer.tokens("alice")] == ["server", "laptop"]
        assert await issuer.tokens("bob") == []

    async def test_uses_are_counted_and_the_last_is_dated(self, open_issuer: OpenIssuer, clock: FakeClock) -> None:
        issuer = await open_issuer()
        token = bearer(await issuer.issue("alice"))
        await issuer.issue("alice")
        clock.advance(MINUTE)
        for _ in range(3):
            await issuer.verify(token)
        figures = await issuer.statistics("alice")
        assert (figures.total_tokens, figures.active_tokens, figures.total_usage) == (2, 2, 3)
        assert figures.avg_usage_per_token == pytest.approx(1.5)
        assert figures.last_usage == clock.now()

    async def test_uses_side_by_side_lose_none(self, open_issuer: OpenIssuer) -> None:
        issuer = await open_issuer()
        token = bearer(await issuer.issue("alice"))

        async def use_25_times() -> None:
            for _ in range(25):
                await issuer.verify(token)

        await asyncio.gather(*(use_25_times() for _ in range(16)))
        assert (await issuer.statistics("alice")).total_usage == 400

    async def test_the_trail_tells_of_each_token_that_was_made_and_ended(
        self, open_issuer: OpenIssuer, clock: FakeClock
    ) -> None:
        issuer = await open_issuer()
        first, second = [await issuer.issue("alice") for _ in range(2)]
        clock.advance(MINUTE)
        await issuer.revoke(first.id)
        await issuer.revoke_all("alice")
        trail = await issuer.audit_trail("alice")
        assert sorted((event.action, event.token_id) for event in trail) == sorted(
            (action, issued.id) for action in (Action.CREATED, Action.REVOKED) for issued in (first, second)
        )
        assert [event.at for event in trail] == [clock.now()] * 2 + [clock.now() - MINUTE] * 2
        assert len(await issuer.audit_trail("alice", limit=1)) == 1

    @pytest.mark.requirement("S11")
    async def test_a_purge_takes_the_dead_leaves_the_living_and_the_trail(
        self, open_issuer: OpenIssuer, clock: FakeClock
    ) -> None:
        issuer = await open_issuer()
        for _ in range(30):
            await issuer.issue("alice")
        clock.advance(HOUR)
        living = bearer(await issuer.issue("alice"))
        clock.advance(MINUTE)
        assert (await issuer.purge()).tokens == 30
        assert (await issuer.purge()).tokens == 0
        assert await issuer.verify(living) is not None
        assert len(await issuer.audit_trail("alice", limit=100)) == 31

    @pytest.mark.requirement("S11")
    async def test_a_purge_takes_the_days_that_are_over_and_what_has_ended_today(
        self, open_issuer: OpenIssuer, clock: FakeClock
    ) -> None:
        issuer, other = await open_issuer(), await open_issuer(namespace="other")
        for days in range(4):
            await issuer.issue("alice", lifetime=timedelta(days=days, minutes=1))
            await other.issue("alice", lifetime=timedelta(days=days, minutes=1))
        clock.advance(timedelta(days=2, minutes=2))
        assert (await issuer.purge()).tokens == 3
        assert (await issuer.purge()).tokens == 0
        assert [(await each.statistics("alice")).total_tokens for each in (issuer, other)] == [1, 4]
        assert (await other.purge()).tokens == 3

    @pytest.mark.requirement("L3")
    async def test_odd_names_and_clients_are_kept_but_for_control_characters(self, open_issuer: OpenIssuer) -> None:
        issuer = await open_issuer()
        odd = "<script>\u202e'); DROP TABLE--\x1b[31m%s 🗝"
        issued = await issuer.issue(odd, name=odd, client=odd, metadata={odd: [odd]})
        who = await issuer.verify(bearer(issued))
        assert who is not None
        tame = odd.replace("\x1b", "\ufffd")
        assert (who.user_id, who.name, who.client, who.metadata) == (odd, tame, tame, {odd: [odd]})

    async def test_a_healthy_store_says_so(self, open_issuer: OpenIssuer) -> None:
        issuer = await open_issuer()
        status = await issuer.status()
        assert status.healthy
        assert status.schema_version is not None


@pytest.mark.asyncio
class IssuersSharing(IssuerFixtures):
    """Several issuers on one store."""

    @pytest.mark.requirement("K1")
    async def test_a_revocation_is_seen_by_the_other_issuer_at_once(self, open_issuer: OpenIssuer) -> None:
        one, other = await open_issuer(), await open_issuer()
        token = bearer(await one.issue("alice"))
        assert await other.verify(token) is not None
        assert await one.revoke(token)
        assert await other.verify(token) is None

    @pytest.mark.requirement("T6")
    @pytest.mark.requirement("Z2")
    async def test_namespaces_with_the_same_ids_never_meet(self, open_issuer: OpenIssuer) -> None:
        red, blue = await open_issuer(namespace="red"), await open_issuer(namespace="blue")
        reds = await red.issue("alice")
        assert await blue.verify(bearer(reds)) is None
        assert await blue.revoke(reds.id) is False
        assert await blue.revoke_all("alice") == 0
        assert await blue.tokens("alice") == []
        assert await blue.audit_trail("alice") == []
        assert (await blue.statistics("alice")).total_tokens == 0
        assert await red.verify(bearer(reds)) is not None

    async def test_uses_that_were_not_written_yet_are_written_at_closing(self, open_issuer: OpenIssuer) -> None:
        one = await open_issuer()
        token = bearer(await one.issue("alice"))
        for _ in range(7):
            await one.verify(token)
        await one.close()
        assert (await (await open_issuer()).statistics("alice")).total_usage == 7

    @pytest.mark.requirement("X2")
    async def test_a_use_in_one_issuer_keeps_an_idle_token_alive_in_another(
        self, open_issuer: OpenIssuer, clock: FakeClock
    ) -> None:
        options = {"lifetime": timedelta(days=1), "idle": timedelta(minutes=30)}
        one, other = await open_issuer(**options), await open_issuer(**options)
        token = bearer(await one.issue("alice"))
        clock.advance(timedelta(minutes=20))
        assert await one.verify(token) is not None
        clock.advance(timedelta(minutes=20))
        assert await other.verify(token) is not None
