"""The suites for stores of acquired tokens."""

from __future__ import annotations

from tokenkeep.testing.conformance.asking import Asking
from tokenkeep.testing.conformance.changing import Changing
from tokenkeep.testing.conformance.durable import Keys, Sharing
from tokenkeep.testing.conformance.failing import Failing
from tokenkeep.testing.conformance.forgetting import ForgettingAcquired
from tokenkeep.testing.conformance.getting import Getting
from tokenkeep.testing.conformance.hostile import HostileToTheVault
from tokenkeep.testing.conformance.proving import Proving, ProvingUnderKeys, Reads, Tampering
from tokenkeep.testing.conformance.recounting import Recounting
from tokenkeep.testing.conformance.revoking import Revoking, RevokingTogether
from tokenkeep.testing.conformance.watching import Watching, WatchingOthers


class VaultConformance(
    Getting, Failing, Changing, Revoking, ForgettingAcquired, Recounting, Watching, Asking, HostileToTheVault, Reads
):
    """What a `TokenVault` holds on any store."""


class DurableVaultConformance(VaultConformance, Sharing, RevokingTogether, WatchingOthers, Keys):
    """And on a store to which the same URL leads again."""


class ChainedVaultConformance(DurableVaultConformance, Proving, Tampering, ProvingUnderKeys):
    """And on a store that keeps the audit trail in chains."""
