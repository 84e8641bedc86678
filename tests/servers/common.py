"""What all the servers have in common: a folder, a port, a process that ends with us."""

from __future__ import annotations

import atexit
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple, Self

HOST: Final = "127.0.0.1"
KEEPER: Final = Path(__file__).with_name("keeper.py")
PATIENCE: Final = 60.0
"""Seconds for a server to answer, on a busy machine."""

ATTEMPTS: Final = 5
"""To start: the port may be taken meanwhile, and after kill -9 the children of the old server linger."""


class Missing(Exception):
    """A server is not installed here."""


class Died(Exception):
    """A server ended before it answered; its last words are in the message."""


class Database(NamedTuple):
    """A fresh, empty database."""

    name: str
    url: str


def program(name: str, *folders: str) -> str:
    """Return the path of a server's program, the newest one of several folders.

    Raises:
        Missing: it is not installed.
    """
    places = [
        str(place) for pattern in folders for place in sorted(Path("/").glob(pattern), key=_version, reverse=True)
    ]
    found = shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
    if found is None:
        msg = f"{name} is not installed"
        raise Missing(msg)
    return found


def _version(place: Path) -> list[int]:
    return [int(part) for part in place.parts if part.isdecimal()]


def service_ids(*users: str) -> tuple[int, int] | None:
    """Return the user and group to run as; `None` for ourselves. Some servers refuse to run as root."""
    if os.geteuid() != 0:
        return None
    for user in (*users, "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(user)
            return entry.pw_uid, entry.pw_gid
    return None


def private_folder(name: str, ids: tuple[int, int] | None) -> Path:
    """Make a folder that only the server's user can read, and can reach."""
    parent = Path(tempfile.gettempdir())
    if ids is not None and not all(place.stat().st_mode & 0o001 for place in (parent, *parent.parents)):
        parent = Path("/tmp")  # noqa: S108  # mkdtemp makes a name of its own, mode 0700
    folder = Path(tempfile.mkdtemp(prefix=f"tokenkeep-{name}-", dir=parent))
    if ids is not None:
        os.chown(folder, *ids)
    return folder


def free_port() -> int:
    """Return a port that nobody listens on, below those the system gives to outgoing connections."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


class Server(ABC):
    """A server of our own, from `start` to `stop`.

    Args:
        options: more options for the server's command line.
    """

    name: str
    run_as: tuple[str, ...] = ()
    ends_by: int = signal.SIGKILL

    def __init__(self, *options: str) -> None:
        self.options = options
        self.host = HOST
        self.port = 0
        self.pid = 0
        self.ids = service_ids(*self.run_as) if self.run_as else None
        self.folder = Path()
        self._keeper: subprocess.Popen[str] | None = None
        self._count = 0
        self._owner = os.getpid()

    @abstractmethod
    def install(self) -> None:
        """Prepare the folder; raise `Missing` when the server is not there."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return the command that runs the server in the foreground."""

    @abstractmethod
    def ask(self) -> None:
        """Return when the server answers; raise anything when it does not."""

    @abstractmethod
    def database(self) -> Database:
        """Make a fresh, empty database."""

    @abstractmethod
    def drop(self, database: Database) -> None:
        """Remove a database, whoever is connected to it."""

    @property
    def log(self) -> Path:
        """Where the server's own words go."""
        return self.folder / "log"

    @classmethod
    @contextmanager
    def running(cls, *options: str) -> Iterator[Self]:
        """Run a server for the length of a block."""
        server = cls(*options)
        server.start()
        try:
            yield server
        finally:
            server.stop()

    def start(self) -> None:
        """Start in a new folder and wait until it answers."""
        self.folder = private_folder(self.name, self.ids)
        atexit.register(self.stop)
        try:
            self.install()
            self._launch(new_port=True)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it and remove its folder. Safe to repeat; a forked child that exits ends nothing."""
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.stop)
        self._let_go("")
        if self.folder.is_absolute():
            shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """Crash it by SIGKILL; the folder stays as it is at this moment."""
        os.kill(self.pid, signal.SIGKILL)
        self._let_go("keep")

    def restart(self) -> None:
        """Start it again on the same folder and port, after `kill` or out of its running."""
        if self._keeper is not None:
            self._let_go("keep")
        self._launch(new_port=False)

    def pause(self) -> None:
        """Stop it in mid-breath (SIGSTOP): connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def fresh_name(self) -> str:
        """Return a name that no database of this server has had."""
        self._count += 1
        return f"tokenkeep_{self._count}"

    def run(self, *command: str) -> None:
        """Run a preparing program to its end, as the server's user."""
        user, group = self.ids or (None, None)
        done = subprocess.run(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            user=user,
            group=group,
            extra_groups=None if self.ids is None else [],
        )
        if done.returncode:
            msg = f"{command[0]} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise Died(msg)

    def _launch(self, *, new_port: bool) -> None:
        for attempt in range(ATTEMPTS):
            if new_port:
                self.port = free_port()
            try:
                self._launch_once()
            except Died:
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(0.2)
            else:
                return

    def _launch_once(self) -> None:
        orders = {
            "command": list(self.command()),
            "folder": str(self.folder),
            "log": str(self.log),
            "ids": self.ids,
            "gently": int(self.ends_by),
        }
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(KEEPER), json.dumps(orders)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._keeper.stdout is not None
        self.pid = int(self._keeper.stdout.readline() or 0)
        if not self.pid:
            self._let_go("keep")
            msg = f"{self.name} cannot be started"
            raise Died(msg)
        self._wait()

    def _wait(self) -> None:
        patience = time.monotonic() + PATIENCE
        while True:
            if self._ended():
                break
            try:
                self.ask()
            except Exception:  # noqa: BLE001  # every driver says in its own way that nobody is there yet
                if time.monotonic() > patience:
                    break
                time.sleep(0.02)
            else:
                return
        self._let_go("keep")
        msg = f"{self.name} on port {self.port} did not start: {self.log.read_text(errors='replace')[-2000:]}"
        raise Died(msg)

    def _ended(self) -> bool:
        """Tell whether the server's process is gone, or a zombie that its keeper has not looked after."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return Path("/proc/self").exists()
        return state == "Z"

    def _let_go(self, last_word: str) -> None:
        if self._keeper is None:
            return
        keeper, self._keeper = self._keeper, None
        with suppress(BrokenPipeError):
            keeper.communicate(last_word)
