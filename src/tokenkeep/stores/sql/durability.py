"""Settings of a server that would lose what was acknowledged, or let it be unknown for a while."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Dialect, text

from tokenkeep.stores.sql.database import Transaction
from tokenkeep.stores.sql.types import MARIADB

_ASK: Final = {
    "postgresql": text(
        "SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes'), "
        "pg_is_in_recovery()"
    ),
    **dict.fromkeys(MARIADB, text("SELECT @@innodb_flush_log_at_trx_commit, @@sync_binlog, @@log_bin")),
}

_GALERA: Final = text("SHOW VARIABLES WHERE Variable_name IN ('wsrep_on', 'wsrep_sync_wait')")


async def unsafe_settings(dialect: Dialect, transaction: Transaction) -> tuple[str, ...]:
    """Return a sentence for each setting that would lose acknowledged data, or answer with older data."""
    if dialect.name not in _ASK:
        return ()
    found = tuple(str(value).lower() for value in await transaction.first(_ASK[dialect.name]))
    if dialect.name == "postgresql":
        return _of_postgresql(*found)
    galera = {name: value for name, value in await transaction.rows(_GALERA)}  # noqa: C416  # rows are no pairs to mypy
    return _of_mariadb(*found) + _of_galera(galera)


def _of_postgresql(commit: str, fsync: str, pages: str, standby: str) -> tuple[str, ...]:
    unsafe = {
        "synchronous_commit=off loses acknowledged changes when the server is killed; set it to on": commit == "off",
        "fsync=off loses acknowledged changes when the power fails; set it to on": fsync == "off",
        "full_page_writes=off may damage the database when the power fails; set it to on": pages == "off",
        "the server is a standby, so a token that was revoked may still be good here; connect to the primary": (
            standby == "true"
        ),
    }
    return tuple(sentence for sentence, is_so in unsafe.items() if is_so)


def _of_mariadb(flush: str, binlog: str, has_binlog: str) -> tuple[str, ...]:
    what = "when the server is killed" if flush == "0" else "when the power fails"
    unsafe = {
        f"innodb_flush_log_at_trx_commit={flush} loses acknowledged changes {what}; set it to 1": flush != "1",
        f"sync_binlog={binlog} loses what replicas and restores need when the power fails; set it to 1": (
            has_binlog == "1" and binlog == "0"
        ),
    }
    return tuple(sentence for sentence, is_so in unsafe.items() if is_so)


def _of_galera(settings: Mapping[str, str]) -> tuple[str, ...]:
    """On our own connections it is set; a lent engine is as it was made."""
    if settings.get("wsrep_on") != "ON" or int(settings["wsrep_sync_wait"]) & 7 == 7:  # noqa: PLR2004  # three bits
        return ()
    said = "wsrep_sync_wait lets a node answer with what it knew a moment ago"
    return (f"{said}; set it to 7 on each connection of the engine, or on every node",)
