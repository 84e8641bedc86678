"""Second scene: the process that logs in is killed in the middle, and another one takes over."""

from __future__ import annotations

import time
from threading import Event
from typing import Any, Final

from tokenkeep.cli.demo.crew import Crew, DemoFailed
from tokenkeep.cli.demo.stage import BOB, Stage, Ticker, distinct, plural, waiting
from tokenkeep.leases import LEASE
from tokenkeep.providers.upstox import UpstoxProvider
from tokenkeep.testing.upstox import Step

THREADS: Final = 5

_LONGEST: Final = 75.0
_BLINK: Final = 0.2


class _Trap:
    """Stops Bob's first login at the step of the PIN, when its one-time code is spent already."""

    def __init__(self, stage: Stage) -> None:
        self._account = stage.accounts[BOB].user_id
        self.reached = Event()
        self.killed = Event()
        stage.server.on_step = self._stepped

    def _stepped(self, account: str, step: str) -> None:
        if account == self._account and step == Step.PIN and not self.reached.is_set():
            self.reached.set()
            self.killed.wait(_LONGEST)


def play(stage: Stage, crew: Crew) -> None:
    """Let all processes ask for another account, kill the one that leads, wait for its successor."""
    stage.heading(
        "2. The same for another account, but the process that logs in is killed in the middle (kill -9)",
        f"It held the lease for Bob's login, which ends {LEASE.seconds} s after its last sign of life, and had spent",
        "the one-time code. Such a code works once: the next login must wait for a new time step of 30 s.",
    )
    trap = _Trap(stage)
    try:
        with waiting(stage, "everybody asks; one process leads") as ticker:
            crew.ask(BOB, threads=THREADS)
            first, began = _leader(crew)
            if not trap.reached.wait(_LONGEST):
                msg = "the login of the demo did not come to its PIN; is this machine very busy?"
                raise DemoFailed(msg)
            crew.kill(first)
            trap.killed.set()
            ticker.show(f"process {first} is dead, killed between its one-time code and its PIN")
            second, answers = _succession(stage, crew, ticker, began)
    finally:
        trap.killed.set()
        stage.server.on_step = None
    _show(stage, first, second, answers)


def _leader(crew: Crew) -> tuple[int, float]:
    end = time.monotonic() + _LONGEST
    while time.monotonic() < end:
        said = crew.hear(_BLINK)
        if said is not None and "leads" in said:
            return int(said["pid"]), time.time()
    msg = "no process of the demo began to log in; is this machine very busy?"
    raise DemoFailed(msg)


def _succession(stage: Stage, crew: Crew, ticker: Ticker, began: float) -> tuple[int, list[dict[str, Any]]]:
    """Wait for the answers of those who live, and say meanwhile why they wait."""
    lease_ends, code_from = time.time() + LEASE.total_seconds(), _next_code(stage, began)
    second, answers, end = None, list[dict[str, Any]](), time.monotonic() + _LONGEST
    while len(answers) < len(crew.pids):
        if time.monotonic() > end:
            msg = f"nobody succeeded the killed process in {_LONGEST:.0f} s; is this machine very busy?"
            raise DemoFailed(msg)
        said = crew.hear(_BLINK) or {}
        second = int(said["pid"]) if "leads" in said else second
        answers += [said] if "got" in said else []
        _explain(ticker, second, lease_ends, code_from)
    if second is None:
        msg = "the token came without a second login; this is a defect"
        raise DemoFailed(msg)
    return second, answers


def _next_code(stage: Stage, began: float) -> float:
    """Return when a one-time code is good that the killed process cannot have used."""
    window = UpstoxProvider({BOB: stage.accounts[BOB].credentials()}).code_window(BOB)
    period = window.period.total_seconds()
    return ((began + window.lead.total_seconds()) // period + 1) * period


def _explain(ticker: Ticker, second: int | None, lease_ends: float, code_from: float) -> None:
    now = time.time()
    if second is not None:
        ticker.show(f"process {second} has taken over and logs in")
    elif now < lease_ends:
        ticker.show("its lease is still running: until it ends, nobody may log in beside it", lease_ends - now)
    else:
        ticker.show("the lease has ended and was taken: waiting for a new one-time code", code_from - now)


def _show(stage: Stage, first: int, second: int, answers: list[dict[str, Any]]) -> None:
    total, tokens, logins = sum(answer["answers"] for answer in answers), len(distinct(answers)), stage.granted(BOB)
    rows: list[tuple[object, str, str | None]] = [(first, "led, and was killed at its PIN", None)]
    rows += [
        (answer["pid"], "succeeded it" if answer["pid"] == second else "waited", f"{answer['slowest']:.1f} s")
        for answer in sorted(answers, key=lambda answer: (answer["pid"] != second, int(answer["pid"])))
    ]
    stage.screen.table(("process", "what it did", "from question to token"), rows)
    if (tokens, logins) != (1, 1):
        msg = f"there were {plural(logins, 'login')} and {plural(tokens, 'distinct token')}; this is a defect"
        raise DemoFailed(msg)
    stage.fact(
        f"process {second} succeeded process {first}: {plural(logins, 'login')} granted, {total} answers, "
        f"{plural(tokens, 'distinct token')}"
    )
