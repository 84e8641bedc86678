"""What the two faces fill the ports `Wait` and `Work` with: threads for the one, tasks for the other."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from inspect import isawaitable, iscoroutinefunction
from typing import Any

from tokenkeep._stepping import run
from tokenkeep.alarms import Alarms
from tokenkeep.errors import StoreError


class _Turns[L]:
    """A lock for each key, made when first wanted and dropped when nobody wants it any more."""

    def __init__(self, new_lock: Callable[[], L]) -> None:
        self._new_lock = new_lock
        self._guard = threading.Lock()
        self._locks: dict[Hashable, tuple[L, int]] = {}

    def want(self, key: Hashable) -> L:
        with self._guard:
            lock, wanted = self._locks.get(key) or (self._new_lock(), 0)
            self._locks[key] = (lock, wanted + 1)
        return lock

    def leave(self, key: Hashable) -> None:
        with self._guard:
            lock, wanted = self._locks.pop(key)
            if wanted > 1:
                self._locks[key] = (lock, wanted - 1)


class Threads:
    """`Wait` and `Work` of the sync face: every method does its work before it returns."""

    def __init__(self) -> None:
        self._turns = _Turns(threading.Lock)
        self._alarms = Alarms()

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  # this is the face that blocks

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
        with ThreadPoolExecutor(concurrency, thread_name_prefix="tokenkeep") as pool:
            return list(pool.map(lambda job: run(job()), jobs))

    def later(self, job: Callable[[], Coroutine[Any, Any, None]], delay: timedelta) -> None:
        self._alarms.set(lambda: run(job()), delay.total_seconds())

    async def close(self) -> None:
        """Forget what was to be done later, and wait for what is being done."""
        self._alarms.close()

    def forget(self) -> None:
        """After a fork there are no other threads: drop their locks and alarms."""
        self._turns = _Turns(threading.Lock)
        self._alarms = Alarms()


def _wait_for[T](result: Awaitable[T]) -> T:
    """Run an awaitable to its end from blocking code, in an event loop of its own."""

    async def waiting() -> T:
        return await result

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(waiting())
    with ThreadPoolExecutor(1) as pool:  # this thread has a running loop: take another one
        return pool.submit(asyncio.run, waiting()).result()


class Tasks:
    """`Wait` and `Work` of the async face. One object may serve one event loop after another."""

    def __init__(self) -> None:
        self._turns = _Turns(asyncio.Lock)
        self._unfinished: set[asyncio.Task[Any]] = set()
        self._waiting: set[asyncio.Task[Any]] = set()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

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

    async def close(self) -> None:
        """Forget what was to be done later, and wait for what is being done."""
        loop = asyncio.get_running_loop()
        for task in [task for task in self._waiting if task.get_loop() is loop]:
            await _cancelled(task)
        self._waiting.clear()
        await asyncio.gather(*(task for task in self._unfinished if task.get_loop() is loop), return_exceptions=True)

    def forget(self) -> None:
        """After a fork the loop is the parent's: drop its tasks."""
        self._turns = _Turns(asyncio.Lock)
        self._unfinished = set()
        self._waiting = set()


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
