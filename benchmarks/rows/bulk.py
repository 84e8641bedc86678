"""Inserting 100,000 tokens at once."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import Line, Setting, least


def measure(_setting: Setting) -> Iterator[Line]:
    yield Line(work="insert 100,000 in bulk", peer="executemany in one transaction", goal=least(0.7), note="not built")
