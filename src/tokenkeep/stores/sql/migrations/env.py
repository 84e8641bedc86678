"""Run by Alembic for each of its commands; `tokenkeep.stores.sql.migrating` hands everything in."""

from __future__ import annotations

from typing import Any, Final

from alembic import context
from sqlalchemy import delete, insert

from tokenkeep.stores.sql.naming import Naming
from tokenkeep.stores.sql.schema import Tables

given: Final[dict[str, Any]] = context.config.attributes
naming: Final[Naming] = given["naming"]
tables: Final[Tables] = naming.tables()


def noted(*, ctx: Any, step: Any, **_: Any) -> None:
    """Write the schema version in the transaction of the step that led to it: programs go by it."""
    meta = tables.meta
    version = str(int(step.up_revision_id))
    ctx.execute(delete(meta).where(meta.c.name == "schema_version"))
    ctx.execute(insert(meta).values(name="schema_version", value=version))


options: Final[dict[str, Any]] = {
    "target_metadata": tables.metadata,
    "version_table": f"{naming.prefix}revision",
    "version_table_schema": naming.schema,
    "on_version_apply": noted,
    "tokenkeep_naming": naming,
}

if context.is_offline_mode():
    context.configure(dialect_name=given["dialect"], literal_binds=True, output_buffer=given["buffer"], **options)
else:
    context.configure(connection=given["connection"], **options)
with context.begin_transaction():
    context.run_migrations()
