"""Clearing ended tokens while others read and write."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Self

from benchmarks import workload
from benchmarks.harness import MILLISECOND, Line, Setting, most, percentile, shown, span
from tokenkeep import KeyRing, TokenIssuer
from tokenkeep.errors import StoreError

BEFORE_SECONDS: Final = 2.0
MEGABYTE: Final = 2**20
MILLION: Final = 1_000_000
FEWEST_SECONDS: Final = 20.0
GOAL_SECONDS: Final = 10.0
"""For a million; for fewer tokens as many fewer."""

_context: Final = get_context("spawn")


@dataclass(frozen=True, slots=True)
class Cleared:
    """How it went; `gone` is `None` when it was stopped."""

    seconds: float
    gone: int | None
    refused: int
    writer_before: float
    writer: float
    reader: float
    wal: float

    def __str__(self) -> str:
        return span(self.seconds) if self.gone is not None else f"stopped after {span(self.seconds)}"


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
    patience = FEWEST_SECONDS + 60 * setting.expired / MILLION
    bearer = workload.plain(living)
    ours = beside(path, keys, bearer, purge, patience)
    theirs = beside(theirs_path, keys, bearer, one_delete, patience)
    yield from lines(ours, theirs, setting.expired)


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
    yield Line(
        work=f"{work}: WAL", peer=peer, theirs=shown(theirs.wal, "MB"), figure=ours.wal, unit="MB", goal=most(64, "MB")
    )


def purge(path: Path, keys: Path, into: Any) -> None:
    with opened(path, keys) as issuer:
        started = time.monotonic()
        gone = issuer.purge().tokens
        into.append((started, time.monotonic(), gone))


def one_delete(path: Path, _keys: Path, into: Any) -> None:
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        started = time.monotonic()
        gone = connection.execute("DELETE FROM tokenkeep_issued WHERE expires_at < ?", (now,)).rowcount
        connection.commit()
        into.append((started, time.monotonic(), gone))


def beside(path: Path, keys: Path, bearer: str, clear: Callable[..., None], patience: float) -> Cleared:
    """Clear in one process while another verifies and a third issues; stop it when patience ends."""
    stop = _context.Event()
    with _context.Manager() as manager:
        reads, writes, refused, done = (manager.list() for _ in range(4))
        ready = _context.Barrier(3)
        others = [
            _context.Process(target=reader, args=(path, keys, bearer, ready, stop, reads)),
            _context.Process(target=writer, args=(path, keys, ready, stop, writes, refused)),
        ]
        for other in others:
            other.start()
        ready.wait()
        time.sleep(BEFORE_SECONDS)  # they show how long they take undisturbed
        with watched(path.with_name(f"{path.name}-wal")) as largest:
            started = time.monotonic()
            clearing = _context.Process(target=clear, args=(path, keys, done))
            clearing.start()
            clearing.join(patience)
            stopped = time.monotonic()
            clearing.kill()
            clearing.join()
        stop.set()
        for other in others:
            other.join()
        reads_taken, writes_taken = list(reads), list(writes)
        started, ended, gone = done[0] if done else (started, stopped, None)
        return Cleared(
            seconds=ended - started,
            gone=gone,
            refused=len(refused),
            writer_before=p99(writes_taken, 0, started),
            writer=p99(writes_taken, started, ended),
            reader=p99(reads_taken, started, ended),
            wal=largest.bytes / MEGABYTE,
        )


def p99(taken: list[tuple[float, float]], after: float, before: float) -> float:
    """Of the operations that ran at some moment of that time."""
    return percentile((end - start for start, end in taken if end > after and start < before), 99)


def reader(path: Path, keys: Path, bearer: str, ready: Any, stop: Any, into: Any) -> None:
    with opened(path, keys) as issuer:
        ready.wait()
        into.extend(timed(lambda: issuer.verify(bearer), stop, pause=0.001))


def writer(path: Path, keys: Path, ready: Any, stop: Any, into: Any, refused: Any) -> None:
    def issue() -> None:
        try:
            issuer.issue("alice")
        except StoreError as error:
            refused.append(str(error))

    with opened(path, keys) as issuer:
        ready.wait()
        into.extend(timed(issue, stop, pause=0.005))


def opened(path: Path, keys: Path) -> TokenIssuer:
    return TokenIssuer.open(workload.url(path), lifetime=workload.LIFETIME, keys=KeyRing.from_file(keys))


def timed(operation: Callable[[], object], stop: Any, *, pause: float) -> list[tuple[float, float]]:
    taken = []
    while not stop.is_set():
        start = time.monotonic()
        operation()
        taken.append((start, time.monotonic()))
        time.sleep(pause)
    return taken


class watched:  # noqa: N801  # reads as a verb
    """How large a file becomes meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.bytes = 0

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
