from __future__ import annotations

import os
import re
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

MARK = "DEMO_STARTED_BY"

COMMAND = [sys.executable, "-c", "from tokenkeep.cli import main; main()", "demo"]


@pytest.fixture
def mark() -> str:
    """Names the processes of one demo: they inherit it."""
    return secrets.token_hex(8)


def start(folder: Path, mark: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "--folder", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {MARK: mark, "PYTHONWARNINGS": "error"},
        start_new_session=True,
    )


def alive(mark: str) -> Iterator[int]:
    """Yield the processes of a demo that still run."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:  # it has ended, or is somebody else's
                continue
            if f"{MARK}={mark}".encode() in environment.split(b"\0"):
                yield int(entry.name)


def test_the_demo_shows_what_it_promises(tmp_path: Path, mark: str) -> None:
    started = time.monotonic()
    demo = start(tmp_path / "demo", mark)
    out, errors = demo.communicate(timeout=180)
    assert (demo.returncode, errors) == (0, "")
    assert "1 login at the server, 200 answers, 1 distinct token" in out
    assert len(re.findall(r"^\d+ +25 +1 ", out, re.MULTILINE)) == 8
    succession = re.search(r"process (\d+) succeeded process (\d+): 1 login granted, 35 answers, 1 distinct token", out)
    assert succession is not None
    assert succession[1] != succession[2]
    assert "its lease is still running" in out
    assert "waiting for a new one-time code" in out
    assert re.search(r"bob +acquire_in_doubt", out)
    assert "no token, no PIN, no password, no seed" in out
    assert "verify: it is alice's" in out
    assert "revoke, then verify again: None" in out
    assert str(tmp_path / "demo" / "tokens.db") in out
    assert "\x1b" not in out
    assert not list(alive(mark))
    assert time.monotonic() - started < 150  # 45 s on an idle machine
    with closing(sqlite3.connect(tmp_path / "demo" / "tokens.db")) as database:
        [(active,)] = database.execute("SELECT count(*) FROM tokenkeep_token WHERE active = 1")
    assert active == 2


@pytest.mark.parametrize("scene", ["2. The same", "tokenkeep demo"])
def test_ctrl_c_ends_the_demo_and_all_its_processes(tmp_path: Path, mark: str, scene: str) -> None:
    demo = start(tmp_path / "demo", mark)
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith(scene):
            break
    time.sleep(1)  # whatever goes on by then
    os.killpg(demo.pid, signal.SIGINT)
    _, errors = demo.communicate(timeout=30)
    assert demo.returncode == 130
    assert errors.startswith("interrupted; every process of the demo has ended")
    assert len(errors.splitlines()) == 1
    assert not list(alive(mark))


def test_the_demo_wants_a_folder_of_its_own(tmp_path: Path, mark: str) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    demo = start(tmp_path, mark)
    out, errors = demo.communicate(timeout=30)
    assert (demo.returncode, out) == (1, "")
    assert "is not empty" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
