"""The rules of the house: the floors, the sizes, what is imported, and that the faces are mirrors."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module, resources
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
SOURCE: Final = ROOT / "src"

FLOORS: Final[dict[int, tuple[str, ...]]] = {
    1: ("secret", "errors", "model", "outcomes", "expiry", "_stepping", "_checking", "_kept", "buckets", "algorithms"),
    2: ("ports", "leading"),
    3: (
        *("sealing", "keyfile", "keyring", "keycheck", "digest", "marked"),
        *("trail", "auditing", "readings"),
        *(
            "uses",
            "recent",
            "limiting",
            "batching",
            "minting",
            "verifying",
            "registry",
            "leases",
            "sightings",
            "acquiring",
            "revoking",
            "status",
            "watching",
        ),
        *("status", "reports", "upkeep", "copying"),
        *("vault", "issuer"),
    ),
    4: ("stores", "providers", "turns", "threads", "tasks", "alarms"),
    5: ("lifecycle", "opening"),
    6: ("api", ""),
    7: ("testing", "importing", "adopting"),
}
"""Imports run downward only. A name stands for the module or the whole package; `""` is `tokenkeep` itself."""

LEAVES: Final = (
    "beanie",
    "cli",
    "fastapi",
    "fastapi_users",
    "httpx",
    "metrics",
    "service",
    "sqlalchemy",
    "upstox_storage",
)
"""They may import everything, and nobody imports them but they themselves, and who is built on them."""

BUILT_ON: Final = {"service": ("fastapi", "metrics"), "cli": ("service",)}
"""The leaves that stand on other leaves: the service is an application of ours, and the command starts it."""

CRYPTOGRAPHY: Final = ("sealing", "keyring", "keyfile", "digest", "marked")
"""On the third floor the services do not know these: a sealer is handed to them as a port."""

KNOWS_DIGEST: Final = ("issuer", "minting", "verifying")
"""The one exception: what the issuer makes and verifies is a digest."""

SQL_FROM_VETTED_NAMES: Final[dict[tuple[str, str], str]] = {}
"""(module, function) that may put a name into a statement, with the reason."""

DRIVERS: Final = (
    *("aiosqlite", "asyncmy", "asyncpg", "psycopg", "pymongo", "pymysql", "redis", "sqlalchemy"),
    *("fastapi", "fastapi_users", "prometheus_client", "pydantic", "starlette", "uvicorn"),
    *("curl_cffi", "httpx", "rich", "typer", "upstox_totp"),
)

PUBLIC: Final = {
    "tokenkeep": "TokenVault AsyncTokenVault TokenIssuer AsyncTokenIssuer "
    "AcquiredToken IssuedToken NewToken Secret KeyRing",
    "tokenkeep.expiry": "FixedTime Lifetime JwtExpiry Earliest",
    "tokenkeep.providers": "FunctionProvider",
    "tokenkeep.providers.upstox": "UpstoxProvider UpstoxCredentials",
    "tokenkeep.providers.oauth2": "OAuth2Provider",
    "tokenkeep.errors": "TokenKeepError ProviderError ProviderRejected ProviderUnavailable AcquireInDoubt "
    "StoreError StoreUnavailable SchemaMismatch SealingError UnknownKey ConfigurationError",
    "tokenkeep.model": "AcquiredToken Acquisition AuditCheck AuditChecks AuditEvent Dashboard IssuedToken NewToken "
    "Purged Rotated Statistics Status TokenInfo",
}
"""The names that code outside is written against."""

FACES: Final = {
    "TokenVault": "open get_valid get_or_create acquire acquire_many store watch reject revoke history statistics "
    "dashboard created_between audit_trail check_audit check_audits purge status "
    "rotate_keys close",
    "TokenIssuer": "open issue verify revoke revoke_all tokens refresh purge statistics audit_trail "
    "check_audit check_audits status close",
}


# --- reading the source ------------------------------------------------------------------------------


@cache
def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in sorted((SOURCE / "tokenkeep").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text())


def nodes[N: ast.AST](kind: type[N]) -> Iterator[tuple[str, N]]:
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, kind):
                yield module, node


def imports() -> Iterator[tuple[str, ast.Import | ast.ImportFrom]]:
    yield from nodes(ast.Import)
    yield from nodes(ast.ImportFrom)


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    yield from nodes(ast.FunctionDef)
    yield from nodes(ast.AsyncFunctionDef)


def where(module: str, node: ast.expr | ast.stmt) -> str:
    return f"{modules()[module].relative_to(ROOT)}:{node.lineno}"


def imported(module: str, node: ast.AST) -> Iterator[str]:
    """Yield the dotted names of our modules that a node imports, by statement or by a lazy "module:name"."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules())
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
            base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], *filter(None, [base])])
        if base in modules():
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in modules() else base
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        name, colon, _ = node.value.partition(":")
        if colon and name.startswith("tokenkeep.") and name in modules():
            yield name


@cache
def arrows() -> frozenset[tuple[str, str]]:
    """Return every (importer, imported), wherever the import stands: at the top, in a function, for types only."""
    return frozenset(
        (module, target)
        for module in modules()
        for node in ast.walk(tree(module))
        for target in imported(module, node)
        if target != module
    )


def room(module: str) -> str:
    """Return the name under `tokenkeep` that the floors speak of."""
    return module.removeprefix("tokenkeep").lstrip(".").partition(".")[0]


def floor(module: str) -> int | None:
    return next((number for number, rooms in FLOORS.items() if room(module) in rooms), None)


# --- the floors --------------------------------------------------------------------------------------


def test_every_module_stands_on_a_floor() -> None:
    homeless = [name for name in modules() if floor(name) is None and room(name) not in LEAVES]
    assert not homeless, f"add them to FLOORS or LEAVES: {homeless}"


def test_imports_run_downward_only() -> None:
    upward = [
        f"{importer} (floor {here}) imports {target} (floor {there})"
        for importer, target in arrows()
        if (here := floor(importer)) and (there := floor(target)) and there > here
    ]
    assert not sorted(upward)


def test_nobody_imports_a_leaf() -> None:
    broken = [
        f"{importer} imports {target}"
        for importer, target in arrows()
        if room(target) in LEAVES and room(target) not in (room(importer), *BUILT_ON.get(room(importer), ()))
    ]
    assert not sorted(broken)


def test_no_import_circle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for importer, target in arrows():
        graph[importer].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_the_services_know_the_ports_and_not_the_cryptography() -> None:
    services = {name for name in FLOORS[3] if name not in CRYPTOGRAPHY}
    broken = [
        f"{importer} imports {target}"
        for importer, target in arrows()
        if room(importer) in services
        and room(target) in CRYPTOGRAPHY
        and not (room(importer) in KNOWS_DIGEST and room(target) == "digest")
    ]
    assert not sorted(broken)


def test_the_core_starts_no_task_and_no_thread() -> None:
    broken = [
        where(module, node)
        for module, node in imports()
        if (floor(module) or 9) <= 3
        and {name.partition(".")[0] for name in names_used(node)}
        & {"asyncio", "anyio", "concurrent", "multiprocessing"}
    ]
    assert not broken, "what runs side by side goes through the port Work"


def test_time_comes_in_by_the_door() -> None:
    broken = [
        where(module, node)
        for module, node in nodes(ast.Call)
        if ((floor(module) or 9) <= 3 or room(module) == "stores")
        and ast.unparse(node.func) in {"datetime.now", "datetime.utcnow", "date.today", "time.time", "time.time_ns"}
    ]
    assert not broken, "ask the Clock that was handed in"


def test_the_floors_would_notice_an_arrow_up() -> None:
    lazy = ast.parse("def f():\n    from tokenkeep import api\nSCHEMES = {'x': 'tokenkeep.api:TokenVault'}")
    found = [target for node in ast.walk(lazy) for target in imported("tokenkeep.errors", node)]
    assert set(found) <= {"tokenkeep.api", "tokenkeep"}
    assert found


# --- sizes -------------------------------------------------------------------------------------------


def test_a_module_has_at_most_400_lines() -> None:
    long = {module: lines for module, path in modules().items() if (lines := len(path.read_text().splitlines())) > 400}
    assert not long


def test_a_function_has_at_most_60_lines() -> None:
    long = [
        f"{where(module, node)} {node.name}: {lines} lines"
        for module, node in functions()
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > 60
    ]
    assert not long


# --- what the package is -----------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["", *PUBLIC["tokenkeep"].split()])
def test_importing_tokenkeep_imports_no_driver(names: str) -> None:
    statement = f"from tokenkeep import {names}" if names else "import tokenkeep"
    script = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    seen = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert not set(seen) & set(DRIVERS)


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in PUBLIC.items() for name in names.split()]
)
def test_a_public_name_is_there(module: str, name: str) -> None:
    assert inspect.isclass(getattr(import_module(module), name))


def test_the_errors_share_one_base() -> None:
    module = import_module("tokenkeep.errors")
    classes = [
        value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module.__name__
    ]
    assert classes
    assert all(issubclass(error, module.TokenKeepError) for error in classes)


def test_the_package_is_typed() -> None:
    assert resources.files("tokenkeep").joinpath("py.typed").is_file()


# --- the faces are mirrors ---------------------------------------------------------------------------


def face(name: str) -> dict[str, Any]:
    """Return the public methods and properties of a face, as the class holds them."""
    found = getattr(import_module("tokenkeep.api"), name)
    return {
        member: inspect.getattr_static(found, member)
        for member in dir(found)
        if not member.startswith("_") and not member.startswith("mro")
    }


def function(member: Any) -> Any:
    if isinstance(member, (classmethod, staticmethod)):
        return member.__func__
    return member.fget if isinstance(member, property) else member


def shape(member: Any) -> list[tuple[str, Any, Any]]:
    return [(item.name, item.kind, item.default) for item in inspect.signature(function(member)).parameters.values()]


@pytest.mark.parametrize("name", FACES)
def test_a_face_has_the_methods_it_promises(name: str) -> None:
    assert set(FACES[name].split()) <= set(face(name))


@pytest.mark.parametrize("name", FACES)
def test_the_two_faces_have_the_same_methods(name: str) -> None:
    assert set(face(name)) == set(face(f"Async{name}"))


@pytest.mark.parametrize(("name", "method"), [(name, method) for name in FACES for method in FACES[name].split()])
def test_the_two_faces_agree(name: str, method: str) -> None:
    plain, awaited = face(name)[method], face(f"Async{name}")[method]
    assert type(plain) is type(awaited)
    assert shape(plain) == shape(awaited)
    assert inspect.getdoc(function(plain)) == inspect.getdoc(function(awaited))
    assert inspect.getdoc(function(plain))
    assert not inspect.iscoroutinefunction(function(plain))
    assert inspect.iscoroutinefunction(function(awaited)) == (method not in {"open", "watch"})


@pytest.mark.parametrize("name", FACES)
def test_a_face_is_a_context_manager(name: str) -> None:
    module = import_module("tokenkeep.api")
    assert {"__enter__", "__exit__"} <= set(dir(getattr(module, name)))
    assert {"__aenter__", "__aexit__"} <= set(dir(getattr(module, f"Async{name}")))


# --- what is never used ------------------------------------------------------------------------------


def test_only_the_command_prints() -> None:
    printed = [
        where(module, node)
        for module, node in nodes(ast.Call)
        if isinstance(node.func, ast.Name) and node.func.id == "print" and room(module) != "cli"
    ]
    assert not printed


def names_used(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield node.module or ""
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def users_of(*forbidden: str) -> list[str]:
    return [
        f"{module}: {name}"
        for module in modules()
        for node in ast.walk(tree(module))
        for name in names_used(node)
        if name.lower().replace("-", "") in forbidden
    ]


@pytest.mark.requirement("T1")
def test_no_predictable_randomness() -> None:
    found = [where(module, node) for module, node in imports() if {"random", "numpy.random"} & set(names_used(node))]
    assert not found, "use the module secrets"


@pytest.mark.requirement("S9")
def test_no_broken_algorithm_is_named() -> None:
    assert not users_of("md5", "sha1", "des", "3des", "tripledes", "arc4", "rc4", "ecb", "blowfish")


@pytest.mark.requirement("D8")
def test_nothing_is_unpickled() -> None:
    forbidden = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "yaml"}
    found = [
        where(module, node)
        for module, node in imports()
        if forbidden & {name.partition(".")[0] for name in names_used(node)}
    ]
    calls = [
        where(module, node)
        for module, node in nodes(ast.Call)
        if isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec", "compile"}
    ]
    assert not found + calls, "JSON is what is read back"


SQL: Final = re.compile(
    r"\b(select\s.+\sfrom|insert\s+(or\s+\w+\s+)?into|update\s.+\sset|delete\s+from|replace\s+into|merge\s+into"
    r"|(create|drop|alter)\s+(unique\s+)?(table|index|view|trigger|schema|database|role)|pragma\s|attach\s+database)",
    re.IGNORECASE | re.DOTALL,
)


def built(node: ast.AST) -> str | None:
    """Return the constant text of a string that is put together at run time; `None` for anything else."""
    if isinstance(node, ast.JoinedStr) and any(isinstance(part, ast.FormattedValue) for part in node.values):
        parts: list[ast.expr] = node.values
    elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mod)):
        parts = [node.left, node.right]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"format", "join"}:
        parts = [node.func.value]
    else:
        return None
    return " ? ".join(part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str))


def enclosing(module: str, node: ast.AST) -> str:
    """Return the name of the innermost function around a node."""
    around = [
        function
        for function in ast.walk(tree(module))
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) and node in ast.walk(function)
    ]
    return around[-1].name if around else ""


@pytest.mark.requirement("D1")
def test_no_statement_is_built_from_strings() -> None:
    broken = [
        where(module, node)
        for module, node in nodes(ast.expr)
        if (text := built(node)) and SQL.search(text) and (module, enclosing(module, node)) not in SQL_FROM_VETTED_NAMES
    ]
    assert not broken, "statements are constants with parameters"


@pytest.mark.parametrize(
    "source",
    [
        'f"SELECT * FROM {table}"',
        '"DELETE FROM " + table',
        '"UPDATE t SET a = %s" % value',
        '"INSERT INTO t VALUES ({})".format(value)',
        'f"PRAGMA user_version = {version}"',
    ],
)
def test_the_scan_sees_a_built_statement(source: str) -> None:
    text = built(ast.parse(source, mode="eval").body)
    assert text
    assert SQL.search(text)


# --- the pins and the tree ---------------------------------------------------------------------------


@pytest.mark.requirement("O4")
def test_requirements_are_pinned_by_version_alone() -> None:
    lines = (ROOT / "requirements" / "dev.txt").read_text().splitlines()
    assert len(lines) > 20
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; [a-zA-Z_]+ [!=<>]+ '\w+')?", line) for line in lines)
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(set(names))


def test_every_dependency_is_pinned() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    wanted = {match.lower().replace("_", "-") for match in re.findall(r'"([A-Za-z0-9_-]+)(?:\[\w+\])?>=[0-9]', text)}
    pinned = {line.partition("==")[0] for line in (ROOT / "requirements" / "dev.txt").read_text().splitlines()}
    assert {"cryptography", "sqlalchemy", "upstox-totp"} <= wanted
    assert not wanted - pinned


def test_the_licence_is_apache() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert all(part in text for part in ("Apache License", "Version 2.0, January 2004", "END OF TERMS AND CONDITIONS"))


def test_the_changelog_has_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(newer > older for newer, older in pairwise(headings[1:]))
    assert import_module("tokenkeep").__version__ in headings or len(headings) == 1
