"""Issues of the same moment on a server: one transaction, and to each its own outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from sql_ways import WAYS, Way
from tokenkeep import IssuedToken, KeyRing
from tokenkeep._stepping import run
from tokenkeep.errors import StoreError
from tokenkeep.ports import Grant
from tokenkeep.stores.sql.servers.engine import EngineDatabase
from tokenkeep.stores.sql.wire.asynchronous import AsyncpgLine, PsycopgLine
from tokenkeep.testing import faces

HOUR = timedelta(hours=1)


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture
def face(way: Way) -> faces.Face:
    return way[0]


@pytest.fixture
def url(request: pytest.FixtureRequest, way: Way) -> str:
    direct: str = request.getfixturevalue("postgres_url" if way[1].startswith("postgresql") else "mariadb_url")
    return way[1] + direct[direct.index("://") :]


def opened_by(issuer: Any) -> Any:
    return issuer._face._opened if isinstance(issuer, faces.Threaded) else issuer._opened


LINES = (AsyncpgLine, PsycopgLine)


@contextmanager
def statements_of(issuer: Any) -> Iterator[list[str]]:
    """What is said to the server meanwhile by way of the engine or past it, with its commits."""
    database = opened_by(issuer)._backend.issued._database
    assert isinstance(database, EngineDatabase)
    engine, said = getattr(database.engine, "sync_engine", database.engine), []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        said.append(statement)

    def note_commit(_connection: object) -> None:
        said.append("COMMIT")

    event.listen(engine, "before_cursor_execute", note)
    event.listen(engine, "commit", note_commit)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for line in LINES:
                patch.setattr(line, "rows", noting(line.rows, said))
                patch.setattr(line, "say", noting(line.say, said))
            yield said
    finally:
        event.remove(engine, "before_cursor_execute", note)
        event.remove(engine, "commit", note_commit)


def noting(method: Any, said: list[str]) -> Any:
    async def noted(line: Any, sql: str, *values: Any) -> Any:
        if not sql.startswith("BEGIN"):
            said.append(sql)
        return await method(line, sql, *values)

    return noted


def bearer(issued: IssuedToken) -> str:
    assert issued.token is not None
    return issued.token.reveal()


async def test_issues_at_the_same_moment_share_a_transaction_of_few_statements(
    face: faces.Face, way: Way, url: str
) -> None:
    async with faces.open_issuer(face, url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        await asyncio.gather(*(issuer.issue(f"user {number % 20}") for number in range(40)))
        with statements_of(issuer) as said:
            issued = await asyncio.gather(*(issuer.issue(f"user {number % 20}") for number in range(60)))
        commits = said.count("COMMIT")
        assert commits <= 4 if face == "async" else commits < 60
        if way[1].startswith("postgresql"):
            assert len(said) == 3 * commits  # the heads are locked, all is written, all is kept
        assert [who.user_id for one in issued if (who := await issuer.verify(bearer(one)))] == [
            f"user {number % 20}" for number in range(60)
        ]
        checks = await issuer.check_audits()
        assert (checks.users, checks.events, checks.flawed) == (20, 100, ())


async def test_what_differs_and_what_is_the_same_in_one_transaction_comes_back_to_each_as_it_was(
    face: faces.Face, url: str
) -> None:
    wanted: list[dict[str, Any]] = [
        {"name": None if number % 3 else f"phone {number}", "client": "a client", "scopes": {"a", f"s{number % 2}"}}
        | {"metadata": {"n": number, "NUL": "\x00", "é": [1.5, None]} if number % 4 else None}
        | {"refresh": number % 5 == 0, "lifetime": HOUR * (number % 2 + 1)}
        for number in range(20)
    ]
    async with faces.open_issuer(face, url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        await issuer.issue("alice")
        issued = await asyncio.gather(*(issuer.issue("alice", **options) for options in wanted))
        for one, options in zip(issued, wanted, strict=True):
            who = await issuer.verify(bearer(one))
            assert who is not None
            assert (who.name, who.client, who.scopes) == (options["name"], "a client", frozenset(options["scopes"]))
            assert who.metadata == (options["metadata"] or {})
            assert who.expires_at - who.created_at == options["lifetime"]
            assert (one.refresh_token is not None) == options["refresh"]
        assert await issuer.refresh(next(one.refresh_token for one in issued if one.refresh_token)) is not None
        assert (await issuer.check_audit("alice")).intact


async def test_one_row_that_is_refused_fails_its_own_caller_and_nobody_else(face: faces.Face, url: str) -> None:
    async with faces.open_issuer(face, url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        there = await issuer.issue("alice")
        core = opened_by(issuer).core
        grants = [minted(core, f"user {number % 4}") for number in range(12)]
        record = replace(grants[5].records[0], id=bytes.fromhex(there.id))
        grants[5] = Grant(records=(record,), entry=grants[5].entry)
        outcomes = await asyncio.gather(*(put(issuer, core, grant) for grant in grants), return_exceptions=True)
        assert [number for number, outcome in enumerate(outcomes) if outcome is not None] == [5]
        assert isinstance(outcomes[5], StoreError)
        assert await issuer.verify(bearer(there)) is not None
        listed = [token.id for number in range(4) for token in await issuer.tokens(f"user {number}")]
        assert sorted(listed) == sorted(grant.records[0].id.hex() for grant in grants if grant is not grants[5])
        assert (await issuer.check_audits()).flawed == ()


def minted(core: Any, user: str) -> Grant:
    empty = dict.fromkeys(("name", "lifetime", "client", "metadata"))
    grant: Grant = core._mint.first(user, now=core._clock.now(), scopes=(), refresh=False, **empty).grant
    return grant


async def put(issuer: Any, core: Any, grant: Grant) -> None:
    if isinstance(issuer, faces.Threaded):
        await issuer._call(lambda: run(core._issues.put(grant)))
    else:
        await core._issues.put(grant)


async def test_issuers_that_begin_the_same_trails_at_once_lose_nothing(face: faces.Face, url: str) -> None:
    keys = KeyRing.generate()
    async with (
        faces.open_issuer(face, url, lifetime=HOUR, keys=keys) as one,
        faces.open_issuer(face, url, lifetime=HOUR, keys=keys) as other,
    ):
        for turn in range(3):
            users = [f"user {turn} {number}" for number in range(10)]
            await asyncio.gather(*(issuer.issue(user) for issuer in (one, other) for user in users))
        checks = await one.check_audits()
        assert (checks.users, checks.events, checks.flawed) == (30, 60, ())


@pytest.mark.parametrize("way", WAYS[1:3], ids="-".join)
async def test_issues_whose_commit_was_not_answered_count_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the engine; by way of it `test_sql_lost.py` has the same."""
    losses = 0

    def losing(method: Any) -> Any:
        async def lost(line: Any, sql: str) -> None:
            nonlocal losses
            await method(line, sql)
            if sql == "COMMIT" and not losses:
                losses += 1
                line.drop()
                raise ConnectionResetError

        return lost

    async with faces.open_issuer("async", url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        await issuer.issue("alice")
        for line in LINES:
            monkeypatch.setattr(line, "say", losing(line.say))
        issued = await asyncio.gather(*(issuer.issue("alice", refresh=True) for _ in range(10)))
        assert losses == 1
        assert all([await issuer.verify(bearer(one)) for one in issued])
        check = await issuer.check_audit("alice")
        assert (check.intact, check.events) == (True, 11)


@pytest.mark.parametrize("way", WAYS[1:3], ids="-".join)
async def test_an_issue_that_was_refused_costs_no_connection(url: str) -> None:
    async with faces.open_issuer("async", url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        there = await issuer.issue("alice")
        core = opened_by(issuer).core
        writing = opened_by(issuer)._backend.issued._wire._here().writing
        line = writing._line
        grant = minted(core, "bob")
        record = replace(grant.records[0], id=bytes.fromhex(there.id))
        with pytest.raises(StoreError):
            await core._issues.put(Grant(records=(record,), entry=grant.entry))
        assert line is not None
        assert writing._line is line
        assert await issuer.verify(bearer(await issuer.issue("bob"))) is not None


@pytest.mark.parametrize("way", [way for way in WAYS if way[0] == "async"], ids="-".join)
async def test_issues_that_are_cancelled_take_no_other_with_them(url: str) -> None:
    async with faces.open_issuer("async", url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        await issuer.issue("alice")
        kept: list[IssuedToken] = []
        for turn in range(10):
            tasks = [asyncio.ensure_future(issuer.issue(f"user {number}")) for number in range(8)]
            await asyncio.sleep(0.001 * (turn % 5))
            for task in tasks[turn % 2 :: 2]:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert not any(isinstance(outcome, Exception) for outcome in outcomes)
            kept += [outcome for outcome in outcomes if isinstance(outcome, IssuedToken)]
        assert len(kept) >= 40
        assert all([await issuer.verify(bearer(one)) for one in kept])
        assert (await issuer.check_audits()).flawed == ()
