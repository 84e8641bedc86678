"""The original packages, from the registry: their sources for the tests in them, and environments that run them.

All of it goes into a cache folder outside the repository, once; nothing of theirs is kept here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]

FASTAPI_USERS: Final = "fastapi-users==15.0.5"
DB_SQLALCHEMY: Final = "fastapi-users-db-sqlalchemy==7.0.0"
DB_BEANIE: Final = "fastapi-users-db-beanie==5.0.0"

SQLALCHEMY: Final = {"2.0": "sqlalchemy[asyncio]>=2.0.40,<2.1", "2.1": "sqlalchemy[asyncio]>=2.1,<2.2"}

NEEDED: Final = (
    *(FASTAPI_USERS, DB_BEANIE, "aiosqlite", "asyncpg", "asyncmy", "psycopg[binary]", "pymysql", "alembic"),
    *("cryptography", "uvicorn", "redis"),
    *("pytest", "pytest-asyncio", "pytest-mock", "asgi-lifespan", "httpx", "httpx-oauth"),
)
"""db-sqlalchemy comes after them and without its dependencies: it caps SQLAlchemy, and one environment has more."""


def source(requirement: str) -> Path:
    """Return the unpacked source distribution of one of the originals."""
    folder = _cache() / requirement
    with _once(folder) as missing:
        if missing:
            _or_skip(lambda: _download(requirement, folder))
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


def python(sqlalchemy: str = "2.0") -> Path:
    """Return the interpreter of an environment with the originals and this SQLAlchemy."""
    wanted = (SQLALCHEMY[sqlalchemy], *NEEDED)
    key = hashlib.sha256("\n".join([sys.version, DB_SQLALCHEMY, *wanted]).encode()).hexdigest()[:12]
    folder = _cache() / f"sqlalchemy-{sqlalchemy}-{key}"
    with _once(folder) as missing:
        if missing:
            _or_skip(lambda: _install(folder, wanted))
    return folder / "bin" / "python"


def environment(**more: str) -> dict[str, str]:
    """Return the variables for a process of the originals that can import tokenkeep and the tests' helpers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TOKENKEEP_", "PYTEST_"))}
    return kept | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])} | more


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokenkeep-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _once(folder: Path) -> Iterator[bool]:
    """Yield whether a folder has to be filled; several processes at once fill it once."""
    ready = folder / ".ready"
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ready.exists():
            yield False
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield True
        ready.touch()


def _or_skip(work: Callable[[], None]) -> None:
    """Fail in CI, and skip elsewhere, where the registry cannot be reached."""
    try:
        work()
    except subprocess.CalledProcessError as error:
        reason = f"the original packages cannot be had from the registry: {error.stderr[-500:]}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def _download(requirement: str, folder: Path) -> None:
    name = requirement.partition("==")[0]
    _run(
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name, "-d", folder, requirement
    )
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")


def _install(folder: Path, wanted: tuple[str, ...]) -> None:
    interpreter = folder / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    try:
        _run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder)
        _run(uv, "pip", "install", "--quiet", "--python", interpreter, *wanted)
        _run(uv, "pip", "install", "--quiet", "--python", interpreter, "--no-deps", DB_SQLALCHEMY)
    except (OSError, subprocess.CalledProcessError):  # where only pip knows the way to an index
        _run(sys.executable, "-m", "venv", "--clear", folder)
        _run(interpreter, "-m", "pip", "install", "--quiet", *wanted)
        _run(interpreter, "-m", "pip", "install", "--quiet", "--no-deps", DB_SQLALCHEMY)


def _run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
