"""Processes of a test's own: told what to do line by line, listened to, and gone when the test is over."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

PATIENCE = 60.0
"""Seconds after which a process that says nothing fails the test."""


class Worker:
    """A process in a group of its own that reads lines and says lines of JSON, each an object."""

    def __init__(self, script: Path, options: dict[str, Any]) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by `end`
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", str(script), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if not name.startswith(("TOKENKEEP_", "UPSTOX_"))},
        )
        self.pid = self._process.pid
        self._said: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._telling = threading.Lock()
        self._silent = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._said.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._silent = True
            self._changed.notify_all()

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with self._telling:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()

    def heard(self, **words: Any) -> dict[str, Any] | None:
        """Return the first thing said that contains these words; `None` when it was not said yet."""
        return next((said for said in self._said if words.items() <= said.items()), None)

    def hear(self, *, patience: float = PATIENCE, **words: Any) -> dict[str, Any]:
        """Wait until something is said that contains these words."""
        with self._changed:
            self._changed.wait_for(lambda: self._silent or self.heard(**words) is not None, patience)
            said = self.heard(**words)
        assert said is not None, f"worker {self.pid} never said {words}; it said {self._said} and {self.errors()}"
        return said

    def everything(self, word: str) -> list[Any]:
        """Return what was said under a word, in its order."""
        with self._changed:
            return [said[word] for said in self._said if word in said]

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def death(self, patience: float = PATIENCE) -> int:
        """Wait until the process is gone; return what it died of, 0 when it ended by itself."""
        return -self._process.wait(patience)

    def grief(self) -> int:
        """Wait until the process was killed or stopped; return the signal that did it."""
        end = time.monotonic() + PATIENCE
        while (state := os.waitid(os.P_PID, self.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT | os.WNOHANG)) is None:
            assert time.monotonic() < end, f"worker {self.pid} came to no grief; it said {self._said}"
            time.sleep(0.01)
        return state.si_status

    def leave(self) -> None:
        """Let the process end by itself, and see that it had nothing to complain of."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self.death() == 0, self.errors()
        assert self.errors() == "", self.errors()

    def end(self) -> None:
        """End the process and its children, however they are; nothing stays open."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        self._listener.join(PATIENCE)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._errors.close()


class Workers:
    """Start workers; all of them have ended when the block ends."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []

    def start(self, script: str, **options: Any) -> Worker:
        worker = Worker(Path(__file__).with_name(script), options)
        self._workers.append(worker)
        return worker

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()


@contextmanager
def opened(database: Path) -> Iterator[Any]:
    """Read a database past the library."""

    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def rows(database: Path, statement: str, *parameters: Any) -> list[Any]:
    with opened(database) as connection:
        return list(connection.execute(statement, parameters))
