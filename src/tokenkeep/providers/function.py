"""A provider made of one function of yours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from inspect import isawaitable
from pathlib import Path
from socket import gaierror
from traceback import walk_tb
from typing import Final

from tokenkeep import _checking
from tokenkeep.errors import AcquireInDoubt, ProviderError, ProviderUnavailable
from tokenkeep.expiry import checked
from tokenkeep.model import NewToken
from tokenkeep.ports import ExpiryPolicy
from tokenkeep.secret import Secret

type Answer = NewToken | str | Secret | Sequence[NewToken]
"""What the function may return: a token, its bare text, or the tokens of one login, at most one of each kind."""

_EXPECTED: Final = "a NewToken, a str, a Secret or a sequence of NewToken with different kinds, and no empty one"

_NO_CONNECTION: Final = (ConnectionError, TimeoutError, gaierror)
"""Not every `OSError`: a refusal is one too in urllib and requests, and must not be repeated."""


@dataclass(frozen=True, slots=True)
class FunctionProvider:
    """Acquire tokens by calling `function(user_id)`, which may block, or be asynchronous.

    The function tells how a failure is to be taken by raising `ProviderRejected` (do not try again),
    `ProviderUnavailable` (later perhaps) or `AcquireInDoubt`, which pass through. A lost connection or a
    time-out counts as `ProviderUnavailable`; any other exception, and an answer of another type, as
    `AcquireInDoubt`: a token may have been granted before it went wrong. The text of such an exception can hold
    the token, so that only its type and place are told, and it is not chained.

    Args:
        name: what the tokens are filed under.
        function: from the user id to the token or tokens of one login. It must not repeat inside.
        expiry: when the tokens end that do not say so themselves.
    """

    name: str
    function: Callable[[str], Answer | Awaitable[Answer]] = field(repr=False)  # a partial shows its arguments
    expiry: ExpiryPolicy | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _checking.name(self.name, "name")
        if not callable(self.function):
            msg = f"function must be callable with a user id, not {type(self.function).__name__}"
            raise TypeError(msg)
        if self.expiry is not None:
            checked(self.expiry, "expiry")

    def acquire(self, user_id: str) -> Sequence[NewToken] | Awaitable[Sequence[NewToken]]:
        """Call the function once; awaitable when what it returned is."""
        outcome = self._called(user_id)
        if isinstance(outcome, ProviderError):
            raise outcome
        return outcome

    def _called(self, user_id: str) -> Sequence[NewToken] | Awaitable[Sequence[NewToken]] | ProviderError:
        # A failure is returned and raised further up: a traceback that shows local variables would show the answer,
        # and what the function raised would be the context.
        try:
            answer = self.function(user_id)
        except ProviderError:
            raise
        except Exception as error:  # noqa: BLE001  # foreign code may raise anything
            return self._failure(error, user_id)
        return self._later(answer, user_id) if isawaitable(answer) else self._tokens(answer, user_id)

    async def _later(self, answer: Awaitable[Answer], user_id: str) -> Sequence[NewToken]:
        outcome = await self._awaited(answer, user_id)
        if isinstance(outcome, ProviderError):
            raise outcome
        return outcome

    async def _awaited(self, answer: Awaitable[Answer], user_id: str) -> Sequence[NewToken] | ProviderError:
        try:
            return self._tokens(await answer, user_id)
        except ProviderError:
            raise
        except Exception as error:  # noqa: BLE001  # foreign code may raise anything
            return self._failure(error, user_id)

    def _tokens(self, answer: object, user_id: str) -> Sequence[NewToken] | ProviderError:
        tokens = _read(answer)
        if tokens and len({token.kind for token in tokens}) == len(tokens):
            return tokens
        reason = (
            f"the function must return {_EXPECTED}; it returned {_kind_of(answer)}. If a token was granted, it is lost"
        )
        return AcquireInDoubt(reason, provider=self.name, user_id=user_id)

    def _failure(self, error: Exception, user_id: str) -> ProviderError:
        raised = f"the function raised {type(error).__name__}{_place(error)}"
        if isinstance(error, _NO_CONNECTION):
            return ProviderUnavailable(f"{raised}; try again later", provider=self.name, user_id=user_id)
        hint = "a token may have been granted; raise ProviderRejected or ProviderUnavailable in it to say that none was"
        return AcquireInDoubt(f"{raised}; {hint}", provider=self.name, user_id=user_id)


def _read(answer: object) -> tuple[NewToken, ...]:
    """Return the tokens of an answer, none when it is not one."""
    if isinstance(answer, NewToken):
        return (answer,)
    if isinstance(answer, str | Secret):
        return _bare(answer)
    if isinstance(answer, Sequence) and all(isinstance(token, NewToken) for token in answer):
        return tuple(answer)
    return ()


def _bare(text: str | Secret) -> tuple[NewToken, ...]:
    try:
        return (NewToken(text),)
    except ValueError:  # empty, or with lone surrogates
        return ()


def _kind_of(answer: object) -> str:
    name = type(answer).__name__
    return f"an unusable {name}" if isinstance(answer, str | Secret | Sequence) else name


def _place(error: Exception) -> str:
    """Name the line that raised; a place holds no secret."""
    theirs = list(walk_tb(error.__traceback__))[1:]
    if not theirs:
        return ""
    frame, line = theirs[-1]
    return f" in {frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}, line {line})"
