"""Clearing ended tokens of SQLite while others read and write."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from benchmarks import workload
from benchmarks.beside import MILLION, Cleared, beside, purge
from benchmarks.harness import MILLISECOND, Line, Setting, most, shown, span

MEGABYTE: Final = 2**20
GOAL_SECONDS: Final = 10.0
"""For a million; for fewer tokens as many fewer."""


def measure(setting: Setting) -> Iterator[Line]:
    path = setting.folder / "tokens.db"
    [dead] = workload.issue(path, 1, setting.keys, ended=True)
    [living] = workload.issue(path, 1, setting.keys)
    workload.grow(path, dead, setting.expired - 1)
    workload.grow(path, living, setting.expired - 1)
    keys = setting.folder / "keys"
    setting.keys.save(keys)
    theirs_path = setting.folder / "other.db"
    shutil.copy(path, theirs_path)
    bearer = workload.plain(living)
    our_log, their_log = watched(path), watched(theirs_path)
    ours = beside(workload.url(path), keys, bearer, purge, expired=setting.expired, watching=our_log)
    theirs = beside(workload.url(theirs_path), keys, bearer, one_delete, expired=setting.expired, watching=their_log)
    yield from lines(ours, theirs, setting.expired)
    yield Line(
        work=f"clear {setting.expired:,} of {2 * setting.expired:,} beside a reader and a writer: WAL",
        peer="one DELETE", theirs=shown(their_log.megabytes, "MB"), figure=our_log.megabytes, unit="MB",
        goal=most(64, "MB"),
    )  # fmt: skip


def lines(ours: Cleared, theirs: Cleared, expired: int) -> Iterator[Line]:
    work = f"clear {expired:,} of {2 * expired:,} beside a reader and a writer"
    peer = "one DELETE"
    note = "" if ours.gone is not None else f"{ours}, not done"
    if ours.gone is not None:
        yield Line(work=f"{work}: not cleared", figure=expired - ours.gone, unit="tokens", goal=most(0, "tokens"))
    yield Line(
        work=f"{work}: time", peer=peer, theirs=str(theirs), figure=ours.seconds, unit="s",
        goal=most(GOAL_SECONDS * expired / MILLION, "s"), note=note or "the goal is 10 s a million",
    )  # fmt: skip
    yield Line(
        work=f"{work}: the writer's p99", peer=peer, figure=ours.writer / MILLISECOND, unit="ms", goal=most(50, "ms"),
        theirs=span(theirs.writer), note=f"before: {span(ours.writer_before)}; the reader's: {span(ours.reader)}",
    )  # fmt: skip
    yield Line(
        work=f"{work}: writes refused (locked)", peer=peer, theirs=f"{theirs.refused}", figure=ours.refused,
        unit="writes", goal=most(0, "writes"),
    )  # fmt: skip


def one_delete(url: str, _keys: Path, into: Any) -> None:
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60)) as connection:
        started = time.monotonic()
        gone = connection.execute("DELETE FROM tokenkeep_issued WHERE expires_at < ?", (now,)).rowcount
        connection.commit()
        into.append((started, time.monotonic(), gone))


class watched:  # noqa: N801  # reads as a verb
    """How large the write-ahead log of a database becomes meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}-wal")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.bytes = 0

    @property
    def megabytes(self) -> float:
        return self.bytes / MEGABYTE

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            if self._path.exists():
                self.bytes = max(self.bytes, self._path.stat().st_size)
