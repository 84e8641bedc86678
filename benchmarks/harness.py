"""Interleaved runs, medians, goals, and what the machine is like while they run."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.peers import FastAPIUsers
from tokenkeep import KeyRing

MICROSECOND: Final = 1e-6
MILLISECOND: Final = 1e-3

type Contestant = Callable[[], float]
"""Does its work once and returns the seconds that one operation took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What every row is given.

    Attributes:
        rows: of the tables that single look-ups go to.
        large: of the large table whose look-ups are set beside those of a small one.
        expired: tokens to be cleared, of twice as many.
        runs: rounds, in each of which every contestant runs once.
    """

    folder: Path
    rows: int
    large: int
    expired: int
    runs: int
    peer: FastAPIUsers
    keys: KeyRing = field(default_factory=KeyRing.generate)


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on a figure, and on which side of it lies what was aimed at."""

    bound: float
    unit: str = "times"
    at_most: bool = True

    def met(self, figure: float) -> bool:
        return figure <= self.bound if self.at_most else figure >= self.bound

    def __str__(self) -> str:
        return f"{'at most' if self.at_most else 'at least'} {shown(self.bound, self.unit)}"


def most(bound: float, unit: str = "times") -> Goal:
    return Goal(bound, unit)


def least(bound: float, unit: str = "times") -> Goal:
    return Goal(bound, unit, at_most=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the table.

    Attributes:
        figure: what the goal speaks of; `None` when it could not be measured, `note` then says why.
        spread: of a ratio, half the distance from the lowest round to the highest, as a part of the median.
    """

    work: str
    ours: str = ""
    peer: str = ""
    theirs: str = ""
    figure: float | None = None
    unit: str = "times"
    goal: Goal | None = None
    spread: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.goal is None or self.figure is None else self.goal.met(self.figure)

    @property
    def close(self) -> bool:
        """Whether the rounds differ by more than what lies between the figure and the goal."""
        if self.goal is None or self.figure is None or self.spread is None:
            return False
        return abs(self.figure - self.goal.bound) <= self.spread * self.figure


class Rounds:
    """Seconds an operation, for each contestant and round."""

    def __init__(self, seconds: Mapping[str, Sequence[float]]) -> None:
        self._seconds = seconds

    def seconds(self, name: str) -> float:
        return median(self._seconds[name])

    def ratios(self, dividend: str, divisor: str) -> list[float]:
        """Round by round, so that what slows both down cancels out."""
        return [a / b for a, b in zip(self._seconds[dividend], self._seconds[divisor], strict=True)]

    def cost(self, work: str, ours: str, theirs: str, goal: Goal | None = None, note: str = "") -> Line:
        """How many times their time ours is: smaller is better."""
        return self._line(work, ours, theirs, goal, note, self.ratios(ours, theirs))

    def gain(self, work: str, ours: str, theirs: str, goal: Goal | None = None, note: str = "") -> Line:
        """How many times our time theirs is: larger is better."""
        return self._line(work, ours, theirs, goal, note, self.ratios(theirs, ours))

    def _line(self, work: str, ours: str, theirs: str, goal: Goal | None, note: str, ratios: list[float]) -> Line:
        middle = median(ratios)
        return Line(
            work=work,
            ours=pace(self.seconds(ours)),
            peer=theirs,
            theirs=pace(self.seconds(theirs)),
            figure=middle,
            goal=goal,
            spread=(max(ratios) - min(ratios)) / 2 / middle,
            note=note,
        )


def interleaved(contestants: Mapping[str, Contestant], *, runs: int) -> Rounds:
    """Run A B C, A B C, …; one round before that is thrown away."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(runs + 1):
        for name, contestant in contestants.items():
            with quiet():
                taken = contestant()
            if number:
                seconds[name].append(taken)
    return Rounds(seconds)


@contextmanager
def quiet() -> Iterator[None]:
    """Collect garbage before and not during: it would fall on whoever comes next."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def per_call(function: Callable[[Any], object], arguments: Sequence[Any]) -> float:
    """Seconds a call, one after another."""
    started = time.perf_counter()
    for argument in arguments:
        function(argument)
    return (time.perf_counter() - started) / len(arguments)


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that at least so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


def pace(seconds: float) -> str:
    """Write a time an operation, with the operations a second."""
    return f"{span(seconds)} ({1 / seconds:,.0f}/s)"


def span(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    if seconds < MILLISECOND:
        return f"{seconds / MICROSECOND:.3g} us"
    return f"{seconds / MILLISECOND:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def shown(value: float, unit: str) -> str:
    """Write a figure with its unit."""
    number = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    return f"{number} {unit}"


@dataclass(frozen=True, slots=True)
class Machine:
    """How busy the machine is with something else."""

    processors: int
    load: float
    jitter: float
    """How much longer than the fastest the slowest tenth of some equal loops took."""

    @property
    def noisy(self) -> bool:
        return self.jitter > 0.25 or self.load > self.processors / 2

    def __str__(self) -> str:
        what = f"{self.processors} processors, load {self.load:.1f}, equal loops differ by {self.jitter:.0%}"
        return f"{what}: noisy, trust the ratios only" if self.noisy else what


def machine() -> Machine:
    times = []
    for _ in range(50):
        started = time.perf_counter()
        sum(range(100_000))
        times.append(time.perf_counter() - started)
    jitter = percentile(times, 90) / min(times) - 1
    return Machine(processors=os.cpu_count() or 1, load=os.getloadavg()[0], jitter=jitter)
