"""SQL databases, by SQLAlchemy Core: one class for an `Engine` and an `AsyncEngine`."""
