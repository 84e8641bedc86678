"""What is written down of algorithms, keys, time-outs and limits is what the code does."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

from tokenkeep import KeyRing
from tokenkeep.algorithms import ALGORITHMS
from tokenkeep.cli.application import run
from tokenkeep.errors import ConfigurationError
from tokenkeep.sealing import RootKey

ROOT: Final = Path(__file__).resolve().parents[1]
SOURCE: Final = ROOT / "src" / "tokenkeep"
PAGE: Final = (ROOT / "docs" / "inventory.md").read_text()
ROW: Final = re.compile(r"^\| `([\w.]+)\.(\w+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
UNITS: Final = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def in_words(value: object) -> str:
    """Return how the page writes a value: a span in its largest unit, a number of seconds, or a plain number."""
    if isinstance(value, float):
        return f"{value:g} second{'s' if value != 1 else ''}"
    if isinstance(value, timedelta):
        seconds = int(value.total_seconds())
        unit, name = next(unit for unit in UNITS if seconds % unit[0] == 0)
        return f"{seconds // unit:,} {name}{'s' if seconds != unit else ''}"
    return f"{value:,}"


@pytest.mark.requirement("O3")
@pytest.mark.requirement("X7")
@pytest.mark.parametrize(("module", "name", "value", "why"), ROW.findall(PAGE), ids=lambda part: part[:40])
def test_each_number_on_the_page_is_that_of_the_code(module: str, name: str, value: str, why: str) -> None:
    assert value == in_words(getattr(import_module(f"tokenkeep.{module}"), name))
    assert len(why) > 15


def spans() -> Iterator[tuple[str, str]]:
    """Find the constants of modules that are spans of time and public."""
    for path in sorted(SOURCE.rglob("*.py")):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        if module.startswith(("testing", "cli", "importing", "stores.sql.migrations")):
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                is_span = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "timedelta"
                if is_span and not node.target.id.startswith("_") and node.target.id != "MICROSECOND":
                    yield module, node.target.id


@pytest.mark.requirement("O3")
@pytest.mark.requirement("X7")
def test_every_span_of_time_of_the_code_is_on_the_page() -> None:
    written = {(module, name) for module, name, _, _ in ROW.findall(PAGE)}
    found = set(spans())
    assert len(found) > 15
    assert not found - written


@pytest.mark.requirement("S9")
@pytest.mark.requirement("O3")
def test_the_algorithms_are_listed_by_the_command_and_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["keys", "algorithms", "--json"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for one in ALGORITHMS:
        assert "| " + " | ".join(map(str, one)) + " |" in PAGE
        assert f'"{one.name}"' in said
        assert one.security >= 128  # OWASP ASVS 5.0, 11.2.3


@pytest.mark.requirement("S9")
def test_the_source_uses_no_other_algorithm_than_those_listed() -> None:
    used: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        if "testing" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("hashlib", "cryptography")):
                used.setdefault(node.module or "", set()).update(alias.name for alias in node.names)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "hashlib":
                used.setdefault("hashlib", set()).add(node.attr)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"hmac.new", "hmac.digest"}:
                used.setdefault("hmac", set()).add(ast.unparse([*node.args, *(k.value for k in node.keywords)][-1]))
    assert used == {
        "hashlib": {"sha256"},
        "hmac": {"'sha256'"},
        "cryptography.exceptions": {"InvalidTag"},
        "cryptography.hazmat.primitives.ciphers.aead": {"AESGCM"},
    }


# --- keys that stand in an example -----------------------------------------------------------------------


def written(root: bytes) -> str:
    return RootKey(root).text.reveal()


MADE_UP: Final[dict[str, bytes]] = {
    "zeros": bytes(32),
    "counted": bytes(range(32)),
    "counted down": bytes(range(32, 0, -1)),
    "one letter": b"x" * 32,
    "a word over and over": b"changeme" * 4,
    "digits": b"01234567890123456789012345678901",
}


@pytest.mark.requirement("O1")
@pytest.mark.parametrize("root", MADE_UP.values(), ids=MADE_UP)
def test_a_key_that_somebody_made_up_is_refused(root: bytes) -> None:
    with pytest.raises(ConfigurationError, match="malformed, mistyped or not random"):
        KeyRing.from_env({"TOKENKEEP_KEYS": written(root)})


def pages() -> list[Path]:
    folders = [ROOT / "docs", ROOT / "examples", ROOT / "src", ROOT / "tools"]
    return [ROOT / "README.md", *(path for folder in folders for path in folder.rglob("*") if path.is_file())]


@pytest.mark.requirement("O1")
def test_every_key_that_stands_on_a_page_or_in_the_source_is_refused() -> None:
    found = set()
    for path in pages():
        if path.suffix in {".md", ".py", ".txt", ".toml", ".yml", ".lua", ".sql", ""}:
            found |= set(re.findall(r"tkk_[0-9a-f]{16}_[0-9A-Za-z_-]{43}", path.read_text(errors="replace")))
    assert found == {written(bytes(range(32)))}  # the example of configuration.md
    for key in found:
        with pytest.raises(ConfigurationError):
            KeyRing.from_env({"TOKENKEEP_KEYS": key})


@pytest.mark.requirement("O1")
def test_a_key_from_the_generator_is_taken_and_so_is_any_that_looks_as_random() -> None:
    for number in range(200):
        root = hashlib.sha256(str(number).encode()).digest()
        assert KeyRing.from_env({"TOKENKEEP_KEYS": written(root)}).key_id


def test_spans_are_written_in_their_largest_unit() -> None:
    cases: dict[Any, str] = {
        timedelta(days=30): "30 days",
        timedelta(hours=6): "6 hours",
        timedelta(minutes=1): "1 minute",
        timedelta(seconds=90): "90 seconds",
        0.1: "0.1 seconds",
        8192: "8,192",
    }
    assert {in_words(value): words for value, words in cases.items()} == {words: words for words in cases.values()}
