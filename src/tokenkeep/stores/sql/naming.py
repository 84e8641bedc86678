"""What the tables are called: the prefix and the schema that a URL may choose."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Final, Self

from tokenkeep.errors import ConfigurationError
from tokenkeep.stores.sql.schema import Tables

LONGEST_PREFIX: Final = 40
"""PostgreSQL cuts names off after 63 bytes, and the longest that follows a prefix has 22."""

_PREFIX: Final = re.compile(rf"[a-z_][a-z0-9_]{{0,{LONGEST_PREFIX - 1}}}")
_SCHEMA: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Naming:
    """What is before the names of all tables, and the schema they stand in (on MariaDB: the database).

    Reserved words are fine: every name is quoted where it must be.

    Raises:
        ConfigurationError: a name has other characters than letters, digits and underscores, or is too long.
    """

    prefix: str = "tokenkeep_"
    schema: str | None = None

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            msg = (
                f"table_prefix must be 1 to {LONGEST_PREFIX} lower-case letters, digits or underscores, "
                "the first no digit; leave it out for tokenkeep_"
            )
            raise ConfigurationError(msg)
        if self.schema is not None and (not _SCHEMA.fullmatch(self.schema) or self.schema.lower().startswith("pg_")):
            msg = (
                "schema must be 1 to 63 letters, digits or underscores, the first no digit, and not begin with pg_; "
                "leave it out for the default one"
            )
            raise ConfigurationError(msg)

    @classmethod
    def taken_from(cls, options: dict[str, str]) -> Self:
        """Take `table_prefix` and `schema` out of the options of a URL."""
        return cls(options.pop("table_prefix", cls().prefix), options.pop("schema", None))

    def tables(self) -> Tables:
        """Return the tables under these names."""
        return _tables(self.prefix, self.schema)


@cache
def _tables(prefix: str, schema: str | None) -> Tables:
    """Describe them once: nobody changes a description, and programs use one or two."""
    return Tables(prefix, schema)
