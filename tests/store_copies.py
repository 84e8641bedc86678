"""Stores in which every kind of row occurs, and what copies of them are compared by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tokenkeep import KeyRing, NewToken, TokenIssuer, TokenVault
from tokenkeep._stepping import run
from tokenkeep.copying import BATCH, Copied, Copying
from tokenkeep.model import Account, Action
from tokenkeep.opening import open_backend
from tokenkeep.ports import Backend, ChainedAudit, Entry, Failure, Room, Row, Transferable

KEYS = KeyRing.generate()
HOUR = timedelta(hours=1)
ACCOUNT = Account("default", "p", "alice")
EVERYTHING = {
    Room.KEYS: 1, Room.STEPS: 1, Room.LEASES: 2, Room.TOKENS: 4, Room.ISSUED: 3, Room.AUDIT: 8, Room.HEADS: 3,
}  # fmt: skip


class Interrupted(Exception):
    pass


class Interrupting:
    """Ends a copy after so many batches, as Ctrl-C would."""

    together = BATCH

    def __init__(self, store: Transferable, batches: int) -> None:
        self._store = store
        self._left = batches

    async def count_rows(self, room: Room) -> int:
        return await self._store.count_rows(room)

    async def read_rows(self, room: Room, *, after: Row | None, limit: int) -> list[Row]:
        return await self._store.read_rows(room, after=after, limit=limit)

    async def add_rows(self, room: Room, rows: Any) -> int:
        if not self._left:
            raise Interrupted
        self._left -= 1
        return await self._store.add_rows(room, rows)


def fill(url: str) -> None:
    with TokenVault.open(url, keys=KEYS) as vault:
        for number in range(3):
            vault.store("alice", new_token(number), provider="p")
        vault.store("gone", NewToken("g", expires_in=60), provider="p")
        vault.revoke("gone", provider="p")
    with TokenIssuer.open(url, lifetime=HOUR, keys=KEYS) as issuer:
        issuer.issue("bob", scopes={"a", "b"}, metadata={"nul": "\x00"})
        issuer.issue("bob", refresh=True)


def new_token(number: int) -> NewToken:
    odd = {"nul": "a\x00b", "large": 1e22, "half": 0.5, "whole": 2.0, "accent": "é", "deep": [{"x": None}]}
    return NewToken(f"access-{number}", refresh_token="r", expires_in=3600, profile=odd, metadata={"n": number})


def opened(url: str) -> Backend:
    backend = open_backend(url)
    run(backend.health.prepare())
    return backend


def copied(source: str, target: str, *, batches: int | None = None) -> dict[Room, Copied]:
    old, new = opened(source), opened(target)
    assert old.transfer is not None
    assert new.transfer is not None
    into = new.transfer if batches is None else Interrupting(new.transfer, batches)
    try:
        return run(Copying(old.transfer, into).run())
    finally:
        run(old.health.close())
        run(new.health.close())


def fill_all(url: str) -> None:
    """A store in which each kind of row occurs."""
    fill(url)
    backend = opened(url)
    assert isinstance(backend.audit, ChainedAudit)
    backend.audit.use_keys(KEYS)
    try:
        lease = run(backend.leases.take_lease(ACCOUNT, "me", HOUR))
        assert lease is not None
        run(backend.leases.note_intent(lease, b"f" * 32))
        failed = Entry(
            action=Action.ACQUIRE_FAILED, at=datetime.now(UTC), token_id=None, detail={"large": 1e22, "half": 0.5}
        )
        run(backend.leases.drop_lease(lease, Failure(failure="ProviderError", reason="a\x00b", retry_in=60), failed))
        assert run(backend.leases.claim_step(b"s" * 32, after=0, upto=7))
    finally:
        run(backend.health.close())


def read(url: str, room: Room, *, limit: int = 1000) -> list[Row]:
    backend = opened(url)
    assert backend.transfer is not None
    rows: list[Row] = []
    try:
        while some := run(backend.transfer.read_rows(room, after=rows[-1] if rows else None, limit=limit)):
            rows += some
    finally:
        run(backend.health.close())
    return rows


def numbers(found: dict[Room, Copied]) -> dict[Room, int]:
    return {room: result.rows for room, result in found.items()}


def digests(found: dict[Room, Copied]) -> dict[Room, str]:
    return {room: result.digest for room, result in found.items()}


def check_that_programs_go_on(url: str) -> None:
    """With the same keys: what was there is good, its trail is whole, and stays so."""
    with TokenVault.open(url, keys=KEYS) as vault:
        trail = vault.audit_trail("alice")
        token = vault.get_valid("alice", provider="p")
        assert token is not None
        assert token.access_token.reveal() == "access-2"
        assert [info.version for info in vault.history("alice", provider="p")] == [3, 2, 1]
        assert vault.check_audits().intact
        assert vault.store("alice", NewToken("next", expires_in=3600), provider="p").version == 4
        assert vault.audit_trail("alice")[-len(trail) :] == trail
        checked = vault.check_audits()
        assert checked.intact
        assert (checked.proved, checked.unchained) == (checked.events, 0)
    with TokenIssuer.open(url, lifetime=HOUR, keys=KEYS) as issuer:
        assert len(issuer.tokens("bob")) == 2
        assert issuer.issue("bob").token is not None
        assert issuer.check_audit("bob").intact
