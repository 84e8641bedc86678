"""The two set-ups of the documentation of fastapi-users as whole applications, and the switch by imports alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx
import pytest

from servers.mongo import Mongo
from tokenkeep.marked import is_marked, marked_digest
from upstream.environment import ROOT
from upstream.serving import serving

SQLALCHEMY: Final = ROOT / "examples" / "fastapi_users_sqlalchemy" / "app.py"
BEANIE: Final = ROOT / "examples" / "fastapi_users_beanie" / "app.py"

ORIGINALS: Final = {
    "from tokenkeep.fastapi_users import ": "from fastapi_users.authentication.strategy.db import ",
    "from tokenkeep.fastapi_users.sqlalchemy import ": "from fastapi_users_db_sqlalchemy.access_token import ",
    "from tokenkeep.fastapi_users.beanie import ": "from fastapi_users_db_beanie.access_token import ",
}

ACCOUNT: Final = {"email": "king.arthur@camelot.bt", "password": "guinevere"}


def as_it_was(example: Path, folder: Path) -> Path:
    """Write the application with the original imports, and make sure that nothing else differs."""
    ours = example.read_text()
    theirs = ours
    for new, old in ORIGINALS.items():
        theirs = theirs.replace(new, old)
    changed = [line for line, other in zip(ours.splitlines(), theirs.splitlines(), strict=True) if line != other]
    assert len(changed) == 2
    assert all(line.startswith("from tokenkeep.") for line in changed)
    path = folder / "original.py"
    path.write_text(theirs)
    return path


def register(client: httpx.Client) -> None:
    assert client.post("/auth/register", json=ACCOUNT).status_code == 201


def login(client: httpx.Client) -> str:
    answer = client.post("/auth/login", data={"username": ACCOUNT["email"], "password": ACCOUNT["password"]})
    assert answer.status_code == 200
    return str(answer.json()["access_token"])


def me(client: httpx.Client, token: str) -> int:
    answer = client.get("/users/me", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code != 200 or answer.json()["email"] == ACCOUNT["email"]
    return answer.status_code


def logout(client: httpx.Client, token: str) -> int:
    return client.post("/auth/logout", headers={"Authorization": f"Bearer {token}"}).status_code


def goes_through_a_day(client: httpx.Client, dump: Callable[[], list[str]]) -> None:
    register(client)
    first, second = login(client), login(client)
    assert [me(client, token) for token in (first, second, "made up", "x" * 44)] == [200, 200, 401, 401]
    assert sorted(dump()) == sorted([marked_digest(first), marked_digest(second)])
    assert [me(client, kept) for kept in dump()] == [401, 401]
    assert [logout(client, first), logout(client, first), logout(client, dump()[0])] == [204, 401, 401]
    assert [me(client, first), me(client, second)] == [401, 200]


def goes_on_after_the_switch(client: httpx.Client, old: list[str], dump: Callable[[], list[str]]) -> None:
    assert sorted(dump()) == sorted(old)  # the original keeps them in clear
    assert [me(client, token) for token in old[:2]] == [200, 200]
    new = login(client)
    assert me(client, new) == 200
    assert sorted(dump()) == sorted([marked_digest(old[0]), marked_digest(old[1]), marked_digest(new), old[2]])
    assert logout(client, old[2]) == 204
    assert all(map(is_marked, dump()))
    assert [me(client, kept) for kept in dump()] == [401] * 3
    assert [me(client, token) for token in (*old, new)] == [200, 200, 401, 200]


# --- SQLAlchemy ---


def dump_sqlite(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT token FROM accesstoken")]
    finally:
        connection.close()


def test_the_sqlalchemy_example_registers_logs_in_shows_me_and_logs_out(tmp_path: Path) -> None:
    with serving(SQLALCHEMY, tmp_path) as client:
        goes_through_a_day(client, lambda: dump_sqlite(tmp_path / "test.db"))


@pytest.mark.requirement("S2")
def test_an_application_of_the_originals_is_switched_by_its_imports_and_nobody_is_logged_out(tmp_path: Path) -> None:
    with serving(as_it_was(SQLALCHEMY, tmp_path), tmp_path) as client:
        register(client)
        old = [login(client) for _ in range(3)]
        assert [me(client, token) for token in old] == [200] * 3
    with serving(SQLALCHEMY, tmp_path) as client:
        goes_on_after_the_switch(client, old, lambda: dump_sqlite(tmp_path / "test.db"))


# --- Beanie ---


def dump_mongo(server: Mongo, name: str) -> list[str]:
    with server.connect() as client:
        return [one["token"] for one in client[name]["access_tokens"].find()]


def test_the_beanie_example_registers_logs_in_shows_me_and_logs_out(tmp_path: Path, mongo_server: Mongo) -> None:
    name = mongo_server.fresh_name()
    with serving(BEANIE, tmp_path, DATABASE_URL=mongo_server.url(""), DATABASE_NAME=name) as client:
        goes_through_a_day(client, lambda: dump_mongo(mongo_server, name))


def test_an_application_on_beanie_is_switched_by_its_imports_and_nobody_is_logged_out(
    tmp_path: Path, mongo_server: Mongo
) -> None:
    name = mongo_server.fresh_name()
    variables = {"DATABASE_URL": mongo_server.url(""), "DATABASE_NAME": name}
    with serving(as_it_was(BEANIE, tmp_path), tmp_path, **variables) as client:
        register(client)
        old = [login(client) for _ in range(3)]
    with serving(BEANIE, tmp_path, **variables) as client:
        goes_on_after_the_switch(client, old, lambda: dump_mongo(mongo_server, name))
