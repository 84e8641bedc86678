"""The chain of the audit trail: a place in it for each event, and a table of the heads.

What was written before stays outside of the chains, which begin with the next event of each user.

Frozen, as the first one is.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, MetaData, Table

from tokenkeep.stores.sql.migrations.steps import add_columns, create, naming
from tokenkeep.stores.sql.types import Word, octets

revision: Final = "0002"
down_revision: Final = "0001"


def upgrade() -> None:
    """Add the columns, which are null in the rows that are there, and the table."""
    names = naming()
    add_columns(
        f"{names.prefix}audit",
        names.schema,
        [Column("sequence", BigInteger), Column("digest", octets(32)), *_proof()],
    )
    create(heads(names.prefix, names.schema))


def heads(prefix: str, schema: str | None) -> MetaData:
    """Return the table that schema version 2 adds."""
    metadata = MetaData(schema=schema)
    innodb: dict[str, Any] = {
        f"{dialect}_{option}": value
        for dialect in ("mysql", "mariadb")
        for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"))
    }
    Table(
        f"{prefix}audit_head",
        metadata,
        Column("namespace", Word(64), primary_key=True),
        Column("user_id", Word(255), primary_key=True),
        Column("sequence", BigInteger, nullable=False),
        Column("digest", octets(32), nullable=False),
        Column("vouched", BigInteger, nullable=False),
        Column("vouched_digest", octets(32), nullable=False),
        *_proof("vouched_"),
        Column("purged", BigInteger, nullable=False),
        Column("purged_digest", octets(32), nullable=False),
        *_proof("purged_"),
        **innodb,
    )
    return metadata


def _proof(prefix: str = "") -> list[Column[Any]]:
    return [Column(f"{prefix}proof", octets(32)), Column(f"{prefix}key_id", Word(64))]
