"""Time, waiting and work: what a face fills in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any, Protocol


class Clock(Protocol):
    """Where time comes in."""

    def now(self) -> datetime:
        """Return the present as an aware UTC datetime."""


class Signal(Protocol):
    """Wakes one who waits."""

    def give(self) -> None:
        """Let the one who waits go on, or the next who will wait."""

    async def wait(self, seconds: float | None) -> None:
        """Return when it is given, or after `seconds` (`None`: not before); then it is taken back."""


class Aside(Protocol):
    """What runs beside everything else."""

    @property
    def running(self) -> bool:
        """Whether it runs: not after its end, nor after that of its event loop."""

    async def end(self) -> None:
        """Interrupt it where that is possible, and return when it has ended."""


class Wait(Protocol):
    """How a face lets time pass and takes turns."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""

    def signal(self) -> Signal:
        """Return a new signal."""

    def turn(self, key: Hashable) -> AbstractAsyncContextManager[None]:
        """Let the callers of this process pass one at a time for each key. Cancelling one disturbs none."""


class Work(Protocol):
    """How a face runs what blocks, what must not be interrupted, and what goes side by side."""

    async def call[T](self, function: Callable[..., T | Awaitable[T]], *args: object) -> T:
        """Call foreign code, blocking or asynchronous, off the event loop where there is one."""

    async def finish[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end even when the caller is cancelled meanwhile."""

    def beating(
        self, beat: Callable[[], Coroutine[Any, Any, bool]], every: timedelta
    ) -> AbstractAsyncContextManager[None]:
        """Run `beat` each interval while the block runs; stop when it returns `False` or raises."""

    async def each[T](self, jobs: Sequence[Callable[[], Coroutine[Any, Any, T]]], *, concurrency: int) -> list[T]:
        """Run the jobs, at most `concurrency` at once, and return their results in the order given."""

    def later(self, job: Callable[[], Coroutine[Any, Any, None]], delay: timedelta) -> None:
        """Run `job` once after `delay`, beside everything else. It is forgotten when the face closes."""

    def aside(self, job: Callable[[], Coroutine[Any, Any, None]]) -> Aside:
        """Begin `job` beside everything else. In a thread nothing interrupts it: it must look by itself."""
