"""What revisions are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alembic import op
from sqlalchemy import Column, Index, MetaData, inspect
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


def add_columns(table: str, schema: str | None, columns: Sequence[Column[Any]]) -> None:
    """Add columns to a table, or write the SQL for it; what is there already stays, so that it may be repeated."""
    there: set[str] = set()
    if not op.get_context().as_sql:
        there = {column["name"] for column in inspect(op.get_bind()).get_columns(table, schema=schema)}
    for column in columns:
        if column.name not in there:
            op.add_column(table, column, schema=schema)


def add_index(index: Index) -> None:
    """Add an index, or write the SQL for it; where it is there already it stays."""
    if op.get_context().as_sql:
        op.execute(CreateIndex(index))
    else:
        index.create(op.get_bind(), checkfirst=True)


def _name(index: Any) -> str:
    return str(index.name)
