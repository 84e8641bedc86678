"""The examples start with one command each, and do over HTTP what they say."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[1]
ALICE = {"name": "alice", "password": "correct horse"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(example: str) -> list[str]:
    """Return the command that the example's page gives."""
    page = (ROOT / "examples" / example / "README.md").read_text()
    found = re.search(r"^\$ python (examples/\S+)$", page, re.MULTILINE)
    assert found
    return [sys.executable, str(ROOT / found[1])]


@contextmanager
def running(example: str, folder: Path, **environment: str) -> Iterator[httpx.Client]:
    """Start an example in an empty folder; yield a client of it."""
    port = free_port()
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [*command(example), "--port", str(port)],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if not name.startswith("UPSTOX_")} | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        address = f"http://127.0.0.1:{port}"
        try:
            with httpx.Client(base_url=address, headers={"Origin": address}, trust_env=False) as http:
                await_answer(http, process, folder / "log")
                yield http
        finally:
            process.terminate()
            process.wait(20)


def await_answer(http: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            http.get("/openapi.json")
        except httpx.TransportError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return


def test_sessions_register_log_in_me_log_out(tmp_path: Path) -> None:
    with running("fastapi_sessions", tmp_path) as http:
        assert "<form" in http.get("/").text
        assert http.get("/me").status_code == 401
        assert http.post("/register", json=ALICE).status_code == 201
        assert http.post("/register", json=ALICE).status_code == 409
        assert http.post("/login", json=ALICE | {"password": "wrong horse"}).status_code == 401
        assert http.post("/login", json=ALICE | {"name": "nobody"}).status_code == 401
        assert http.post("/login", json=ALICE).json() == {"name": "alice"}
        assert http.get("/me").json() == {"name": "alice"}
        program = httpx.post(f"{http.base_url}/token", json=ALICE, trust_env=False)
        bearer = {"Authorization": f"Bearer {program.json()['access_token']}"}
        me = httpx.get(f"{http.base_url}/me", headers=bearer, trust_env=False)
        assert me.json() == {"name": "alice"}
        assert [session["current"] for session in http.get("/sessions").json()] == [False, True]
        assert http.delete("/sessions/others").json() == {"ended": 1}
        assert httpx.get(f"{http.base_url}/me", headers=bearer, trust_env=False).status_code == 401
        assert http.post("/logout").status_code == 204
        assert http.get("/me").status_code == 401
    assert program.json()["access_token"] not in (tmp_path / "log").read_text()


@pytest.mark.requirement("Z3", "G1")
def test_the_dashboard_shows_the_operator_what_the_vault_knows_and_no_token(tmp_path: Path) -> None:
    with running("broker_dashboard", tmp_path, DASHBOARD_PASSWORD="open sesame") as http:
        assert "Password" in http.get("/").text
        assert http.get("/profile").status_code == 401
        assert http.post("/login", data={"password": "wrong"}).status_code == 401
        page = http.post("/login", data={"password": "open sesame"}, follow_redirects=True)
        assert "<th>Token</th><td>none</td>" in page.text
        page = http.post("/renew", follow_redirects=True)
        assert "version 1, good until" in page.text
        assert "created" in page.text
        assert http.get("/profile").json()["broker"] == "UPSTOX"
        assert "<th>Token</th><td>none</td>" in http.post("/revoke", follow_redirects=True).text
        assert "Password" in http.post("/logout", follow_redirects=True).text
        assert http.post("/renew").status_code == 401
    assert "eyJ" not in page.text + (tmp_path / "log").read_text()  # how every token of Upstox begins
