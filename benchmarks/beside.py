"""Clearing in one process while another verifies and a third issues."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from benchmarks import workload
from benchmarks.harness import percentile, span
from tokenkeep import KeyRing, TokenIssuer
from tokenkeep.errors import StoreError

BEFORE_SECONDS: Final = 2.0
MILLION: Final = 1_000_000
FEWEST_SECONDS: Final = 20.0

_context: Final = get_context("spawn")


@dataclass(frozen=True, slots=True)
class Cleared:
    """How it went; `gone` is `None` when it was stopped."""

    seconds: float
    gone: int | None
    refused: int
    writer_before: float
    writer: float
    reader_before: float
    reader: float

    def __str__(self) -> str:
        return span(self.seconds) if self.gone is not None else f"stopped after {span(self.seconds)}"


def patience(expired: int) -> float:
    """Seconds after which clearing is stopped."""
    return FEWEST_SECONDS + 120 * expired / MILLION


def beside(
    url: str,
    keys: Path,
    bearer: str,
    clear: Callable[..., None],
    *,
    expired: int,
    watching: AbstractContextManager[Any] | None = None,
) -> Cleared:
    """Clear while the others work; stop it when patience ends."""
    stop = _context.Event()
    with _context.Manager() as manager:
        reads, writes, refused, done = (manager.list() for _ in range(4))
        ready = _context.Barrier(3)
        others = [
            _context.Process(target=reader, args=(url, keys, bearer, ready, stop, reads)),
            _context.Process(target=writer, args=(url, keys, ready, stop, writes, refused)),
        ]
        for other in others:
            other.start()
        ready.wait()
        time.sleep(BEFORE_SECONDS)  # they show how long they take undisturbed
        with watching or nullcontext():
            started = time.monotonic()
            clearing = _context.Process(target=clear, args=(url, keys, done))
            clearing.start()
            clearing.join(patience(expired))
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
            reader_before=p99(reads_taken, 0, started),
            reader=p99(reads_taken, started, ended),
        )


def p99(taken: list[tuple[float, float]], after: float, before: float) -> float:
    """Of the operations that ran at some moment of that time."""
    return percentile((end - start for start, end in taken if end > after and start < before), 99)


def purge(url: str, keys: Path, into: Any) -> None:
    """Clear as an application does."""
    with opened(url, keys) as issuer:
        started = time.monotonic()
        gone = issuer.purge().tokens
        into.append((started, time.monotonic(), gone))


def reader(url: str, keys: Path, bearer: str, ready: Any, stop: Any, into: Any) -> None:
    with opened(url, keys) as issuer:
        ready.wait()
        into.extend(timed(lambda: issuer.verify(bearer), stop, pause=0.001))


def writer(url: str, keys: Path, ready: Any, stop: Any, into: Any, refused: Any) -> None:
    def issue() -> None:
        try:
            issuer.issue("alice")
        except StoreError as error:
            refused.append(str(error))

    with opened(url, keys) as issuer:
        ready.wait()
        into.extend(timed(issue, stop, pause=0.005))


def opened(url: str, keys: Path) -> TokenIssuer:
    return TokenIssuer.open(url, lifetime=workload.LIFETIME, keys=KeyRing.from_file(keys))


def timed(operation: Callable[[], object], stop: Any, *, pause: float) -> list[tuple[float, float]]:
    taken = []
    while not stop.is_set():
        start = time.monotonic()
        operation()
        taken.append((start, time.monotonic()))
        time.sleep(pause)
    return taken
