"""The providers that the command can log in at; their accounts are in the environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tokenkeep.errors import ConfigurationError
from tokenkeep.ports import ExpiryPolicy, Provider
from tokenkeep.providers.upstox import UpstoxProvider

LOGINS: Final[Mapping[str, Callable[[], Provider]]] = {"upstox": UpstoxProvider}
"""Made only where a command may log in: they read the environment."""

WITHOUT_ACCOUNT: Final[Mapping[str, Callable[[], Provider]]] = {"upstox": lambda: UpstoxProvider({})}
"""They know when tokens end, and can revoke one."""


def login_at(name: str) -> Provider:
    """Return a provider that can log in with the account in the environment.

    Raises:
        ConfigurationError: the command does not know it, or the environment lacks something.
    """
    if name not in LOGINS:
        known = ", ".join(LOGINS)
        msg = f"the command knows how to log in at {known}, not at {name!r}: log in from Python, then read it here"
        raise ConfigurationError(msg)
    return LOGINS[name]()


def without_account(name: str) -> Provider | None:
    """Return what is known of a provider without anybody's account; `None` where that is nothing."""
    return WITHOUT_ACCOUNT[name]() if name in WITHOUT_ACCOUNT else None


def policy_of(name: str) -> ExpiryPolicy | None:
    """Return when tokens of a provider end, as far as that is known."""
    provider = without_account(name)
    return None if provider is None else provider.expiry
