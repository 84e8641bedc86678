"""First scene: many processes, many threads, one login."""

from __future__ import annotations

from typing import Any, Final

from tokenkeep.cli.demo.crew import Crew, DemoFailed
from tokenkeep.cli.demo.stage import ALICE, Stage, distinct, plural, waiting

PROCESSES: Final = 8
THREADS: Final = 25

_PATIENCE: Final = 60.0


def play(stage: Stage) -> Crew:
    """Start the processes and let them all ask for the same account; return them, alive."""
    stage.heading(
        f"1. {PROCESSES} processes with {THREADS} threads each want the token of one account, at the same moment",
        "Each process opens the SQLite file by itself; the login runs through the real client, upstox-totp.",
    )
    with waiting(stage, f"starting {PROCESSES} processes") as ticker:
        crew = Crew(stage.settings(), size=PROCESSES)
        try:
            _all(crew, "ready")
            ticker.show(f"{PROCESSES * THREADS} threads ask; one of them logs in, the others wait")
            crew.ask(ALICE, threads=THREADS)
            answers, leader = _answers(crew)
        except BaseException as error:
            crew.__exit__(type(error))
            raise
    _show(stage, answers, leader)
    return crew


def _all(crew: Crew, word: str) -> None:
    for _ in range(PROCESSES):
        if (said := crew.hear(_PATIENCE)) is None or word not in said:
            msg = "the processes of the demo did not start in time; is this machine very busy?"
            raise DemoFailed(msg)


def _answers(crew: Crew) -> tuple[list[dict[str, Any]], int | None]:
    answers: list[dict[str, Any]] = []
    leader = None
    while len(answers) < PROCESSES:
        said = crew.hear(_PATIENCE)
        if said is None:
            msg = "the processes of the demo did not answer in time; is this machine very busy?"
            raise DemoFailed(msg)
        leader = said["pid"] if "leads" in said else leader
        answers += [said] if "got" in said else []
    return answers, leader


def _show(stage: Stage, answers: list[dict[str, Any]], leader: int | None) -> None:
    rows = [
        (
            answer["pid"],
            answer["answers"],
            len(answer["tokens"]),
            f"{answer['slowest']:.2f} s",
            "logged in" if answer["pid"] == leader else "waited",
        )
        for answer in sorted(answers, key=lambda answer: int(answer["pid"]))
    ]
    stage.screen.table(("process", "threads", "distinct tokens", "slowest wait", "what it did"), rows)
    total = sum(answer["answers"] for answer in answers)
    tokens, logins = len(distinct(answers)), stage.granted(ALICE)
    if (tokens, logins) != (1, 1):
        msg = f"there were {plural(logins, 'login')} and {plural(tokens, 'distinct token')}; this is a defect"
        raise DemoFailed(msg)
    stage.fact(f"{plural(logins, 'login')} at the server, {total} answers, {plural(tokens, 'distinct token')}")
