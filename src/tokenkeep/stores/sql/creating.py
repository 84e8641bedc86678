"""Making what is not there yet."""

from __future__ import annotations

from sqlalchemy import Connection, MetaData, inspect
from sqlalchemy.schema import CreateSchema


def create_missing(connection: Connection, metadata: MetaData) -> None:
    """Create the schema, the tables and the indexes that are not there.

    Where DDL is no part of a transaction (MariaDB) it may stop between a table and its index; repeated, it
    does the rest.
    """
    create_schema(connection, metadata.schema)
    metadata.create_all(connection)
    for table in metadata.sorted_tables:
        for index in table.indexes:
            index.create(connection, checkfirst=True)


def create_schema(connection: Connection, schema: str | None) -> None:
    """Create a schema that is not there; whoever may not create any can still use one that is."""
    if schema is not None and not inspect(connection).has_schema(schema):
        connection.execute(CreateSchema(schema))
