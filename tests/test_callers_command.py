from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from tokenkeep import IssuedToken, TokenIssuer
from tokenkeep.cli import exits, main
from tokenkeep.service.callers import KEPT_UNDER, open_callers
from tokenkeep.testing import Canary


class Result(NamedTuple):
    code: int
    out: str
    err: str


type Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("TOKENKEEP_URL", f"sqlite:///{tmp_path}/t.db")

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["callers", *arguments])
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, captured.out, captured.err)

    return run


def known(folder: Path, token: str, namespace: str = "default") -> IssuedToken | None:
    with open_callers(f"sqlite:///{folder}/t.db", namespace) as issuer:
        return issuer.verify(token)


@pytest.mark.requirement("Z5", "T7", "S1")
def test_a_caller_gets_a_token_that_is_printed_once_and_kept_as_a_digest(run: Run, tmp_path: Path) -> None:
    made = run("add", "gateway", "--scope", "token:upstox/alice", "--scope", "introspect", "--lifetime", "30d")
    token = made.out.strip()
    assert (made.code, made.out.count("\n"), token in made.err) == (0, 1, False)
    caller = known(tmp_path, token)
    assert caller is not None
    assert caller.name == "gateway"
    assert caller.scopes == {"token:upstox/alice", "introspect"}
    assert abs(caller.expires_at - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=5)
    assert known(tmp_path, token, "another") is None
    canary = Canary()
    canary.watch(token)
    listed = [run("list"), run("list", "--json")]
    assert all("gateway" in result.out for result in listed)
    assert not [finding for result in listed for finding in canary.found_in(result.out + result.err)]
    assert not canary.found_in_files(tmp_path)


def test_as_json_the_token_stands_beside_what_it_may_do(run: Run, tmp_path: Path) -> None:
    told = json.loads(run("add", "bot", "--scope", "status", "--json").out)
    assert known(tmp_path, told["token"]) is not None
    assert (told["name"], told["scopes"]) == ("bot", ["status"])
    assert [caller["name"] for caller in json.loads(run("list", "--json").out)] == ["bot"]


@pytest.mark.requirement("K1")
def test_revoking_a_caller_ends_all_its_tokens_and_nobody_elses(run: Run, tmp_path: Path) -> None:
    old, new = (run("add", "bot", "--scope", "status").out.strip() for _ in range(2))
    other = run("add", "ann", "--scope", "status").out.strip()
    assert "ended 2 tokens of bot" in run("revoke", "bot").out
    assert [known(tmp_path, token) is None for token in (old, new, other)] == [True, True, False]
    again = run("revoke", "bot")
    assert (again.code, "no caller" in again.err) == (exits.NOTHING, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bot",), "may do nothing"),
        (("bot", "--scope", "tokens"), "no scope of the service"),
        (("a:b", "--scope", "status"), "letters"),
        (("a+b", "--scope", "status"), "letters"),
        (("a\nb", "--scope", "status"), "letters"),
        (("x" * 65, "--scope", "status"), "64"),
        (("bot", "--scope", "status", "--lifetime", "soon"), "--lifetime takes a span"),
        (("bot", "--scope", "status", "--lifetime", "0d"), "--lifetime takes a span"),
        (("bot", "--scope", "status", "--lifetime", "999999d"), "3660 days"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
@pytest.mark.requirement("Z1")
def test_a_caller_that_makes_no_sense_is_not_made(run: Run, arguments: tuple[str, ...], said: str) -> None:
    result = run("add", *arguments)
    assert said in result.err
    assert (result.code in {exits.FAILED, exits.USAGE}, result.out) == (True, "")


def test_one_token_of_a_caller_is_ended_by_its_id(run: Run, tmp_path: Path) -> None:
    old = run("add", "bot", "--scope", "status").out.strip()
    caller = known(tmp_path, old)
    new = run("add", "bot", "--scope", "status").out.strip()
    assert caller is not None
    run("revoke", caller.id)
    assert [known(tmp_path, token) is None for token in (old, new)] == [True, False]


def test_an_application_does_not_see_callers_among_its_users(run: Run, tmp_path: Path) -> None:
    run("add", "bot", "--scope", "*")
    with TokenIssuer.open(f"sqlite:///{tmp_path}/t.db", lifetime=timedelta(hours=1)) as issuer:
        assert issuer.tokens(KEPT_UNDER) == []
        assert issuer.revoke_all(KEPT_UNDER) == 0
    assert "bot" in run("list").out


def test_a_database_that_is_not_there_has_no_callers(run: Run, tmp_path: Path) -> None:
    assert "there is no database" in run("list", "--url", f"sqlite:///{tmp_path}/other.db").err


def test_the_command_loads_what_serves_when_it_serves() -> None:
    script = "import sys\nimport tokenkeep.cli.application\nprint(*sys.modules)"
    seen = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert not {"fastapi", "starlette", "uvicorn", "prometheus_client"} & {*seen}


@pytest.mark.parametrize("package", ["uvicorn", "fastapi", "prometheus_client"])
def test_without_its_extra_serving_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str
) -> None:
    for name in [
        name for name in sys.modules if name.startswith(("tokenkeep.service", "tokenkeep.fastapi", "tokenkeep.metrics"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["serve"])
    assert ended.value.code == exits.FAILED
    assert f'({package}): pip install "tokenkeep[service]"' in capsys.readouterr().err
