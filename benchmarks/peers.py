"""The peers that run beside us: fastapi-users in a process of its own, and what the page of upstox-totp teaches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

_HERE: Final = Path(__file__).parent
_ENVIRONMENT: Final = Path(sys.prefix) / "peers" / "fastapi-users"


class PeerMissing(Exception):
    """It could not be installed or started; the message says why."""


class FastAPIUsers:
    """fastapi-users with its SQLAlchemy adapter, in an environment and a process of its own.

    The adapter caps SQLAlchemy below 2.1. The process waits without working while others are measured.
    """

    NAME: Final = "fastapi-users"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._missing = ""

    def fill(self, rows: int) -> None:
        """Make its database, with so many tokens.

        Raises:
            PeerMissing: there is no such peer here.
        """
        self._ask(do="fill", rows=rows)

    def read(self, count: int, *, callers: int = 1) -> float:
        """Seconds a `read_token`."""
        return self._ask(do="read", count=count, callers=callers)

    def write(self, count: int, *, callers: int = 1) -> float:
        """Seconds a `write_token`."""
        return self._ask(do="write", count=count, callers=callers)

    def _ask(self, **request: Any) -> float:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            self._missing = "fastapi-users ended without an answer"
            raise PeerMissing(self._missing)
        return float(json.loads(answer))

    def _started(self) -> subprocess.Popen[str]:
        if self._missing:
            raise PeerMissing(self._missing)
        if self._process is None:
            python = self._installed()
            self._folder.mkdir(exist_ok=True)
            self._process = subprocess.Popen(
                [python, _HERE / "peer_fastapi_users.py", self._folder / "peer.db"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        return self._process

    def _installed(self) -> Path:
        python = _ENVIRONMENT / "bin" / "python"
        if (_ENVIRONMENT / ".ready").exists():
            return python
        print("making an environment for fastapi-users …", file=sys.stderr)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(_ENVIRONMENT)],
            [*pip, "--requirement", str(_HERE / "fastapi-users.txt")],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                self._missing = f"fastapi-users cannot be installed here: {reason}"
                raise PeerMissing(self._missing)
        (_ENVIRONMENT / ".ready").touch()
        return python

    def close(self) -> None:
        """End its process."""
        if self._process is not None:
            self._process.communicate()
