"""MariaDB and MySQL: how their connections are made, by PyMySQL or by asyncmy."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import Dialect, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from tokenkeep.errors import ConfigurationError
from tokenkeep.stores.sql.servers import mariadb_nodes, tls
from tokenkeep.stores.sql.servers.address import Address

EXAMPLE: Final = "mariadb://user:password@host:3306/database"

DRIVERS: Final = {False: ("pymysql",), True: ("asyncmy",)}

_VERIFY: Final = "add ssl_ca=<the authority's file> to the URL"

_SESSION: Final = (
    "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
    "innodb_lock_wait_timeout = 10"
)
"""Times are UTC, what does not fit is an error and never cut, and nobody waits long for a row."""


class Link:
    """How to connect: the driver and what it is told.

    Attributes:
        warnings: that the link is not verified.
    """

    def __init__(self, address: Address, *, asynchronous: bool) -> None:
        self.address = address
        self.driver = address.choose_driver(DRIVERS, asynchronous=asynchronous)
        options = dict(address.options)
        secured = tls.of_mariadb(options)
        if options:
            msg = f"a MariaDB URL does not take {', '.join(sorted(options))}; leave it out"
            raise ConfigurationError(msg)
        verified = secured is not None and secured.check_hostname
        self.warnings = tls.warnings(address, way_out=_VERIFY, verified=verified)
        self.arguments: dict[str, Any] = {
            "charset": "utf8mb4",
            "init_command": _SESSION,
            "connect_timeout": address.limits.connect_timeout,
            "read_timeout": address.limits.statement_timeout,
        }
        if self.driver == "pymysql":
            self.arguments["write_timeout"] = address.limits.statement_timeout
        if secured is not None:
            self.arguments["ssl"] = secured


def open_engine(link: Link, *, asynchronous: bool) -> Engine | AsyncEngine:
    """Make an engine; nothing is connected yet.

    READ COMMITTED takes fewer locks than the server's default, and is enough: each change decides by one
    conditional statement or under row locks, which see what was committed before. Every transaction ends by
    COMMIT or ROLLBACK, so the pool need not add another.
    """
    url = link.address.with_driver(link.driver).set(query={})
    options: dict[str, Any] = {
        **link.address.limits.pool(),
        "connect_args": link.arguments,
        "hide_parameters": True,
        "isolation_level": "READ COMMITTED",
        "pool_reset_on_return": None,
    }
    if asynchronous:
        engine = create_async_engine(url, poolclass=AsyncAdaptedQueuePool, **options)
        _choose_server(engine.sync_engine, link.address)
        return engine
    plain = create_engine(url, poolclass=QueuePool, **options)
    _choose_server(plain, link.address)
    return plain


def _choose_server(engine: Engine, address: Address) -> None:
    """Connect by `mariadb_nodes`, and leave a server that can no longer serve."""

    @event.listens_for(engine, "do_connect")
    def _connect(dialect: Dialect, _record: object, _arguments: object, options: dict[str, Any]) -> Any:
        return mariadb_nodes.connect(dialect, options, address.places, reports=address.is_replica)

    @event.listens_for(engine, "handle_error")
    def _noticed(context: ExceptionContext) -> None:
        first = getattr(context.original_exception, "args", None) or (None,)
        if first[0] in mariadb_nodes.LEAVE:
            context.is_disconnect = True
