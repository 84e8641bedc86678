"""Settings of a server that would lose what was acknowledged."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Dialect, text

from tokenkeep.stores.sql.database import Transaction
from tokenkeep.stores.sql.types import MARIADB

_ASK: Final = {
    "postgresql": text(
        "SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes')"
    ),
    **dict.fromkeys(MARIADB, text("SELECT @@innodb_flush_log_at_trx_commit, @@sync_binlog, @@log_bin")),
}


async def unsafe_settings(dialect: Dialect, transaction: Transaction) -> tuple[str, ...]:
    """Return a sentence for each setting that would lose acknowledged data."""
    if dialect.name not in _ASK:
        return ()
    found = tuple(str(value).lower() for value in await transaction.first(_ASK[dialect.name]))
    return _of_postgresql(*found) if dialect.name == "postgresql" else _of_mariadb(*found)


def _of_postgresql(commit: str, fsync: str, pages: str) -> tuple[str, ...]:
    unsafe = {
        "synchronous_commit=off loses acknowledged changes when the server is killed; set it to on": commit == "off",
        "fsync=off loses acknowledged changes when the power fails; set it to on": fsync == "off",
        "full_page_writes=off may damage the database when the power fails; set it to on": pages == "off",
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
