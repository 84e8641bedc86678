"""What the network does to us: a lost connection, a lost answer, silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Self

import pytest
from sqlalchemy import event

from servers.common import Server
from servers.proxy import FaultProxy
from sql_ways import WAYS, Way
from tokenkeep import KeyRing, NewToken
from tokenkeep.errors import StoreError, StoreUnavailable
from tokenkeep.model import Account, Action
from tokenkeep.ports import Entry, Use
from tokenkeep.stores.sql.errors import InDoubt, Undone
from tokenkeep.stores.sql.repeating import Doubt, Patience, repeated
from tokenkeep.testing import FakeProvider, faces

HOUR = timedelta(hours=1)


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture
def face(way: Way) -> faces.Face:
    return way[0]


@pytest.fixture
def kind(way: Way) -> str:
    return way[1]


@pytest.fixture
def proxy(request: pytest.FixtureRequest, kind: str) -> Iterator[FaultProxy]:
    name = "postgres" if kind.startswith("postgresql") else "mariadb"
    server: Server = request.getfixturevalue(f"{name}_server")
    with FaultProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def url(request: pytest.FixtureRequest, kind: str, proxy: FaultProxy) -> str:
    """The way through the proxy, with short bounds."""
    direct = request.getfixturevalue("postgres_url" if kind.startswith("postgresql") else "mariadb_url")
    before, _, after = direct.rpartition(":")
    _, _, database = after.partition("/")
    through = f"{kind}{before[before.index('://') :]}:{proxy.port}/{database}"
    return f"{through}?statement_timeout=1&connect_timeout=1&retry_timeout=0.9&pool_timeout=2"


def store_of(vault: Any) -> Any:
    """Reach through either face to the backend."""
    opened = vault._face._opened if isinstance(vault, faces.Threaded) else vault._opened
    return opened._backend


async def test_a_connection_that_was_lost_while_idle_is_not_noticed(
    face: faces.Face, url: str, proxy: FaultProxy
) -> None:
    keys = KeyRing.generate()
    async with faces.open_vault(face, url, providers=[FakeProvider()], keys=keys) as vault:
        token = await vault.get_or_create("alice")
        proxy.cut()
        assert await vault.get_valid("alice") is not None
        proxy.cut()
        await vault.reject(token)
        proxy.cut()
        await vault.store("bob", NewToken("b"))
        proxy.cut()
        assert await vault.revoke("alice") is True
        assert [event.action for event in await vault.audit_trail("alice", limit=1)] == [Action.REVOKED]
    async with faces.open_issuer(face, url, lifetime=HOUR, keys=keys) as issuer:
        proxy.cut()
        issued = await issuer.issue("alice")
        proxy.cut()
        assert issued.token is not None
        assert await issuer.verify(issued.token) is not None


async def test_a_server_that_is_gone_is_an_error_soon_and_an_answer_again_when_it_is_back(
    face: faces.Face, url: str, proxy: FaultProxy
) -> None:
    async with faces.open_vault(face, url, providers=[FakeProvider()], keys=KeyRing.generate()) as vault:
        await vault.get_or_create("alice")
        proxy.refuse()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="host and port") as gone:
            await vault.get_valid("alice")
        assert time.monotonic() - began < 5
        assert "127.0.0.1" not in str(gone.value)
        assert "canary" not in str(gone.value)
        tiers = (await vault.status()).tiers
        assert [tier.healthy for tier in tiers] == [False]
        proxy.heal()
        assert await vault.get_valid("alice") is not None
        assert (await vault.status()).tiers[0].healthy


@pytest.mark.requirement("D6")
async def test_a_server_that_falls_silent_is_an_error_within_the_bound(
    face: faces.Face, url: str, proxy: FaultProxy
) -> None:
    async with faces.open_vault(face, url, providers=[FakeProvider()], keys=KeyRing.generate()) as vault:
        for _ in range(100):
            if (await vault.get_or_create("alice")).persisted:
                break
            await asyncio.sleep(0.1)  # a busy machine took longer than a second
        proxy.black_hole()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await vault.get_valid("alice")
        assert time.monotonic() - began < 15
        proxy.heal()
        assert await vault.get_valid("alice") is not None


class LostAnswer:
    """Lets one COMMIT happen and loses its answer."""

    def __init__(self, backend: Any) -> None:
        engine = backend.tokens._database.engine
        self._engine = getattr(engine, "sync_engine", engine)
        self._dialect = self._engine.dialect
        self.commits = 0
        self.losses = 1

    def __enter__(self) -> Self:
        self._plain = self._dialect.do_commit

        def commit(connection: Any) -> None:
            self._plain(connection)
            self.commits += 1
            if self.commits <= self.losses:
                raise ConnectionResetError

        self._dialect.do_commit = commit
        return self

    def __exit__(self, *_: object) -> None:
        self._dialect.do_commit = self._plain


@pytest.mark.requirement("R4")
async def test_a_change_whose_answer_was_lost_is_looked_at_again_and_counts_once(face: faces.Face, url: str) -> None:
    async with faces.open_vault(face, url, providers=[FakeProvider()], keys=KeyRing.generate()) as vault:
        with LostAnswer(store_of(vault)):
            token = await vault.get_or_create("alice")  # the first COMMIT is that of the lease
        assert token.persisted
        with LostAnswer(store_of(vault)) as lost:
            lost.losses = 2
            token = await vault.store("alice", NewToken("another"))
        assert token.persisted
        with LostAnswer(store_of(vault)):
            await vault.reject(token)
        with LostAnswer(store_of(vault)) as lost:
            assert await vault.revoke("alice") is True
        assert lost.commits >= 2
        actions = [event.action for event in await vault.audit_trail("alice")]
        assert actions.count(Action.REVOKED) == 1
        assert actions.count(Action.REJECTED) == 1
        assert (await vault.statistics("alice")).total_tokens == 2
        assert (await vault.statistics("alice")).active_tokens == 0


async def test_an_issue_a_refresh_and_a_revocation_whose_answers_were_lost_count_once(
    face: faces.Face, url: str
) -> None:
    async with faces.open_issuer(face, url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        with LostAnswer(store_of(issuer)):
            issued = await issuer.issue("alice", refresh=True)
        assert issued.refresh_token is not None
        with LostAnswer(store_of(issuer)) as lost:
            refreshed = await issuer.refresh(issued.refresh_token)
        assert lost.commits == 2
        assert refreshed is not None
        assert refreshed.token is not None
        assert await issuer.verify(refreshed.token) is not None
        with LostAnswer(store_of(issuer)):
            assert await issuer.revoke(refreshed) is True
        assert await issuer.tokens("alice") == []
        actions = [event.action for event in await issuer.audit_trail("alice")]
        assert actions.count(Action.CREATED) == 1
        assert actions.count(Action.REFRESHED) == 1


async def test_what_cannot_be_repeated_is_an_error_that_says_so(face: faces.Face, url: str) -> None:
    async with faces.open_vault(face, url, providers=[FakeProvider()], keys=KeyRing.generate()) as vault:
        token = await vault.get_or_create("alice")
        backend = store_of(vault)
        entry = Entry(action=Action.USED, at=token.created_at, token_id=token.id, detail={})
        calls: tuple[Callable[[], Any], ...] = (
            lambda: backend.audit.note(Account("default", "fake", "alice"), entry),
            lambda: backend.tokens.count_uses([Use(token.id, 1, token.created_at)]),
        )
        for call in calls:
            with LostAnswer(backend) as lost, pytest.raises(InDoubt, match="has happened or it has not"):
                await (call() if face == "async" else asyncio.to_thread(stepped, call))
            assert lost.commits == 1


def stepped(call: Any) -> Any:
    from tokenkeep._stepping import run  # noqa: PLC0415  # what the sync face does

    return run(call())


async def test_a_deadlock_is_tried_again(face: faces.Face, url: str) -> None:
    """Two writers that take two rows in opposite orders: the server undoes one of them, and nobody sees it."""
    url = url.replace("statement_timeout=1&", "")  # PostgreSQL looks for deadlocks after a second
    async with faces.open_vault(face, url, providers=[FakeProvider()], keys=KeyRing.generate()) as vault:
        one, other = await vault.get_or_create("alice"), await vault.get_or_create("bob")
        backend = store_of(vault)
        undone: list[BaseException] = []
        engine = backend.tokens._database.engine
        event.listen(
            getattr(engine, "sync_engine", engine),
            "handle_error",
            lambda context: undone.append(context.original_exception),
        )

        async def count(*ids: str) -> None:
            for _ in range(3):
                uses = [{"token_id": token_id, "uses": 1, "at": one.created_at} for token_id in ids]

                async def work(transaction: Any, uses: Any = uses) -> None:
                    for use in uses:
                        await transaction.run(backend.tokens._use, use)
                        await backend.tokens._database.sleep(0.05)

                await backend.tokens._database.write(work)

        if face == "async":
            await asyncio.gather(count(one.id, other.id), count(other.id, one.id))
        else:
            await asyncio.gather(
                *(
                    asyncio.to_thread(stepped, lambda ids=ids: count(*ids))
                    for ids in ((one.id, other.id), (other.id, one.id))
                )
            )
        assert undone, "the test made no deadlock"
        for token in (one, other):
            for _ in range(100):
                used = (await vault.statistics(token.user_id)).total_usage
                if used >= 1 + 6:
                    break
                await asyncio.sleep(0.1)  # the first use may be on its way, in the hands of a timer
            assert used == 1 + 6


async def test_patience_ends() -> None:
    tries: list[int] = []

    async def never(_: Callable[[int], None]) -> int:
        tries.append(1)
        msg = "busy"
        raise Undone(msg, contention=True)

    async def at_once(_seconds: float) -> None:
        return

    with pytest.raises(StoreError, match="busy"):
        await repeated(never, Doubt.TELL, Patience(0), at_once)
    assert 10 <= len(tries) <= 50
