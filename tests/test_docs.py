"""The documentation is held to what it says: its examples run, and nothing public lacks its words."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import tomllib
import types
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import dropwhile
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from typer.main import get_command

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SECURITY: Final = ROOT / "docs" / "security.md"

REQUIREMENTS: Final = [
    f"{letter}{number}"
    for letter, last in zip("TSVXRKCLZDGBO", (7, 13, 9, 7, 10, 9, 7, 8, 5, 10, 6, 4, 5), strict=True)
    for number in range(1, last + 1)
]

VARIABLE: Final = re.compile(r"\b(?:TOKENKEEP|UPSTOX)_[A-Z][A-Z_]*[A-Z]\b")


# --- reading the pages -------------------------------------------------------------------------------


class Example(NamedTuple):
    language: str
    line: int
    text: str


def examples(page: Path, language: str) -> list[Example]:
    """Return the fenced blocks of a page in one language, with the line on which their text begins."""
    found: list[Example] = []
    fence, start, lines = "", 0, list[str]()
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if not fence and (opened := re.fullmatch(r"(`{3,})(\w*)", line)):
            fence, start, lines = opened[1], number + 1, []
            found.append(Example(opened[2], start, ""))
        elif fence and line == fence:
            fence = ""
            found[-1] = found[-1]._replace(text="\n".join(lines) + "\n")
        elif fence:
            lines.append(line)
    assert not fence, f"{page.name}: a fence that is not closed"
    return [example for example in found if example.language == language]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --- examples in Python ------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page, "python")], ids=page_id)
def test_the_examples_of_a_page_run(page: Path, local_environment: None) -> None:  # noqa: ARG001  # a fixture
    namespace = types.ModuleType("__main__").__dict__
    for example in examples(page, "python"):
        lines = "\n" * (example.line - 1) + example.text
        exec(compile(lines, str(page), "exec"), namespace)  # noqa: S102  # our own pages


@pytest.fixture
def local_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put an example into an empty folder, with the environment of an account at a local Upstox."""
    from tokenkeep.testing.upstox import LocalUpstox  # noqa: PLC0415  # examples need it, the other tests do not

    with LocalUpstox() as upstox:
        for variable, value in upstox.environment().items():
            monkeypatch.setenv(variable, value)
        monkeypatch.delenv("TOKENKEEP_KEYS", raising=False)
        monkeypatch.delenv("TOKENKEEP_KEY_FILE", raising=False)
        monkeypatch.chdir(tmp_path)
        yield


# --- examples on the command line --------------------------------------------------------------------


def command_line() -> Any:
    return get_command(import_module("tokenkeep.cli").app)


@cache
def commands() -> dict[str, Any]:
    """Return every command by the words that call it: `{"keys rotate": …}`."""
    found: dict[str, Any] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        children = getattr(command, "commands", None)
        if words and (children is None or getattr(command, "invoke_without_command", False)):
            found[" ".join(words)] = command
        for name, child in (children or {}).items():
            walk(child, (*words, name))

    walk(command_line(), ())
    return found


def options_of(command: Any) -> set[str]:
    return {name for item in command.params for name in (*item.opts, *item.secondary_opts) if name.startswith("-")}


def calls(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (place, words) of each `$ command` of a page, those inside `$(…)` and behind pipes too."""
    for example in examples(page, "console"):
        for offset, line in enumerate(example.text.splitlines()):
            if line.startswith("$ "):
                inner = re.findall(r"\$\(([^()]*)\)", line)
                for part in [*re.split(r"\s\|\s|&&", re.sub(r"\$\([^()]*\)", "X", line[2:])), *inner]:
                    words = shlex.split(part, comments=True)
                    yield f"{page.name}:{example.line + offset}", list(dropwhile(re.compile(r"\w+=").match, words))


def test_the_console_examples_call_what_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    broken = []
    for place, words in (call for page in PAGES for call in calls(page)):
        if words[:1] == ["make"]:
            broken += [f"{place}: make {word}" for word in words[1:] if "=" not in word and word not in targets]
        elif words[:2] == ["pip", "install"]:
            wanted = re.findall(r"tokenkeep\[([\w,]+)\]", " ".join(words))
            broken += [f"{place}: [{extra}]" for group in wanted for extra in group.split(",") if extra not in extras]
        elif words[:1] == ["tokenkeep"]:
            broken += [f"{place}: {trouble}" for trouble in unknown(words[1:])]
    assert not broken


def unknown(words: list[str]) -> Iterator[str]:
    """Yield what a call of the command says that the command does not have."""
    everywhere = options_of(command_line()) | {"--help"}
    plain = [word for word in words if not word.startswith("-")]
    name = next((call for call in (" ".join(plain[:2]), " ".join(plain[:1])) if call in commands()), None)
    if name is None:
        if plain:
            yield f"no command {plain[0]}"
        return
    known = everywhere | options_of(commands()[name])
    yield from (
        f"{name} has no {word}" for word in words if word.startswith("-") and word.partition("=")[0] not in known
    )


def test_every_command_and_option_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    sections = dict(re.findall(r"^#+ `tokenkeep ([a-z -]+?)`.*?\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL))
    missing = sorted(set(commands()) - set(sections))
    missing += [
        f"{name} {option}"
        for name, command in commands().items()
        for option in sorted(options_of(command) - {"--help"})
        if option.startswith("--") and f"`{option}" not in sections.get(name, "") and f"`{option}" not in general(text)
    ]
    assert not missing
    assert not set(sections) - set(commands()), "documented, but not there"


def general(text: str) -> str:
    """Return the part of cli.md before its first command: what every command takes."""
    return re.split(r"^#+ `tokenkeep ", text, maxsplit=1, flags=re.MULTILINE)[0]


# --- variables, errors, links ------------------------------------------------------------------------


def source_strings() -> Iterator[str]:
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_environment_variable_is_documented_and_every_documented_one_is_read() -> None:
    account = inspect.signature(import_module("tokenkeep.providers.upstox").UpstoxCredentials).parameters
    read = {text for text in source_strings() if VARIABLE.fullmatch(text)} | {
        f"UPSTOX_{name.upper()}" for name in account
    }
    documented = set(VARIABLE.findall((ROOT / "docs" / "configuration.md").read_text()))
    assert read == documented


def test_every_error_is_documented() -> None:
    errors = import_module("tokenkeep.errors")
    names = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    text = (ROOT / "docs" / "errors.md").read_text()
    documented = re.findall(r"^#+ `(\w+)`$", text, re.MULTILINE)
    assert sorted(documented) == sorted(names)
    sections = dict(re.findall(r"^#+ `(\w+)`$\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL))
    silent = [name for name, words in sections.items() if "**When**" not in words or "**What to do**" not in words]
    assert not silent


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if re.match(r"https?:", target):
            continue
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


def test_every_page_is_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert not [page.name for page in PAGES[1:] if f"({page.relative_to(ROOT)}" not in text]


def test_a_public_name_of_an_example_is_imported_from_where_it_is_public() -> None:
    private = [
        f"{page.name}:{example.line} {node.module}"
        for page in PAGES
        for example in examples(page, "python")
        for node in ast.walk(ast.parse(example.text))
        if isinstance(node, ast.ImportFrom) and any(part.startswith("_") for part in (node.module or "").split("."))
    ]
    assert not private


# --- the table of security.md ------------------------------------------------------------------------


class Row(NamedTuple):
    id: str
    statement: str
    state: str


def rows() -> list[Row]:
    found = re.findall(r"^\| ([A-Z][0-9]+) \| (.+?) \| (.+?) \|$", SECURITY.read_text(), re.MULTILINE)
    return [Row(*cells) for cells in found]


@cache
def marked() -> dict[str, set[str]]:
    """Return the requirement ids that each test function carries, in tests/ and in the shipped suites."""
    found: dict[str, set[str]] = {}
    for folder in (ROOT / "tests", ROOT / "src" / "tokenkeep" / "testing"):
        for path in sorted(folder.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                    found.setdefault(node.name, set()).update(ids_of(node))
    return found


def ids_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.requirement":
            yield from (str(ast.literal_eval(argument)) for argument in decorator.args)


def test_every_requirement_stands_in_the_table_once() -> None:
    assert [row.id for row in rows()] == REQUIREMENTS
    assert len(REQUIREMENTS) == 100


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.id)
def test_a_requirement_is_held_by_a_test_that_says_so(row: Row) -> None:
    state = row.state
    tests = re.findall(r"`(test_\w+)`", state)
    if state.startswith(("*held by*", "*partly held by*")):
        assert tests
        assert not [name for name in tests if row.id not in marked().get(name, ())]
        assert state.startswith("*held by*") or "; *open*: " in state
    elif state.startswith("*not applicable because*"):
        assert len(state) > len("*not applicable because* ") + 10
    else:
        assert re.match(r"\*open\*(: .+)?$", state)


def test_a_marked_test_is_named_in_the_table() -> None:
    named = {row.id: set(re.findall(r"`(test_\w+)`", row.state)) for row in rows()}
    unknown_ids = {identity for ids in marked().values() for identity in ids} - set(REQUIREMENTS)
    assert not unknown_ids
    silent = sorted({identity for ids in marked().values() for identity in ids if not named[identity]})
    assert not silent, "docs/security.md does not name a test of these"


def test_a_table_without_its_tests_would_be_noticed() -> None:
    assert "S9" in marked()["test_no_broken_algorithm_is_named"]
    assert not marked()["test_a_table_without_its_tests_would_be_noticed"]
