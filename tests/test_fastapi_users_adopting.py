"""`tokenkeep db adopt-fastapi-users`: every token in clear becomes a digest, and goes on working."""

from __future__ import annotations

import json
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from fastapi_users_models import AccessToken, Base, User
from servers.mongo import Mongo
from tokenkeep import adopting
from tokenkeep.adopting import adopt
from tokenkeep.cli import main
from tokenkeep.errors import ConfigurationError
from tokenkeep.marked import is_marked, marked_digest

TOKENS = [f"{number:04}-a-token-in-clear-as-the-original-ones"[:43] for number in range(2500)]


def filled(url: str, driver: str) -> Any:
    """Make the tables, put tokens in clear into them as the original does, one of them a digest already."""
    engine = create_engine(f"{driver}://{url.partition('://')[2]}")
    Base.metadata.create_all(engine)
    owner = uuid.uuid4()
    user: Any = User.__table__
    kept: Any = AccessToken.__table__
    with engine.begin() as connection:
        values = {"id": owner, "email": "a@b.bt", "hashed_password": "", "is_active": True}
        connection.execute(user.insert().values(**values, is_superuser=False, is_verified=False))
        insert = text("INSERT INTO accesstoken (token, created_at, user_id) VALUES (:token, :at, :owner)")
        at = "2026-02-01 00:00:00"
        rows = [{"token": token, "at": at, "owner": str(owner)} for token in TOKENS]
        connection.execute(insert, rows)
        connection.execute(kept.insert().values(token="NEW", user_id=owner))
    return engine


@pytest.mark.parametrize(
    ("fixture", "driver"),
    [(None, "sqlite"), ("postgres_url", "postgresql+psycopg"), ("mariadb_url", "mysql+pymysql")],
    ids=["sqlite", "postgresql", "mariadb"],
)
def test_every_token_in_clear_becomes_its_digest_in_batches_and_keeps_its_date(
    fixture: str | None, driver: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/app.db" if fixture is None else request.getfixturevalue(fixture)
    engine = filled(url, driver)
    told: list[tuple[int, int]] = []
    try:
        assert adopt(url, "accesstoken", progress=lambda done, total: told.append((done, total))) == 2500
        assert told == [(1000, 2500), (2000, 2500), (2500, 2500)]
        assert adopt(url, "accesstoken") == 0
        with engine.connect() as connection:
            found = {row[0]: row[1] for row in connection.execute(text("SELECT token, created_at FROM accesstoken"))}
        assert set(found) == {marked_digest(token) for token in [*TOKENS, "NEW"]}
        assert str(found[marked_digest(TOKENS[7])]).startswith("2026-02-01 00:00:00")
        with engine.begin() as connection:
            Base.metadata.drop_all(connection)
    finally:
        engine.dispose()


def test_a_collection_is_adopted_too(mongo_server: Mongo) -> None:
    name = mongo_server.fresh_name()
    with mongo_server.connect() as client:
        tokens = client[name]["AccessToken"]
        tokens.insert_many([{"token": token} for token in TOKENS[:1200]] + [{"token": marked_digest("NEW")}])
        assert adopt(mongo_server.url(name), "AccessToken") == 1200
        assert adopt(mongo_server.url(name), "AccessToken") == 0
        assert {one["token"] for one in tokens.find()} == {marked_digest(token) for token in [*TOKENS[:1200], "NEW"]}
        client.drop_database(name)


def test_interrupted_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    filled(url, "sqlite").dispose()

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adopt(url, "accesstoken", progress=interrupt)
    monkeypatch.setattr(adopting, "BATCH", 400)
    assert adopt(url, "accesstoken") == 1500


def test_the_command_says_how_many_and_wants_the_right_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    filled(url, "sqlite").dispose()
    assert command("--table", "tokens", url=url) == 1
    assert "--table" in capsys.readouterr().err
    assert command("--json", url=f"{url.replace('sqlite', 'sqlite+aiosqlite')}") == 0
    assert json.loads(capsys.readouterr().out) == {"table": "accesstoken", "rewritten": 2500}
    assert command(url=url) == 0
    assert "no token of accesstoken is in clear" in capsys.readouterr().out
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        assert all(is_marked(token) for (token,) in connection.execute("SELECT token FROM accesstoken"))


def command(*arguments: str, url: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["db", "adopt-fastapi-users", "--url", url, *arguments])
    return int(ended.value.code or 0)


def test_a_column_that_is_too_narrow_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.execute("CREATE TABLE accesstoken (token VARCHAR(32))")
    with pytest.raises(ConfigurationError, match="widen"):
        adopt(f"sqlite:///{tmp_path}/app.db", "accesstoken")
