"""Fixtures for pytest: write `pytest_plugins = ["tokenkeep.testing.plugin"]` in the topmost `conftest.py`.

It is no automatic entry point: whoever has tokenkeep installed does not want its fixtures in each run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tokenkeep.testing.canary import Canary
from tokenkeep.testing.clock import FakeClock
from tokenkeep.testing.provider import FakeProvider

pytest.register_assert_rewrite("tokenkeep.testing.conformance")


@pytest.fixture
def fake_clock() -> FakeClock:
    """Return a clock that stands at noon of a Monday in India until it is told to move."""
    return FakeClock()


@pytest.fixture
def fake_provider() -> FakeProvider:
    """Return a provider that grants made-up tokens for an hour, and counts."""
    return FakeProvider()


@pytest.fixture
def canary(caplog: pytest.LogCaptureFixture) -> Iterator[Canary]:
    """Return a canary; at the end of the test no secret that it watches may stand in any log record at DEBUG."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="sqlalchemy")  # which sets itself to WARNING: this is its echo="debug"
    canary = Canary()
    yield canary
    records = [record for phase in ("setup", "call") for record in caplog.get_records(phase)]
    findings = canary.found_in_records(records)
    if findings:
        pytest.fail("\n".join(findings))
