"""An application in a process of its own, driven over HTTP."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from servers.common import free_port
from upstream.environment import environment, python

PATIENCE = 60.0


@contextmanager
def serving(script: Path, folder: Path, **variables: str) -> Iterator[httpx.Client]:
    """Run an example in the environment of the originals, with `folder` as its working folder."""
    port = free_port()
    log = folder / f"{script.stem}-{port}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [python(), str(script)],
            cwd=folder,
            env=environment(PORT=str(port), PYTHONDONTWRITEBYTECODE="1", **variables),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                _wait(client, process, log)
                yield client
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _wait(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    patience = time.monotonic() + PATIENCE
    while True:
        try:
            client.get("/openapi.json")
        except httpx.TransportError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < patience, log.read_text()
            time.sleep(0.05)  # until it listens
        else:
            return
