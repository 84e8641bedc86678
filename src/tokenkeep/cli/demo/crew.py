"""The processes of the demo, seen from outside: started, asked, listened to, killed, ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from queue import Empty, Queue
from threading import Thread
from typing import Any, Self

from tokenkeep.errors import TokenKeepError

_PATIENCE = 5.0
"""Seconds a process has to end by itself."""


class DemoFailed(TokenKeepError):
    """The demo did not go as it must."""


class Crew:
    """Some worker processes. What they say arrives in one queue."""

    def __init__(self, settings: Mapping[str, Any], *, size: int) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("TOKENKEEP", "UPSTOX"))
        }
        self._said: Queue[dict[str, Any]] = Queue()
        self._workers: dict[int, subprocess.Popen[str]] = {}
        self._listeners: list[Thread] = []
        self.killed: list[int] = []
        try:
            for _ in range(size):
                self._start(settings, environment)
        except BaseException as error:
            self.__exit__(type(error))
            raise

    def _start(self, settings: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        worker = subprocess.Popen(
            [sys.executable, "-m", "tokenkeep.cli.demo.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
            process_group=0,  # Ctrl-C is for the demo, which ends its processes
        )
        self._workers[worker.pid] = worker
        listener = Thread(target=self._listen, args=(worker,), daemon=True)
        listener.start()
        self._listeners.append(listener)
        self._write(worker, settings)

    def _listen(self, worker: subprocess.Popen[str]) -> None:
        assert worker.stdout is not None  # noqa: S101  # it was asked for
        with worker.stdout:
            for line in worker.stdout:
                with suppress(ValueError):  # the last line of a process that was killed
                    self._said.put(json.loads(line))
        self._said.put({"pid": worker.pid, "ended": True})

    @staticmethod
    def _write(worker: subprocess.Popen[str], message: Mapping[str, Any]) -> None:
        assert worker.stdin is not None  # noqa: S101  # it was asked for
        worker.stdin.write(json.dumps(message) + "\n")
        worker.stdin.flush()

    @property
    def pids(self) -> list[int]:
        """The processes that were started, but those that were killed."""
        return [pid for pid in self._workers if pid not in self.killed]

    def ask(self, user: str, *, threads: int) -> None:
        """Let every process ask for a user's token, each with so many threads."""
        for pid in self.pids:
            self._write(self._workers[pid], {"user": user, "threads": threads})

    def hear(self, patience: float) -> dict[str, Any] | None:
        """Return the next thing that a process says; `None` when none does for so many seconds.

        Raises:
            DemoFailed: a process failed, or ended by itself.
        """
        try:
            said = self._said.get(timeout=patience)
        except Empty:
            return None
        if said.get("ended") and said["pid"] in self.killed:
            return None
        if "failed" in said or said.get("ended"):
            msg = f"process {said['pid']} of the demo failed: {said.get('why', 'it ended')}"
            raise DemoFailed(msg)
        return said

    def kill(self, pid: int) -> None:
        """End a process as a power cut would: without a chance to clear up."""
        self.killed.append(pid)
        os.kill(pid, signal.SIGKILL)
        self._workers[pid].wait()

    def close(self) -> None:
        """Let every process write what it has counted and end; kill those that do not. Safe to repeat."""
        for worker in self._workers.values():
            with suppress(OSError):  # it is gone already
                assert worker.stdin is not None  # noqa: S101  # it was asked for
                worker.stdin.close()
        deadline = time.monotonic() + _PATIENCE
        for worker in self._workers.values():
            try:
                worker.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        for listener in self._listeners:
            listener.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # nobody waits for what is under way
            for pid in self.pids:
                self._workers[pid].kill()
        self.close()
