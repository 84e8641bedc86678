"""What a database may offer beyond the four methods of `AccessTokenDatabase`, and when the offer is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def offered(database: object, name: str, *, instead_of: tuple[str, ...]) -> Callable[..., Any] | None:
    """Return a method that stands for several of the four; `None` when the database does not have it.

    `None` too when a subclass has its own of those that would be passed over: what it does there must happen.
    """
    for defined in (getattr(database, "__dict__", {}), *map(vars, type(database).__mro__)):
        if name in defined:
            method: Callable[..., Any] = getattr(database, name)
            return method
        if not defined.keys().isdisjoint(instead_of):
            return None
    return None
