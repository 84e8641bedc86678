"""PostgreSQL: how its connections are made, by psycopg 3 or by asyncpg."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from tokenkeep.errors import ConfigurationError
from tokenkeep.stores.sql.servers import tls
from tokenkeep.stores.sql.servers.address import Address
from tokenkeep.stores.sql.servers.postgresql_bell import (
    AsyncpgSession,
    AsyncPsycopgSession,
    PostgresBell,
    PsycopgSession,
)
from tokenkeep.stores.sql.wire.asynchronous import AsyncpgLine, AsyncWire, Line, PsycopgLine
from tokenkeep.stores.sql.wire.question import Wire
from tokenkeep.stores.sql.wire.threads import ThreadWire

EXAMPLE: Final = "postgresql://user:password@host:5432/database"

DRIVERS: Final = {False: ("psycopg",), True: ("psycopg", "asyncpg")}

_VERIFY: Final = "add sslmode=verify-full and sslrootcert=<the authority's file> to the URL"
_PLAN_ONCE: Final = "SET plan_cache_mode = force_generic_plan"
"""Look-ups are planned once a connection: for lists of a few keys the server would plan each time anew."""

_FALSE: Final = ("off", "false", "no", "0")
_PRIMARY: Final = ("primary", "read-write")


class Link:
    """How to connect: the driver and what it is told.

    Attributes:
        warnings: that the link is not verified.
        prepares: whether statements may be prepared; not behind a pooler that hands on connections by transaction.
    """

    def __init__(self, address: Address, *, asynchronous: bool) -> None:
        self.address = address
        self.driver = address.choose_driver(DRIVERS, asynchronous=asynchronous)
        options = dict(address.options)
        verified = options.get("sslmode") == "verify-full"
        self.warnings = tls.warnings(address, way_out=_VERIFY, verified=verified)
        self.prepares = options.pop("prepare", "on").lower() not in _FALSE
        options["target_session_attrs"] = _wanted(options.get("target_session_attrs"), address)
        self.arguments = self._of_asyncpg(options) if self.driver == "asyncpg" else self._of_psycopg(options)

    def _of_psycopg(self, options: dict[str, str]) -> dict[str, Any]:
        """Hand everything on to libpq, which knows its own options."""
        given: dict[str, Any] = {**options, "connect_timeout": max(1, round(self.address.limits.connect_timeout))}
        return given if self.prepares else {**given, "prepare_threshold": None}

    def _of_asyncpg(self, options: dict[str, str]) -> dict[str, Any]:
        """Translate libpq's options into asyncpg's."""
        limits = self.address.limits
        given: dict[str, Any] = {"timeout": limits.connect_timeout, "command_timeout": limits.statement_timeout}
        secured = tls.of_postgresql(options)
        if secured is not None:
            given["ssl"] = secured
        given["target_session_attrs"] = options.pop("target_session_attrs")
        if "application_name" in options:
            given["server_settings"] = {"application_name": options.pop("application_name")}
        if "passfile" in options:
            given["passfile"] = options.pop("passfile")
        if options:
            msg = f"asyncpg does not take {', '.join(sorted(options))} in the URL; leave it out, or take psycopg"
            raise ConfigurationError(msg)
        if not self.prepares:
            given |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
        return given


def _wanted(given: str | None, address: Address) -> str:
    """Return which kind of server may be connected to: what decides is never asked of a standby."""
    if address.is_replica:
        return "any"
    if given not in {None, *_PRIMARY}:
        msg = (
            f"target_session_attrs in the database URL must be {' or '.join(_PRIMARY)}, for a standby may not know of "
            "a revocation yet; name standbys that may answer reports by replica=host:port"
        )
        raise ConfigurationError(msg)
    return given or _PRIMARY[0]


def open_engine(link: Link, *, asynchronous: bool) -> Engine | AsyncEngine:
    """Make an engine; nothing is connected yet."""
    url, options = link.address.with_driver(link.driver), _options(link)
    if not asynchronous:
        engine = create_engine(url, poolclass=QueuePool, **options)
        _bound(engine, link)
        return engine
    if link.driver == "psycopg":
        from tokenkeep.stores.sql.servers import psycopg_bounded  # noqa: PLC0415  # drivers are imported when they are wanted

        options["connect_args"]["async_creator_fn"] = psycopg_bounded.connector(link.address.limits.statement_timeout)
    else:
        from tokenkeep.stores.sql.servers import asyncpg_hosts  # noqa: PLC0415  # the same

        options["connect_args"]["async_creator_fn"] = asyncpg_hosts.connect
    return create_async_engine(url, poolclass=AsyncAdaptedQueuePool, **options)


def _options(link: Link) -> dict[str, Any]:
    pool: Mapping[str, Any] = link.address.limits.pool()
    return {**pool, "connect_args": dict(link.arguments), "hide_parameters": True}


def _bound(engine: Engine, link: Link) -> None:
    """Give each connection a bound for the time of a statement, which libpq does not have."""
    from tokenkeep.stores.sql.servers import psycopg_bounded  # noqa: PLC0415  # drivers are imported when they are wanted

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: object, _record: object, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return psycopg_bounded.connect(link.address.limits.statement_timeout, *arguments, **options)


def open_wire(link: Link, *, asynchronous: bool) -> Wire | None:
    """Return what runs look-ups on the driver itself; `None` where statements may not be prepared."""
    if not link.prepares:
        return None
    if not asynchronous:
        return ThreadWire(_connecting(link), timeout=link.address.limits.pool_timeout)
    return AsyncWire(partial(_line, link))


def open_bell(link: Link, *, asynchronous: bool) -> PostgresBell | None:
    """Return what listens on a connection of its own; `None` where sessions are handed on by transaction."""
    if not link.prepares:
        return None
    if asynchronous:
        return PostgresBell(partial(_listening_async, link))
    return PostgresBell(partial(_listening, _connecting(link)))


def _connect_args(link: Link, *, asynchronous: bool) -> tuple[Sequence[Any], dict[str, Any]]:
    url = link.address.with_driver(link.driver)
    arguments, found = url.get_dialect(_is_async=asynchronous)().create_connect_args(url)
    return arguments, {**found, **link.arguments}


def _connecting(link: Link) -> Callable[[], Any]:
    """Return what opens a connection of psycopg for threads, past the pool."""
    from tokenkeep.stores.sql.servers import psycopg_bounded  # noqa: PLC0415  # drivers are imported when they are wanted

    arguments, options = _connect_args(link, asynchronous=False)
    return partial(psycopg_bounded.connect_raw, link.address.limits.statement_timeout, *arguments, **options)


async def _connected(link: Link, **others: Any) -> Any:
    """Open a connection of either driver for an event loop, past the pool."""
    arguments, options = _connect_args(link, asynchronous=True)
    options |= others
    if link.driver == "asyncpg":
        from tokenkeep.stores.sql.servers import asyncpg_hosts  # noqa: PLC0415  # drivers are imported when they are wanted

        return await asyncpg_hosts.connect(*arguments, **options)
    from tokenkeep.stores.sql.servers import psycopg_bounded  # noqa: PLC0415  # the same

    return await psycopg_bounded.connect_raw_async(link.address.limits.statement_timeout, *arguments, **options)


async def _line(link: Link) -> Line:
    limit = link.address.limits.statement_timeout
    unbounded = {"command_timeout": None} if link.driver == "asyncpg" else {}  # the line has a bound of its own
    connection = await _connected(link, **unbounded)
    line = AsyncpgLine(connection, limit) if link.driver == "asyncpg" else PsycopgLine(connection)
    try:
        async with asyncio.timeout(limit):
            await connection.execute(_PLAN_ONCE)
    except BaseException:
        line.drop()
        raise
    return line


async def _listening(connect: Callable[[], Any]) -> PsycopgSession:
    return PsycopgSession(connect())


async def _listening_async(link: Link) -> AsyncpgSession | AsyncPsycopgSession:
    kind = AsyncpgSession if link.driver == "asyncpg" else AsyncPsycopgSession
    return kind(await _connected(link))
