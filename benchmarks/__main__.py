"""`python -m benchmarks [row …]`: measure, and set the goals beside the figures."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Final

from benchmarks import report
from benchmarks.harness import Line, Setting, machine
from benchmarks.peers import FastAPIUsers

ROWS: Final = (
    "verify", "cached", "issue", "get_valid", "store", "single_flight", "bulk", "purge", "clear", "growth", "importing",
    "http", "redis", "postgresql", "bulk_postgresql",
)  # fmt: skip


def main() -> None:
    options = parsed(sys.argv[1:])
    before = machine()
    with (
        tempfile.TemporaryDirectory(prefix="tokenkeep-bench-", dir=options.folder) as name,
        closing(FastAPIUsers(Path(name) / "peer")) as peer,
    ):
        setting = Setting(
            folder=Path(name),
            rows=options.rows,
            large=options.large,
            expired=options.expired,
            runs=options.runs,
            peer=peer,
        )
        lines = list(measured(options.row or ROWS, setting))
    after = machine()
    if options.json:
        print(report.as_json(lines, before, after))
    else:
        report.show(lines, before, after)


def measured(rows: Sequence[str], setting: Setting) -> Iterator[Line]:
    for row in rows:
        print(f"{row} …", end=" ", file=sys.stderr, flush=True)
        started = time.monotonic()
        folder = setting.folder / row
        folder.mkdir()
        try:
            yield from import_module(f"benchmarks.rows.{row}").measure(replace(setting, folder=folder))
        except Exception as error:  # noqa: BLE001  # one row that fails must not take the others' figures with it
            traceback.print_exc()
            yield Line(work=row, note=f"failed: {type(error).__name__}")
        print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "row", nargs="*", metavar="row", choices=[*ROWS, []], help=f"any of {', '.join(ROWS)}; all without a name"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--runs", type=int, default=5, help="interleaved rounds (5)")
    parser.add_argument("--rows", type=int, default=10_000, help="rows of the table that is verified against (10000)")
    parser.add_argument("--large", type=int, default=1_000_000, help="rows of the large table of `growth` (1000000)")
    parser.add_argument("--expired", type=int, default=200_000, help="tokens that `purge` and `clear` clear (200000)")
    parser.add_argument("--folder", type=Path, help="where the databases are made: a real disk (the temporary folder)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
