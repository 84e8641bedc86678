"""`import tokenkeep`: how long it takes and what it brings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Final

from benchmarks.harness import MILLISECOND, Line, Setting, interleaved, most

DRIVERS: Final = (
    *("aiosqlite", "asyncmy", "asyncpg", "curl_cffi", "fastapi", "httpx", "prometheus_client", "psycopg"),
    *("pymongo", "pymysql", "redis", "rich", "sqlalchemy", "typer", "upstox_totp"),
)

_TIMED: Final = """
import sys, time
started = time.perf_counter()
import {module}
print(time.perf_counter() - started, len(sys.modules), *(name for name in {drivers} if name in sys.modules))
"""


def measure(setting: Setting) -> Iterator[Line]:
    modules = {"tokenkeep": "", "sqlite3": ""}

    def importing(module: str) -> float:
        code = _TIMED.format(module=module, drivers=DRIVERS)
        seconds, modules[module], *drivers = subprocess.check_output([sys.executable, "-c", code], text=True).split()
        if drivers:
            modules[module] += f", {' '.join(drivers)} among them"
        return float(seconds)

    rounds = interleaved({name: partial(importing, name) for name in modules}, runs=2 * setting.runs)
    found = [name for name in DRIVERS if name in modules["tokenkeep"]]
    brought = "; ".join(f"{name}: {what} modules" for name, what in modules.items())
    yield rounds.cost("import tokenkeep", "tokenkeep", "sqlite3", note=brought)
    yield Line(
        work="import tokenkeep: time", figure=rounds.seconds("tokenkeep") / MILLISECOND, unit="ms", goal=most(120, "ms")
    )
    yield Line(work="import tokenkeep: drivers", figure=len(found), unit="drivers", goal=most(0, "drivers"))
