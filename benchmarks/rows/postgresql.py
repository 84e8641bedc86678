"""verify, issue and get_valid on PostgreSQL, beside asyncpg on its own and the page's class."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import psycopg

from benchmarks import postgres, workload
from benchmarks.harness import Contestant, Line, Setting, interleaved, least, most, per_call
from tokenkeep import AsyncTokenIssuer, NewToken, TokenVault

CALLERS: Final = 32
CALLS: Final = 3000
ISSUED: Final = 640
READS: Final = 3000
PAGE_READS: Final = 60
THREADS: Final = 8
USERS: Final = [f"user-{n:04}" for n in range(200)]
TOKEN: Final = "eyJ" + "a" * 297

OURS, RAW, OURS_MANY, RAW_MANY = "ours", "asyncpg, prepared", "ours, 32 tasks", "asyncpg, 32 connections"
ISSUING, INSERTING = "ours, issue", "asyncpg, INSERT, 32 connections"
GETTING, PAGE, GETTING_MANY, PAGE_MANY = "ours, get_valid", "the page's class", "ours, 8 threads", "the page, 8 threads"

RAW_TABLE: Final = "CREATE TABLE raw (digest bytea PRIMARY KEY, user_id text NOT NULL, expires_at timestamptz NOT NULL)"
RAW_SELECT: Final = "SELECT user_id, expires_at FROM raw WHERE digest = $1"
RAW_INSERT: Final = "INSERT INTO raw VALUES ($1, $2, $3)"

_PAGE_TABLE: Final = """
CREATE TABLE upstox_tokens (
    id SERIAL PRIMARY KEY, user_id VARCHAR(50) NOT NULL, access_token TEXT NOT NULL, user_name VARCHAR(100),
    is_active BOOLEAN DEFAULT TRUE, created_at TIMESTAMPTZ DEFAULT CURRENT_TIMESTAMP, expires_at TIMESTAMPTZ NOT NULL,
    last_used_at TIMESTAMPTZ, usage_count INTEGER DEFAULT 0);
CREATE TABLE upstox_token_audit (
    id SERIAL PRIMARY KEY, token_id INTEGER REFERENCES upstox_tokens(id), action VARCHAR(20) NOT NULL,
    performed_at TIMESTAMPTZ DEFAULT CURRENT_TIMESTAMP, metadata JSONB DEFAULT '{}'::jsonb);
CREATE INDEX ON upstox_tokens(user_id, is_active) WHERE is_active = TRUE;
"""


class PageStorage:
    """What the page's class does to read a token, told again: it connects, counts the use and notes it in a trail."""

    def __init__(self, url: str) -> None:
        self._url = url
        with psycopg.connect(url) as connection:
            connection.execute(_PAGE_TABLE)
            for user in USERS:
                connection.execute(
                    "INSERT INTO upstox_tokens (user_id, access_token, expires_at) "
                    "VALUES (%s, %s, now() + interval '1 day')",
                    (user, TOKEN),
                )

    def get_valid(self, user: str) -> object:
        with closing(psycopg.connect(self._url)) as connection:
            row = connection.execute(
                "SELECT id, access_token, expires_at, user_name, usage_count FROM upstox_tokens WHERE user_id = %s "
                "AND is_active = TRUE AND expires_at > NOW() + INTERVAL '1 hour' ORDER BY created_at DESC LIMIT 1",
                (user,),
            ).fetchone()
            assert row is not None
            connection.execute(
                "UPDATE upstox_tokens SET usage_count = usage_count + 1, last_used_at = NOW() WHERE id = %s", (row[0],)
            )
            connection.execute("INSERT INTO upstox_token_audit (token_id, action) VALUES (%s, 'used')", (row[0],))
            connection.commit()
        return row


def measure(setting: Setting) -> Iterator[Line]:
    if postgres.programs() is None:
        yield Line(work="verify, PostgreSQL", note="PostgreSQL is not installed")
        return
    with postgres.running() as url:
        with asyncio.Runner() as runner:
            yield from runner.run(prepared(url, setting))(runner, setting.runs)
        yield from acquired(url, setting)


async def prepared(url: str, setting: Setting) -> Callable[[asyncio.Runner, int], Iterator[Line]]:
    """Fill both tables and open what is measured."""
    issuer = AsyncTokenIssuer.open(
        url.replace("postgresql://", "postgresql+asyncpg://"), lifetime=workload.LIFETIME, keys=setting.keys
    )
    made = [await issuer.issue("user", scopes={"orders:read"})]
    for start in range(1, setting.rows, 500):
        made += await asyncio.gather(
            *(
                issuer.issue(f"user-{n:07}", scopes={"orders:read"})
                for n in range(start, min(start + 500, setting.rows))
            )
        )
    tokens = [workload.plain(token) for token in made]
    raw = [await asyncpg.connect(url) for _ in range(CALLERS)]
    keys = [secrets.token_bytes(32) for _ in range(setting.rows)]
    await raw[0].execute(RAW_TABLE)
    await raw[0].copy_records_to_table("raw", records=[(key, "user", datetime.now(UTC)) for key in keys])
    await raw[0].execute("VACUUM ANALYZE")
    selects = [await connection.prepare(RAW_SELECT) for connection in raw]
    inserts = [await connection.prepare(RAW_INSERT) for connection in raw]

    async def insert(place: int, number: object) -> None:
        await inserts[place].fetch(secrets.token_bytes(32), f"user-{number}", datetime.now(UTC))

    async def issue(_: int, number: object) -> None:
        await issuer.issue(f"user-{number}", scopes={"orders:read"})

    async def verify(_: int, token: object) -> None:
        assert await issuer.verify(str(token)) is not None

    async def select(place: int, key: object) -> None:
        assert await selects[place].fetchrow(key) is not None

    def lines(runner: asyncio.Runner, runs: int) -> Iterator[Line]:
        def contestant(
            call: Callable[[int, object], Awaitable[None]], items: Sequence[object], count: int
        ) -> Contestant:
            return lambda: runner.run(side_by_side(call, workload.picked(items, CALLS), count))

        rounds = interleaved(
            {
                OURS: contestant(verify, tokens, 1),
                RAW: contestant(select, keys, 1),
                OURS_MANY: contestant(verify, tokens, CALLERS),
                RAW_MANY: contestant(select, keys, CALLERS),
                ISSUING: lambda: runner.run(side_by_side(issue, range(ISSUED), CALLERS)),
                INSERTING: lambda: runner.run(side_by_side(insert, range(ISSUED), CALLERS)),
            },
            runs=runs,
        )
        runner.run(closed(issuer, raw))
        work = f"verify, PostgreSQL, strict, {len(tokens):,} rows"
        yield rounds.cost(f"{work}, one caller", OURS, RAW, most(1.5))
        yield rounds.gain(f"{work}, 32 callers, on 2 connections", OURS_MANY, RAW_MANY, least(1.5))
        yield rounds.gain(
            "issue, PostgreSQL, durable, 32 tasks (with an audit event each)", ISSUING, INSERTING, least(1.5)
        )

    return lines


async def closed(issuer: AsyncTokenIssuer, raw: Sequence[Any]) -> None:
    await issuer.close()
    for connection in raw:
        await connection.close()


async def side_by_side(call: Callable[[int, object], Awaitable[None]], items: Sequence[object], callers: int) -> float:
    """Seconds an operation, with so many callers who ask without a pause."""

    async def caller(place: int) -> None:
        for item in items[place::callers]:
            await call(place, item)

    started = time.perf_counter()
    await asyncio.gather(*(caller(place) for place in range(callers)))
    return (time.perf_counter() - started) / len(items)


def acquired(url: str, setting: Setting) -> Iterator[Line]:
    page = PageStorage(url)
    with TokenVault.open(url, keys=setting.keys) as vault:
        for user in USERS:
            vault.store(user, NewToken(TOKEN, expires_in=timedelta(days=1).total_seconds()), provider="p")

        def get(user: str) -> object:
            token = vault.get_valid(user, provider="p")
            assert token is not None
            return token.access_token

        rounds = interleaved(
            {
                GETTING: lambda: per_call(get, workload.picked(USERS, READS)),
                PAGE: lambda: per_call(page.get_valid, workload.picked(USERS, PAGE_READS)),
                GETTING_MANY: lambda: with_threads(get, READS),
                PAGE_MANY: lambda: with_threads(page.get_valid, PAGE_READS * THREADS),
            },
            runs=setting.runs,
        )
    yield rounds.gain("get_valid, PostgreSQL, sync, one caller", GETTING, PAGE, least(40))
    yield rounds.gain("get_valid, PostgreSQL, sync, 8 threads", GETTING_MANY, PAGE_MANY, least(30))


def with_threads(get: Callable[[str], object], calls: int) -> float:
    """Seconds a call, of 8 threads together."""
    users = workload.picked(USERS, calls)
    with ThreadPoolExecutor(THREADS) as pool:
        started = time.perf_counter()
        list(pool.map(lambda place: [get(user) for user in users[place::THREADS]], range(THREADS)))
        return (time.perf_counter() - started) / calls
