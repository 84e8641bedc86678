"""Each recipe of docs/recipes is run as it stands, against the local Upstox."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from datetime import datetime, time, timedelta
from pathlib import Path
from threading import Event
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from apscheduler.events import EVENT_JOB_EXECUTED
from apscheduler.schedulers.background import BackgroundScheduler
from celery.schedules import crontab

from tokenkeep import TokenIssuer, TokenVault
from tokenkeep.testing.upstox import LocalUpstox

RECIPES = Path(__file__).resolve().parents[1] / "docs" / "recipes"
INDIA = ZoneInfo("Asia/Kolkata")

FILES = re.compile(r"^`([\w/]+\.py)`[^\n]*\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def upstox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalUpstox]:
    """Go to an empty folder, with the account of a local Upstox in the environment."""
    with LocalUpstox() as upstox:
        for variable, value in upstox.environment().items():
            monkeypatch.setenv(variable, value)
        monkeypatch.chdir(tmp_path)
        yield upstox


def run(recipe: str) -> dict[str, Any]:
    """Execute every block of a recipe, one after the other, as one module named `recipe`."""
    module = types.ModuleType("recipe")
    sys.modules["recipe"] = module
    for block in BLOCKS.findall((RECIPES / recipe).read_text()):
        exec(compile(block, recipe, "exec"), vars(module))  # noqa: S102  # our own page
    return vars(module)


def test_every_recipe_is_tried_here() -> None:
    tried = set(re.findall(r'"(\w+\.md)"', Path(__file__).read_text()))
    assert {page.name for page in RECIPES.glob("*.md")} == tried


def test_flask(upstox: LocalUpstox) -> None:
    recipe = run("flask.md")
    issuer: TokenIssuer = recipe["issuer"]
    reader, nothing = issuer.issue("alice", scopes={"broker:read"}), issuer.issue("bob")
    assert reader.token is not None
    assert nothing.token is not None
    reading, no_scope = ({"Authorization": f"Bearer {token.reveal()}"} for token in (reader.token, nothing.token))
    with recipe["app"].test_client() as http:
        assert http.get("/me", headers=no_scope).json == {"name": "bob"}
        assert http.get("/broker", headers=no_scope).status_code == 403
        until = [http.get("/broker", headers=reading).json["until"] for _ in range(2)]
        assert datetime.fromisoformat(until[0]).astimezone(INDIA).time() == time(3, 30)
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eDp5"}):
            assert http.get("/me", headers=headers).status_code == 401
    assert len(upstox.logins) == 1
    assert recipe["answer"]["token_type"] == "Bearer"
    issuer.close()
    recipe["vault"].close()


DJANGO_MAIN = """
import sys
import django
from django.conf import settings
from django.urls import path

settings.configure(
    SECRET_KEY="x" * 50, INSTALLED_APPS=["desk"], ROOT_URLCONF=__name__, ALLOWED_HOSTS=["testserver"],
    TOKEN_DATABASE="sqlite:///tokens.db",
)
django.setup()
from desk.tokens import issuer, vault
from desk.views import broker
from django.core.management import CommandError, call_command
from django.test import Client

urlpatterns = [path("broker", broker)]
call_command("renew_tokens", "alice")
call_command("renew_tokens", "alice")
bearer = {"Authorization": "Bearer " + issuer().issue("alice").token.reveal()}
print(Client().get("/broker", headers=bearer).json()["until"])
print(Client().get("/broker").status_code, Client().get("/broker", headers={"Authorization": "Bearer x"}).status_code)
vault().close()
issuer().close()
"""


def test_django(upstox: LocalUpstox, tmp_path: Path) -> None:
    for name, text in FILES.findall((RECIPES / "django.md").read_text()):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for package in ("desk", "desk/management", "desk/management/commands"):
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "main.py").write_text(DJANGO_MAIN)
    done = subprocess.run(
        [sys.executable, "-W", "error", "main.py"], check=False, capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    first, second, until, statuses = done.stdout.splitlines()
    assert first == second
    assert first.startswith("alice: version 1, until ")
    assert datetime.fromisoformat(until).astimezone(INDIA).time() == time(3, 30)
    assert statuses == "401 401"
    assert len(upstox.logins) == 1


def in_time(moment: datetime) -> bool:
    """Tell whether it is after the end of yesterday's token and before the market opens."""
    return time(3, 30) < moment.astimezone(INDIA).time() < time(9, 0)


def test_celery(upstox: LocalUpstox) -> None:
    recipe = run("celery.md")
    app, vault = recipe["app"], recipe["vault"]
    app.conf.task_always_eager = True
    until = {recipe["renew"].delay("alice").get() for _ in range(2)}
    assert [datetime.fromisoformat(end).astimezone(INDIA).time() for end in until] == [time(3, 30)]
    assert len(upstox.logins) == 1
    [beat] = app.conf.beat_schedule.values()
    assert (beat["task"], beat["args"]) == (recipe["renew"].name, ["alice"])
    schedule: crontab = beat["schedule"]
    assert str(app.timezone) == "Asia/Kolkata"
    assert (schedule.hour, schedule.minute) == ({3, 4, 5, 6, 7, 8}, {35})
    assert all(in_time(datetime(2026, 1, 5, hour, 35, tzinfo=INDIA)) for hour in schedule.hour)
    vault().close()


def test_apscheduler(upstox: LocalUpstox) -> None:
    recipe = run("apscheduler.md")
    vault: TokenVault = recipe["vault"]
    job = recipe["scheduler"].get_jobs()[0]
    at = datetime(2026, 1, 2, 9, 0, tzinfo=INDIA)  # a Friday
    for _ in range(12):
        at = job.trigger.get_next_fire_time(None, at + timedelta(seconds=1))
        assert in_time(at)
        assert at.weekday() < 5
    assert at.date().isoformat() == "2026-01-06"
    background = BackgroundScheduler(timezone=INDIA)
    done = Event()
    background.add_listener(lambda _: done.set(), EVENT_JOB_EXECUTED)
    background.start()
    try:
        background.add_job(job.func, next_run_time=datetime.now(INDIA))
        assert done.wait(60)
    finally:
        background.shutdown()
    job.func()
    token = vault.get_valid("alice")
    assert token is not None
    assert (token.version, len(upstox.logins)) == (1, 1)
    vault.close()
