"""Asking again: when nothing has happened, and when it is not known what has."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import wraps
from secrets import SystemRandom
from typing import Any, Concatenate, Final, Protocol

from tokenkeep.errors import StoreError
from tokenkeep.stores.sql.errors import Conflict, InDoubt, Undone

CONTENDED: Final = 20
"""How often a transaction is tried that others undo."""

_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.25
_JITTER: Final = SystemRandom()


class Doubt(Enum):
    """What to do when the answer to a COMMIT was lost."""

    TELL = auto()
    """Repeating could do it twice: the caller is told."""
    REPEAT = auto()
    """Repeating recognises what it did: its answer counts."""
    DONE = auto()
    """Repeating is safe; when it finds nothing left to do, the first time has done it, and that answer counts."""


@dataclass(slots=True)
class Patience:
    """How long to go on: a number of contended tries, and `seconds` for a lost connection to come back.

    The first repeat after a loss comes at once, because what was lost is mostly an idle connection; after a
    silence that was longer than that, none does.
    """

    seconds: float
    _tries: int = field(default=0, init=False)
    _began: float = field(default_factory=time.monotonic, init=False)
    _losses: int = field(default=0, init=False)

    def pause(self, error: StoreError) -> float | None:
        """Return how long to wait before the next try; `None`: it is time to give up."""
        if isinstance(error, Undone) and error.contention:
            self._tries += 1
            return None if self._tries >= CONTENDED else self._jittered(self._tries)
        self._losses += 1
        if time.monotonic() - self._began >= self.seconds:
            return None
        return 0.0 if self._losses == 1 else self._jittered(self._losses)

    @staticmethod
    def _jittered(count: int) -> float:
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(count, 10))
        return _JITTER.uniform(longest / 4, longest)


class Attempt[T](Protocol):
    """One try of a transaction; `answered` is told what it would return before it commits."""

    def __call__(self, answered: Callable[[T], None], /) -> Awaitable[T]:
        """Try once."""


async def repeated[T](
    attempt: Attempt[T], doubt: Doubt, patience: Patience, sleep: Callable[[float], Awaitable[None]]
) -> T:
    """Try until it is done or patience ends.

    Raises:
        Conflict: a constraint refused it.
        StoreUnavailable: it was undone each time, or it is in doubt.
    """
    answers: list[T] = []
    doubtful: list[T] = []
    while True:
        answers.clear()
        failure: StoreError
        try:
            answer = await attempt(answers.append)
        except InDoubt as error:
            if doubt is Doubt.TELL:
                raise
            doubtful = doubtful or answers[:]
            failure = error
        except Undone as error:
            failure = error
        except Conflict:
            if doubt is Doubt.DONE and doubtful:
                return doubtful[0]
            raise
        else:
            return (answer or doubtful[0]) if doubt is Doubt.DONE and doubtful else answer
        pause = patience.pause(failure)
        if pause is None:
            raise failure
        await sleep(pause)


class _Database(Protocol):
    async def read[T](self, work: Callable[[Any], Awaitable[T]]) -> T: ...

    async def report[T](self, work: Callable[[Any], Awaitable[T]]) -> T: ...

    async def write[T](self, work: Callable[[Any], Awaitable[T]], doubt: Doubt = ...) -> T: ...


class _Room(Protocol):
    @property
    def _database(self) -> _Database: ...


def reads[S: _Room, **P, R](
    method: Callable[Concatenate[S, Any, P], Awaitable[R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Run a method in a transaction that only reads, which it takes as its first argument."""

    @wraps(method)
    async def reading(self: S, /, *args: P.args, **options: P.kwargs) -> R:
        return await self._database.read(lambda transaction: method(self, transaction, *args, **options))

    return reading


def reports[S: _Room, **P, R](
    method: Callable[Concatenate[S, Any, P], Awaitable[R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Like `reads`, for a method that may see an older moment (`ports.reporting` says which): on a replica."""

    @wraps(method)
    async def reporting(self: S, /, *args: P.args, **options: P.kwargs) -> R:
        return await self._database.report(lambda transaction: method(self, transaction, *args, **options))

    return reporting


def writes[S: _Room, **P, R](
    doubt: Doubt = Doubt.TELL,
) -> Callable[[Callable[Concatenate[S, Any, P], Awaitable[R]]], Callable[Concatenate[S, P], Coroutine[Any, Any, R]]]:
    """Run a method in a transaction, which it takes as its first argument, and again where that is safe.

    It may run several times, so it must change nothing but the database.
    """

    def decorated(
        method: Callable[Concatenate[S, Any, P], Awaitable[R]],
    ) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
        @wraps(method)
        async def writing(self: S, /, *args: P.args, **options: P.kwargs) -> R:
            return await self._database.write(lambda transaction: method(self, transaction, *args, **options), doubt)

        return writing

    return decorated
