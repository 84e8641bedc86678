from __future__ import annotations

import logging
import subprocess
import sys
import traceback
import urllib.error
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from email.message import Message
from functools import partial
from inspect import isawaitable
from socket import gaierror
from typing import Any

import pytest

from tokenkeep.errors import AcquireInDoubt, ProviderError, ProviderRejected, ProviderUnavailable, StoreUnavailable
from tokenkeep.expiry import JwtExpiry
from tokenkeep.model import NewToken
from tokenkeep.ports import OneTimeCodes, Provider, Renewing, Revoking
from tokenkeep.providers import FunctionProvider
from tokenkeep.secret import Secret

CANARY = "canary-4d1f0c"


async def settled(answer: Sequence[NewToken] | Awaitable[Sequence[NewToken]]) -> Sequence[NewToken]:
    return await answer if isawaitable(answer) else answer


class AsyncCallable:
    async def __call__(self, user_id: str) -> str:
        return f"token-of-{user_id}"


async def coroutine(user_id: str) -> str:
    return f"token-of-{user_id}"


async def with_realm(realm: str, user_id: str) -> str:
    return f"{realm}-of-{user_id}"


FUNCTIONS: dict[str, tuple[Callable[[str], Any], bool]] = {
    "str": (lambda user_id: f"token-of-{user_id}", False),
    "secret": (lambda user_id: Secret(f"token-of-{user_id}"), False),
    "new token": (lambda user_id: NewToken(f"token-of-{user_id}"), False),
    "list": (lambda user_id: [NewToken(f"token-of-{user_id}")], False),
    "partial": (partial(lambda realm, user_id: f"{realm}-of-{user_id}", "token"), False),
    "coroutine function": (coroutine, True),
    "partial of a coroutine function": (partial(with_realm, "token"), True),
    "asynchronous callable": (AsyncCallable(), True),
    "function returning an awaitable": (lambda user_id: coroutine(user_id), True),  # noqa: PLW0108  # that is the case
}


@pytest.mark.parametrize(("function", "awaitable"), FUNCTIONS.values(), ids=FUNCTIONS.keys())
async def test_a_function_of_any_make_gives_the_token(function: Callable[[str], Any], *, awaitable: bool) -> None:
    provider: Provider = FunctionProvider("bot", function)
    answer = provider.acquire("alice")
    assert isawaitable(answer) is awaitable
    assert [token.access_token.reveal() for token in await settled(answer)] == ["token-of-alice"]


def test_one_login_may_give_tokens_of_several_kinds() -> None:
    pair = [NewToken("a"), NewToken("b", kind="extended", refresh_token="r", expires_in=60)]
    assert FunctionProvider("bot", lambda _: pair).acquire("alice") == tuple(pair)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        7,
        "",
        "\ud800" + CANARY,
        b"bytes-" + CANARY.encode(),
        {"access_token": CANARY},
        [],
        [CANARY],
        [NewToken(CANARY), NewToken(CANARY + "2")],
        [NewToken(CANARY), None],
    ],
    ids=lambda answer: type(answer).__name__,
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_another_answer_is_in_doubt_and_not_shown(answer: Any, *, asynchronous: bool) -> None:
    async def later(_: str) -> Any:
        return answer

    provider = FunctionProvider("bot", later if asynchronous else lambda _: answer)
    with pytest.raises(AcquireInDoubt, match=r"must return a NewToken, a str, a Secret or a sequence") as caught:
        await settled(provider.acquire("alice"))
    assert type(answer).__name__ in str(caught.value)
    assert (caught.value.provider, caught.value.user_id) == ("bot", "alice")
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    ours = [frame.f_locals for frame in frames if frame.f_globals["__name__"].startswith("tokenkeep.")]
    assert ours
    assert CANARY not in repr(ours)


class LibraryError(Exception):
    pass


REFUSED = urllib.error.HTTPError("https://x.test", 401, CANARY, Message(), None)


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        (ConnectionRefusedError(CANARY), ProviderUnavailable),
        (ConnectionResetError(CANARY), ProviderUnavailable),
        (TimeoutError(CANARY), ProviderUnavailable),
        (gaierror(-2, CANARY), ProviderUnavailable),
        (REFUSED, AcquireInDoubt),  # an OSError, but no lost connection
        (LibraryError(CANARY), AcquireInDoubt),
        (KeyError(CANARY), AcquireInDoubt),
        (StopIteration(CANARY), AcquireInDoubt),
        (ExceptionGroup(CANARY, [ValueError(CANARY)]), AcquireInDoubt),
        (StoreUnavailable("another vault"), AcquireInDoubt),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_foreign_exception_is_named_and_its_text_is_not(
    raised: Exception, becomes: type[ProviderError], *, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def login(_: str) -> str:
        raise raised

    async def login_later(user_id: str) -> str:
        if isinstance(raised, StopIteration):
            raise LibraryError(CANARY)  # a coroutine cannot raise it
        return login(user_id)

    with pytest.raises(ProviderError) as caught:
        await settled(FunctionProvider("bot", login_later if asynchronous else login).acquire("alice"))
    assert type(caught.value) is becomes
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "test_function_provider.py, line " in str(caught.value)
    if not (asynchronous and isinstance(raised, StopIteration)):
        assert f"the function raised {type(raised).__name__} in login" in str(caught.value)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("bot").error("failed", exc_info=caught.value)
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        ProviderRejected("wrong PIN", code="invalid_grant"),
        ProviderUnavailable("closed", retry_after=timedelta(minutes=5)),
        AcquireInDoubt("cut"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_our_own_provider_errors_pass_through(error: ProviderError, *, asynchronous: bool) -> None:
    def login(_: str) -> str:
        raise error

    async def login_later(user_id: str) -> str:
        return login(user_id)

    with pytest.raises(ProviderError) as caught:
        await settled(FunctionProvider("bot", login_later if asynchronous else login).acquire("alice"))
    assert caught.value is error


def test_an_interruption_is_not_swallowed() -> None:
    def login(_: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FunctionProvider("bot", login).acquire("alice")


def test_the_function_is_called_once_whatever_happens() -> None:
    calls: list[str] = []

    def login(user_id: str) -> str:
        calls.append(user_id)
        raise ConnectionResetError

    with pytest.raises(ProviderUnavailable):
        FunctionProvider("bot", login).acquire("alice")
    assert calls == ["alice"]


def test_it_has_no_powers_beyond_acquiring() -> None:
    provider = FunctionProvider("bot", str, expiry=JwtExpiry())
    assert provider.expiry == JwtExpiry()
    assert not isinstance(provider, Renewing | Revoking | OneTimeCodes)


def test_the_arguments_of_a_partial_are_not_shown() -> None:
    assert CANARY not in repr(FunctionProvider("bot", partial(with_realm, CANARY)))


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (("", str), ValueError, "name must have 1 to 255 characters"),
        (("bot", "token"), TypeError, "function must be callable"),
        (("bot", str, timedelta(hours=1)), TypeError, "expiry must be an expiry policy"),
    ],
)
def test_bad_arguments_are_refused_when_it_is_made(
    arguments: tuple[Any, ...], error: type[Exception], sentence: str
) -> None:
    name, function, *expiry = arguments
    with pytest.raises(error, match=sentence):
        FunctionProvider(name, function, expiry=expiry[0] if expiry else None)


def test_importing_the_package_imports_no_driver() -> None:
    code = "import sys, tokenkeep.providers; print({'httpx', 'upstox_totp', 'sqlalchemy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
