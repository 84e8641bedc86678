"""A local Upstox that the real `upstox-totp` client logs in to: for tests, demos and dry runs.

    with LocalUpstox() as server:
        upstox = UpstoxProvider(server.credentials(), base_domain=server.base_domain)

It speaks the wire of Upstox's login over HTTP on 127.0.0.1, and checks the one-time code, the PIN, the cookie, the
client secret and the single-use code as Upstox does. As a process of its own: `python -m tokenkeep.testing.upstox`.
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Any, Self

from tokenkeep.errors import ConfigurationError
from tokenkeep.ports import Clock
from tokenkeep.providers.upstox import UpstoxCredentials
from tokenkeep.testing._upstox_desk import Desk
from tokenkeep.testing._upstox_values import LOGIN_STEPS, Faults, LocalAccount, LoginRecord, Step
from tokenkeep.testing._upstox_wire import UpstoxServer

__all__ = ["LOGIN_STEPS", "Faults", "LocalAccount", "LocalUpstox", "LoginRecord", "Step", "main"]


class _SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class LocalUpstox:
    """Serve a made-up Upstox from construction until `close`; also a context manager. Safe for any number of clients.

    Args:
        port: where to listen on 127.0.0.1; 0 takes a free one.
        clock: decides when tokens end; the default is the system's.
        seconds: decides which one-time code is right, in seconds since 1970. The real client reads the
            system's clock for its codes and cannot be handed another, and so this is not `clock`.
        on_step: called with the broker's user id (empty when it cannot be told) and the `Step` whenever a
            request arrives, before anything is done, in the thread that serves it.

    Attributes:
        account: the account that is there from the start.
        faults: what goes wrong for every account that has no faults of its own; replace it at any time.
        on_step: may be replaced at any time.

    Raises:
        ConfigurationError: the extra [upstox] is not installed; it brings the one-time codes.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        clock: Clock | None = None,
        seconds: Callable[[], float] = time.time,
        on_step: Callable[[str, str], None] | None = None,
    ) -> None:
        _need_codes()
        self.faults = Faults()
        self.on_step = on_step
        self._desk = Desk(clock or _SystemClock(), seconds)
        self._server = UpstoxServer(port, self._desk, self._faults_for, self._stepped)
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), name="local-upstox", daemon=True)
        self._accounts = 0
        self.account = self.add_account()
        self._thread.start()

    @property
    def base_domain(self) -> str:
        """What to give as `base_domain`, with the `{stage}` in it."""
        return f"http://127.0.0.1:{self._server.server_port}/{{stage}}"

    @property
    def logins(self) -> list[LoginRecord]:
        """The logins that were begun, oldest first; `granted` tells which were finished."""
        return self._desk.records

    def add_account(self, **values: Any) -> LocalAccount:
        """Open one more account, made up but for the values given, which are named as in `LocalAccount`."""
        self._accounts += 1
        number = self._accounts
        made_up: dict[str, Any] = {
            "base_domain": self.base_domain,
            "user_id": f"UP{number:04}",
            "username": str(9_000_000_000 + number),
            "password": secrets.token_urlsafe(12),
            "pin_code": f"{secrets.randbelow(900_000) + 100_000}",
            "totp_secret": base64.b32encode(secrets.token_bytes(20)).decode(),
            "client_id": f"app-{number}-{secrets.token_hex(8)}",
            "client_secret": secrets.token_hex(12),
        }
        account = LocalAccount(**(made_up | values))
        self._desk.add(account)
        return account

    def credentials(self, **changes: str) -> UpstoxCredentials:
        """Return what logs in to the first account, with some values changed for the worse."""
        return self.account.credentials(**changes)

    def environment(self) -> dict[str, str]:
        """Return the variables by which another process logs in to the first account."""
        return self.account.environment()

    def close(self) -> None:
        """Stop serving. Safe to repeat."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _faults_for(self, account: LocalAccount | None) -> Faults:
        own = account.faults if account else None
        return self.faults if own is None else own

    def _stepped(self, account: str, step: str) -> None:
        if self.on_step is not None:
            self.on_step(account, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _need_codes() -> None:
    try:
        import pyotp  # noqa: F401, PLC0415  # a driver, loaded when it is needed
    except ModuleNotFoundError:
        msg = 'the local Upstox checks one-time codes with pyotp: pip install "tokenkeep[upstox]"'
        raise ConfigurationError(msg) from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until interrupted; print one line of JSON: the base domain, and the environment that logs in."""
    parser = argparse.ArgumentParser(prog="python -m tokenkeep.testing.upstox", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="where to listen on 127.0.0.1; 0 takes a free port")
    parser.add_argument("--extended", action="store_true", help="logins also yield the one-year token")
    options = parser.parse_args(arguments)
    with LocalUpstox(port=options.port) as server:
        server.account.extended = options.extended
        told = {"base_domain": server.base_domain, "environment": server.environment()}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        try:
            Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
