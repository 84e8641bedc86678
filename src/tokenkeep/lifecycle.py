"""Start, close, fork, exit: the life of an opened service."""

from __future__ import annotations

import atexit
import os
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Protocol

from tokenkeep.errors import ConfigurationError, TokenKeepError
from tokenkeep.ports import Backend, Wait


class Core(Protocol):
    """What the cores of the vault and of the issuer have in common."""

    async def start(self) -> None:
        """Prepare the store. Called once, before anything else."""

    async def close(self) -> None:
        """Write what waits to be written, then close the store."""

    def forget(self) -> None:
        """After a fork: drop what the parent will write."""


class Runtime(Wait, Protocol):
    """What a face runs on."""

    async def close(self) -> None:
        """Forget what was to be done later, and wait for what is being done."""

    def forget(self) -> None:
        """After a fork: drop what runs in the parent."""

    def at_exit(self, closing: Coroutine[Any, Any, None]) -> None:
        """Run the last coroutine of the process."""


class Opened[C: Core]:
    """A core with the runtime and the backend that it was wired with.

    A process that exits without closing it still writes what it has counted; a child that was forked
    drops the parent's counts and connections and opens its own.
    """

    def __init__(self, core: C, runtime: Runtime, backend: Backend) -> None:
        self._core: C | None = core
        self._runtime = runtime
        self._backend = backend
        self._started = False
        _OPEN.add(self)

    @property
    def core(self) -> C:
        """The core.

        Raises:
            ConfigurationError: it was closed.
        """
        if self._core is None:
            msg = "it has been closed; open it again"
            raise ConfigurationError(msg)
        return self._core

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is just being."""
        return self._core is None

    async def started(self) -> C:
        """Return the core, started. Safe to call from several tasks at once."""
        if not self._started:
            async with self._runtime.turn(Opened):
                if not self._started:
                    await self._start()
        return self.core

    async def _start(self) -> None:
        try:
            await self.core.start()
        except BaseException:
            await self._backend.health.close()
            raise
        self._started = True

    async def close(self) -> None:
        """Close everything that was opened. Safe to repeat."""
        core, self._core = self._core, None
        _OPEN.discard(self)
        if core is not None:
            await self._runtime.close()
            await core.close()

    def after_fork(self) -> None:
        """Drop what belongs to the parent process."""
        self._runtime.forget()
        self._backend.health.forget()
        if self._core is not None:
            self._core.forget()

    def at_exit(self) -> None:
        """Close what the program did not close; there is nobody left to tell of an error."""
        with suppress(TokenKeepError):
            self._runtime.at_exit(self.close())


_OPEN: set[Opened[Core]] = set()
"""What is open in this process: forks and exits concern the whole process, so its memory of them does too.

It holds on to what nobody refers to any more, for that may have counted uses which the exit must write.
"""


def _after_fork() -> None:
    for opened in list(_OPEN):
        opened.after_fork()


def _at_exit() -> None:
    for opened in list(_OPEN):
        opened.at_exit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
