"""The one place where sync meets async.

The core is `async def` throughout and waits on nothing but its ports. A sync face fills the ports with
blocking code, so a coroutine of the core runs to its end in a single step; an async face awaits it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from inspect import isawaitable
from typing import Any


def run[T](coroutine: Coroutine[Any, Any, T]) -> T:
    """Step a coroutine of the core once and return its result.

    Raises:
        RuntimeError: it suspended, so an asynchronous port was handed to a sync face.
    """
    try:
        coroutine.send(None)
    except StopIteration as done:  # whatever else it raises has ended it too
        return done.value  # type: ignore[no-any-return]  # StopIteration is not generic
    coroutine.close()
    msg = "a sync store awaited something: an asynchronous driver was handed to a sync face"
    raise RuntimeError(msg)


async def settle[T](value: T | Awaitable[T]) -> T:
    """Return what a sync client returned, or await what an async client returned."""
    if isawaitable(value):
        return await value
    return value
