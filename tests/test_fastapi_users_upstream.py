"""The tests of the original packages, byte for byte, on our modules in the place of theirs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from upstream.environment import DB_BEANIE, DB_SQLALCHEMY, FASTAPI_USERS, environment, python, source


def passed(requirement: str, test: str, folder: Path, *, sqlalchemy: str = "2.0", **variables: str) -> int:
    """Run one of their test files in a copy of their tests, and return how many passed; any other end fails."""
    shutil.copytree(source(requirement) / "tests", folder / "tests")
    original = (source(requirement) / "tests" / test).read_bytes()
    assert (folder / "tests" / test).read_bytes() == original
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\nmarkers = authentication\n")
    command: list[str] = [
        str(python(sqlalchemy)),
        "-m",
        "pytest",
        "-q",
        "-p",
        "upstream.swap",
        "-p",
        "no:cacheprovider",
        f"tests/{test}",
    ]
    run = subprocess.run(
        command, cwd=folder, env=environment(**variables), capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    summary = re.search(r"^(\d+) passed(?! *,)", run.stdout, re.MULTILINE)
    assert summary, run.stdout
    assert "skipped" not in run.stdout
    return int(summary[1])


def test_the_originals_tests_of_the_strategy_pass(tmp_path: Path) -> None:
    assert passed(FASTAPI_USERS, "test_authentication_strategy_db.py", tmp_path) == 6


@pytest.mark.parametrize("sqlalchemy", ["2.0", "2.1"])
@pytest.mark.parametrize(
    ("fixture", "scheme"),
    [(None, ""), ("postgres_url", "postgresql+asyncpg"), ("mariadb_url", "mysql+asyncmy")],
    ids=["sqlite", "postgresql", "mariadb"],
)
def test_the_originals_tests_of_the_sqlalchemy_adapter_pass(
    fixture: str | None, scheme: str, sqlalchemy: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = (
        "sqlite+aiosqlite:///./theirs.db" if fixture is None else with_scheme(request.getfixturevalue(fixture), scheme)
    )
    test = "test_access_token.py"
    assert passed(DB_SQLALCHEMY, test, tmp_path, sqlalchemy=sqlalchemy, DATABASE_URL=url) == 2


def test_the_originals_tests_of_the_beanie_adapter_pass(tmp_path: Path, mongo_server: Any) -> None:
    address = f"mongodb://{mongo_server.host}:{mongo_server.port}"
    assert passed(DB_BEANIE, "test_access_token.py", tmp_path, TOKENKEEP_TEST_MONGO=address) == 2


def with_scheme(url: str, scheme: str) -> str:
    return f"{scheme}://{url.partition('://')[2]}"
