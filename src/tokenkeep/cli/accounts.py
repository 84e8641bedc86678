"""The providers that the command can log in at; their accounts are in the environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tokenkeep.errors import ConfigurationError
from tokenkeep.ports import ExpiryPolicy, Provider
from tokenkeep.providers.upstox import UpstoxCredentials, UpstoxProvider

LOGINS: Final[Mapping[str, Callable[[], Provider]]] = {"upstox": UpstoxProvider}
"""Made only where a command may log in: they read the environment."""

WITHOUT_ACCOUNT: Final[Mapping[str, Callable[[], Provider]]] = {"upstox": lambda: UpstoxProvider({})}
"""They know when tokens end, and can revoke one."""

FOR_ONE: Final[Mapping[str, Callable[[str], Provider]]] = {
    "upstox": lambda user: UpstoxProvider({user: UpstoxCredentials.from_env()})
}
"""Those that log in this user and nobody else."""


def login_at(name: str) -> Provider:
    """Return a provider that can log in with the account in the environment.

    Raises:
        ConfigurationError: the command does not know it, or the environment lacks something.
    """
    return _known(name, LOGINS)()


def login_of(name: str, user: str) -> Provider:
    """Return a provider for which the account in the environment is this user's.

    Raises:
        ConfigurationError: as for `login_at`.
    """
    return _known(name, FOR_ONE)(user)


def _known[T](name: str, makers: Mapping[str, T]) -> T:
    if name not in makers:
        known = ", ".join(makers)
        msg = f"the command knows how to log in at {known}, not at {name!r}: log in from Python, then read it here"
        raise ConfigurationError(msg)
    return makers[name]


def without_account(name: str) -> Provider | None:
    """Return what is known of a provider without anybody's account; `None` where that is nothing."""
    return WITHOUT_ACCOUNT[name]() if name in WITHOUT_ACCOUNT else None


def policy_of(name: str) -> ExpiryPolicy | None:
    """Return when tokens of a provider end, as far as that is known."""
    provider = without_account(name)
    return None if provider is None else provider.expiry
