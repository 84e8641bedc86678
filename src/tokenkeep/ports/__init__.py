"""What the core asks of the world: small Protocols, one round trip a method.

The contract stands here; a backend repeats nothing. Every store method may raise `StoreUnavailable`, and
then nothing of what was asked has happened unless the method says otherwise.
"""

from tokenkeep.ports.acquired import NearTokens, TokenRecord, TokenStore, Use
from tokenkeep.ports.auditing import (
    START,
    UNPROVED,
    AuditStore,
    Chain,
    ChainedAudit,
    Entry,
    Link,
    Mark,
    Proof,
    TrailKeys,
)
from tokenkeep.ports.backend import Backend, LentEngine, OpenedStore, Source
from tokenkeep.ports.common import Health, Indexed, KeyStore, KeyUse
from tokenkeep.ports.issued import Grant, IssuedRecord, IssuedStore, Spending
from tokenkeep.ports.leasing import Failure, Lease, LeaseState, LeaseStore, Right, Unheld
from tokenkeep.ports.partitions import Partitions
from tokenkeep.ports.providing import CodeWindow, ExpiryPolicy, OneTimeCodes, Provider, Renewing, Revoking
from tokenkeep.ports.reporting import AuditReports, IssuedReports, TokenReports
from tokenkeep.ports.revoking import Wish, WishStore, may_still_be_good
from tokenkeep.ports.running import Aside, Clock, Signal, Wait, Work
from tokenkeep.ports.sealing import Binding, Sealer
from tokenkeep.ports.transfer import Room, Row, Transferable
from tokenkeep.ports.watching import Bell, Ear

__all__ = [
    "START",
    "UNPROVED",
    "Aside",
    "AuditReports",
    "AuditStore",
    "Backend",
    "Bell",
    "Binding",
    "Chain",
    "ChainedAudit",
    "Clock",
    "CodeWindow",
    "Ear",
    "Entry",
    "ExpiryPolicy",
    "Failure",
    "Grant",
    "Health",
    "Indexed",
    "IssuedRecord",
    "IssuedReports",
    "IssuedStore",
    "KeyStore",
    "KeyUse",
    "Lease",
    "LeaseState",
    "LeaseStore",
    "LentEngine",
    "Link",
    "Mark",
    "NearTokens",
    "OneTimeCodes",
    "OpenedStore",
    "Partitions",
    "Proof",
    "Provider",
    "Renewing",
    "Revoking",
    "Right",
    "Room",
    "Row",
    "Sealer",
    "Signal",
    "Source",
    "Spending",
    "TokenRecord",
    "TokenReports",
    "TokenStore",
    "TrailKeys",
    "Transferable",
    "Unheld",
    "Use",
    "Wait",
    "Wish",
    "WishStore",
    "Work",
    "may_still_be_good",
]
