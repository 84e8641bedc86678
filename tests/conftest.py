from __future__ import annotations

import gc
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["tokenkeep.testing.plugin", "servers_plugin", "browser_plugin"]

OPEN_FILES = Path("/proc/self/fd")


def open_files_below(folder: Path) -> list[str]:
    """Name the files below a folder that this process holds open; none where the system cannot tell."""
    targets = []
    for entry in OPEN_FILES.iterdir() if OPEN_FILES.exists() else ():
        try:
            target = entry.readlink()
        except FileNotFoundError:  # the one that listed the folder
            continue
        if target.is_relative_to(folder):
            targets.append(str(target.relative_to(folder)))
    return sorted(targets)


@pytest.fixture(autouse=True)
def no_connection_leaks(tmp_path: Path) -> Iterator[None]:
    """After each test no database file is open any more. Leaked sockets and others are ResourceWarnings."""
    yield
    if open_files_below(tmp_path):
        gc.collect()  # lets an unclosed connection say by a ResourceWarning where it came from
    assert open_files_below(tmp_path) == []


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the keys or accounts of the person who runs it."""
    for variable in [name for name in os.environ if name.startswith(("TOKENKEEP_", "UPSTOX_"))]:
        monkeypatch.delenv(variable)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that any SQLite connection opened from now on executes, by whatever library."""
    seen: list[str] = []
    connect = sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.set_trace_callback(seen.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    monkeypatch.setattr(sqlite3.dbapi2, "connect", traced)
    return seen
