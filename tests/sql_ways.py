"""The ways to a SQL server: a face and a driver."""

from __future__ import annotations

from typing import Final

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
