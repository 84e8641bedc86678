"""The conformance suites on SQLAlchemy 2.0; everything else runs on 2.1."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import sqlalchemy

from upstream.environment import environment, python

TESTS = Path(__file__).parent
SOME = "version or purge or history or statistics or rotat or reject"
SUITES = {
    "sqlite": ("test_conformance_sqlite.py", f"InAFile and ({SOME})"),
    "postgresql": ("test_conformance_postgresql.py", f"TestVaultByPsycopg and ({SOME}) or TestIssuerByAsyncpg"),
    "mariadb": ("test_conformance_mariadb.py", SOME),
}
"""Each driver once, and on each database every statement."""


def test_the_other_tests_run_on_the_newest() -> None:
    assert sqlalchemy.__version__.startswith("2.1.")


@pytest.mark.parametrize("database", SUITES)
def test_the_suites_pass_on_sqlalchemy_2_0(database: str, tmp_path: Path) -> None:
    file, chosen = SUITES[database]
    interpreter = str(python("2.0"))
    asked = [interpreter, "-c", "import sqlalchemy; print(sqlalchemy.__version__)"]
    assert subprocess.run(asked, check=True, capture_output=True, text=True).stdout.startswith("2.0.")
    command = [interpreter, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "them")]
    done = subprocess.run(
        [*command, str(TESTS / file), "-k", chosen],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    summary = re.search(r"^(\d+) passed, \d+ deselected in", done.stdout, re.MULTILINE)
    assert summary, done.stdout[-2000:]
    assert int(summary[1]) > 30
