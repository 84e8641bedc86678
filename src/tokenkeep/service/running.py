"""Running the service: where it listens, how it starts, how it ends."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from tokenkeep.errors import ConfigurationError

try:
    import uvicorn
    from starlette.types import ASGIApp

    from tokenkeep.metrics import Metrics
    from tokenkeep.service.application import application
    from tokenkeep.service.edge import LONGEST_HEAD
except ModuleNotFoundError as error:
    msg = f'the service needs packages that are missing ({error.name}): pip install "tokenkeep[service]"'
    raise ConfigurationError(msg) from error

GRACE: Final = 60
"""Seconds that requests under way have when the service is told to end; a login goes on to its end in any case."""

CONNECTIONS: Final = 1000
"""Beyond so many at once the answer is 503."""

_BACKLOG: Final = 2048

__all__ = ["Address", "Metrics", "application", "serve"]

_LOG: Final = logging.getLogger("tokenkeep.service")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the service listens.

    Attributes:
        port: 0 takes a free one.
        certificate, key: PEM files; with both it serves TLS, with neither plain HTTP.
        behind_proxy: somebody vouches that a proxy ends TLS in front of it.

    Raises:
        ConfigurationError: tokens would go over a network in clear, or one file lacks the other.
    """

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False

    def __post_init__(self) -> None:
        """Refuse what is not safe."""
        if (self.certificate is None) != (self.key is None):
            msg = "TLS takes both files: --tls-cert and --tls-key"
            raise ConfigurationError(msg)
        if not (_loopback(self.host) or self.certificate or self.behind_proxy):
            msg = (
                f"on {self.host} tokens would cross the network in clear: give --tls-cert and --tls-key, say with "
                "--behind-proxy that a proxy ends TLS in front of this, or listen on 127.0.0.1"
            )
            raise ConfigurationError(msg)

    def listening(self) -> socket.socket:
        """Return a socket that listens here.

        Raises:
            ConfigurationError: it cannot.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # The protocol is named, or asyncio leaves Nagle's algorithm on, and an answer waits 40 ms for its end.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self.host, self.port))
            listening.listen(_BACKLOG)
        except (OSError, OverflowError) as error:
            listening.close()
            reason = getattr(error, "strerror", None) or error
            msg = f"cannot listen on {self.host}, port {self.port}: {reason}; choose another --host or --port"
            raise ConfigurationError(msg) from None
        return listening

    def check_tls(self) -> None:
        """Look at the files before anything is opened.

        Raises:
            ConfigurationError: they cannot be used.
        """
        if self.certificate is None or self.key is None:
            return
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self.certificate, self.key, password="")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            reason = getattr(error, "strerror", None) or type(error).__name__
            msg = f"--tls-cert and --tls-key cannot be used ({reason}): a pair of PEM files, the key without password"
            raise ConfigurationError(msg) from None

    def url(self, port: int) -> str:
        """Return where it can be reached."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.certificate is None else 'https'}://{host}:{port}"


def serve(app: ASGIApp, address: Address, *, opened: Sequence[AbstractAsyncContextManager[Any]]) -> None:
    """Serve until a signal ends the process, as uvicorn does: SIGTERM, or Ctrl-C, which is `KeyboardInterrupt`.

    Before, requests under way are answered, logins finish, and the uses that were counted are written.

    Args:
        app: made by `application`.
        address: where.
        opened: what the application is made of. It is opened here, so that what fails there ends the start.

    Raises:
        ConfigurationError: it cannot listen there.
        TokenKeepError: one of them cannot be opened.
    """
    address.check_tls()
    asyncio.run(_serve(app, address, opened))


async def _serve(app: ASGIApp, address: Address, opened: Sequence[AbstractAsyncContextManager[Any]]) -> None:
    async with AsyncExitStack() as stack:
        for one in opened:  # the application closes them
            await stack.enter_async_context(one)
        listening = stack.enter_context(address.listening())
        _LOG.info("serving on %s", address.url(listening.getsockname()[1]))
        await uvicorn.Server(_config(app, address)).serve([listening])


def _config(app: ASGIApp, address: Address) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # ours has no query strings
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=LONGEST_HEAD,
        timeout_graceful_shutdown=GRACE,
    )


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
