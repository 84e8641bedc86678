"""What tests of applications and of third-party stores need: a clock, providers, a canary, the conformance suites.

The suites and the plugin need `pytest` and `pytest-asyncio`; the rest needs neither.
"""

from __future__ import annotations

from tokenkeep.testing.canary import Canary
from tokenkeep.testing.clock import FakeClock
from tokenkeep.testing.provider import (
    FakeProvider,
    Gate,
    OneTimeCodeProvider,
    RenewingProvider,
    RevokingProvider,
)

__all__ = [
    "Canary",
    "FakeClock",
    "FakeProvider",
    "Gate",
    "OneTimeCodeProvider",
    "RenewingProvider",
    "RevokingProvider",
]
