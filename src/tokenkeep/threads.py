"""`Wait` and `Work` of the sync face: every method does its work before it returns."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from inspect import isawaitable
from typing import Any

from tokenkeep._stepping import run
from tokenkeep.alarms import Alarms
from tokenkeep.errors import StoreError
from tokenkeep.turns import Turns


class ThreadSignal:
    """Implements `Signal`: a lock that only `give` opens."""

    def __init__(self) -> None:
        self._closed = threading.Lock()
        self._closed.acquire()

    def give(self) -> None:
        with suppress(RuntimeError):  # it was given already
            self._closed.release()

    async def wait(self, seconds: float | None) -> None:
        self._closed.acquire(timeout=-1 if seconds is None else seconds)


class ThreadAside:
    """Implements `Aside`."""

    def __init__(self, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._thread = threading.Thread(target=lambda: run(job()), name="tokenkeep-aside", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    async def end(self) -> None:
        self._thread.join()


class Threads:
    """`Wait` and `Work` of the sync face: every method does its work before it returns."""

    def __init__(self) -> None:
        self._turns = Turns(threading.Lock)
        self._alarms = Alarms()

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  # this is the face that blocks

    def signal(self) -> ThreadSignal:
        return ThreadSignal()

    @asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[None]:
        lock = self._turns.want(key)
        try:
            with lock:
                yield
        finally:
            self._turns.leave(key)

    async def call[T](self, function: Callable[..., T | Awaitable[T]], *args: object) -> T:
        result = function(*args)
        return _wait_for(result) if isawaitable(result) else result

    async def finish[T](self, work: Coroutine[Any, Any, T]) -> T:
        return await work

    @asynccontextmanager
    async def beating(self, beat: Callable[[], Coroutine[Any, Any, bool]], every: timedelta) -> AsyncIterator[None]:
        alarm = 0

        def beat_again() -> None:
            nonlocal alarm
            alive = True
            with suppress(StoreError):  # it may come through the next time; a lease that ends is noticed by the write
                alive = run(beat())
            if alive and beating:
                alarm = self._alarms.set(beat_again, every.total_seconds())

        beating = True
        alarm = self._alarms.set(beat_again, every.total_seconds())
        try:
            yield
        finally:
            beating = False
            self._alarms.cancel(alarm)

    async def each[T](self, jobs: Sequence[Callable[[], Coroutine[Any, Any, T]]], *, concurrency: int) -> list[T]:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  # only for batches

        with ThreadPoolExecutor(concurrency, thread_name_prefix="tokenkeep") as pool:
            return list(pool.map(lambda job: run(job()), jobs))

    def later(self, job: Callable[[], Coroutine[Any, Any, None]], delay: timedelta) -> None:
        self._alarms.set(lambda: run(job()), delay.total_seconds())

    def aside(self, job: Callable[[], Coroutine[Any, Any, None]]) -> ThreadAside:
        return ThreadAside(job)

    async def close(self) -> None:
        """Forget what was to be done later, and wait for what is being done."""
        self._alarms.close()

    def forget(self) -> None:
        """After a fork there are no other threads: drop their locks and alarms."""
        self._turns = Turns(threading.Lock)
        self._alarms = Alarms()

    def at_exit(self, closing: Coroutine[Any, Any, None]) -> None:
        """Run the last coroutine of the process."""
        run(closing)


def _wait_for[T](result: Awaitable[T]) -> T:
    """Run an awaitable to its end from blocking code, in an event loop of its own."""
    import asyncio  # noqa: PLC0415  # only for those who hand an asynchronous provider to the sync face
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  # likewise

    async def waiting() -> T:
        return await result

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(waiting())
    with ThreadPoolExecutor(1) as pool:  # this thread has a running loop: take another one
        return pool.submit(asyncio.run, waiting()).result()
