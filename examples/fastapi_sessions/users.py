"""People and their passwords, in a table of the same database file."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from hashlib import scrypt
from hmac import compare_digest
from typing import Final

_TABLE: Final = "CREATE TABLE IF NOT EXISTS person (name TEXT PRIMARY KEY, salt BLOB NOT NULL, hash BLOB NOT NULL)"
_ADD: Final = "INSERT INTO person (name, salt, hash) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_FIND: Final = "SELECT salt, hash FROM person WHERE name = ?"


class Users:
    """Each method blocks for about a twentieth of a second: FastAPI runs plain functions in a thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        with closing(self._connect()) as connection:
            connection.execute(_TABLE)

    def register(self, name: str, password: str) -> bool:
        """Add somebody; `False` when the name is taken."""
        salt = secrets.token_bytes(16)
        with closing(self._connect()) as connection:
            return connection.execute(_ADD, (name, salt, _hashed(password, salt))).rowcount == 1

    def authenticate(self, name: str, password: str) -> bool:
        """Check a password; it takes as long for a name that nobody has."""
        with closing(self._connect()) as connection:
            salt, expected = connection.execute(_FIND, (name,)).fetchone() or (b"", b"")
        return compare_digest(_hashed(password, salt), expected)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, isolation_level=None, timeout=30)


def _hashed(password: str, salt: bytes) -> bytes:
    """The parameters are those of the OWASP Password Storage Cheat Sheet."""
    return scrypt(password.encode(), salt=salt, n=2**14, r=8, p=5)
