"""Schemathesis asks the routers whatever their own document allows, and much that it does not."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from fastapi_apps import bearing, served
from tokenkeep import AsyncTokenIssuer, KeyRing, TokenIssuer
from tokenkeep.fastapi import Bearer, Clients, SessionCookie, Sessions, lifespan, oauth_router

SECRET = "a secret of the gateway"
GATEWAY = {"Authorization": f"Basic {base64.b64encode(f'gateway:{SECRET}'.encode()).decode()}"}


class World:
    """A served application, and tokens for whoever asks it."""

    def __init__(self, address: str, issuer: TokenIssuer) -> None:
        self.address = address
        self._issuer = issuer

    def session(self) -> dict[str, str]:
        facts = {"auth_time": int(time.time()), "address": None}
        return bearing(self._issuer.issue("alice", metadata={"session": facts}))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("schema")
    url, keys, hour = f"sqlite:///{folder}/app.db", KeyRing.generate(), timedelta(hours=1)
    issuer = AsyncTokenIssuer.open(url, lifetime=hour, keys=keys)
    app = application(issuer)
    with TokenIssuer.open(url, lifetime=hour, keys=keys) as other, served(app) as address:
        yield World(address, other)


def application(issuer: AsyncTokenIssuer) -> FastAPI:
    bearer = Bearer(issuer, cookie=SessionCookie())
    app = FastAPI(lifespan=lifespan(issuer))
    app.include_router(Sessions(bearer).router())
    app.include_router(oauth_router(issuer, Clients({"gateway": SECRET})))
    return app


def read(world: World) -> Any:
    schema = schemathesis.openapi.from_dict(httpx.get(f"{world.address}/openapi.json").json())
    schema.config.update(base_url=world.address)
    return schema


OPERATIONS = (
    ("GET", "/sessions"),
    ("DELETE", "/sessions/current"),
    ("DELETE", "/sessions/others"),
    ("DELETE", "/sessions/{session_id}"),
    ("POST", "/oauth/introspect"),
    ("POST", "/oauth/revoke"),
)
WITH_A_BODY = [operation for operation in OPERATIONS if operation[0] == "POST"]


def tried(cases: SearchStrategy[Case[Any]], ask: Callable[[Case[Any]], None]) -> int:
    """Ask in many ways; return how many."""
    asked = 0

    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    @given(case=cases)
    def asking(case: Case[Any]) -> None:
        nonlocal asked
        asked += 1
        ask(case)

    asking()
    return asked


def test_every_route_is_asked(world: World) -> None:
    found = {(result.ok().method.upper(), result.ok().path) for result in read(world).get_all_operations()}
    assert found == set(OPERATIONS)


@pytest.mark.requirement("Z5", "V7")
@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [(*operation, GenerationMode.POSITIVE) for operation in OPERATIONS]
    + [(*operation, GenerationMode.NEGATIVE) for operation in WITH_A_BODY],
)
def test_whatever_is_asked_the_answer_is_as_documented_and_no_server_error(
    world: World, method: str, path: str, mode: GenerationMode
) -> None:
    document = read(world)
    document.config.generation.with_security_parameters = False  # the test brings what is good
    cases = document[path][method].as_strategy(generation_mode=mode)

    def ask(case: Case[Any]) -> None:
        case.call_and_validate(headers=GATEWAY if path.startswith("/oauth") else world.session())

    assert tried(cases, ask)


@pytest.mark.requirement("V7", "V8")
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_made_up_credentials_of_any_shape_open_nothing(world: World, method: str, path: str) -> None:
    seen = set()

    def ask(case: Case[Any]) -> None:
        answer = case.call()
        case.validate_response(answer, excluded_checks=[positive_data_acceptance])
        seen.add(answer.status_code)

    assert tried(read(world)[path][method].as_strategy(), ask)
    assert seen <= {400, 401, 403}
    assert seen & {401, 403}
