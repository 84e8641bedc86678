"""The ways to a SQL server: a face and a driver."""

from __future__ import annotations

from typing import Final

from tokenkeep import IssuedToken, Secret
from tokenkeep.testing import faces

type Way = tuple[faces.Face, str]

WAYS: Final[list[Way]] = [
    ("sync", "postgresql"),
    ("async", "postgresql"),
    ("async", "postgresql+asyncpg"),
    ("sync", "mariadb"),
    ("async", "mariadb"),
]
"""asyncpg has no sync face."""


def shown(issued: IssuedToken) -> Secret:
    """Return the token of one that was issued just now, which is when it is shown."""
    assert issued.token is not None
    return issued.token
