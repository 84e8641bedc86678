"""The wish to revoke at the provider: when it is next told, with a token that has ended here.

Frozen, as the first one is.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Index, MetaData, Table

from tokenkeep.stores.sql.migrations.steps import add_columns, add_index, naming
from tokenkeep.stores.sql.types import Instant, Word

revision: Final = "0003"
down_revision: Final = "0002"


def upgrade() -> None:
    """Add the column, which is null in the rows that are there, and its index."""
    names = naming()
    token = f"{names.prefix}token"
    add_columns(token, names.schema, [Column("revoke_at", Instant)])
    table = Table(token, MetaData(schema=names.schema), Column("revoke_at", Instant), Column("namespace", Word(64)))
    wished = table.c.revoke_at.is_not(None)
    columns = (table.c.revoke_at, table.c.namespace)
    add_index(Index(f"{token}_revoke", *columns, sqlite_where=wished, postgresql_where=wished))
