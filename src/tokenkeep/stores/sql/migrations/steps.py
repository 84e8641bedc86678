"""What revisions are made of."""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import MetaData
from sqlalchemy.schema import CreateIndex, CreateSchema, CreateTable

from tokenkeep.stores.sql.creating import create_missing
from tokenkeep.stores.sql.naming import Naming


def naming() -> Naming:
    """Return what the tables of this database are called."""
    found: Naming = op.get_context().opts["tokenkeep_naming"]
    return found


def create(metadata: MetaData) -> None:
    """Create tables, or write the SQL for it; what is there already stays, so that it may be repeated."""
    if not op.get_context().as_sql:
        create_missing(op.get_bind(), metadata)
        return
    statements: list[Any] = [] if metadata.schema is None else [CreateSchema(metadata.schema, if_not_exists=True)]
    for table in metadata.sorted_tables:
        statements += [CreateTable(table), *(CreateIndex(index) for index in sorted(table.indexes, key=_name))]
    for statement in statements:
        op.execute(statement)


def _name(index: Any) -> str:
    return str(index.name)
