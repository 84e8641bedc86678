"""The chain of the audit trail where somebody knows how it is made, and where many write at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import LargeBinary, bindparam, text
from sqlalchemy.event import listen

from tokenkeep import KeyRing, NewToken, TokenIssuer, TokenVault
from tokenkeep._stepping import run
from tokenkeep.auditing import Auditing
from tokenkeep.errors import ConfigurationError, StoreError
from tokenkeep.model import Account, Action, AuditCheck, AuditEvent
from tokenkeep.ports import START, UNPROVED, Chain, ChainedAudit, Entry, Link
from tokenkeep.stores.sql.direct import open_database
from tokenkeep.stores.sql.migrating import Migrations
from tokenkeep.trail import Walk, digest_of, linked
from trail_tampering import SqlTamper

KEYS = KeyRing.generate()
HOUR = timedelta(hours=1)
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
ALICE = Account("default", "p", "alice")

REWRITE = text(
    "UPDATE tokenkeep_audit SET actor = :actor, digest = :digest, proof = :proof, key_id = :key_id "
    "WHERE user_id = :user AND sequence = :sequence"
).bindparams(bindparam("digest", type_=LargeBinary), bindparam("proof", type_=LargeBinary))
REWRITE_HEAD = text("UPDATE tokenkeep_audit_head SET digest = :digest, sequence = :sequence").bindparams(
    bindparam("digest", type_=LargeBinary)
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/t.db"


@pytest.fixture
def vault(url: str) -> Iterator[TokenVault]:
    """A vault in whose trail alice has five events."""
    with TokenVault.open(url, keys=KEYS) as vault:
        for number in range(5):
            vault.store("alice", NewToken(f"token-{number}"), provider="p")
        yield vault


def links_of(vault: TokenVault, user: str = "alice") -> list[Link]:
    audit = vault._opened._backend.audit
    assert isinstance(audit, ChainedAudit)
    return run(audit.links("default", user, after=0, limit=100))


def forge(vault: TokenVault, url: str, *, keys: KeyRing | None, strip: bool = False) -> AuditCheck:
    """Change the actor of alice's third event, and compute all that follows anew, under other keys or without."""
    links = links_of(vault)
    noted = [(link.account, link.entry) for link in links[2:]]
    assert links[1].mark is not None
    forged, last = linked(noted, {("default", "alice"): links[1].mark}, actor="eve", keys=keys)
    changed = [*(links[:2] if strip else []), *forged]
    tamper = SqlTamper(url)
    for link in changed:
        assert link.mark is not None
        proof = UNPROVED if strip else link.proof
        new = {"actor": link.actor, "digest": link.mark.digest, "proof": proof.code, "key_id": proof.key_id}
        tamper.execute(REWRITE, user="alice", sequence=link.mark.sequence, **new)
    mark = last[("default", "alice")].mark
    assert mark is not None
    tamper.execute(REWRITE_HEAD, **mark._asdict())
    return vault.check_audit("alice")


# --- somebody who knows how it is made ---------------------------------------------------------------


@pytest.mark.requirement("G5")
def test_who_computes_the_chain_anew_without_the_key_is_found(vault: TokenVault, url: str) -> None:
    check = forge(vault, url, keys=None)
    assert (check.intact, check.first_bad) == (False, 3)
    assert "no key proves it" in (check.reason or "")


@pytest.mark.requirement("G5")
def test_who_proves_the_chain_under_a_key_of_his_own_is_found(vault: TokenVault, url: str) -> None:
    check = forge(vault, url, keys=KeyRing.generate())
    assert not check.intact
    assert "not in the ring" in (check.reason or "")


@pytest.mark.requirement("G5")
def test_who_takes_every_proof_away_is_found(vault: TokenVault, url: str) -> None:
    check = forge(vault, url, keys=None, strip=True)
    assert not check.intact
    assert "no key proves it" in (check.reason or "")


@pytest.mark.requirement("G5")
def test_who_takes_a_removal_for_a_purge_must_prove_it(vault: TokenVault, url: str) -> None:
    second = links_of(vault)[1].mark
    assert second is not None
    tamper = SqlTamper(url)
    tamper.remove("alice", 1)
    tamper.remove("alice", 2)
    mark = text("UPDATE tokenkeep_audit_head SET purged = 2, purged_digest = :digest")
    tamper.execute(mark.bindparams(bindparam("digest", type_=LargeBinary)), digest=second.digest)
    check = vault.check_audit("alice")
    assert not check.intact
    assert "no key proves that a purge deleted it" in (check.reason or "")


@pytest.mark.requirement("G5")
@pytest.mark.requirement("S10")
def test_who_puts_an_older_state_back_is_found_by_a_head_that_was_kept(vault: TokenVault, url: str) -> None:
    kept = vault.check_audit("alice").head
    links = links_of(vault)
    assert links[2].mark is not None
    tamper = SqlTamper(url)
    tamper.remove("alice", 4)
    tamper.remove("alice", 5)
    tamper.execute(REWRITE_HEAD, **links[2].mark._asdict())
    assert vault.check_audit("alice").intact  # nothing in the database tells old from new
    check = vault.check_audit("alice", head=kept)
    assert (check.intact, check.first_bad) == (False, 4)
    assert "which an earlier check saw" in (check.reason or "")


@pytest.mark.parametrize("column", ["action", "detail", "at", "digest", "provider", "token_id"])
def test_what_no_event_holds_is_a_flaw_and_no_crash(vault: TokenVault, url: str, column: str) -> None:
    SqlTamper(url).execute(text(f"UPDATE tokenkeep_audit SET {column} = x'00ff' WHERE sequence = 3"))  # noqa: S608  # a parameter of this test
    check = vault.check_audit("alice")
    assert not check.intact
    assert not vault.check_audits().intact


# --- with and without keys ---------------------------------------------------------------------------


def test_without_keys_a_chain_is_whole_and_with_keys_it_is_not_believed() -> None:
    noted = [(ALICE, Entry(action=Action.CREATED, at=NOW, detail={})) for _ in range(3)]
    links, last = linked(noted, {}, actor="me", keys=None)
    chain = Chain(head=last["default", "alice"].mark)
    walk = Walk(chain, None)
    assert [walk.step(link) for link in links] == [None, None, None]
    assert walk.end(chain) is None
    flaw = Walk(chain, KEYS).step(links[0])
    assert flaw is not None
    assert "a program without the keys wrote it" in flaw.reason


@pytest.mark.requirement("G5")
def test_an_honest_event_after_a_forgery_does_not_make_it_good(vault: TokenVault, url: str) -> None:
    forge(vault, url, keys=None, strip=True)
    vault.store("alice", NewToken("honest"), provider="p")
    check = vault.check_audit("alice")
    assert (check.intact, check.first_bad) == (False, 1)


@pytest.mark.requirement("G5")
@pytest.mark.parametrize("rotated", [True, False], ids=["after the rotation", "before it"])
def test_a_forgery_is_found_after_the_key_of_its_day_is_gone(url: str, *, rotated: bool) -> None:
    keys = KeyRing.generate()
    old = keys.key_id
    with TokenVault.open(url, keys=keys) as vault:
        for number in range(5):
            vault.store("alice", NewToken(f"token-{number}"), provider="p")
        keys.add()
        if rotated:
            vault.rotate_keys()
        forge(vault, url, keys=KeyRing.generate())
        SqlTamper(url).execute(text("UPDATE tokenkeep_audit SET key_id = :old"), old=old)
        vault.store("alice", NewToken("honest"), provider="p")
        vault.store("bob", NewToken("token"), provider="p")
        vault.rotate_keys()
        keys.drop(old)
        assert not vault.check_audit("alice").intact
        assert vault.check_audit("bob").intact


WORDS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(st.lists(WORDS, min_size=4, max_size=4), st.lists(WORDS, min_size=4, max_size=4))
def test_no_two_events_read_alike(one: list[str], other: list[str]) -> None:
    def digest(words: list[str]) -> bytes:
        namespace, provider, user, actor = words
        entry = Entry(action=Action.USED, at=NOW, detail={})
        return digest_of(START, Account(namespace, provider, user), entry, actor)

    assert (digest(one) == digest(other)) == (one == other)


def test_a_detail_reads_the_same_from_every_database() -> None:
    def digest(detail: dict[str, Any]) -> bytes:
        return digest_of(START, ALICE, Entry(action=Action.USED, at=NOW, detail=detail), "me")

    assert digest({"a": 1.0, "b": (1, 2)}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1e30}) == digest({"a": 10**30})
    assert digest({"a": 1.5}) != digest({"a": 1})
    assert digest({"a": True}) != digest({"a": 1})
    assert digest({"a": "1"}) != digest({"a": 1})


# --- many ----------------------------------------------------------------------------------------------

CROWD = """
import sys
from datetime import timedelta
from tokenkeep import KeyRing, TokenIssuer
url, keys = sys.argv[1:]
with TokenIssuer.open(url, lifetime=timedelta(hours=1), keys=KeyRing.from_file(keys)) as issuer:
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(15):
        issuer.issue("alice")
"""


@pytest.mark.requirement("G5")
@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mariadb", "mongo", "redis"])
def test_processes_that_append_at_once_leave_an_unbroken_chain(
    request: pytest.FixtureRequest, kind: str, url: str, tmp_path: Path
) -> None:
    where = url if kind == "sqlite" else request.getfixturevalue(f"{kind}_url")
    KEYS.save(tmp_path / "keys")
    with TokenIssuer.open(where, lifetime=HOUR, keys=KEYS) as issuer:
        command = [sys.executable, "-c", CROWD, where, str(tmp_path / "keys")]
        processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.communicate("go\n", timeout=120)
            assert process.returncode == 0
        check = issuer.check_audit("alice")
    assert (check.reason, check.events, check.proved) == (None, 30, 30)


def test_a_transaction_of_many_users_reads_their_heads_in_few_statements(postgres_url: str) -> None:
    seen: list[str] = []
    with TokenVault.open(postgres_url, keys=KEYS) as vault:
        audit: Any = vault._opened._backend.audit
        noted = [
            (Account("default", "p", f"user {number}"), Entry(action=Action.USED, at=NOW, detail={}))
            for number in range(600)
        ]
        run(audit.note_each(noted))
        listen(audit._database.engine, "before_cursor_execute", lambda *given: seen.append(given[2]))
        run(audit.note_each(noted))
        assert sum(statement.startswith("SELECT") for statement in seen) == 2
        assert vault.check_audit("user 599").events == 2


def test_an_issue_adds_one_read_and_one_write_for_the_chain(url: str, statements: list[str]) -> None:
    with TokenIssuer.open(url, lifetime=HOUR, keys=KEYS) as issuer:
        issuer.issue("alice")
        del statements[:]
        issuer.issue("alice")
        kinds = [statement.split()[0] for statement in statements]
    assert kinds == ["BEGIN", "INSERT", "SELECT", "UPDATE", "INSERT", "COMMIT"]


# --- reads -------------------------------------------------------------------------------------------


@pytest.mark.requirement("G6")
@pytest.mark.requirement("V3")
def test_where_a_read_cannot_be_audited_no_token_is_handed_out(url: str) -> None:
    with TokenVault.open(url, keys=KEYS, audit="reads") as vault:
        vault.store("alice", NewToken("secret", expires_in=3600), provider="p")
        assert vault.get_valid("alice", provider="p") is not None
        SqlTamper(url).execute(
            text("CREATE TRIGGER no BEFORE INSERT ON tokenkeep_audit BEGIN SELECT RAISE(ABORT, 'no'); END")
        )
        with pytest.raises(StoreError):
            vault.get_valid("alice", provider="p")
        SqlTamper(url).execute(text("DROP TRIGGER no"))
        token = vault.get_valid("alice", provider="p")
        assert token is not None
        assert token.usage_count == 2
        assert [event.action for event in vault.audit_trail("alice")].count(Action.USED) == 2
        assert vault.check_audit("alice").intact


class Unchained:
    """The trail of a store that keeps no chains."""

    async def note(self, account: Account, entry: Entry) -> None: ...

    async def note_each(self, noted: Sequence[tuple[Account, Entry]]) -> None: ...

    async def audit_trail(self, namespace: str, user_id: str, *, limit: int) -> list[AuditEvent]:  # noqa: ARG002
        return []

    async def purge_audit(self, namespace: str, before: datetime, *, limit: int) -> int:  # noqa: ARG002
        return 0


def test_a_store_without_chains_says_so() -> None:
    with pytest.raises(ConfigurationError, match="without chains"):
        run(Auditing(Unchained(), KEYS, namespace="default").check("alice"))


# --- what was there before -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mariadb"])
def test_what_was_written_before_there_were_chains_is_counted_and_proves_nothing(
    request: pytest.FixtureRequest, kind: str, url: str
) -> None:
    where = url if kind == "sqlite" else request.getfixturevalue(f"{kind}_url")
    with TokenVault.open(where, keys=KEYS) as vault:
        for number in range(2):
            vault.store("alice", NewToken(f"token-{number}"), provider="p")
    back_to_schema_1(where)
    database, naming = open_database(where)
    assert run(Migrations(database, naming).upgrade()).found == 1
    assert run(Migrations(database, naming).differences()) == []
    run(database.close())
    with TokenVault.open(where, keys=KEYS) as vault:
        check = vault.check_audit("alice")
        assert (check.intact, check.events, check.unchained, check.head) == (True, 0, 2, None)
        vault.store("alice", NewToken("chained"), provider="p")
        check = vault.check_audit("alice")
        assert (check.intact, check.events, check.unchained, check.proved) == (True, 1, 2, 1)
        assert len(vault.audit_trail("alice")) == 3
        assert vault.purge(audit_before=datetime.now(UTC) + HOUR).audit_events == 3
        check = vault.check_audit("alice")
        assert (check.intact, check.events, check.unchained, check.purged) == (True, 0, 0, 1)


def back_to_schema_1(url: str) -> None:
    columns = [text(f"ALTER TABLE tokenkeep_audit DROP COLUMN {name}") for name in ("sequence", "digest", "proof")]
    SqlTamper(url).execute(
        *columns,
        text("ALTER TABLE tokenkeep_audit DROP COLUMN key_id"),
        text("DROP TABLE tokenkeep_audit_head"),
        text("UPDATE tokenkeep_meta SET value = '1' WHERE name = 'schema_version'"),
    )


@pytest.mark.requirement("S10")
def test_an_old_backup_that_brings_a_revoked_token_back_is_found_by_the_heads_that_were_kept(tmp_path: Path) -> None:
    database, keys = tmp_path / "tokens.db", KeyRing.generate()
    with TokenIssuer.open(f"sqlite:///{database}", lifetime=HOUR, keys=keys) as issuer:
        token = issuer.issue("alice").token
        issuer.issue("bob")
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(tmp_path / "backup.db")) as backup:
            source.backup(backup)
        issuer.revoke_all("alice")
        heads = issuer.check_audits().heads  # kept elsewhere
    for file in tmp_path.glob("tokens.db*"):
        if not file.name.endswith(".key"):
            file.unlink()
    (tmp_path / "backup.db").rename(database)
    with TokenIssuer.open(f"sqlite:///{database}", lifetime=HOUR, keys=keys) as issuer:
        assert token is not None
        assert issuer.verify(token) is not None  # it is back
        assert issuer.check_audits().intact  # and nothing in the database tells
        checks = issuer.check_audits(heads=heads)
        assert [flawed.user_id for flawed in checks.flawed] == ["alice"]
        issuer.revoke_all("alice")  # what there is to do for each of these
        assert issuer.verify(token) is None
