"""How much and how long: the bounds of a pool and of what goes over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from tokenkeep.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a URL may set by the same names; times are in seconds.

    Attributes:
        pool_size: connections that are kept.
        max_overflow: connections beyond those, closed after use.
        pool_timeout: how long a caller waits for a connection.
        pool_recycle: the age at which a connection is replaced.
        connect_timeout: how long connecting to one host may take.
        statement_timeout: how long one statement may take.
        retry_timeout: how long a lost connection is looked for again.
    """

    pool_size: int = 8
    max_overflow: int = 0
    pool_timeout: float = 15
    pool_recycle: float = 1800
    connect_timeout: float = 5
    statement_timeout: float = 30
    retry_timeout: float = 2

    @classmethod
    def taken_from(cls, options: dict[str, str]) -> Self:
        """Take what belongs here out of the options of a URL.

        Raises:
            ConfigurationError: a value is no number, or out of range.
        """
        given: dict[str, Any] = {
            field.name: _number(field.name, options.pop(field.name)) for field in fields(cls) if field.name in options
        }
        return cls(**given)

    def pool(self) -> Mapping[str, Any]:
        """Return what SQLAlchemy's pools take."""
        return {
            "pool_size": self.pool_size,
            "max_overflow": self.max_overflow,
            "pool_timeout": self.pool_timeout,
            "pool_recycle": self.pool_recycle,
        }


_WHOLE = ("pool_size", "max_overflow")
_MAY_BE_ZERO = ("max_overflow", "retry_timeout")
_MOST = 86_400


def _number(name: str, text: str) -> float:
    try:
        value = int(text) if name in _WHOLE else float(text)
    except ValueError:
        value = -1
    if not (0 if name in _MAY_BE_ZERO else 1e-3) <= value <= _MOST:
        what = "a whole number" if name in _WHOLE else "a number of seconds"
        msg = f"{name} in the database URL must be {what}, {'not negative' if name in _MAY_BE_ZERO else 'above 0'}"
        raise ConfigurationError(msg)
    return value
