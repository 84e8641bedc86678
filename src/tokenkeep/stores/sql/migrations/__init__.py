"""The Alembic environment. A revision is called by the schema version that it leads to, in four digits."""
