"""The SQLite file of the page's simple and pooled classes."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from os import PathLike, fspath
from pathlib import Path
from typing import Final

from tokenkeep.errors import StoreUnavailable
from tokenkeep.importing.seed_page import entry_of
from tokenkeep.upstox_storage._takeover import ERASED, OldRow, OldTokens

BUSY_SECONDS: Final = 30.0
"""How long to wait for those who use the file; it happens once."""

_TABLE: Final = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'upstox_tokens'"
_ROWS: Final = "SELECT * FROM upstox_tokens WHERE access_token <> ? ORDER BY id"
_ERASE: Final = "UPDATE upstox_tokens SET access_token = ?, is_active = FALSE WHERE id = ? AND access_token = ?"


class SQLiteTable:
    """The table `upstox_tokens` of a file."""

    def __init__(self, db_path: str | PathLike[str]) -> None:
        self._path = fspath(db_path)

    @contextmanager
    def __call__(self) -> Iterator[OldTokens]:
        """Open the file; a database in memory has nothing to take over."""
        place = ":memory:" if self._path == ":memory:" else f"{Path(self._path).absolute().as_uri()}?mode=rw"
        try:
            with closing(sqlite3.connect(place, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
                connection.row_factory = sqlite3.Row
                yield _Opened(connection, Path(self._path))
        except sqlite3.Error as error:
            what = getattr(error, "sqlite_errorname", type(error).__name__)
            msg = f"the table upstox_tokens of {Path(self._path).name} cannot be taken over ({what}); "
            msg += "nothing is lost: end what uses the file, then open it again"
            raise StoreUnavailable(msg) from None


class _Opened:
    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def rows(self) -> Sequence[OldRow]:
        if self._connection.execute(_TABLE).fetchone() is None:
            return []
        return [self._row(row) for row in self._connection.execute(_ROWS, (ERASED,))]

    def _row(self, row: sqlite3.Row) -> OldRow:
        place, fields = f"row {row['id']} of upstox_tokens", dict(row)
        return OldRow(
            place=place,
            key=row["id"],
            user_id=str(row["user_id"]),
            active=bool(row["is_active"]),
            text=row["access_token"],
            read=lambda origin: entry_of(place, fields, origin),
        )

    def back_up(self) -> str:
        """Copy the file, readable by its owner alone, under a name that nothing has."""
        descriptor, temporary = tempfile.mkstemp(dir=self._path.absolute().parent, prefix=f".{self._path.name}.")
        os.close(descriptor)
        try:
            with closing(sqlite3.connect(temporary)) as copy:
                self._connection.backup(copy)
            for number in count(1):
                name = f"{self._path.name}.backup{f'-{number}' if number > 1 else ''}"
                try:
                    os.link(temporary, self._path.with_name(name))
                except FileExistsError:
                    continue
                return name
        finally:
            Path(temporary).unlink()
        raise AssertionError  # pragma: no cover  # counting has no end

    def erase(self, rows: Sequence[OldRow]) -> None:
        """Erase the tokens; before that the free pages, where rows that were deleted still stand, and then the log."""
        self._connection.execute("VACUUM")
        self._connection.execute("PRAGMA secure_delete=ON")
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(_ERASE, [(ERASED, row.key, row.text) for row in rows])
        self._connection.execute("COMMIT")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
