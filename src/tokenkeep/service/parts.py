"""What the routes are made with."""

from __future__ import annotations

from dataclasses import dataclass

from tokenkeep.api import AsyncTokenVault
from tokenkeep.metrics import Metrics
from tokenkeep.ports import Clock
from tokenkeep.service.admission import Admission
from tokenkeep.service.watched import Watched


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Opened elsewhere, and closed there.

    Attributes:
        vault: has the tokens.
        admission: says who may ask.
        metrics: is told of what was handed out.
        watched: the accounts that the metrics tell of.
        clock: tells how long a token still lasts.
    """

    vault: AsyncTokenVault
    admission: Admission
    metrics: Metrics
    watched: Watched
    clock: Clock
