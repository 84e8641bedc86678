"""A PostgreSQL server for a row: private folder, free port, everything durable, stopped at the end."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

PATIENCE: Final = 60.0
USER: Final = "postgres"
SETTINGS: Final = ("shared_buffers=256MB", "max_wal_size=4GB", "unix_socket_directories=", "listen_addresses=127.0.0.1")


def programs() -> Path | None:
    """Where `initdb` and `postgres` are; `None` where they are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    return found[0] if found else None if on_path is None else Path(on_path).parent


@contextmanager
def running() -> Iterator[str]:
    """Run a server and give the URL of a database on it."""
    folder = programs()
    assert folder is not None
    password = secrets.token_hex(16)
    home = Path(tempfile.mkdtemp(prefix="tokenkeep-bench-postgres-"))
    (home / "password").write_text(password)
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        entry = pwd.getpwnam(USER)
        as_user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        for path in (home, home / "password"):
            os.chown(path, entry.pw_uid, entry.pw_gid)
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": home, **as_user}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    subprocess.run(
        [folder / "initdb", "-D", "data", "-U", "bench", "-A", "scram-sha-256", "--pwfile", "password", "-E", "UTF8"],
        check=True, **quiet,
    )  # fmt: skip
    options = [word for setting in (*SETTINGS, f"port={port}") for word in ("-c", setting)]
    server = subprocess.Popen([folder / "postgres", "-D", "data", *options], **quiet)
    try:
        url = f"postgresql://bench:{password}@127.0.0.1:{port}/postgres"
        _wait_for(url)
        yield url
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(home, ignore_errors=True)


def _wait_for(url: str) -> None:
    import psycopg  # noqa: PLC0415  # a row without PostgreSQL needs no driver

    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(psycopg.OperationalError), psycopg.connect(url):
            return
        time.sleep(0.05)
    msg = "PostgreSQL did not start"
    raise TimeoutError(msg)
