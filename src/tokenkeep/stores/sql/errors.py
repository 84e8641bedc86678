"""The one door through which a driver's errors become ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tokenkeep.errors import StoreError, StoreUnavailable

_WAYS_OUT: Final = (
    ("locked", "is locked by another process; let that one finish its transaction, then try again"),
    ("full", "cannot grow, the disk is full; free some space, then try again"),
    ("readonly", "is read-only; give this process the right to write the file and its folder"),
    ("unable to open", "cannot be opened; check that its folder exists and that this process may write there"),
    ("not a database", "is not a SQLite database; point the URL at another file, this one was left untouched"),
    ("malformed", "is damaged; restore it from a backup"),
    ("disk i/o", "cannot be read or written, the disk reports an error; check the disk"),
)


class Conflict(StoreError):
    """A constraint refused the write: somebody else wrote the same row first. It never leaves the store."""


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Raise what a driver says about the database `name` as one of our errors, without its statement.

    The driver's error hangs on as the cause only where its text is free of values: SQLAlchemy's own
    text names parameters, so the bare driver error is kept instead.
    """
    try:
        yield
    except IntegrityError as error:
        msg = f"{name}: somebody else wrote the same row first; try again"
        raise Conflict(msg) from error.orig
    except DBAPIError as error:
        raise _ours(name, error.orig or error) from error.orig
    except sqlite3.Error as error:
        raise _ours(name, error) from error
    except PoolTimeout:
        msg = f"{name}: every connection of the pool is busy; the database is slow, or the pool is too small"
        raise StoreUnavailable(msg) from None
    except SQLAlchemyError as error:
        msg = f"{name}: {type(error).__name__} in the database layer; this is a defect, please report it"
        raise StoreError(msg) from error


def _ours(name: str, error: BaseException) -> StoreError:
    text = str(error).lower()
    for sign, way_out in _WAYS_OUT:
        if sign in text:
            return StoreUnavailable(f"{name} {way_out}")
    return StoreUnavailable(f"{name}: the database refused ({type(error).__name__}); see the cause, then try again")
