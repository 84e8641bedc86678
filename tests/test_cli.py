from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tokenkeep import KeyRing, NewToken, TokenIssuer, TokenVault
from tokenkeep.cli import accounts, exits, main
from tokenkeep.errors import ConfigurationError, ProviderRejected
from tokenkeep.providers import FunctionProvider
from tokenkeep.testing import Canary
from tokenkeep.testing.upstox import Faults, LocalAccount, LocalUpstox

SCRIPT = [sys.executable, "-c", "from tokenkeep.cli import main; main()"]


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        *notes, error = [json.loads(line) for line in self.err.splitlines()]
        assert all(set(note) == {"note"} for note in notes)
        return error["error"]


type Run = Callable[..., Result]


@pytest.fixture(scope="module")
def upstox() -> Iterator[LocalUpstox]:
    with LocalUpstox() as server:
        yield server


@pytest.fixture
def account(upstox: LocalUpstox, monkeypatch: pytest.MonkeyPatch) -> LocalAccount:
    """An account of this test alone, in the environment."""
    account = upstox.add_account()
    for variable, value in account.environment().items():
        monkeypatch.setenv(variable, value)
    return account


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database that the environment names; it is not there yet."""
    monkeypatch.setenv("TOKENKEEP_URL", f"sqlite:///{tmp_path}/t.db")
    monkeypatch.chdir(tmp_path)
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "t.db"


@pytest.fixture
def run(database: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command in this process."""
    del database

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "\x1b" not in captured.out + captured.err
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def filled(database: Path) -> str:
    """A database in which Alice has a token that she was given, of Upstox; return the token."""
    with TokenVault.open(f"sqlite:///{database}") as vault:
        vault.store("alice", NewToken("first-token-of-alice", expires_in=3600), provider="upstox")
        vault.store("alice", NewToken("token-of-alice", expires_in=7200), provider="upstox")
    return "token-of-alice"


# --- the road of a trader ---


def test_a_trader_logs_in_gets_the_token_and_looks_at_the_status(run: Run, account: LocalAccount) -> None:
    logged_in = run("login", "alice")
    assert logged_in.code == 0
    assert "version 1, kept" in logged_in.out
    got = run("get", "alice")
    assert (got.code, got.err) == (0, "")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", got.out)
    assert run("get", "alice").out == got.out
    status = run("status")
    assert status.code == 0
    assert "healthy" in status.out
    assert account.pin_code not in logged_in.out + status.out


def test_get_logs_in_once_and_prints_only_the_token(run: Run, upstox: LocalUpstox, account: LocalAccount) -> None:
    tokens = {run("get", "alice").out for _ in range(3)}
    assert len(tokens) == 1
    logins = [login for login in upstox.logins if login.account == account.user_id]
    assert [login.granted for login in logins] == [True]


def test_get_reads_without_an_account_where_a_token_is_in_place(run: Run, filled: str) -> None:
    assert run("get", "alice") == (0, f"{filled}\n", "")


def test_get_in_a_shell(database: Path, filled: str) -> None:
    command = f'echo "Authorization: Bearer $({sys.executable} -c "from tokenkeep.cli import main; main()" get alice)"'
    shell = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert shell.stdout == f"Authorization: Bearer {filled}\n"
    assert database.exists()


def test_get_as_json(run: Run, filled: str) -> None:
    got = run("get", "alice", "--json").json
    assert got["access_token"] == filled
    assert got["version"] == 2
    assert datetime.fromisoformat(got["expires_at"]) > datetime.now(UTC)


@pytest.mark.usefixtures("account")
def test_get_without_login_says_so_by_its_code(run: Run, filled: str) -> None:
    assert run("get", "alice", "--no-login").out == f"{filled}\n"
    nobody = run("get", "bob", "--no-login")
    assert (nobody.code, nobody.out) == (exits.NOTHING, "")
    assert "`tokenkeep login` gets one" in nobody.err
    assert run("get", "alice", "--no-login", "--kind", "extended").code == exits.NOTHING
    assert run("get", "alice", "--no-login", "--min-validity", 7300).code == exits.NOTHING
    assert run("get", "alice", "--no-login", "--min-validity", 7000).code == 0
    assert run("--json", "get", "bob", "--no-login").error["exit_code"] == exits.NOTHING


# --- what goes wrong ---


def test_a_missing_variable_is_named(run: Run, database: Path) -> None:
    for words in (("login", "alice"), ("get", "alice")):
        failed = run(*words)
        assert (failed.code, failed.out) == (exits.FAILED, "")
        assert "UPSTOX_PIN_CODE" in failed.err
        assert len(failed.err.splitlines()) == 1
    assert not database.exists()


def test_a_wrong_pin_is_a_rejection(run: Run, account: LocalAccount) -> None:
    account.faults = Faults(wrong_pin=True)
    failed = run("login", "alice")
    assert (failed.code, failed.out) == (exits.REJECTED, "")
    again = run("get", "alice", "--json")
    assert again.error["type"] == "ProviderRejected"
    assert again.code == again.error["exit_code"] == exits.REJECTED
    assert account.pin_code not in failed.err + again.err


def test_an_overloaded_provider_is_unavailable(run: Run, account: LocalAccount) -> None:
    account.faults = Faults(too_many="dialog", retry_after=40)
    failed = run("login", "alice", "--json")
    assert failed.code == exits.UNAVAILABLE
    assert failed.error["type"] == "ProviderUnavailable"
    assert failed.error["retry_after"] == 40


def test_a_lost_answer_is_in_doubt(run: Run, account: LocalAccount) -> None:
    account.faults = Faults(lost_answer="token")
    failed = run("login", "alice", "--json")
    assert (failed.code, failed.error["type"]) == (exits.UNAVAILABLE, "AcquireInDoubt")


def test_a_file_that_is_no_database(run: Run, database: Path) -> None:
    database.write_text("this is not a database, and long enough to be told from one " * 40)
    for words in (("list",), ("status",)):
        assert run(*words).code == exits.STORE


def test_a_database_that_is_not_there_is_not_made_by_reading(run: Run, database: Path) -> None:
    for words in (("list",), ("history", "a"), ("stats", "a"), ("audit", "a"), ("revoke", "a"), ("purge",)):
        failed = run(*words)
        assert failed.code == exits.STORE
        assert "there is no database" in failed.err
    status = run("status", "--json")
    assert status.code == exits.STORE
    assert status.json["healthy"] is False
    assert not list(database.parent.iterdir())


def test_a_lost_key(run: Run, database: Path, filled: str) -> None:
    KeyRing.generate().save(database.with_name("t.db.key"))
    for words in (("get", "alice"), ("status",), ("keys", "list")):
        failed = run(*words)
        assert failed.code == exits.SEALING
        assert filled not in failed.out + failed.err


@pytest.mark.parametrize(
    "words",
    [
        ("get",),
        ("nonsense",),
        ("history", "alice", "--limit", "0"),
        ("list", "--since", "yesterday"),
        ("get", "a" * 256),
        ("get", "a", "--min-validity", "nan"),
    ],
)
def test_a_wrong_call_is_refused(run: Run, filled: str, words: tuple[str, ...]) -> None:
    failed = run(*words)
    assert (failed.code, failed.out) == (exits.USAGE, "")
    assert len(failed.err.splitlines()) == 1
    assert run("--json", *words).error["exit_code"] == exits.USAGE
    assert filled not in failed.err


def test_an_unexpected_error_is_told_by_name_and_with_debug_by_its_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        empty: dict[str, Any] = {}
        return empty["this could quote anything"]

    monkeypatch.setattr(accounts, "LOGINS", {"upstox": broken})
    failed = run("login", "alice")
    assert failed.code == exits.FAILED
    assert failed.err.startswith("an unexpected KeyError")
    assert "quote" not in failed.err
    assert "Traceback" in run("login", "alice", "--debug").err


def test_text_of_unknown_origin_does_not_steer_the_terminal(run: Run, filled: str) -> None:
    del filled
    failed = run("history", "eve\x1b[2J\r\nalice [red]", "--provider", "acme")
    assert (failed.code, failed.out) == (0, "no tokens\n")
    assert run("get", "eve\x1b[2J", "--no-login").err.count("\n") == 1


# --- several accounts ---


def fetch(user: str) -> NewToken:
    if user == "bob":
        reason = "no such account"
        raise ProviderRejected(reason)
    return NewToken(f"token-of-{user}", expires_in=600)


def test_several_logins_tell_of_each_and_fail_if_one_did(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "LOGINS", {"upstox": lambda: FunctionProvider("upstox", fetch)})
    result = run("login", "alice", "bob", "carol")
    assert result.code == exits.REJECTED
    rows = [line.split()[:2] for line in result.out.splitlines()]
    assert rows == [["user", "token"], ["alice", "kept"], ["bob", "failed"], ["carol", "kept"]]
    assert "one upstox account" in result.err
    told = run("login", "alice", "bob", "--json").json
    assert [(item["user_id"], item["ok"]) for item in told] == [("alice", True), ("bob", False)]
    assert told[1]["error"]["type"] == "ProviderRejected"


def test_an_unknown_provider_cannot_log_in_but_can_be_read(run: Run, database: Path) -> None:
    with TokenVault.open(f"sqlite:///{database}") as vault:
        vault.store("alice", NewToken("elsewhere", expires_in=600), provider="acme")
    assert run("get", "alice", "--provider", "acme").out == "elsewhere\n"
    failed = run("login", "alice", "--provider", "acme")
    assert failed.code == exits.FAILED
    assert "log in from Python" in failed.err


# --- reports ---


def test_reports_tell_what_happened(run: Run, filled: str) -> None:
    run("get", "alice")
    assert [line.split()[4] for line in run("history", "alice").out.splitlines()[1:]] == ["active", "replaced"]
    assert len(run("list").out.splitlines()) == 3
    assert run("list", "--until", "1h").out == "no tokens\n"
    assert run("list", "--user", "bob").out == "no tokens\n"
    assert re.search(r"^uses +1$", run("stats", "alice").out, re.MULTILINE)
    assert run("audit", "alice").out.count("stored") == 2
    assert run("audit", "bob").out == "no events\n"
    assert filled not in run("list").out


@pytest.mark.requirement("G2")
def test_events_bear_the_names_that_collectors_of_events_know(run: Run, filled: str) -> None:
    del filled
    run("get", "alice")
    run("revoke", "alice")
    events = run("audit", "alice", "--json").json
    assert [event["event"] for event in events] == [
        *("tokenkeep_provider_revoke_failed", "authn_token_revoked"),
        *("authn_token_created", "authn_token_created"),
    ]
    assert all({"action", "user_id", "token_id", "at", "actor", "detail"} <= set(event) for event in events)


@pytest.mark.requirement("G3")
def test_a_name_that_would_forge_lines_or_steer_the_terminal_is_shown_harmlessly(run: Run, database: Path) -> None:
    name = "eve\r\n2026-11-27 alice revoked\x1b[2J"
    with TokenVault.open(f"sqlite:///{database}") as vault:
        vault.store(name, NewToken("t"), provider="upstox")
    shown = run("audit", name)
    assert len(shown.out.splitlines()) == 2
    assert not {"\r", "\x1b"} & set(shown.out)
    assert run("audit", name, "--json").json[0]["user_id"] == name
    checked = run("audit", "--verify")
    assert checked.code == exits.OK


@pytest.mark.requirement("G5")
def test_the_trail_is_checked_and_a_change_is_told(run: Run, filled: str, database: Path, tmp_path: Path) -> None:
    del filled
    heads = tmp_path / "heads.json"
    assert run("audit", "--verify", "--heads", heads).code == exits.OK
    assert json.loads(heads.read_text())["alice"].startswith("2:")
    assert run("audit", "alice", "--verify", "--heads", heads).code == exits.OK
    assert run("audit", "alice", "--verify", "--json").json["proved"] == 2
    assert run("audit", "--verify", "--json").json["intact"] is True
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM tokenkeep_audit WHERE user_id = 'alice'")
        connection.execute("DELETE FROM tokenkeep_audit_head")
    assert run("audit", "--verify").code == exits.OK  # without a trace in the database
    for words in (("audit", "--verify"), ("audit", "alice", "--verify")):
        checked = run(*words, "--heads", heads)
        assert checked.code == exits.TAMPERED
        assert "event 1: it is missing, with all up to 2, which an earlier check saw" in checked.out
        assert "find out who wrote to it" in checked.err
    assert json.loads(heads.read_text())["alice"].startswith("2:")


def test_a_check_that_was_asked_for_wrongly_says_how(run: Run, filled: str, tmp_path: Path) -> None:
    del filled
    assert run("audit").code == exits.USAGE
    assert run("audit", "alice", "--heads", "x").code == exits.USAGE
    broken = tmp_path / "heads.json"
    for text in ("{", "[]", '{"alice": 5}'):
        broken.write_text(text)
        refused = run("audit", "--verify", "--heads", broken)
        assert refused.code == exits.FAILED
        assert "heads.json" in refused.err
    assert run("audit", "--verify", "--heads", tmp_path / "no" / "folder").code == exits.FAILED


def test_reports_as_json(run: Run, filled: str) -> None:
    del filled
    history = run("history", "alice", "--json").json
    assert [token["version"] for token in history] == [2, 1]
    assert run("--json", "history", "alice").json == history
    assert run("list", "--json").json == history
    assert run("history", "alice", "--limit", "1", "--json").json == history[:1]
    assert run("stats", "alice", "--json").json["total_tokens"] == 2
    assert run("stats", "alice", "--kind", "all", "--json").json["total_tokens"] == 2
    assert [event["action"] for event in run("audit", "alice", "--json").json] == ["stored", "stored"]
    status = run("status", "--json").json
    assert status["healthy"] is True
    assert status["schema_version"] >= 1
    assert len(status["key_ids"]) == 1


def test_namespaces_are_kept_apart(run: Run, filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("get", "alice", "--no-login", "--namespace", "other").code == exits.NOTHING
    monkeypatch.setenv("TOKENKEEP_NAMESPACE", "other")
    assert run("get", "alice", "--no-login").code == exits.NOTHING
    assert run("get", "alice", "--no-login", "--namespace", "default").out == f"{filled}\n"


def test_an_option_before_the_command_overrules_the_environment(
    run: Run, filled: str, monkeypatch: pytest.MonkeyPatch, database: Path
) -> None:
    monkeypatch.setenv("TOKENKEEP_URL", "sqlite:///nowhere.db")
    assert run("--url", f"sqlite:///{database}", "get", "alice").out == f"{filled}\n"
    assert run("--url", "sqlite:///nowhere.db", "get", "alice", "--url", f"sqlite:///{database}").code == 0


def test_without_a_url_the_database_is_tokens_db_here(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TOKENKEEP_URL")
    assert "tokens.db" in run("list").err
    with TokenVault.open(f"sqlite:///{tmp_path}/tokens.db"):
        pass
    assert run("list").out == "no tokens\n"


# --- ending ---


def test_revoke_ends_the_token_here_and_there(run: Run, account: LocalAccount) -> None:
    run("login", "alice")
    revoked = run("revoke", "alice")
    assert revoked.code == 0
    assert "the provider ended it too" in revoked.out
    assert run("get", "alice", "--no-login").code == exits.NOTHING
    assert run("revoke", "alice").code == exits.NOTHING
    assert account.totp_secret not in revoked.out


def test_revoke_says_when_the_provider_did_not_listen(run: Run, account: LocalAccount) -> None:
    run("login", "alice")
    account.faults = Faults(broken="logout")
    revoked = run("revoke", "alice", "--json")
    assert revoked.code == 0
    assert revoked.json == {"user_id": "alice", "revoked": True, "provider": ["provider_revoke_failed"]}


@pytest.mark.requirement("K7")
def test_a_provider_that_did_not_listen_is_counted_and_told_by_a_later_purge(
    run: Run, account: LocalAccount, database: Path
) -> None:
    run("login", "alice")
    account.faults = Faults(broken="logout")
    run("revoke", "alice")
    waiting = run("status", "--json").json["awaiting_revocation"]
    assert waiting >= 1
    assert "to be revoked at the provider" in run("status").out
    assert run("purge", "--json").json["provider_revoked"] == 0
    account.faults = Faults()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE tokenkeep_token SET revoke_at = 0 WHERE revoke_at IS NOT NULL")
    assert run("purge", "--json").json["provider_revoked"] == waiting
    assert run("status", "--json").json["awaiting_revocation"] == 0


@pytest.mark.requirement("K9")
def test_forget_removes_a_user_and_says_when_a_provider_has_still_to_be_told(
    run: Run, account: LocalAccount, database: Path
) -> None:
    run("login", "alice")
    with TokenIssuer.open(f"sqlite:///{database}", lifetime=timedelta(hours=1)) as issuer:
        issuer.issue("alice")
    account.faults = Faults(broken="logout")
    waiting = run("forget", "alice", "--json")
    assert waiting.code == exits.UNAVAILABLE
    told = {"acquired_tokens": 0, "issued_tokens": 1, "awaiting_revocation": 1}
    assert waiting.json == {"user_id": "alice", **told}
    account.faults = Faults()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE tokenkeep_token SET revoke_at = 0")
    run("purge")
    forgotten = run("forget", "alice")
    assert forgotten.code == 0
    assert "acquired tokens" in forgotten.out
    assert run("list", "--json").json == []
    assert run("audit", "alice", "--verify").code == exits.OK


class Yesterday:
    def now(self) -> datetime:
        return datetime.now(UTC) - timedelta(days=1)


def test_purge_erases_what_has_ended(run: Run, filled: str, database: Path) -> None:
    with TokenVault.open(f"sqlite:///{database}", clock=Yesterday()) as vault:
        vault.store("carol", NewToken("yesterdays-token", expires_in=3600), provider="upstox")
    assert run("purge", "--expired-before", "30d", "--json").json["secrets"] == 0
    assert run("purge", "--json").json["secrets"] == 1
    assert re.search(r"secrets erased +0", run("purge").out)
    assert run("purge", "--audit-before", "2020-01-01", "--json").json["audit_events"] == 0
    assert run("purge", "--audit-before", "0s", "--json").json["audit_events"] >= 3
    assert run("get", "alice", "--no-login").out == f"{filled}\n"
    assert run("audit", "alice").out == "no events\n"
    assert len(run("history", "alice", "--json").json) == 2
    assert filled not in run("history", "alice").out


# --- keys ---


def test_keys_are_made_listed_and_rotated(run: Run, database: Path) -> None:
    made = run("keys", "new", "--json").json
    key_file = database.with_name("t.db.key")
    assert made["file"] == str(key_file)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert run("keys", "list", "--json").json == [{"key_id": made["key_id"], "seals": True, "in_use": False}]
    with TokenVault.open(f"sqlite:///{database}") as vault:
        vault.store("alice", NewToken("token-of-alice", expires_in=600), provider="upstox")
    assert run("keys", "list", "--json").json[0]["in_use"] is True
    rotated = run("keys", "rotate", "--add", "--json").json
    assert rotated["resealed"] == 1
    assert rotated["unused"] == [made["key_id"]]
    assert len(run("keys", "list", "--json").json) == 2
    assert run("keys", "rotate", "--drop-unused", "--json").json["dropped"] == [made["key_id"]]
    assert [key["key_id"] for key in run("keys", "list", "--json").json] == [rotated["key_id"]]
    assert run("get", "alice").out == "token-of-alice\n"


def test_a_second_key_is_added_to_the_file(run: Run, database: Path, filled: str) -> None:
    first = run("keys", "list", "--json").json[0]["key_id"]
    added = run("keys", "new")
    assert added.code == 0
    assert "keys rotate" in added.out
    keys = run("keys", "list", "--json").json
    assert [key["key_id"] for key in keys][1:] == [first]
    assert [key["seals"] for key in keys] == [True, False]
    assert run("get", "alice").out == f"{filled}\n"
    assert database.exists()


def test_a_key_in_use_is_not_dropped(run: Run, database: Path, filled: str) -> None:
    first = run("keys", "list", "--json").json[0]["key_id"]
    with TokenIssuer.open(f"sqlite:///{database}", lifetime=timedelta(hours=1)) as issuer:
        issued = issuer.issue("alice")
    rotated = run("keys", "rotate", "--add", "--drop-unused")
    assert rotated.code == 0
    assert f"kept {first}" in rotated.err
    assert first in [key["key_id"] for key in run("keys", "list", "--json").json]
    with TokenIssuer.open(f"sqlite:///{database}", lifetime=timedelta(hours=1)) as issuer:
        assert issued.token is not None
        assert issuer.verify(issued.token) is not None
    assert run("get", "alice").out == f"{filled}\n"


def test_a_key_file_elsewhere(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run("keys", "new", "--file", tmp_path / "ring")
    assert "TOKENKEEP_KEY_FILE" in made.out
    monkeypatch.setenv("TOKENKEEP_KEY_FILE", str(tmp_path / "ring"))
    assert len(run("keys", "list", "--json").json) == 1
    assert "added key" in run("keys", "new").out
    assert len(run("keys", "list", "--json").json) == 2


def test_keys_of_the_environment_are_not_changed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    KeyRing.generate().save(tmp_path / "ring")
    [key] = [line for line in (tmp_path / "ring").read_text().splitlines() if not line.startswith("#")]
    monkeypatch.setenv("TOKENKEEP_KEYS", key)
    with TokenVault.open(f"sqlite:///{tmp_path}/t.db"):
        pass
    for words in (("keys", "new"), ("keys", "rotate", "--add"), ("keys", "rotate", "--drop-unused")):
        failed = run(*words)
        assert failed.code == exits.FAILED
        assert "TOKENKEEP_KEYS" in failed.err
        assert key not in failed.err
    assert run("keys", "rotate").code == 0
    assert not (tmp_path / "t.db.key").exists()


def test_keys_that_are_not_there_cannot_be_listed(run: Run) -> None:
    failed = run("keys", "list")
    assert failed.code == exits.FAILED
    assert "t.db.key" in failed.err


# --- nothing leaks ---


@pytest.mark.requirement("G4")
def test_no_secret_is_in_any_output_but_that_of_get(run: Run, account: LocalAccount, database: Path) -> None:
    account.extended = True
    said: list[Result] = [run("login", "alice")]
    canary = Canary()
    for kind in ("access", "extended"):
        canary.watch(run("get", "alice", "--kind", kind).out.strip(), label=f"the {kind} token")
    canary.watch(*(getattr(account, name) for name in ("password", "pin_code", "totp_secret", "client_secret")))
    plain = (
        *(("keys", "new"), ("keys", "list"), ("keys", "rotate", "--add", "--drop-unused")),
        *(("list",), ("history", "alice"), ("stats", "alice"), ("audit", "alice"), ("status",)),
        *(("get", "bob", "--no-login"), ("revoke", "alice"), ("purge",)),
    )
    for words in plain:
        said += [run(*words), run(*words, "--json"), run(*words, "--debug")]
    account.faults = Faults(wrong_pin=True)
    said += [run("login", "bob", "--debug", "--provider", "acme")]
    canary.watch(
        *re.findall(r"^tkk_[^_]+_(\S+)$", database.with_name("t.db.key").read_text(), re.MULTILINE), label="key"
    )
    found = [finding for result in said for finding in canary.found_in(result.out + result.err)]
    assert not found
    assert all(result.out or result.err for result in said)


# --- a process of its own ---


def call(*arguments: str, **more: str) -> Result:
    done = subprocess.run([*SCRIPT, *arguments], capture_output=True, text=True, env=os.environ | more, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


def test_a_key_that_was_made_by_itself_is_told_of(database: Path, account: LocalAccount) -> None:
    result = call("get", "alice")
    assert result.code == 0
    assert "made t.db.key to seal the tokens with" in result.err
    assert len(result.out.splitlines()) == 1
    assert account.pin_code not in result.err
    assert database.exists()


def test_at_a_terminal_there_are_colours_unless_no_color_is_set(database: Path, filled: str) -> None:
    assert database.exists()
    coloured = call("history", "alice", FORCE_COLOR="1")
    assert "\x1b[36m" in coloured.out
    assert filled not in coloured.out
    assert "\x1b[36m" not in call("history", "alice", FORCE_COLOR="1", NO_COLOR="1").out
    assert "\x1b" not in call("history", "alice").out
    assert "\x1b" not in call("history", "alice", "--json", FORCE_COLOR="1").out


def test_the_help_tells_the_exit_codes() -> None:
    help_text = call("--help")
    assert help_text.code == 0
    assert all(f"{code}:" in help_text.out for code in exits.MEANING)


def test_the_documentation_tells_the_exit_codes() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "cli.md").read_text()
    assert re.findall(r"^\| `(\d+)` \|", page, re.MULTILINE) == [str(code) for code in exits.MEANING]


def test_ctrl_c_during_a_login_ends_it_and_gives_the_lease_back(
    database: Path, upstox: LocalUpstox, account: LocalAccount
) -> None:
    account.faults = Faults(delay={"otp_generate": 2.0})
    process = subprocess.Popen([*SCRIPT, "login", "alice"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    patience = time.monotonic() + 30
    while not [login for login in upstox.logins if login.account == account.user_id]:
        assert time.monotonic() < patience
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (exits.INTERRUPTED, "")
    assert "Traceback" not in errors
    with closing(sqlite3.connect(database)) as connection:
        [(owner,)] = connection.execute("SELECT owner FROM tokenkeep_lease")
    assert owner is None


def test_watching_prints_a_line_for_each_version_and_no_token_until_ctrl_c(database: Path) -> None:
    with TokenVault.open(f"sqlite:///{database}") as vault:
        put = [vault.store("alice", NewToken("a-token-that-sings"), provider="upstox")]
        process = subprocess.Popen(
            [*SCRIPT, "watch", "alice", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        put.append(vault.store("alice", NewToken("a-token-that-sings"), provider="upstox"))
        lines.append(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=30)
    assert (process.returncode, rest, errors) == (exits.INTERRUPTED, b"", b"")
    assert [json.loads(line)["id"] for line in lines] == [token.id for token in put]
    assert b"sings" not in b"".join(lines)


def test_a_provider_without_account_is_none_that_can_log_in() -> None:
    assert accounts.without_account("acme") is None
    assert accounts.policy_of("upstox") is not None
    with pytest.raises(ConfigurationError):
        accounts.login_at("acme")
