"""What the errors of PostgreSQL and MariaDB mean, and the way out of each."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, NamedTuple


class Kind(Enum):
    """What follows from an error."""

    CONFLICT = auto()
    """A constraint refused the row."""
    CONTENTION = auto()
    """The transaction was undone because of others; the same may be tried again."""
    LOST = auto()
    """The connection is gone or could not be made; a moment later it may be there again."""
    UNPLACED = auto()
    """There is no partition for the row."""
    REFUSED = auto()
    """It would be refused again until somebody does something."""


class Meaning(NamedTuple):
    """What an error means, and what to do about it: the rest of a sentence that begins with the database's name."""

    kind: Kind
    way_out: str


class _Case(NamedTuple):
    """A meaning with its codes, and with the words by which it is known where an error has no code."""

    kind: Kind
    way_out: str
    codes: tuple[str | int, ...]
    words: tuple[str, ...] = ()

    def says(self, text: str) -> bool:
        return any(word in text for word in self.words)


_LOGIN: Final = "refused the user or the password; correct them in the URL, and see who may connect from this host"
_MISSING: Final = "does not exist on that server; create it, or correct its name in the URL"
_FULL: Final = "has no connection left; raise its max_connections, or lower pool_size in the URL"
_FORBIDDEN: Final = "does not allow this to the user in the URL; grant the missing right, then try again"
_READ_ONLY: Final = "is read-only, so it may be a standby; name the primary, or every host, in the URL"
_APART: Final = "is on a node that is not part of its cluster; look at that node, and name every node in the URL"
_BUSY: Final = "undid the change, because others changed the same rows each time; try again"
_POOLED: Final = "is behind a pooler that hands on connections by transaction; add prepare=off to the URL"
_DISK: Final = "cannot grow, the server's disk is full; free some space, then try again"
_STARTING: Final = "is starting up or shutting down; try again in a moment"
_GONE: Final = "cannot be reached; check host and port in the URL, and that the server runs"
_TLS: Final = "does not show a certificate that can be trusted; check the authority's file and the host in the URL"
_NO_TLS: Final = "does not speak TLS; switch it on at the server"
_SLOW: Final = "took too long to answer; see what keeps the server busy, or raise statement_timeout in the URL"
_NO_PARTITION: Final = "lacks a partition for a row; run `tokenkeep db maintain` as the owner of the tables"
_NO_TABLE: Final = "lacks a table or column that should be there; restore it, or point the URL at an empty database"

_OF_TLS: Final = (
    _Case(
        Kind.REFUSED, _TLS, (),
        (
            *("certificate verify failed", "server certificate for", "root certificate file", "hostname mismatch"),
            *("signature failure", "self-signed certificate", "unknown ca"),
        ),
    ),
    _Case(Kind.REFUSED, _NO_TLS, (), ("server does not support ssl", "rejected ssl upgrade", "doesn't support ssl")),
)  # fmt: skip

# SQLSTATE: PostgreSQL, appendix A. At connecting libpq gives no code, only words.
_POSTGRESQL: Final = (
    _Case(Kind.CONFLICT, "", ("23505", "23P01", "42P07", "42710")),
    _Case(Kind.UNPLACED, _NO_PARTITION, ("23514",)),  # a check of a constraint, and our tables have no other
    _Case(Kind.CONTENTION, _BUSY, ("40001", "40P01", "55P03"), ("cached statement plan", "cached plan must not")),
    _Case(
        Kind.REFUSED, _LOGIN, ("28P01", "28000"),
        ("password authentication failed", "no pg_hba.conf entry", "authentication failed", "no password supplied"),
    ),
    _Case(Kind.LOST, _STARTING, ("57P01", "57P02", "57P03"), ("starting up", "shutting down", "in recovery mode")),
    _Case(Kind.LOST, _FULL, ("53300",), ("too many clients", "remaining connection slots", "too many connections")),
    _Case(
        Kind.LOST, _READ_ONLY, ("25006",), ("session is read-only", "none of the hosts match", "in hot standby mode")
    ),
    _Case(Kind.REFUSED, _MISSING, ("3D000",), ("fatal:  database",)),
    _Case(Kind.REFUSED, _LOGIN, (), ("fatal:  role",)),
    _Case(Kind.REFUSED, _FORBIDDEN, ("42501",)),
    _Case(Kind.REFUSED, _POOLED, ("26000", "42P05")),
    _Case(Kind.REFUSED, _DISK, ("53100",)),
    _Case(Kind.REFUSED, _SLOW, ("57014",)),
    _Case(Kind.REFUSED, _NO_TABLE, ("42P01", "42703", "3F000")),
    _Case(
        Kind.LOST, _GONE, ("08000", "08001", "08003", "08004", "08006", "08P01", "57P05"),
        (
            *("connection refused", "timeout expired", "could not translate host name", "connection is closed"),
            *("connection closed", "consuming input failed", "the connection is lost", "statement time-out"),
            *("server closed the connection", "connection was closed", "connection reset", "connection failed"),
        ),
    ),
)  # fmt: skip

# Error numbers: MariaDB server and client. They stand first among the arguments of the driver's error.
_MARIADB: Final = (
    _Case(Kind.CONFLICT, "", (1062, 1586)),
    _Case(Kind.CONTENTION, _BUSY, (1213, 1205, 1020, 1637, 1007, 1050, 1061, 1684)),
    _Case(Kind.LOST, _APART, (1047,)),
    _Case(Kind.REFUSED, _LOGIN, (1045, 1130, 1698, 1251)),
    _Case(Kind.REFUSED, _MISSING, (1049,)),
    _Case(Kind.REFUSED, _FORBIDDEN, (1044, 1142, 1143, 1227, 1370)),
    _Case(Kind.LOST, _FULL, (1040, 1203, 1226)),
    _Case(Kind.LOST, _READ_ONLY, (1290, 1792, 1836)),
    _Case(Kind.REFUSED, _DISK, (1021, 1114)),
    _Case(Kind.REFUSED, _SLOW, (1969, 3024)),
    _Case(Kind.REFUSED, _NO_TABLE, (1146, 1054)),
    _Case(Kind.LOST, _STARTING, (1053, 1927, 1077, 1152, 1184)),
    _Case(
        Kind.LOST, _GONE, (2000, 2002, 2003, 2005, 2006, 2013, 2014, 2045, 2055, 4031),
        ("lost connection", "not connected", "connection was killed", "network operation failed", "already closed"),
    ),
)  # fmt: skip


def understood(dialect: str, driver: BaseException) -> Meaning:
    """Tell what a driver's error means; what is not known is refused by its class and code."""
    code, text = _code(dialect, driver), str(driver).lower()
    cases = _POSTGRESQL if dialect == "postgresql" else _MARIADB
    for case in (
        *(case for case in _OF_TLS if case.says(text)),
        *(case for case in cases if code in case.codes),
        *(case for case in cases if case.says(text)),
    ):
        return Meaning(case.kind, case.way_out)
    if isinstance(driver, OSError) or type(driver).__name__ in _LOST_BY_NAME:
        return Meaning(Kind.LOST, _GONE)
    label = f"{type(driver).__name__} {code}" if code else type(driver).__name__
    return Meaning(Kind.REFUSED, f"refused ({label}); look that up in the server's log, then try again")


_LOST_BY_NAME: Final = ("ConnectionDoesNotExistError", "InternalClientError", "InterfaceError", "ConnectionTimeout")
"""asyncpg raises these in a failover and on a connection that is gone."""


def _code(dialect: str, driver: BaseException) -> str | int | None:
    if dialect == "postgresql":
        state = getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)
        return state if isinstance(state, str) else None
    first = driver.args[0] if driver.args else None
    return first if isinstance(first, int) else None
