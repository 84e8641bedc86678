"""What every store must hold, in words.

Subclass a suite and give it one fixture, `url`:

    from tokenkeep.testing.conformance import VaultConformance

    class TestMyStore(VaultConformance):
        @pytest.fixture
        def url(self, tmp_path):
            return f"mystore:///{tmp_path}/tokens"

Each test runs on the sync and the async face. A store that leads two openings of one URL to the same data
(all but those in memory) takes the `Durable...` suites, which hold more. One that keeps the audit trail in chains
(`ports.ChainedAudit`) takes the `Chained...` suites, and gives a fixture `tamper`.
"""

from __future__ import annotations

from tokenkeep.testing.conformance.issuer import (
    ChainedIssuerConformance,
    DurableIssuerConformance,
    IssuerConformance,
)
from tokenkeep.testing.conformance.vault import (
    ChainedVaultConformance,
    DurableVaultConformance,
    VaultConformance,
)

__all__ = [
    "ChainedIssuerConformance",
    "ChainedVaultConformance",
    "DurableIssuerConformance",
    "DurableVaultConformance",
    "IssuerConformance",
    "VaultConformance",
]
