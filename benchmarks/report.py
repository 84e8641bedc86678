"""The table: goals beside what was measured."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Line, Machine, shown

HEADINGS = ("work", "ours", "beside", "theirs", "measured", "goal", "")


def as_json(lines: Sequence[Line], before: Machine, after: Machine) -> str:
    """Return everything for a program."""
    report: dict[str, Any] = {
        "before": {**dataclasses.asdict(before), "noisy": before.noisy},
        "after": {**dataclasses.asdict(after), "noisy": after.noisy},
        "lines": [
            {**dataclasses.asdict(line), "goal": line.goal and str(line.goal), "met": line.met, "close": line.close}
            for line in lines
        ],
    }
    return json.dumps(report, indent=2)


def as_mapping(line: Line) -> dict[str, Any]:
    return {
        **dataclasses.asdict(line),
        "goal": None if line.goal is None else str(line.goal),
        "met": line.met,
        "close": line.close,
    }


def show(lines: Sequence[Line], before: Machine, after: Machine) -> None:
    """Print a table on a terminal, the same in plain Markdown where it goes elsewhere."""
    if sys.stdout.isatty():
        table = Table(*HEADINGS, box=box.SIMPLE, show_edge=False)
        for line in lines:
            table.add_row(*cells(line), style={True: "green", False: "red", None: ""}[line.met])
        Console().print(table)
    else:
        for row in (HEADINGS, ["---"] * len(HEADINGS), *map(cells, lines)):
            print(f"| {' | '.join(row)} |")
    print(f"\n{summary(lines)}\nbefore: {before}\nafter: {after}")


def summary(lines: Sequence[Line]) -> str:
    """Count the goals that were met."""
    met = [line.met for line in lines if line.goal is not None]
    return f"{met.count(True)} goals met, {met.count(False)} not met, {met.count(None)} not measured"


def cells(line: Line) -> tuple[str, ...]:
    """Return the line as text."""
    figure = "-" if line.figure is None else shown(line.figure, line.unit)
    if line.spread is not None:
        figure += f" ± {line.spread:.0%}"
    verdict = {True: "met", False: "NOT met", None: "" if line.goal is None else "not measured"}[line.met]
    if line.close:
        verdict += ", within the noise"
    work = f"{line.work} ({line.note})" if line.note else line.work
    return (work, line.ours, line.peer, line.theirs, figure, "" if line.goal is None else str(line.goal), verdict)
