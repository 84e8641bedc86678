"""`tokenkeep serve`: the service, as a command."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, override

import typer

from tokenkeep.api import AsyncTokenIssuer, AsyncTokenVault
from tokenkeep.cli import accounts
from tokenkeep.cli.moments import span
from tokenkeep.cli.screen import Screen
from tokenkeep.cli.session import Session, command
from tokenkeep.cli.stores import need_database
from tokenkeep.service.callers import open_callers_async

CACHE_VARIABLE: Final = "TOKENKEEP_CACHE"

_LOGGERS: Final = {"tokenkeep": logging.INFO, "uvicorn": logging.WARNING}


@command
def serve(  # noqa: PLR0913  # one argument an option
    session: Session,
    *,
    host: Annotated[str, typer.Option(help="where to listen")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000,
    tls_cert: Annotated[Path | None, typer.Option(help="a PEM file: serve TLS", show_default=False)] = None,
    tls_key: Annotated[Path | None, typer.Option(help="the PEM file of its key", show_default=False)] = None,
    behind_proxy: Annotated[bool, typer.Option("--behind-proxy", help="a proxy ends TLS in front of it")] = False,
    account: Annotated[
        str | None,
        typer.Option(help="your name for the account in the environment; without it nobody is logged in"),
    ] = None,
    cache: Annotated[
        str | None, typer.Option(envvar=CACHE_VARIABLE, help="a Redis tier in front", show_default=False)
    ] = None,
    audit_reads: Annotated[bool, typer.Option("--audit-reads", help="an audit event for each token")] = False,
    issued_prefix: Annotated[
        str | None, typer.Option(help="serve introspection of the application's tokens that begin with it")
    ] = None,
    issued_idle: Annotated[
        str | None, typer.Option(help="the idle time of those tokens, as the application has it", show_default=False)
    ] = None,
) -> None:
    """Serve tokens over HTTP to the callers that `tokenkeep callers` knows, until SIGTERM or Ctrl-C."""
    from tokenkeep.service import running  # noqa: PLC0415  # FastAPI is loaded by those who serve, and its like

    address = running.Address(host=host, port=port, certificate=tls_cert, key=tls_key, behind_proxy=behind_proxy)
    idle = None if issued_idle is None else span(issued_idle, "--issued-idle")
    metrics = running.Metrics()
    providers = [] if account is None else [metrics.measured(accounts.login_of(session.provider, account))]
    if account is None:
        need_database(session)
    vault = AsyncTokenVault.open(
        session.url,
        providers=providers,
        namespace=session.namespace,
        cache=cache,
        audit="reads" if audit_reads else "changes",
    )
    callers = open_callers_async(session.url, session.namespace)
    issued = None if issued_prefix is None else _issued(session, issued_prefix, idle)
    watched = [] if account is None else [(session.provider, account)]
    app = running.application(vault, callers, issued=issued, metrics=metrics, watched=watched)
    with _logged(session.screen):
        opened = (vault, callers) if issued is None else (vault, callers, issued)
        running.serve(app, address, opened=opened)


def _issued(session: Session, prefix: str, idle: timedelta | None) -> AsyncTokenIssuer:
    """Open the issuer of the application's tokens. It issues none, so its lifetime says nothing."""
    return AsyncTokenIssuer.open(
        session.url, lifetime=timedelta(days=1), idle=idle, prefix=prefix, namespace=session.namespace
    )


@contextmanager
def _logged(screen: Screen) -> Iterator[None]:
    """Write the log to stderr, each line with its time, in the place of notes."""
    handler, before = _Lines(screen), {}
    for name, level in _LOGGERS.items():
        logger = logging.getLogger(name)
        before[logger] = logger.handlers, logger.level, logger.propagate
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, (handlers, level, propagate) in before.items():
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


class _Lines(logging.Handler):
    """A line for each record, without tracebacks: those of other libraries may quote anything."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen

    @override
    def emit(self, record: logging.LogRecord) -> None:
        at = datetime.fromtimestamp(record.created, UTC)
        self._screen.log(at, record.levelname.lower(), record.name, record.getMessage())
