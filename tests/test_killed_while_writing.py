"""kill -9 in the middle of the writes to SQLite: what was acknowledged is there, and nothing is half done."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from crowd_control import Worker, Workers, rows
from tokenkeep import KeyRing, NewToken, TokenIssuer, TokenVault
from tokenkeep.errors import UnknownKey
from tokenkeep.testing import FakeClock, FakeProvider

KILLS = 50

AFTER_A_LEASE = 11
"""Seconds after which a lease that a killed process held has ended, by the clock of the test."""

TWO_IN_PLACE = """
    SELECT 1 FROM tokenkeep_token WHERE active = 1 GROUP BY namespace, provider, user_id, kind HAVING count(*) > 1"""

HALF_ENDED = """
    SELECT 1 FROM tokenkeep_token
    WHERE (active IS NULL) <> (access_sealed IS NULL) OR (active IS NULL) = (ended_at IS NULL)"""

_CHANGES = {
    ("token", "provider IS NOT NULL AND action IN ('created', 'stored')"): ("id", "1"),
    ("token", "provider IS NOT NULL AND action = 'revoked'"): ("id", "end_reason = 'revoked'"),
    ("token", "action = 'rejected'"): ("id", "rejected_at IS NOT NULL"),
    ("issued", "provider IS NULL AND action = 'created'"): ("lower(hex(id))", "1"),
    ("issued", "provider IS NULL AND action = 'revoked'"): ("lower(hex(id))", "revoked_at IS NOT NULL"),
}

TOLD_AND_SEEN = [
    f"""
    SELECT (SELECT group_concat(token_id) FROM (SELECT * FROM tokenkeep_audit WHERE {told} ORDER BY token_id)),
           (SELECT group_concat({token_id}) FROM (SELECT * FROM tokenkeep_{table} WHERE {seen} ORDER BY {token_id}))"""  # noqa: S608  # constants
    for (table, told), (token_id, seen) in _CHANGES.items()
]
"""What the trail tells of and what the tables hold, each as a list of ids."""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "tokens.db"


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    ring = KeyRing.generate()
    ring.save(tmp_path / "keys")
    return ring


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[Worker]:
    with Workers() as workers:
        worker = workers.start("crowd_forks.py", keys=str(tmp_path / "keys"))
        yield worker
        worker.leave()


def order(forks: Worker, number: int, **what: Any) -> None:
    forks.tell(json.dumps({"number": number, **what}))


def died(forks: Worker, number: int) -> bool:
    answer: bool = forks.hear(done=number)["died"]
    assert forks.everything("failed") == []
    return answer


def assert_consistent(database: Path) -> None:
    """Look past the library: the file is sound, one row at most is in place, and the trail tells of each change."""
    [(sound,)] = rows(database, "PRAGMA integrity_check")
    assert sound == "ok"
    assert rows(database, TWO_IN_PLACE) == []
    assert rows(database, HALF_ENDED) == []
    for query in TOLD_AND_SEEN:
        [(told, seen)] = rows(database, query)
        assert told == seen, query


@pytest.mark.requirement("D3")
@pytest.mark.parametrize(
    ("work", "before", "after"),
    [
        ("store", "before", "after"),
        ("acquire", "before", "granted"),
        ("reject", "before", None),
        ("revoke", "before", None),
        ("uses", "before", "before"),
        ("purge", None, None),
    ],
)
def test_a_change_that_is_cut_off_between_any_two_statements_happened_whole_or_not_at_all(
    forks: Worker, database: Path, keys: KeyRing, work: str, before: str | None, after: str | None
) -> None:
    url, clock = f"sqlite:///{database}", FakeClock()
    found: list[str | None] = []
    if work == "purge":
        clock.advance(timedelta(hours=2))
    for at in range(1, 100):
        order(forks, at, work=work, url=url, user=f"user {at}", at=at)
        killed = died(forks, at)
        assert_consistent(database)
        with TokenVault.open(url, keys=keys, providers=[FakeProvider()], clock=clock) as vault:
            token = vault.get_valid(f"user {at}")
        found.append(None if token is None else token.metadata.get("made", "granted"))
        if not killed:
            break
    assert not killed, "the change never came to its end"
    assert len(found) > 3
    assert {state for state in found if state != before} <= {after}
    assert found == sorted(found, key=lambda state: state != before)
    assert (found[0], len(set(found)) > 1) == (before, before != after)


@pytest.mark.requirement("K4", "G5")
def test_what_was_acknowledged_survives_fifty_kills_at_any_moment(forks: Worker, database: Path, keys: KeyRing) -> None:
    seed = random.randrange(2**32)  # noqa: S311  # moments, not secrets
    print(f"seed {seed}")  # noqa: T201  # pytest shows it when the test fails
    moments = random.Random(seed)  # noqa: S311  # moments, not secrets
    url, clock = f"sqlite:///{database}", FakeClock()
    stored = 0
    for number in range(KILLS):
        order(forks, number, work="change_and_tell", url=url, later=number * AFTER_A_LEASE)
        pid = forks.hear(writing=number)["pid"]
        time.sleep(moments.uniform(0, 0.08))
        os.kill(pid, signal.SIGKILL)
        assert died(forks, number)
        told = [(version, token) for of, version, token in forks.everything("acknowledged") if of == number]
        assert_consistent(database)
        kept = rows(database, "SELECT version, end_reason FROM tokenkeep_token ORDER BY version")
        assert [row["version"] for row in kept] == list(range(1, len(kept) + 1))
        stored += sum(token is not None for _, token in told)
        assert stored <= len(kept) <= stored + 1
        revoked = {row["version"] for row in kept if row["end_reason"] == "revoked"}
        assert {version for version, token in told if token is None} <= revoked
        with TokenVault.open(url, keys=keys, providers=[FakeProvider()], clock=clock) as vault:
            found = vault.get_valid("alice")
        version, token = told[-1]
        if len(kept) == version and (version not in revoked or token is None):  # no change followed unacknowledged
            assert (None if found is None else found.access_token.reveal()) == token
        stored = len(kept)
    clock.advance(timedelta(seconds=KILLS * AFTER_A_LEASE))
    with TokenIssuer.open(url, lifetime=timedelta(hours=1), keys=keys, clock=clock) as issuer:
        assert all(issuer.verify(token) for token in forks.everything("issued"))
        assert not any(issuer.verify(token) for token in forks.everything("revoked"))
    assert stored > 2 * KILLS
    assert len(forks.everything("revoked")) > KILLS / 5


@pytest.mark.requirement("S7")
def test_a_rotation_of_keys_that_is_killed_between_any_two_statements_loses_no_token(
    forks: Worker, tmp_path: Path, keys: KeyRing
) -> None:
    users = [f"user {number}" for number in range(5)]
    original, old = tmp_path / "original.db", keys.key_id
    with opened(original, keys) as vault:
        for user in users:
            vault.store(user, NewToken(f"token of {user}", refresh_token=f"refresh token of {user}"))
    keys.add()
    keys.save(tmp_path / "keys")
    only_new = KeyRing.from_file(tmp_path / "keys")
    only_new.drop(old)
    halves = 0
    for at in range(1, 300):
        database = tmp_path / f"{at}.db"
        shutil.copy(original, database)
        order(forks, at, work="rotate", url=f"sqlite:///{database}", at=at)
        killed = died(forks, at)
        sealed = {row["key_id"] for row in rows(database, "SELECT key_id FROM tokenkeep_token")}
        halves += len(sealed) == 2
        with TokenVault.open(
            f"sqlite:///{database}", keys=keys, providers=[FakeProvider()], clock=FakeClock()
        ) as vault:
            assert [read(vault, user) for user in users] == [read_as(user) for user in users]
            assert vault.rotate_keys().unused == (old,)
        assert tokens_of(database, only_new, users) == [read_as(user) for user in users]
        if not killed:
            break
    assert not killed, "the rotation never came to its end"
    assert halves > 3
    with pytest.raises(UnknownKey):
        tokens_of(original, only_new, users)


def opened(database: Path, ring: KeyRing) -> TokenVault:
    return TokenVault.open(f"sqlite:///{database}", keys=ring, providers=[FakeProvider()], clock=FakeClock())


def tokens_of(database: Path, ring: KeyRing, users: list[str]) -> list[tuple[str, str]]:
    with opened(database, ring) as vault:
        return [read(vault, user) for user in users]


def read(vault: TokenVault, user: str) -> tuple[str, str]:
    token = vault.get_valid(user)
    assert token is not None
    assert token.refresh_token is not None
    return token.access_token.reveal(), token.refresh_token.reveal()


def read_as(user: str) -> tuple[str, str]:
    return f"token of {user}", f"refresh token of {user}"
