"""Which of several MariaDB servers is connected to, and what a node of a Galera cluster is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any, Final

from sqlalchemy import Dialect

_KIND: Final = "SHOW VARIABLES WHERE Variable_name IN ('read_only', 'wsrep_on')"
_READY: Final = "SHOW STATUS LIKE 'wsrep_ready'"

_WAIT: Final = "SET SESSION wsrep_sync_wait = 7"
"""Before each transaction, whether it begins by reading (1), by UPDATE or DELETE (2) or by INSERT (4), wait until
this node has applied what the cluster had committed: https://mariadb.com/kb/en/galera-cluster-system-variables/"""

USUAL_PORT: Final = 3306

NOT_READY: Final = 1047
READ_ONLY: Final = 1290
LEAVE: Final = (NOT_READY, READ_ONLY)
"""The server's errors after which another server, or the same one later, must be connected to anew."""


def connect(
    dialect: Dialect, options: Mapping[str, Any], places: Sequence[tuple[str, int | None]], *, reports: bool
) -> Any:
    """Connect to the first server that answers and is fit; the error is that of the last one.

    A read-only server may answer reports; else it is passed over where there are others.
    """
    module: Any = dialect.loaded_dbapi
    fit = partial(_make_fit, error=module.OperationalError, may_be_read_only=reports or len(places) == 1)
    *others, last = places
    for place in others:
        with suppress(module.Error, OSError):
            return _connected(dialect, options, place, fit)
    return _connected(dialect, options, last, fit)


def _connected(
    dialect: Dialect, options: Mapping[str, Any], place: tuple[str, int | None], fit: Callable[[Any], None]
) -> Any:
    host, port = place
    connection = dialect.connect(**{**options, "host": host, "port": port or USUAL_PORT})
    try:
        with closing(connection.cursor()) as cursor:
            fit(cursor)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_fit(cursor: Any, *, error: Callable[[int, str], Exception], may_be_read_only: bool) -> None:
    """Set what a node of a cluster needs, or say in the server's own words why it is not fit."""
    found = _asked(cursor, _KIND)
    if found.get("read_only") == "ON" and not may_be_read_only:
        raise error(READ_ONLY, "the server runs with read_only")
    if found.get("wsrep_on") == "ON":
        if _asked(cursor, _READY).get("wsrep_ready") != "ON":
            raise error(NOT_READY, "the node is not ready")
        cursor.execute(_WAIT)


def _asked(cursor: Any, statement: str) -> dict[str, str]:
    cursor.execute(statement)
    return dict(cursor.fetchall())
