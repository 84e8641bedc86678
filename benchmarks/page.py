"""What the storage page of upstox-totp does on SQLite, told again: a connection for each call, tokens in clear."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS upstox_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, access_token TEXT NOT NULL,
    user_name TEXT, email TEXT, broker TEXT, user_type TEXT, products TEXT, exchanges TEXT,
    is_active BOOLEAN DEFAULT TRUE, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    expires_at TIMESTAMP NOT NULL, metadata TEXT);
CREATE INDEX IF NOT EXISTS idx_user_id_active ON upstox_tokens(user_id, is_active);
CREATE INDEX IF NOT EXISTS idx_expires_at ON upstox_tokens(expires_at);
"""

_VALID: Final = """
SELECT access_token, expires_at, user_name FROM upstox_tokens
WHERE user_id = ? AND is_active = TRUE AND expires_at > datetime('now', '+1 hour')
ORDER BY created_at DESC LIMIT 1
"""

_INSERT: Final = """
INSERT INTO upstox_tokens (user_id, access_token, user_name, email, broker, user_type, products, exchanges,
                           expires_at, metadata)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


class PageStorage:
    """The page's SQLite class without its login: what is measured here is the storage."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._connection() as connection:
            connection.executescript(_TABLE)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path)
        connection.row_factory = sqlite3.Row
        try:
            yield connection
        finally:
            connection.close()

    def store(self, user_id: str, token: str) -> None:
        """Mark the old tokens, put in the new one, commit."""
        expires_at = (datetime.now(UTC) + timedelta(hours=24)).isoformat(sep=" ")
        kinds = json.dumps(["D", "CO", "I"])
        row = (user_id, token, "A. User", "a@example.org", "UPSTOX", "individual", kinds, kinds, expires_at, "{}")
        with self._connection() as connection:
            connection.execute(
                "UPDATE upstox_tokens SET is_active = FALSE WHERE user_id = ? AND is_active = TRUE", (user_id,)
            )
            connection.execute(_INSERT, row)
            connection.commit()

    def get_valid(self, user_id: str) -> dict[str, Any] | None:
        """Return the newest active token."""
        with self._connection() as connection:
            row = connection.execute(_VALID, (user_id,)).fetchone()
        return None if row is None else dict(row)

    def active(self, user_id: str) -> int:
        """Count the tokens that pass for the active one."""
        with self._connection() as connection:
            query = "SELECT count(*) FROM upstox_tokens WHERE user_id = ? AND is_active = TRUE"
            return int(connection.execute(query, (user_id,)).fetchone()[0])
