"""The one door through which a driver's errors become ours."""

from __future__ import annotations

import sqlite3
from enum import Enum, auto
from typing import Final, NamedTuple

from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tokenkeep.errors import StoreError, StoreUnavailable
from tokenkeep.stores.sql import server_errors
from tokenkeep.stores.sql.server_errors import Kind

DRIVERS: Final = ("asyncmy", "asyncpg", "psycopg", "pymysql")

_SQLITE_WAYS_OUT: Final = (
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


class NoPartition(StoreError):
    """A row belongs into a partition that is not there. It never leaves the store."""


class Undone(StoreUnavailable):
    """Nothing of the transaction has happened, and the same may be asked again at once.

    Attributes:
        contention: others wrote the same rows at that moment; otherwise the connection was lost.
    """

    def __init__(self, reason: str, *, contention: bool) -> None:
        super().__init__(reason)
        self.contention = contention


class InDoubt(StoreUnavailable):
    """The connection was lost while the answer to COMMIT was due: it has happened, or it has not."""


class Phase(Enum):
    """How far a transaction had come."""

    BEFORE_COMMIT = auto()
    COMMITTING = auto()


class Place(NamedTuple):
    """Where an error came from: what people call the database, and what SQLAlchemy calls its kind."""

    name: str
    dialect: str


def is_of_a_driver(error: BaseException) -> bool:
    """Tell whether an error is the database's or its connection's, and not one of our own program."""
    known = isinstance(error, SQLAlchemyError | sqlite3.Error | OSError)
    return known or type(error).__module__.partition(".")[0] in DRIVERS


def as_ours(place: Place, error: BaseException, phase: Phase) -> StoreError:
    """Return what a driver says as one of our errors, without its statement, its values and its address.

    Of a server's driver not even the text is kept, which names hosts, users and values. Raise it outside of
    the `except` that caught the original, so that this does not hang on as the context.
    """
    if isinstance(error, PoolTimeout):
        return StoreUnavailable(
            f"{place.name}: every connection of the pool is busy; the database is slow, or the pool is too small"
        )
    if isinstance(error, SQLAlchemyError) and not isinstance(error, DBAPIError):
        return StoreError(
            f"{place.name}: {type(error).__name__} in the database layer; this is a defect, please report it"
        )
    driver = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if place.dialect == "sqlite":
        return _of_sqlite(place.name, driver)
    return _of_server(place, driver, phase, conflict=isinstance(error, IntegrityError))


def _of_sqlite(name: str, driver: BaseException) -> StoreError:
    ours: StoreError
    text = str(driver).lower()
    ways_out = [way_out for sign, way_out in _SQLITE_WAYS_OUT if sign in text]
    if isinstance(driver, sqlite3.IntegrityError):
        ours = _conflict(name)
    elif ways_out:
        ours = StoreUnavailable(f"{name} {ways_out[0]}")
    else:
        kind = type(driver).__name__
        ours = StoreUnavailable(f"{name}: the database refused ({kind}); see the cause, then try again")
    ours.__cause__ = driver  # SQLite's own text is free of values
    return ours


def _conflict(name: str) -> Conflict:
    return Conflict(f"{name}: somebody else wrote the same row first; try again")


def _of_server(place: Place, driver: BaseException, phase: Phase, *, conflict: bool) -> StoreError:
    said = server_errors.understood(place.dialect, driver)
    sentence = f"{place.name} {said.way_out}"
    if said.kind is Kind.CONTENTION:
        return Undone(sentence, contention=True)
    if said.kind is Kind.LOST:
        if phase is Phase.BEFORE_COMMIT:
            return Undone(sentence, contention=False)
        return InDoubt(
            f"{place.name} was lost while it committed: the change has happened or it has not; look, then decide"
        )
    if said.kind is Kind.UNPLACED:
        return NoPartition(sentence)
    if conflict or said.kind is Kind.CONFLICT:
        return _conflict(place.name)
    return StoreUnavailable(sentence)
