"""The suites for stores of issued tokens."""

from __future__ import annotations

from tokenkeep.testing.conformance.ending import Ending, IssuersSharing
from tokenkeep.testing.conformance.forgetting import ForgettingIssued
from tokenkeep.testing.conformance.hostile import HostileToTheIssuer
from tokenkeep.testing.conformance.issuing import Issuing
from tokenkeep.testing.conformance.limiting import Limiting, LimitingTogether
from tokenkeep.testing.conformance.proving import IssuersProving


class IssuerConformance(Issuing, Ending, Limiting, ForgettingIssued, HostileToTheIssuer):
    """What a `TokenIssuer` holds on any store."""


class DurableIssuerConformance(IssuerConformance, IssuersSharing, LimitingTogether):
    """And on a store to which the same URL leads again."""


class ChainedIssuerConformance(DurableIssuerConformance, IssuersProving):
    """And on a store that keeps the audit trail in chains."""
