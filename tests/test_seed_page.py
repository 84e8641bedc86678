"""The "Usage" snippets of upstox-totp's page on database storage run as printed, but for the import.

The page is not part of this project; where it stands beside it, its own text is cut out. What it prints is held by
`test_upstox_storage.py` in words of our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from servers.mongo import Mongo
from tokenkeep import KeyRing, upstox_storage
from tokenkeep.testing.upstox import LocalUpstox

PAGES: Final = Path(__file__).resolve().parents[2] / "shared" / "seeds"

USAGE: Final = re.compile(r"# Usage (.*?)(?= [A-Z][A-Za-z -]+ (?:-{3,}|~{3,}))", re.DOTALL)

POSTGRESQL: Final = "postgresql://user:password@localhost/upstox_db"

STATEMENT: Final = re.compile(r"\s+(?=# |\w+ = )|(?<!:)\s+(?=print\()|(?<=\))\s+(?=if )")
"""Where a line began, in a page whose lines have been joined."""


def page() -> str:
    for path in sorted(PAGES.glob("000_*.txt")) if PAGES.is_dir() else ():
        return path.read_text()
    pytest.skip("the page does not stand beside the project")


def snippet(class_name: str) -> str:
    """Cut out the usage of one class, with its lines put back."""
    found = [usage for usage in USAGE.findall(page()) if class_name in usage]
    assert len(found) == 1
    return STATEMENT.sub("\n", " ".join(found[0].split()))


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalUpstox]:
    monkeypatch.chdir(tmp_path)
    keys = tmp_path / "keys"
    KeyRing.generate().save(keys)
    monkeypatch.setenv("TOKENKEEP_KEY_FILE", str(keys))
    with LocalUpstox() as server:
        for variable, value in server.environment().items():
            monkeypatch.setenv(variable, value)
        yield server


def run(code: str, storage: str = "storage") -> dict[str, Any]:
    names: dict[str, Any] = {name: getattr(upstox_storage, name) for name in upstox_storage.__all__}
    try:
        exec(compile(code, "<the page>", "exec"), names)  # noqa: S102  # it is what this test is about
    finally:
        if storage in names:
            names[storage].close()
    return names


def replaced(code: str, old: str, new: str) -> str:
    assert old in code
    return code.replace(old, new)


def shows_no_token(names: dict[str, Any], printed: str) -> bool:
    return "**********" in printed and str(names["result"]["token"]) not in printed


def test_the_simple_class_runs_as_printed(account: LocalUpstox, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(snippet("SQLiteUpstoxStorage"))
    printed = capsys.readouterr().out
    assert f"Stored token for user: {account.account.user_id}" in printed
    assert f"Valid token found: {names['token_info']['token'][:20]}..." in printed
    assert "Token history: 1 entries" in printed
    assert str(names["result"]["token"]) == str(names["token_info"]["token"])
    assert str(names["result"]["token"]) not in printed


def test_the_postgresql_class_runs_as_printed(
    account: LocalUpstox, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = run(replaced(snippet("PostgreSQLUpstoxStorage"), POSTGRESQL, postgres_url))
    printed = capsys.readouterr().out
    assert f"Token stored with ID: {names['result']['token_id']}" in printed
    assert names["result"]["user_id"] == account.account.user_id
    assert names["stats"]["total_tokens"] == names["stats"]["active_tokens"] == 1
    assert str(names["result"]["token"]) not in printed


def test_the_mongodb_class_runs_as_printed(
    account: LocalUpstox, mongo_server: Mongo, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"mongodb://{mongo_server.host}:{mongo_server.port}/"
    try:
        names = run(replaced(snippet("MongoUpstoxStorage"), "mongodb://localhost:27017/", address))
    finally:
        with mongo_server.connect() as client:
            client.drop_database("upstox_db")
    assert shows_no_token(names, capsys.readouterr().out)
    assert names["dashboard"]["user_id"] == account.account.user_id
    assert names["dashboard"]["active_token"]["exists"]


def test_the_hybrid_class_runs_as_printed(
    account: LocalUpstox, postgres_url: str, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    redis = urlsplit(redis_url)
    code = replaced(snippet("HybridUpstoxStorage"), POSTGRESQL, postgres_url)
    code = replaced(code, '"localhost"', f'"{redis.hostname}"')
    code = replaced(code, "6379", str(redis.port))
    names = run(replaced(code, '"db": 0', f'"db": {redis.path.lstrip("/")}'))
    assert shows_no_token(names, capsys.readouterr().out)
    assert names["result"]["user_id"] == account.account.user_id
    assert names["status"]["redis"] == names["status"]["postgresql"] == "healthy"


def test_the_pooled_class_runs_as_printed_with_one_account_for_one_user(account: LocalUpstox) -> None:
    names = run(snippet("PooledUpstoxStorage"), "pooled_storage")
    assert [result["user_id"] for result in names["results"]] == ["user1", "user2", "user3"]
    assert [result["success"] for result in names["results"]] == [True, False, False]
    assert all("error" in result for result in names["results"] if not result["success"])
    assert len(account.logins) == 1
