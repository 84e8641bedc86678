"""What every store must hold, in words.

Subclass a suite and give it one fixture, `url`:

    from tokenkeep.testing.conformance import VaultConformance

    class TestMyStore(VaultConformance):
        @pytest.fixture
        def url(self, tmp_path):
            return f"mystore:///{tmp_path}/tokens"

Each test runs on the sync and the async face. A store that leads two openings of one URL to the same data
(all but those in memory) takes the `Durable...` suites, which hold more.
"""

from __future__ import annotations

from tokenkeep.testing.conformance.issuer import DurableIssuerConformance, IssuerConformance
from tokenkeep.testing.conformance.vault import DurableVaultConformance, VaultConformance

__all__ = ["DurableIssuerConformance", "DurableVaultConformance", "IssuerConformance", "VaultConformance"]
