"""Runs one server until its owner lets go: `python keeper.py JSON`.

The owner holds the other end of standard input. When that ends, for whatever reason (closed, crashed, killed),
the server is ended too, and its folder removed unless the last word was `keep`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

PATIENCE = 10.0


def end(server: subprocess.Popen[bytes], gently: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGCONT)  # should a test have left it paused
        os.kill(server.pid, gently)
    try:
        server.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def keep(command: list[str], folder: str, log: str, ids: tuple[int, int] | None, gently: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal's Ctrl-C only the owner decides
    user, group = ids or (None, None)
    with Path(log).open("ab") as output:
        server = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=None if ids is None else [],
        )
    sys.stdout.write(f"{server.pid}\n")
    sys.stdout.flush()
    last_word = sys.stdin.read()
    end(server, gently)
    if last_word != "keep":
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    keep(**json.loads(sys.argv[1]))
