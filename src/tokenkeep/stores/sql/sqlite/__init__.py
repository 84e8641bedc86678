"""SQLite, on the driver of the standard library."""
