"""The audit trail proves itself: what was changed behind the store's back is found, what was not is left in peace."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Protocol

import pytest

from tokenkeep import AsyncTokenVault, KeyRing, NewToken
from tokenkeep.model import Action
from tokenkeep.testing import FakeClock, FakeProvider
from tokenkeep.testing.conformance._fixtures import IssuerFixtures, OpenIssuer, OpenVault, VaultFixtures

MINUTE = timedelta(minutes=1)


class Tamper(Protocol):
    """Changes the trail of namespace `default` behind the store's back; events are counted from 1 in their chain."""

    def edit(self, user_id: str, sequence: int) -> None:
        """Give an event another actor."""

    def remove(self, user_id: str, sequence: int) -> None:
        """Delete an event."""

    def put_in(self, user_id: str) -> None:
        """Add a copy of the newest event that is in no chain."""

    def give_away(self, user_id: str, other: str) -> None:
        """Make all events of a user, with the head of his chain, those of another who has none."""


async def five_events(vault: AsyncTokenVault, user_id: str = "alice") -> None:
    """Bring about events 1 to 5 of a user."""
    for number in range(5):
        await vault.store(user_id, NewToken(f"token-{number}"))


@pytest.mark.asyncio
class Reads(VaultFixtures):
    """`audit="reads"`."""

    @pytest.mark.requirement("G6")
    async def test_each_token_that_is_handed_out_is_an_event_when_reads_are_audited(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider, audit="reads")
        token = await vault.get_or_create("alice")
        await asyncio.gather(*(vault.get_valid("alice") for _ in range(20)))
        assert await vault.get_valid("bob") is None
        trail = await vault.audit_trail("alice", limit=100)
        reads = [event for event in trail if event.action is Action.USED]
        assert len(reads) == 21
        assert {(event.token_id, event.user_id) for event in reads} == {(token.id, "alice")}
        assert await vault.audit_trail("bob") == []

    async def test_how_reads_are_audited_is_one_of_two_words(
        self, open_vault: OpenVault, provider: FakeProvider
    ) -> None:
        with pytest.raises(ValueError, match="changes"):
            await open_vault(provider, audit="everything")


@pytest.mark.asyncio
class Proving(VaultFixtures):
    """`check_audit` and `check_audits` of a vault."""

    @pytest.mark.requirement("G5")
    async def test_a_trail_that_nobody_touched_is_intact_and_proved(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        await five_events(vault)
        await vault.get_or_create("bob")
        clock.advance(MINUTE)
        await vault.revoke("bob")
        check = await vault.check_audit("alice")
        assert (check.intact, check.events, check.proved) == (True, 5, 5)
        assert (check.first_bad, check.reason, check.purged, check.unchained) == (None, None, 0, 0)
        assert (check.head or "").startswith("5:")
        assert (await vault.check_audit("alice", head=check.head)).intact
        everybody = await vault.check_audits()
        assert (everybody.intact, everybody.users, everybody.events, everybody.proved) == (True, 2, 7, 7)
        assert everybody.heads["alice"] == check.head
        nobody = await vault.check_audit("nobody")
        assert (nobody.intact, nobody.events, nobody.head) == (True, 0, None)

    async def test_a_head_that_is_none_is_refused(self, open_vault: OpenVault, provider: FakeProvider) -> None:
        vault = await open_vault(provider)
        with pytest.raises(ValueError, match="earlier check"):
            await vault.check_audit("alice", head="5:nothing")

    @pytest.mark.requirement("G5")
    async def test_a_purge_by_age_leaves_the_trail_intact(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        await five_events(vault)
        await five_events(vault, "bob")
        earlier = (await vault.check_audits()).heads
        clock.advance(MINUTE)
        await vault.store("alice", NewToken("newer"))
        assert (await vault.purge(audit_before=clock.now())).audit_events == 10
        check = await vault.check_audit("alice", head=earlier["alice"])
        assert (check.intact, check.events, check.proved, check.purged) == (True, 1, 1, 5)
        check = await vault.check_audit("bob", head=earlier["bob"])
        assert (check.intact, check.events, check.purged) == (True, 0, 5)
        await vault.store("bob", NewToken("newer"))
        everybody = await vault.check_audits(heads=earlier)
        assert (everybody.intact, everybody.users, everybody.events) == (True, 2, 2)

    async def test_an_old_event_behind_a_younger_one_waits_for_it(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        await five_events(vault)
        clock.advance(-MINUTE)
        await vault.store("alice", NewToken("of a clock that was set back"))
        clock.advance(MINUTE)
        assert (await vault.purge(audit_before=clock.now())).audit_events == 0
        assert (await vault.purge(audit_before=clock.now() + MINUTE)).audit_events == 6
        assert (await vault.check_audit("alice")).intact


@pytest.mark.asyncio
class Tampering(VaultFixtures):
    """What somebody did who can write to the database."""

    @pytest.fixture
    def tamper(self) -> Tamper:
        """Return a way to change the trail behind the store's back."""
        pytest.skip("this store gives no fixture `tamper`")

    @pytest.mark.requirement("G5")
    async def test_an_edited_event_is_found(
        self, open_vault: OpenVault, provider: FakeProvider, tamper: Tamper
    ) -> None:
        vault = await open_vault(provider)
        await five_events(vault)
        await five_events(vault, "bob")
        tamper.edit("alice", 3)
        check = await vault.check_audit("alice")
        assert (check.intact, check.first_bad, check.events) == (False, 3, 2)
        assert "changed" in (check.reason or "")
        everybody = await vault.check_audits()
        assert (everybody.intact, everybody.users, [flawed.user_id for flawed in everybody.flawed]) == (
            False, 2, ["alice"],
        )  # fmt: skip

    @pytest.mark.requirement("G5")
    @pytest.mark.parametrize("sequence", [1, 3, 5])
    async def test_a_removed_event_is_found(
        self, open_vault: OpenVault, provider: FakeProvider, tamper: Tamper, sequence: int
    ) -> None:
        vault = await open_vault(provider)
        await five_events(vault)
        tamper.remove("alice", sequence)
        check = await vault.check_audit("alice")
        assert (check.intact, check.first_bad, check.events) == (False, sequence, sequence - 1)
        assert "missing" in (check.reason or "")

    @pytest.mark.requirement("G5")
    async def test_an_event_that_was_put_in_is_found(
        self, open_vault: OpenVault, provider: FakeProvider, tamper: Tamper
    ) -> None:
        vault = await open_vault(provider)
        await five_events(vault)
        tamper.put_in("alice")
        check = await vault.check_audit("alice")
        assert not check.intact
        assert "in no chain" in (check.reason or "")

    @pytest.mark.requirement("G5")
    async def test_a_trail_that_was_given_to_somebody_else_is_found(
        self, open_vault: OpenVault, provider: FakeProvider, tamper: Tamper
    ) -> None:
        vault = await open_vault(provider)
        await five_events(vault)
        heads = (await vault.check_audits()).heads
        tamper.give_away("alice", "eve")
        assert (await vault.check_audit("eve")).first_bad == 1
        assert (await vault.check_audit("alice")).intact  # nothing is left: only a head kept elsewhere tells
        assert not (await vault.check_audit("alice", head=heads["alice"])).intact
        flawed = {check.user_id: check.first_bad for check in (await vault.check_audits(heads=heads)).flawed}
        assert flawed == {"alice": 1, "eve": 1}

    @pytest.mark.requirement("G5")
    async def test_a_purge_hides_no_tampering(
        self, open_vault: OpenVault, provider: FakeProvider, clock: FakeClock, tamper: Tamper
    ) -> None:
        vault = await open_vault(provider)
        await five_events(vault)
        clock.advance(MINUTE)
        await five_events(vault)
        tamper.remove("alice", 2)
        assert (await vault.purge(audit_before=clock.now())).audit_events == 4
        check = await vault.check_audit("alice")
        assert (check.intact, check.first_bad) == (False, 2)


@pytest.mark.asyncio
class ProvingUnderKeys(VaultFixtures):
    """What the keys have to do with it."""

    async def test_a_trail_is_proved_by_the_keys_of_its_day_and_after_a_rotation_by_the_newest(
        self, open_vault: OpenVault, keys: KeyRing, provider: FakeProvider, clock: FakeClock
    ) -> None:
        vault = await open_vault(provider)
        await five_events(vault)
        await five_events(vault, "bob")
        clock.advance(MINUTE)
        await vault.store("bob", NewToken("newer"))
        await vault.purge(audit_before=clock.now())
        await five_events(vault)
        old = keys.key_id
        keys.add()
        await vault.store("alice", NewToken("under the new key"))
        assert (await vault.check_audits()).intact
        await vault.rotate_keys()
        keys.drop(old)
        everybody = await vault.check_audits()
        assert (everybody.intact, everybody.events, everybody.proved) == (True, 7, 7)

    @pytest.mark.requirement("G5")
    async def test_a_trail_whose_key_is_gone_is_not_called_intact(
        self, open_vault: OpenVault, keys: KeyRing, provider: FakeProvider
    ) -> None:
        vault = await open_vault(provider)
        await five_events(vault)
        old = keys.key_id
        keys.add()
        keys.drop(old)
        check = await vault.check_audit("alice")
        assert not check.intact
        assert old in (check.reason or "")


@pytest.mark.asyncio
class IssuersProving(IssuerFixtures):
    """`check_audit` of an issuer, and of several that write at once."""

    @pytest.mark.requirement("G5")
    async def test_issuers_that_write_at_once_leave_unbroken_chains(self, open_issuer: OpenIssuer) -> None:
        issuers = [await open_issuer() for _ in range(3)]

        async def crowd(number: int) -> None:
            for _ in range(5):
                token = await issuers[number % 3].issue("alice")
                await issuers[number % 3].issue(f"user {number % 4}")
                await issuers[(number + 1) % 3].revoke(token.id)

        await asyncio.gather(*(crowd(number) for number in range(6)))
        found = await issuers[0].check_audits()
        assert (found.flawed, found.users, found.events, found.proved) == ((), 5, 90, 90)
        assert (await issuers[1].check_audit("alice")).events == 60
