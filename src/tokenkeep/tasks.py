"""`Wait` and `Work` of the async face: tasks, and worker threads for what blocks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from inspect import isawaitable, iscoroutinefunction
from typing import Any

from tokenkeep.errors import StoreError
from tokenkeep.turns import Turns


class TaskSignal:
    """Implements `Signal`."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def give(self) -> None:
        with suppress(RuntimeError):  # the loop in which somebody waited has ended
            self._event.set()

    async def wait(self, seconds: float | None) -> None:
        if seconds is None:
            await self._event.wait()
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._event.wait()
        self._event.clear()


class TaskAside:
    """Implements `Aside`."""

    def __init__(self, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = asyncio.ensure_future(job())

    @property
    def running(self) -> bool:
        return not self._task.done() and self._task.get_loop() is asyncio.get_running_loop()

    async def end(self) -> None:
        if self.running:
            await _cancelled(self._task)


class Tasks:
    """`Wait` and `Work` of the async face. One object may serve one event loop after another."""

    def __init__(self) -> None:
        self._turns = Turns(asyncio.Lock)
        self._unfinished: set[asyncio.Task[Any]] = set()
        self._waiting: set[asyncio.Task[Any]] = set()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def signal(self) -> TaskSignal:
        return TaskSignal()

    @asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[None]:
        lock = self._turns.want(key)
        try:
            async with lock:
                yield
        finally:
            self._turns.leave(key)

    async def call[T](self, function: Callable[..., T | Awaitable[T]], *args: object) -> T:
        result = function(*args) if iscoroutinefunction(function) else await asyncio.to_thread(function, *args)
        return await result if isawaitable(result) else result

    async def finish[T](self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._unfinished.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone: then nobody else asks for it

    @asynccontextmanager
    async def beating(self, beat: Callable[[], Coroutine[Any, Any, bool]], every: timedelta) -> AsyncIterator[None]:
        async def beats() -> None:
            alive = True
            while alive:
                await asyncio.sleep(every.total_seconds())
                with suppress(StoreError):  # it may come through the next time; a lost lease is noticed by the write
                    alive = await beat()

        task = asyncio.create_task(beats())
        try:
            yield
        finally:
            await _cancelled(task)

    async def each[T](self, jobs: Sequence[Callable[[], Coroutine[Any, Any, T]]], *, concurrency: int) -> list[T]:
        places = asyncio.Semaphore(concurrency)

        async def placed(job: Callable[[], Coroutine[Any, Any, T]]) -> T:
            async with places:
                return await job()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(placed(job)) for job in jobs]
        return [task.result() for task in tasks]

    def later(self, job: Callable[[], Coroutine[Any, Any, None]], delay: timedelta) -> None:
        async def fire() -> None:
            await asyncio.sleep(delay.total_seconds())
            await asyncio.shield(self.finish(job()))

        task = asyncio.ensure_future(fire())
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    def aside(self, job: Callable[[], Coroutine[Any, Any, None]]) -> TaskAside:
        return TaskAside(job)

    async def close(self) -> None:
        """Forget what was to be done later, and wait for what is being done."""
        loop = asyncio.get_running_loop()
        for task in [task for task in self._waiting if task.get_loop() is loop]:
            await _cancelled(task)
        self._waiting.clear()
        await asyncio.gather(*(task for task in self._unfinished if task.get_loop() is loop), return_exceptions=True)

    def forget(self) -> None:
        """After a fork the loop is the parent's: drop its tasks."""
        self._turns = Turns(asyncio.Lock)
        self._unfinished = set()
        self._waiting = set()

    def at_exit(self, closing: Coroutine[Any, Any, None]) -> None:
        """Run the last coroutine of the process: the loop that this served is gone."""
        asyncio.run(closing)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
