"""Suites that run on one face only, where the other face runs elsewhere."""

from __future__ import annotations

import pytest

from tokenkeep.testing import faces


class OnTheSyncFace:
    @pytest.fixture(params=["sync"])
    def face(self, request: pytest.FixtureRequest) -> faces.Face:
        chosen: faces.Face = request.param
        return chosen


class OnTheAsyncFace:
    @pytest.fixture(params=["async"])
    def face(self, request: pytest.FixtureRequest) -> faces.Face:
        chosen: faces.Face = request.param
        return chosen
