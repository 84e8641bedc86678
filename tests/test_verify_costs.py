"""What a verification costs, in counts that do not depend on the machine."""

from __future__ import annotations

import _socket
import asyncio
import socket
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Self

import pytest

from tokenkeep import AsyncTokenIssuer, IssuedToken, KeyRing, TokenIssuer

HOUR = timedelta(hours=1)
MOST_CALLS = 120
NOBODY_COMMITTED = "PRAGMA data_version"

MALFORMED = ["", "tk_", "tk_" + "A" * 51, "x" * 1_000_000, "tk_\x00", "tk_" + "٣" * 51, "tk_\ud800", "ghp_abc"]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/tokens.db"


def bearer(issued: IssuedToken) -> str:
    assert issued.token is not None
    return issued.token.reveal()


class Profile:
    """Counts the Python functions that are called, and the threads that are handed something."""

    def __init__(self) -> None:
        self.calls = 0
        self.modules: set[str] = set()

    def __enter__(self) -> Self:
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        self.calls -= 1  # this one

    def _seen(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            self.calls += 1
            self.modules.add(str(frame.f_globals.get("__name__")).partition(".")[0])


async def profiled(verify: Callable[[], Awaitable[IssuedToken | None]]) -> tuple[Profile, IssuedToken | None]:
    await verify()
    await verify()
    with Profile() as profile:
        who = await verify()
    return profile, who


@pytest.mark.parametrize("keyed", [True, False], ids=["keyed", "idle"])
def test_a_strict_verification_is_one_statement_and_one_more_when_somebody_has_committed(
    url: str, statements: list[str], *, keyed: bool
) -> None:
    with TokenIssuer.open(
        url, lifetime=HOUR, idle=None if keyed else timedelta(minutes=30), keys=KeyRing.generate()
    ) as issuer:
        token = bearer(issuer.issue("alice", scopes={"orders:read"}))
        for _ in range(2):
            assert issuer.verify(token, scopes={"orders:read"}) is not None
        statements.clear()
        assert issuer.verify(token, scopes={"orders:read"}) is not None
        assert statements == [NOBODY_COMMITTED]
        other = bearer(issuer.issue("bob"))
        statements.clear()
        assert issuer.verify(other) is not None
        assert [statement.split()[0] for statement in statements] == ["SELECT"]
        statements.clear()
        assert issuer.verify(token) is not None
        assert [statement.split()[0] for statement in statements] == ["PRAGMA", "SELECT"]


async def test_a_strict_verification_of_the_async_face_is_one_statement(url: str, statements: list[str]) -> None:
    async with AsyncTokenIssuer.open(url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        token = bearer(await issuer.issue("alice"))
        await issuer.verify(token)
        statements.clear()
        assert await issuer.verify(token) is not None
        assert len(statements) == 1


@pytest.mark.requirement("T3")
@pytest.mark.requirement("V7")
@pytest.mark.parametrize("staleness", [timedelta(0), HOUR], ids=["strict", "cached"])
def test_a_malformed_bearer_never_reaches_the_database(url: str, statements: list[str], staleness: timedelta) -> None:
    with TokenIssuer.open(url, lifetime=HOUR, keys=KeyRing.generate(), max_staleness=staleness) as issuer:
        token = bearer(issuer.issue("alice"))
        refresh = issuer.issue("alice", refresh=True).refresh_token
        assert refresh is not None
        changed = [token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(len(token))]
        statements.clear()
        for malformed in [*MALFORMED, *changed, token[:-1], token + "0", refresh.reveal()]:
            assert issuer.verify(malformed) is None
        assert statements == []


def test_a_strict_verification_takes_few_python_calls(url: str) -> None:
    with TokenIssuer.open(url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        token = bearer(issuer.issue("alice", scopes={"a"}, name="laptop", metadata={"x": 1}))
        issuer.verify(token)
        with Profile() as profile:
            who = issuer.verify(token, scopes={"a"})
    assert who is not None
    assert 0 < profile.calls <= MOST_CALLS


async def test_a_strict_verification_of_the_async_face_takes_few_python_calls_and_no_thread(url: str) -> None:
    async with AsyncTokenIssuer.open(url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        token = bearer(await issuer.issue("alice"))
        profile, who = await profiled(lambda: issuer.verify(token))
    assert who is not None
    assert 0 < profile.calls <= MOST_CALLS
    assert not profile.modules & {"aiosqlite", "sqlalchemy", "concurrent", "greenlet"}


def test_a_verification_within_the_staleness_asks_nothing(url: str, statements: list[str]) -> None:
    with TokenIssuer.open(url, lifetime=HOUR, keys=KeyRing.generate(), max_staleness=HOUR) as issuer:
        token = bearer(issuer.issue("alice", scopes={"a"}))
        issuer.verify(token)
        statements.clear()
        with Profile() as profile:
            who = issuer.verify(token, scopes={"a"})
        assert who is not None
        assert statements == []
        assert profile.calls <= 15


def test_refusing_an_unknown_token_is_one_statement(url: str, statements: list[str]) -> None:
    with TokenIssuer.open(url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        issued = issuer.issue("alice")
        issuer.verify(bearer(issued))
        issuer.revoke(issued)
        assert issuer.verify(bearer(issued)) is None
        statements.clear()
        assert issuer.verify(bearer(issued)) is None
        assert len(statements) == 1


class Writes:
    """Counts what is written to sockets."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _seen(self, _frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call" and argument.__name__ in {"send", "sendmsg", "sendall"}:
            self.count += isinstance(argument.__self__, socket.socket | _socket.socket)


@pytest.mark.parametrize("callers", [1, 32])
async def test_a_strict_verification_on_postgresql_is_one_write_and_a_crowd_of_them_is_few(
    postgres_url: str, callers: int
) -> None:
    url = postgres_url.replace("postgresql://", "postgresql+asyncpg://")
    async with AsyncTokenIssuer.open(url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        tokens = [bearer(await issuer.issue(f"user {number}")) for number in range(callers)]

        async def asking(token: str, times: int) -> None:
            for _ in range(times):
                assert await issuer.verify(token) is not None

        async def asked(times: int) -> None:
            await asyncio.gather(*(asking(token, times) for token in tokens))

        await asked(3)
        with Profile() as profile:
            await asked(10)
        with Writes() as writes:
            await asked(10)
    assert writes.count == 10 if callers == 1 else writes.count <= 2 * 10 + 8
    assert profile.calls / callers / 10 <= (120 if callers == 1 else 60)
    assert not profile.modules & {"sqlalchemy", "concurrent", "greenlet"}


# --- a row that was decoded before


def changed(path: Path, assignment: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE tokenkeep_issued SET {assignment}")  # noqa: S608  # of this test


def test_a_row_that_was_decoded_before_is_not_fetched_again_however_often_it_was_used(
    url: str, tmp_path: Path, statements: list[str]
) -> None:
    with TokenIssuer.open(url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        token = bearer(issuer.issue("alice"))
        who = issuer.verify(token)
        for _ in range(3):
            issuer.statistics("alice")  # writes the uses
            statements.clear()
            assert issuer.verify(token) is who
            assert [statement.split()[:2] for statement in statements if "PRAGMA" not in statement] == [["SELECT", "1"]]
        changed(tmp_path / "tokens.db", "usage_count = 100")
        assert issuer.verify(token) is who


def test_whatever_is_changed_in_a_row_that_was_decoded_before_shows_at_once(url: str, tmp_path: Path) -> None:
    with TokenIssuer.open(url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        token = bearer(issuer.issue("alice", scopes={"a"}, name="laptop", client="c", metadata={"x": 1}))
        before = issuer.verify(token)
        assert before is not None
        for attribute, value in {"user_id": "bob", "name": "phone", "scopes": "b", "client": "d"}.items():
            changed(tmp_path / "tokens.db", f"{attribute} = '{value}'")
            assert (after := issuer.verify(token)) is not None
            assert getattr(after, attribute) == (frozenset("b") if attribute == "scopes" else value)
        for attribute in ("name", "client", "metadata"):
            changed(tmp_path / "tokens.db", f"{attribute} = NULL")
            assert (after := issuer.verify(token)) is not None
            assert not getattr(after, attribute)
        for attribute in ("created_at", "expires_at"):
            changed(tmp_path / "tokens.db", f"{attribute} = {attribute} - 1")
            assert (after := issuer.verify(token)) is not None
            assert getattr(before, attribute) - getattr(after, attribute) == timedelta(microseconds=1)
        for assignment in ("namespace = 'another'", "namespace = 'default', expires_at = 1", "digest = x'00'"):
            changed(tmp_path / "tokens.db", assignment)
            assert issuer.verify(token) is None


def test_the_last_use_that_is_shown_is_at_most_a_minute_behind(url: str, tmp_path: Path) -> None:
    with TokenIssuer.open(url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        lookup, seconds = issuer._opened.core._store._coarse, [0.0]  # type: ignore[attr-defined]
        lookup._monotonic = lambda: seconds[0]
        token = bearer(issuer.issue("alice"))
        assert (who := issuer.verify(token)) is not None
        assert who.last_used_at is None
        changed(tmp_path / "tokens.db", "last_used_at = created_at + 1")
        seconds[0] = 59.0
        assert issuer.verify(token) is who
        seconds[0] = 60.0
        changed(tmp_path / "tokens.db", "last_used_at = created_at + 2")
        assert (who := issuer.verify(token)) is not None
        assert who.last_used_at == who.created_at + timedelta(microseconds=2)


@pytest.mark.requirement("X2")
def test_where_idleness_counts_the_last_use_is_never_behind(url: str, tmp_path: Path) -> None:
    with TokenIssuer.open(url, lifetime=HOUR, idle=timedelta(minutes=10), keys=KeyRing.generate()) as issuer:
        token = bearer(issuer.issue("alice"))
        assert issuer.verify(token) is not None
        for later in (1, 2):
            changed(tmp_path / "tokens.db", f"last_used_at = created_at + {later}")
            assert (who := issuer.verify(token)) is not None
            assert who.last_used_at == who.created_at + timedelta(microseconds=later)


def test_tokens_share_the_text_that_they_have_in_common(url: str) -> None:
    with TokenIssuer.open(url, lifetime=HOUR, keys=KeyRing.generate()) as issuer:
        tokens = [bearer(issuer.issue(user, scopes={"a"}, client="the same")) for user in ("alice", "bob", "carol")]
        seen = [who for token in tokens if (who := issuer.verify(token)) is not None]
    assert [len({id(getattr(who, name)) for who in seen}) for name in ("namespace", "client", "scopes")] == [1, 1, 1]
