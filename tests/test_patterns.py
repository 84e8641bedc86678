"""No input makes a pattern run for long (OWASP ASVS 5.0, 1.3.12)."""

from __future__ import annotations

import ast
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

from tokenkeep.digest import TokenForm

SOURCE: Final = Path(__file__).resolve().parents[1] / "src" / "tokenkeep"
LENGTH: Final = 20_000
"""Characters: what takes a square of this takes minutes."""

BOUND: Final = 5.0
"""Seconds of processor time for all that is tried on a pattern; they take some milliseconds."""


BUILT: Final[list[str]] = []
"""Where a pattern is made while the program runs."""


def patterns() -> dict[str, re.Pattern[Any]]:
    """Find every regular expression of the source: those in constants, and those that stand where they are used."""
    found: dict[str, re.Pattern[Any]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        if not re.search(r"\bre\.\w+\(", text):
            continue
        module = ".".join(("tokenkeep", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
        named = vars(import_module(module))
        found |= {f"{module}.{name}": value for name, value in named.items() if isinstance(value, re.Pattern)}
        compiled = {value.pattern for value in found.values()}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and re.match(r"re\.\w+$", ast.unparse(node.func)):
                try:
                    pattern = eval(ast.unparse(node.args[0]), named) if node.args else ""  # noqa: S307  # our own source
                except NameError:  # made of an argument: there is one
                    BUILT.append(f"{module}:{node.lineno}")
                    continue
                if isinstance(pattern, str | bytes) and pattern not in compiled:
                    found[f"{module}:{node.lineno}"] = re.compile(pattern)
    return found


def shape_of(form: Any) -> re.Pattern[Any]:
    found: re.Pattern[Any] = form._shape.__self__
    return found


PATTERNS: Final = patterns() | {
    "an issued token": shape_of(TokenForm("tk", keys=None)),
    "a refresh token": shape_of(TokenForm("a_b", keys=None, refresh=True)),
}
WHOLE: Final = "\n".join(path.read_text() for path in SOURCE.rglob("*.py"))


def methods(where: str) -> set[str]:
    """Return how a pattern is used; where that cannot be told, in every way."""
    name = where.rpartition(".")[2]
    return set(re.findall(rf"\b{re.escape(name)}\.(fullmatch|match|search|sub|split|finditer|findall)\b", WHOLE)) or {
        *("fullmatch", "match", "search", "findall")
    }


def atoms(pattern: str) -> list[str]:
    """Return characters that the pattern may like: those in it, and one of each usual class."""
    literal = re.sub(r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\.|[\[\](){}|^$*+?]", "", pattern)
    return list(dict.fromkeys([*literal, *"a0A_ -.,:;/=\"'\n\t\\", "\xa0", "\u2028"]))


def inputs(pattern: str) -> Iterator[str]:
    likely = atoms(pattern)
    for one in likely:
        for tail in ("", "!", "\x00", "\n"):
            yield one * LENGTH + tail
    for one, other in zip(likely, [*likely[1:], likely[0]], strict=True):
        yield (one + other) * (LENGTH // 2) + "!"
    whole = re.sub(r"\\(.)", r"\1", pattern)
    yield whole * (LENGTH // (len(whole) or 1))


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def try_everything(pattern: re.Pattern[Any], ways: set[str]) -> None:
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    for value in inputs(text):
        hostile = value if isinstance(pattern.pattern, str) else value.encode("latin-1", "ignore")
        for way in ways:
            if way == "sub":
                pattern.sub(hostile[:0], hostile)
            else:
                found = getattr(pattern, way)(hostile)
                assert way != "finditer" or list(found) is not None


@pytest.mark.requirement("B4")
@pytest.mark.parametrize("where", PATTERNS)
def test_no_hostile_text_makes_a_pattern_run_for_long(where: str) -> None:
    with bounded(BOUND):
        try_everything(PATTERNS[where], methods(where))


@pytest.mark.requirement("B4")
@pytest.mark.parametrize("slow", [r"(a+)+$", r"(?:a|a)*b", r"\s+$"], ids=["nested", "twice", "end"])
def test_a_pattern_that_does_run_for_long_would_be_found(slow: str) -> None:
    began = time.process_time()
    with pytest.raises(TimeoutError), bounded(0.2):
        try_everything(re.compile(slow), methods("nowhere"))
    assert time.process_time() - began < BOUND


def test_the_patterns_are_found() -> None:
    assert len(PATTERNS) > 15
    assert any("_checking" in name for name in PATTERNS)
    assert [where.partition(":")[0] for where in BUILT] == ["tokenkeep.digest"]
    assert methods("tokenkeep.stores.sql.servers.address._SEVERAL_HOSTS") == {"fullmatch"}
