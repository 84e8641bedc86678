"""Issued tokens beyond what every store must hold: the database seen from outside, caching, refreshing, batches."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tokenkeep import AsyncTokenIssuer, IssuedToken, KeyRing, Secret, TokenIssuer
from tokenkeep.batching import Batch
from tokenkeep.digest import TokenForm, _checksum
from tokenkeep.errors import StoreError, StoreUnavailable, UnknownKey
from tokenkeep.issuer import _Batch
from tokenkeep.model import Action
from tokenkeep.recent import Recent
from tokenkeep.stores.sql.errors import Conflict
from tokenkeep.tasks import Tasks
from tokenkeep.testing import Canary, FakeClock, faces

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)

type OpenIssuer = Callable[..., Awaitable[AsyncTokenIssuer]]


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> faces.Face:
    found: faces.Face = request.param
    return found


@pytest.fixture
def keys() -> KeyRing:
    return KeyRing.generate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.db"


@pytest.fixture
async def open_issuer(path: Path, face: faces.Face, keys: KeyRing, fake_clock: FakeClock) -> AsyncIterator[OpenIssuer]:
    async with AsyncExitStack() as stack:

        async def open_one(**options: Any) -> AsyncTokenIssuer:
            given = {"lifetime": HOUR, "keys": keys, "clock": fake_clock, **options}
            return await stack.enter_async_context(faces.open_issuer(face, f"sqlite:///{path}", **given))

        yield open_one


@pytest.fixture
def issuer(path: Path, keys: KeyRing, fake_clock: FakeClock) -> Iterator[TokenIssuer]:
    with TokenIssuer.open(f"sqlite:///{path}", lifetime=HOUR, keys=keys, clock=fake_clock) as opened:
        yield opened


def bearer(issued: IssuedToken | None) -> str:
    assert issued is not None
    assert issued.token is not None
    return issued.token.reveal()


def refresher(issued: IssuedToken | None) -> str:
    assert issued is not None
    assert issued.refresh_token is not None
    return issued.refresh_token.reveal()


def execute(path: Path, statement: str, *parameters: Any) -> list[Any]:
    """Do to the database what somebody who holds no key can do."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement, parameters).fetchall()


# --- at rest


@pytest.mark.requirement("S1")
def test_no_issued_token_stands_in_any_file_of_the_database(
    issuer: TokenIssuer, tmp_path: Path, canary: Canary
) -> None:
    for number in range(100):
        issued = issuer.issue(f"user-{number}", refresh=True)
        canary.watch(bearer(issued), refresher(issued), label="token")
        assert issuer.verify(bearer(issued)) is not None
    issuer.refresh(refresher(issued))
    issuer.revoke(issued)
    issuer.statistics("user-1")
    assert canary.found_in_files(tmp_path) == []


@pytest.mark.requirement("S2")
def test_nothing_that_stands_in_the_table_works_as_a_token(issuer: TokenIssuer, path: Path) -> None:
    issuer.issue("alice", name="laptop", refresh=True)
    for row in execute(path, "SELECT * FROM tokenkeep_issued"):
        for value in row:
            for form in (value.hex(), f"tk_{value.hex()}") if isinstance(value, bytes) else (str(value), f"tk_{value}"):
                assert issuer.verify(form) is None
                assert issuer.refresh(form) is None


@pytest.mark.requirement("S3")
def test_whoever_can_write_to_the_table_but_has_no_key_forges_nothing(
    issuer: TokenIssuer, path: Path, tmp_path: Path
) -> None:
    with TokenIssuer.open(f"sqlite:///{tmp_path}/mine.db", lifetime=HOUR, keys=KeyRing.generate()) as other:
        token = bearer(other.issue("admin", scopes={"*"}))
    issuer.issue("alice")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS mine", (str(tmp_path / "mine.db"),))
        connection.execute("INSERT INTO main.tokenkeep_issued SELECT * FROM mine.tokenkeep_issued")
    assert issuer.verify(token) is None
    own_key = execute(path, "SELECT key_id FROM tokenkeep_issued WHERE user_id = 'alice'")[0][0]
    for key_id in (None, own_key, "0" * 16):
        execute(path, "UPDATE tokenkeep_issued SET key_id = ?, expires_at = 1 << 52 WHERE user_id = 'admin'", key_id)
        assert issuer.verify(token) is None


@pytest.mark.requirement("S3")
def test_a_plain_digest_is_refused_where_there_are_keys(issuer: TokenIssuer, path: Path) -> None:
    issued = issuer.issue("alice")
    plain = TokenForm("tk").digest(bearer(issued), None)
    execute(path, "UPDATE tokenkeep_issued SET key_id = NULL, digest = ?", plain)
    assert issuer.verify(bearer(issued)) is None


@pytest.mark.requirement("S3")
def test_a_digest_moved_from_another_row_does_not_open_that_row(issuer: TokenIssuer, path: Path) -> None:
    alice, admin = issuer.issue("alice"), issuer.issue("admin", scopes={"*"})
    execute(
        path,
        "UPDATE tokenkeep_issued SET digest = (SELECT digest FROM tokenkeep_issued WHERE user_id = 'alice')",
    )
    assert issuer.verify(bearer(admin)) is None
    assert issuer.verify(bearer(alice)) is not None


@pytest.mark.requirement("S3")
async def test_keys_rotate_under_way_and_each_row_follows_at_its_next_use(
    open_issuer: OpenIssuer, keys: KeyRing, path: Path
) -> None:
    issuer = await open_issuer()
    used, unused = bearer(await issuer.issue("alice")), bearer(await issuer.issue("bob"))
    first = keys.key_id
    for _ in range(2):
        keys.add()
        assert await issuer.verify(used) is not None
        assert await issuer.verify(used) is not None
    assert execute(path, "SELECT user_id, key_id FROM tokenkeep_issued ORDER BY user_id") == [
        ("alice", keys.key_id),
        ("bob", first),
    ]
    keys.drop(first)
    assert await issuer.verify(used) is not None
    assert await issuer.verify(unused) is None


def test_a_ring_without_the_keys_of_this_database_is_refused_at_opening(issuer: TokenIssuer, path: Path) -> None:
    issuer.issue("alice")
    with pytest.raises(UnknownKey):
        TokenIssuer.open(f"sqlite:///{path}", lifetime=HOUR, keys=KeyRing.generate())


@pytest.mark.requirement("V3")
@pytest.mark.parametrize("column", ["expires_at", "digest", "created_at", "metadata", "last_used_at"])
def test_a_poisoned_row_is_an_error_and_never_a_pass(issuer: TokenIssuer, path: Path, column: str) -> None:
    token = bearer(issuer.issue("alice"))
    execute(path, f"UPDATE tokenkeep_issued SET {column} = 'poison'")  # noqa: S608  # a name of this test
    with pytest.raises(StoreError, match="damaged"):
        issuer.verify(token)


@pytest.mark.requirement("V3")
async def test_a_store_that_cannot_answer_is_an_error_and_never_a_pass(open_issuer: OpenIssuer, path: Path) -> None:
    issuer = await open_issuer()
    token = bearer(await issuer.issue("alice"))
    execute(path, "ALTER TABLE tokenkeep_issued RENAME TO gone")
    with pytest.raises(StoreUnavailable):
        await issuer.verify(token)
    with pytest.raises(StoreUnavailable):
        await issuer.issue("alice")
    execute(path, "ALTER TABLE gone RENAME TO tokenkeep_issued")
    assert await issuer.verify(token) is not None


@pytest.mark.requirement("L3")
def test_a_client_of_a_megabyte_is_cut_and_forges_no_line(issuer: TokenIssuer) -> None:
    issued = issuer.issue("alice", name="a\r\nb\x1b[31m\u2028", client="Mozilla\x00" + "x" * 1_000_000)
    assert issued.name == "a\ufffd\ufffdb\ufffd[31m\ufffd"
    assert issued.client is not None
    assert len(issued.client) == 255
    assert issued.client.startswith("Mozilla\ufffdx")


@pytest.mark.parametrize("metadata", [{"a": object()}, {"a": float("nan")}, {"a": "\ud800"}, {"a": {1, 2}}])
def test_metadata_that_json_cannot_hold_is_refused(issuer: TokenIssuer, metadata: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="metadata"):
        issuer.issue("alice", metadata=metadata)


# --- ends


@pytest.mark.requirement("X4")
async def test_a_clock_that_is_set_back_revives_nothing(open_issuer: OpenIssuer, fake_clock: FakeClock) -> None:
    issuer = await open_issuer(idle=10 * MINUTE)
    over, idle = bearer(await issuer.issue("alice", lifetime=MINUTE)), bearer(await issuer.issue("alice"))
    fake_clock.advance(20 * MINUTE)
    assert await issuer.verify(over) is None
    fake_clock.advance(-20 * MINUTE)
    assert await issuer.verify(over) is None
    assert await issuer.verify(idle) is None


@pytest.mark.requirement("X2")
async def test_idleness_is_written_once_in_a_granule(
    open_issuer: OpenIssuer, fake_clock: FakeClock, statements: list[str]
) -> None:
    issuer = await open_issuer(idle=20 * MINUTE)
    token = bearer(await issuer.issue("alice"))
    statements.clear()
    for _ in range(60):
        fake_clock.advance(5 * SECOND)
        assert await issuer.verify(token) is not None
    assert sum(statement.startswith("UPDATE") for statement in statements) == 5


@pytest.mark.requirement("X2")
async def test_a_use_that_is_not_written_yet_keeps_a_token_from_idling(
    open_issuer: OpenIssuer, fake_clock: FakeClock, path: Path
) -> None:
    issuer = await open_issuer(idle=20 * MINUTE)
    token = bearer(await issuer.issue("alice"))
    fake_clock.advance(50 * SECOND)
    assert await issuer.verify(token) is not None
    assert execute(path, "SELECT last_used_at FROM tokenkeep_issued") == [(None,)]
    fake_clock.advance(20 * MINUTE - SECOND)
    assert await issuer.verify(token) is not None


@pytest.mark.requirement("K5")
async def test_uses_that_are_written_after_a_revocation_bring_nothing_back(open_issuer: OpenIssuer, path: Path) -> None:
    user, admin = await open_issuer(), await open_issuer()
    issued = await user.issue("alice")
    assert await user.verify(bearer(issued)) is not None
    assert await admin.revoke(issued.id)
    await user.statistics("alice")
    assert execute(path, "SELECT usage_count, revoked_at IS NULL FROM tokenkeep_issued") == [(0, 0)]
    assert await user.verify(bearer(issued)) is None


def with_another_day(token: str, later: int) -> str:
    """The token with a hint that lies so many days later, and a checksum that fits."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number = sum(digits.index(character) * 62**power for power, character in enumerate(reversed(token[-9:-6])))
    day = "".join(digits[(number + later) // 62**power % 62] for power in (2, 1, 0))
    changed = token[:-9] + day
    return changed + _checksum(changed)


@pytest.mark.requirement("T4")
async def test_another_day_in_a_token_makes_it_another_token(open_issuer: OpenIssuer, fake_clock: FakeClock) -> None:
    issuer = await open_issuer()
    issued = await issuer.issue("alice", refresh=True)
    forged = [with_another_day(token, later) for token in (bearer(issued), refresher(issued)) for later in (-1, 1, 300)]
    assert with_another_day(bearer(issued), 0) == bearer(issued)
    for _ in range(2):
        for token in forged:
            assert await issuer.verify(token) is None
            assert await issuer.refresh(token) is None
            assert await issuer.revoke(token) is False
        fake_clock.advance(timedelta(days=1))  # the second time the tokens themselves are over
    assert await issuer.verify(bearer(issued)) is None


@pytest.mark.requirement("T4")
async def test_the_row_decides_over_the_end_and_not_the_day_in_the_token(
    open_issuer: OpenIssuer, fake_clock: FakeClock, path: Path
) -> None:
    issuer = await open_issuer()
    issued = await issuer.issue("alice", lifetime=timedelta(days=30))
    assert await issuer.verify(bearer(issued)) is not None
    execute(path, "UPDATE tokenkeep_issued SET expires_at = ?", int(fake_clock.now().timestamp()) * 1_000_000)
    assert await issuer.verify(bearer(issued)) is None


@pytest.mark.requirement("T4")
def test_a_token_tells_nothing_but_the_day_in_which_it_ends(issuer: TokenIssuer) -> None:
    tokens = [bearer(issuer.issue(user, name=user)) for user in ("alice", "bob") for _ in range(20)]
    assert len({token[-9:-6] for token in tokens}) == 1
    assert len({token[3:-9] for token in tokens}) == len(tokens)


def test_a_purge_looks_at_no_token_that_ends_on_a_later_day(
    issuer: TokenIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenkeep.issuer._SWEPT", 2)
    store, batches = issuer._opened.core._store, []
    purge_issued = store.purge_issued

    async def counting(*args: Any, **options: Any) -> tuple[int, bytes | None]:
        batches.append(await purge_issued(*args, **options))
        return batches[-1]

    monkeypatch.setattr(store, "purge_issued", counting)
    for days in (2, 3, 4, 5, 6):
        issuer.issue("alice", lifetime=timedelta(days=days))
    issuer.purge()
    assert batches == [(0, None)]


@pytest.mark.parametrize(("seconds", "following"), [(0.001, 4000), (0.02, 2000), (0.05, 1000), (5.0, 1000)])
def test_a_batch_of_a_purge_is_as_large_as_time_allows(seconds: float, following: int) -> None:
    assert _Batch(seconds).next(2000) == following


@pytest.mark.parametrize(("one_writer", "pause"), [(True, 5.0), (False, 0.002)])
def test_a_purge_rests_as_long_as_it_wrote_where_one_writes_at_a_time(
    issuer: TokenIssuer, monkeypatch: pytest.MonkeyPatch, one_writer: bool, pause: float
) -> None:
    core = issuer._opened.core
    assert core._backend.one_writer is True, "it is SQLite"
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(core, "_backend", replace(core._backend, one_writer=one_writer))
    monkeypatch.setattr(core, "_monotonic", partial(next, count(step=5.0)))
    monkeypatch.setattr(core._wait, "sleep", sleep)
    issuer.purge()
    assert pauses == [pause]


@pytest.mark.requirement("K8")
async def test_a_purge_in_batches_leaves_the_living_and_what_is_revoked_until_it_expires(
    open_issuer: OpenIssuer, fake_clock: FakeClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenkeep.issuer._SWEPT", 7)
    issuer = await open_issuer()
    for number in range(40):
        await issuer.issue("alice", lifetime=MINUTE if number % 2 else HOUR)
    revoked = await issuer.issue("alice")
    await issuer.revoke(revoked)
    fake_clock.advance(2 * MINUTE)
    assert (await issuer.purge(expired_before=fake_clock.now() + 10 * HOUR)).tokens == 20
    assert len(await issuer.tokens("alice")) == 20
    assert execute(path, "SELECT COUNT(*) FROM tokenkeep_issued WHERE revoked_at IS NOT NULL") == [(1,)]
    assert (await issuer.purge(audit_before=fake_clock.now())).audit_events == 42


def test_an_unreadable_cut_off_is_refused(issuer: TokenIssuer) -> None:
    with pytest.raises(ValueError, match="expired_before"):
        issuer.purge(expired_before=datetime(2026, 1, 1))  # noqa: DTZ001  # naive on purpose


@pytest.mark.requirement("K2")
async def test_one_to_keep_that_names_nothing_revokes_nothing(open_issuer: OpenIssuer) -> None:
    issuer = await open_issuer()
    token = bearer(await issuer.issue("alice"))
    with pytest.raises(ValueError, match="keep"):
        await issuer.revoke_all("alice", keep="tk_mistyped")
    assert await issuer.verify(token) is not None


@pytest.mark.requirement("B2")
@pytest.mark.requirement("G5")
async def test_very_many_tokens_are_revoked_in_batches_each_with_its_event(
    open_issuer: OpenIssuer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenkeep.stores.sql.issued._TOGETHER", 4)
    issuer = await open_issuer()
    kept = await issuer.issue("alice")
    await asyncio.gather(*(issuer.issue("alice") for _ in range(9)))
    assert await issuer.revoke_all("alice", keep=kept) == 9
    assert execute(path, "SELECT COUNT(DISTINCT token_id) FROM tokenkeep_audit WHERE action = 'revoked'") == [(9,)]
    assert [token.id for token in await issuer.tokens("alice")] == [kept.id]


# --- trusting what was read a moment ago


class Monotonic:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> Monotonic:
    ticking = Monotonic()
    monkeypatch.setattr("tokenkeep.issuer.Recent", lambda bound, **_: Recent(bound, monotonic=ticking))
    return ticking


BOUND = timedelta(seconds=2)


@pytest.mark.requirement("C3")
@pytest.mark.requirement("C1")
@pytest.mark.requirement("K1")
async def test_a_revocation_elsewhere_is_seen_within_the_bound(open_issuer: OpenIssuer, monotonic: Monotonic) -> None:
    cached, other = await open_issuer(max_staleness=BOUND), await open_issuer()
    issued = await other.issue("alice")
    assert await cached.verify(bearer(issued)) is not None
    assert await other.revoke(issued)
    monotonic.seconds += 1.999
    assert await cached.verify(bearer(issued)) is not None
    monotonic.seconds += 0.001
    assert await cached.verify(bearer(issued)) is None


@pytest.mark.requirement("C1")
async def test_uses_do_not_stretch_the_bound(open_issuer: OpenIssuer, monotonic: Monotonic) -> None:
    cached, other = await open_issuer(max_staleness=BOUND), await open_issuer()
    issued = await other.issue("alice")
    await cached.verify(bearer(issued))
    await other.revoke(issued)
    for _ in range(3):
        monotonic.seconds += 0.5
        await cached.verify(bearer(issued))
    monotonic.seconds += 0.5
    assert await cached.verify(bearer(issued)) is None


@pytest.mark.requirement("C1")
async def test_a_revocation_here_is_seen_at_once_however_it_is_made(open_issuer: OpenIssuer) -> None:
    issuer = await open_issuer(max_staleness=HOUR)
    issued = [await issuer.issue("alice", refresh=True) for _ in range(4)]
    for one in issued:
        assert await issuer.verify(bearer(one)) is not None
    await issuer.revoke(issued[0].id)
    await issuer.revoke(bearer(issued[1]))
    await issuer.revoke(refresher(issued[2]))
    assert [await issuer.verify(bearer(one)) is not None for one in issued] == [False, False, False, True]
    await issuer.revoke_all("alice")
    assert await issuer.verify(bearer(issued[3])) is None


@pytest.mark.requirement("C2")
async def test_what_is_trusted_still_ends_at_its_end(open_issuer: OpenIssuer, fake_clock: FakeClock) -> None:
    issuer = await open_issuer(max_staleness=24 * HOUR, idle=10 * MINUTE)
    idle, over = bearer(await issuer.issue("alice")), bearer(await issuer.issue("alice", lifetime=5 * MINUTE))
    assert await issuer.verify(over) is not None
    fake_clock.advance(5 * MINUTE)
    assert await issuer.verify(over) is None
    assert await issuer.verify(idle) is not None
    fake_clock.advance(10 * MINUTE)
    assert await issuer.verify(idle) is None


async def test_scopes_are_asked_of_what_is_trusted_too(open_issuer: OpenIssuer) -> None:
    issuer = await open_issuer(max_staleness=HOUR)
    token = bearer(await issuer.issue("alice", scopes={"a"}))
    assert await issuer.verify(token) is not None
    assert await issuer.verify(token, scopes={"a"}) is not None
    assert await issuer.verify(token, scopes={"b"}) is None


async def test_uses_of_what_is_trusted_are_counted(open_issuer: OpenIssuer) -> None:
    issuer = await open_issuer(max_staleness=HOUR)
    token = bearer(await issuer.issue("alice"))
    for _ in range(25):
        await issuer.verify(token)
    assert (await issuer.statistics("alice")).total_usage == 25


@pytest.mark.requirement("C5")
@pytest.mark.requirement("C4")
def test_refusals_are_not_kept_and_the_cache_is_bounded_and_holds_no_token(
    path: Path, keys: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tokenkeep.issuer.Recent", lambda bound, *, monotonic: Recent(bound, monotonic=monotonic, entries=10)
    )
    with TokenIssuer.open(f"sqlite:///{path}", lifetime=HOUR, keys=keys, max_staleness=HOUR) as issuer:
        form = issuer._opened.core._mint.access
        for _ in range(20):
            assert issuer.verify(form.new(datetime.now(UTC) + HOUR)) is None
        recent = issuer._opened.core._recent
        assert recent is not None
        assert recent._kept == {}
        tokens = [bearer(issuer.issue("alice")) for _ in range(30)]
        assert all(issuer.verify(token) is not None for token in tokens * 2)
        assert len(recent._kept) == 10
        assert not any(token in repr(recent._kept) for token in tokens)


@pytest.mark.requirement("C6")
@pytest.mark.requirement("K5")
def test_an_answer_that_was_on_its_way_during_a_revocation_is_not_kept() -> None:
    now = datetime(2026, 1, 5, tzinfo=UTC)
    token = some_token(now)
    recent = Recent(BOUND, monotonic=Monotonic())
    before = recent.ticket()
    recent.drop("another")
    recent.keep(b"key", token, ends_at=token.expires_at, ticket=before)
    assert recent.get(b"key", now) is None
    recent.keep(b"key", token, ends_at=token.expires_at, ticket=recent.ticket())
    assert recent.get(b"key", now) is token
    assert recent.get(b"key", token.expires_at) is None


@pytest.mark.requirement("C1")
def test_an_answer_is_trusted_from_the_start_of_its_query(monotonic: Monotonic) -> None:
    now = datetime(2026, 1, 5, tzinfo=UTC)
    recent = Recent(BOUND, monotonic=monotonic)
    ticket = recent.ticket()
    monotonic.seconds += 2.0
    recent.keep(b"key", some_token(now), ends_at=now + HOUR, ticket=ticket)
    assert recent.get(b"key", now) is None


def some_token(now: datetime) -> IssuedToken:
    return IssuedToken(
        id="00", namespace="n", user_id="u", name=None, scopes=frozenset(), created_at=now, expires_at=now + HOUR,
        last_used_at=None, client=None, metadata={},
    )  # fmt: skip


# --- refreshing


@pytest.mark.requirement("R1")
@pytest.mark.requirement("R5")
async def test_a_refresh_token_is_traded_for_a_new_pair(open_issuer: OpenIssuer, fake_clock: FakeClock) -> None:
    issuer = await open_issuer()
    first = await issuer.issue("alice", scopes={"a", "b"}, name="laptop", metadata={"x": 1}, refresh=True)
    fake_clock.advance(2 * HOUR)
    assert await issuer.verify(bearer(first)) is None
    second = await issuer.refresh(refresher(first))
    who = await issuer.verify(bearer(second))
    assert who is not None
    assert (who.user_id, who.scopes, who.name, who.metadata) == ("alice", first.scopes, "laptop", {"x": 1})
    assert who.expires_at == fake_clock.now() + HOUR
    assert [event.action for event in await issuer.audit_trail("alice")] == [Action.REFRESHED, Action.CREATED]


@pytest.mark.requirement("R1")
@pytest.mark.requirement("K6")
@pytest.mark.requirement("G2")
async def test_a_refresh_token_that_was_traded_before_ends_its_whole_family(
    open_issuer: OpenIssuer, fake_clock: FakeClock
) -> None:
    issuer = await open_issuer(max_staleness=HOUR)
    stranger = await issuer.issue("alice", refresh=True)
    pairs = [await issuer.issue("alice", refresh=True)]
    for _ in range(3):
        fake_clock.advance(MINUTE)
        successor = await issuer.refresh(refresher(pairs[-1]))
        assert successor is not None
        pairs.append(successor)
    assert all([await issuer.verify(bearer(pair)) for pair in pairs])
    assert await issuer.refresh(refresher(pairs[0])) is None
    assert [await issuer.verify(bearer(pair)) for pair in pairs] == [None] * 4
    assert [await issuer.refresh(refresher(pair)) for pair in pairs] == [None] * 4
    reused = {event.token_id for event in await issuer.audit_trail("alice") if event.action is Action.REUSED}
    assert {pair.id for pair in pairs} < reused
    assert await issuer.verify(bearer(stranger)) is not None
    assert await issuer.refresh(refresher(stranger)) is not None


@pytest.mark.requirement("R1")
async def test_once_a_successor_was_traded_there_is_no_grace(open_issuer: OpenIssuer) -> None:
    issuer = await open_issuer()
    first = await issuer.issue("alice", refresh=True)
    third = await issuer.refresh(refresher(await issuer.refresh(refresher(first))))
    assert await issuer.verify(bearer(third)) is not None
    assert await issuer.refresh(refresher(first)) is None
    assert await issuer.verify(bearer(third)) is None


@pytest.mark.requirement("R4")
@pytest.mark.requirement("R3")
async def test_a_lost_answer_can_be_asked_for_once_more_within_the_grace(
    open_issuer: OpenIssuer, fake_clock: FakeClock
) -> None:
    issuer = await open_issuer()
    first = await issuer.issue("alice", refresh=True)
    lost = await issuer.refresh(refresher(first))
    fake_clock.advance(9 * SECOND)
    found = await issuer.refresh(refresher(first))
    assert await issuer.verify(bearer(found)) is not None
    assert await issuer.refresh(refresher(first)) is None
    assert await issuer.verify(bearer(found)) is not None
    assert await issuer.verify(bearer(lost)) is not None


@pytest.mark.requirement("R3")
async def test_the_grace_is_measured_from_the_first_use(open_issuer: OpenIssuer, fake_clock: FakeClock) -> None:
    issuer = await open_issuer()
    first = await issuer.issue("alice", refresh=True)
    second = await issuer.refresh(refresher(first))
    fake_clock.advance(10 * SECOND)
    assert await issuer.refresh(refresher(first)) is None
    assert await issuer.verify(bearer(second)) is None


@pytest.mark.requirement("R3")
async def test_the_grace_does_not_outlive_a_revocation(open_issuer: OpenIssuer) -> None:
    issuer = await open_issuer()
    first = await issuer.issue("alice", refresh=True)
    second = await issuer.refresh(refresher(first))
    assert second is not None
    assert await issuer.revoke(second.id)
    assert await issuer.refresh(refresher(first)) is None
    assert await issuer.refresh(refresher(second)) is None
    assert await issuer.verify(bearer(first)) is None


@pytest.mark.requirement("R2")
async def test_refreshes_side_by_side_have_at_most_two_successors_and_are_no_theft(open_issuer: OpenIssuer) -> None:
    issuer = await open_issuer()
    first = await issuer.issue("alice", refresh=True)
    outcomes = await asyncio.gather(*(issuer.refresh(refresher(first)) for _ in range(20)))
    successors = [outcome for outcome in outcomes if outcome is not None]
    assert len(successors) == 2
    assert all([await issuer.verify(bearer(pair)) for pair in successors])


@pytest.mark.requirement("X3")
async def test_no_refreshing_carries_a_family_past_its_absolute_end(
    open_issuer: OpenIssuer, fake_clock: FakeClock
) -> None:
    issuer = await open_issuer()
    pair: IssuedToken | None = await issuer.issue("alice", refresh=True)
    end = fake_clock.now() + timedelta(days=30)
    for _ in range(29):
        fake_clock.advance(timedelta(days=1))
        pair = await issuer.refresh(refresher(pair))
    fake_clock.set(end - MINUTE)
    pair = await issuer.refresh(refresher(pair))
    assert pair is not None
    assert pair.expires_at == end
    fake_clock.set(end)
    assert await issuer.verify(bearer(pair)) is None
    assert await issuer.refresh(refresher(pair)) is None


@pytest.mark.requirement("V5")
async def test_a_refresh_token_opens_nothing_and_an_access_token_refreshes_nothing(open_issuer: OpenIssuer) -> None:
    issuer = await open_issuer()
    pair = await issuer.issue("alice", refresh=True)
    assert await issuer.verify(refresher(pair)) is None
    assert await issuer.refresh(bearer(pair)) is None
    as_access = refresher(pair).replace("tk-r_", "tk_")
    assert await issuer.verify(as_access) is None
    assert await issuer.refresh("x" * 1_000_000) is None


async def test_another_namespace_cannot_refresh(open_issuer: OpenIssuer) -> None:
    red, blue = await open_issuer(namespace="red"), await open_issuer(namespace="blue")
    pair = await red.issue("alice", refresh=True)
    assert await blue.refresh(refresher(pair)) is None
    assert await red.refresh(refresher(pair)) is not None


@pytest.mark.requirement("K2")
async def test_the_login_that_is_kept_keeps_its_refresh_token(open_issuer: OpenIssuer) -> None:
    issuer = await open_issuer()
    kept, other = [await issuer.issue("alice", refresh=True) for _ in range(2)]
    assert await issuer.revoke_all("alice", keep=Secret(bearer(kept))) == 2
    assert await issuer.refresh(refresher(other)) is None
    assert await issuer.refresh(refresher(kept)) is not None


@pytest.mark.requirement("L1")
async def test_a_login_whose_access_token_is_over_is_still_listed_and_can_be_ended(
    open_issuer: OpenIssuer, fake_clock: FakeClock
) -> None:
    issuer = await open_issuer()
    pair = await issuer.issue("alice", name="phone", refresh=True)
    assert [token.id for token in await issuer.tokens("alice")] == [pair.id]
    fake_clock.advance(2 * HOUR)
    [listed] = await issuer.tokens("alice")
    assert listed.name == "phone"
    assert await issuer.revoke(listed.id)
    assert await issuer.refresh(refresher(pair)) is None
    assert await issuer.tokens("alice") == []


# --- many at once


async def test_issues_at_the_same_moment_share_transactions(path: Path, keys: KeyRing, statements: list[str]) -> None:
    async with AsyncTokenIssuer.open(f"sqlite:///{path}", lifetime=HOUR, keys=keys) as issuer:
        await issuer.issue("alice")
        statements.clear()
        issued = await asyncio.gather(*(issuer.issue("alice") for _ in range(64)))
        assert statements.count("COMMIT") <= 4
        assert all([await issuer.verify(bearer(one)) for one in issued])
        assert len(await issuer.audit_trail("alice", limit=100)) == 65


class Refusing:
    """Writes what it is given until it is told to refuse, and waits in between as a database does."""

    def __init__(self) -> None:
        self.calls = 0
        self.batches: list[list[int]] = []
        self.refuse: set[int] = set()
        self.error: StoreError = StoreUnavailable("the disk is full")

    async def __call__(self, items: Sequence[int]) -> None:
        self.calls += 1
        await asyncio.sleep(0)
        if self.refuse & set(items):
            raise self.error
        self.batches.append(list(items))


async def test_an_error_goes_to_everyone_in_the_failed_batch_and_to_nobody_else() -> None:
    write, tasks = Refusing(), Tasks()
    write.refuse = {3}
    batch = Batch[int](write, wait=tasks, work=tasks)
    await batch.put(0)
    outcomes = await asyncio.gather(*(batch.put(item) for item in range(1, 6)), return_exceptions=True)
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    await batch.put(7)
    assert write.batches == [[0], [7]]


async def test_an_item_that_is_refused_takes_no_other_with_it() -> None:
    write, tasks = Refusing(), Tasks()
    write.refuse, write.error = {3}, Conflict("it is there already")
    batch = Batch[int](write, wait=tasks, work=tasks)
    outcomes = await asyncio.gather(*(batch.put(item) for item in range(5)), return_exceptions=True)
    assert [outcome for outcome in outcomes if outcome is not None] == [write.error]
    assert write.batches == [[0], [1], [2], [4]]


async def test_a_database_that_cannot_be_reached_is_not_asked_again_for_each_item() -> None:
    write, tasks = Refusing(), Tasks()
    write.refuse = {3}
    batch = Batch[int](write, wait=tasks, work=tasks)
    outcomes = await asyncio.gather(*(batch.put(item) for item in range(5)), return_exceptions=True)
    assert outcomes == [write.error] * 5
    assert write.calls == 1


async def test_a_leader_that_is_cancelled_takes_nobody_with_it() -> None:
    write, tasks = Refusing(), Tasks()
    batch = Batch[int](write, wait=tasks, work=tasks)
    callers = [asyncio.ensure_future(batch.put(item)) for item in range(5)]
    await asyncio.sleep(0)
    callers[0].cancel()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [None] * 4
    assert sorted(item for written in write.batches for item in written) == [0, 1, 2, 3, 4]
    await tasks.close()


async def test_more_than_a_batch_goes_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenkeep.batching.MOST", 2)
    write, tasks = Refusing(), Tasks()
    batch = Batch[int](write, wait=tasks, work=tasks)
    await asyncio.gather(*(batch.put(item) for item in range(6)))
    assert write.batches == [[0, 1], [2, 3], [4, 5]]


async def test_whoever_is_cancelled_when_it_is_his_to_write_lets_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    writing, go_on, tasks = asyncio.Event(), asyncio.Event(), Tasks()

    async def write(items: Sequence[int]) -> None:
        writing.set()
        await go_on.wait()
        written.extend(items)

    batch = Batch[int](write, wait=tasks, work=tasks)
    first = asyncio.ensure_future(batch.put(0))
    await writing.wait()
    second, third = (asyncio.ensure_future(batch.put(item)) for item in (1, 2))
    await asyncio.sleep(0)
    hand_over = batch._line.hand_over

    def cancelling() -> None:
        monkeypatch.undo()
        hand_over()
        second.cancel()

    monkeypatch.setattr(batch._line, "hand_over", cancelling)
    go_on.set()
    outcomes = await asyncio.wait_for(asyncio.gather(first, second, third, return_exceptions=True), 10)
    assert isinstance(outcomes[1], asyncio.CancelledError)
    assert {0, 2} <= set(written)
    await tasks.close()


def test_threads_that_write_at_the_same_moment_are_each_woken_once(issuer: TokenIssuer) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: issuer.issue("alice"), range(200)))
    assert issuer.statistics("alice").total_tokens == len({one.id for one in made}) == 200


@pytest.mark.requirement("S3")
async def test_a_token_seen_before_is_nobody_once_its_key_has_left_the_ring(tmp_path: Path) -> None:
    ring = KeyRing.generate()
    first = ring.key_id
    async with AsyncTokenIssuer.open(f"sqlite:///{tmp_path}/keys.db", lifetime=HOUR, keys=ring) as issuer:
        token = bearer(await issuer.issue("alice"))
        for _ in range(3):
            assert await issuer.verify(token) is not None
        ring.add()
        ring.drop(first)
        assert await issuer.verify(token) is None
