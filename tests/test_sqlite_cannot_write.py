"""A disk that is full, and a file that may not be written: a sentence with the way out, and nothing half-written."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tokenkeep import KeyRing, NewToken, TokenVault
from tokenkeep.errors import StoreUnavailable
from tokenkeep.testing import FakeProvider

NOBODY: Final = 65534

READ_ONLY: Final = """
import os, sys
folder, key = sys.argv[1:]
from tokenkeep import KeyRing, NewToken, TokenVault
from tokenkeep.errors import StoreUnavailable
with TokenVault.open("sqlite://") as vault:  # what is imported late is imported before the rights are gone
    vault.store("alice", NewToken("a-token"), provider="paste")
if os.geteuid() == 0:
    os.setegid({nobody})
    os.seteuid({nobody})
os.environ["TOKENKEEP_KEYS"] = key
try:
    TokenVault.open(f"sqlite:///{{folder}}/tokens.db")
except StoreUnavailable as error:
    print(error)
"""


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no database of this test grow past 60 pages."""
    connect = sqlite3.connect

    def limited(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.execute("PRAGMA max_page_count=60")
        return connection

    monkeypatch.setattr(sqlite3, "connect", limited)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder that everybody may enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_said_and_leaves_the_old_token_in_place(tmp_path: Path) -> None:
    with TokenVault.open(f"sqlite:///{tmp_path}/tokens.db", keys=KeyRing.generate()) as vault:
        first = vault.store("alice", NewToken("first"), provider="paste")
        with pytest.raises(StoreUnavailable, match=r"tokens\.db cannot grow, the disk is full; free some space"):
            vault.store("bob", NewToken("x" * 500_000), provider="paste")
        assert vault.history("bob", provider="paste") == []
        kept = vault.get_valid("alice", provider="paste")
        assert kept is not None
        assert kept.id == first.id


@pytest.mark.usefixtures("small_disk")
def test_a_login_whose_token_the_full_disk_cannot_take_is_not_lost(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.script(NewToken("x" * 500_000))
    with TokenVault.open(f"sqlite:///{tmp_path}/tokens.db", keys=KeyRing.generate(), providers=[provider]) as vault:
        token = vault.get_or_create("alice")
        assert not token.persisted
        assert token.access_token.reveal() == "x" * 500_000
        vault.revoke("alice")


def test_a_file_that_may_only_be_read_is_refused_with_the_way_out(tmp_path: Path, folder: Path) -> None:
    ring = KeyRing.generate()
    with TokenVault.open(f"sqlite:///{folder}/tokens.db", keys=ring) as vault:
        vault.store("alice", NewToken("the-token"), provider="paste")
    ring.save(tmp_path / "ring")
    key = next(line for line in (tmp_path / "ring").read_text().splitlines() if not line.startswith("#"))
    (folder / "tokens.db").chmod(0o444)
    folder.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY.format(nobody=NOBODY), str(folder), key],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    folder.chmod(0o755)
    assert done.stdout.strip() == (
        "the SQLite file tokens.db is read-only; give this process the right to write the file and its folder"
    ), done.stderr
