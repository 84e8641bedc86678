"""Redis and Valkey by redis-py."""
