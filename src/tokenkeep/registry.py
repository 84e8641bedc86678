"""Which account is meant: the namespace, the providers, and what the caller named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from tokenkeep import _checking
from tokenkeep.errors import ConfigurationError
from tokenkeep.model import Account
from tokenkeep.ports import Provider


class Registry:
    """The providers that one vault knows, in its namespace."""

    def __init__(self, namespace: str, providers: Mapping[str, Provider]) -> None:
        self.namespace = namespace
        self.providers = providers
        self._only = next(iter(providers)) if len(providers) == 1 else None

    def account(self, user_id: str, provider: str | None) -> Account:
        """Return the account of a user; the name is checked before anything is done."""
        return Account(self.namespace, self.name(provider), _checking.name(user_id, "user_id"))

    def name(self, provider: str | None) -> str:
        """Return the provider that was named, or the only one there is."""
        if provider is not None:
            return _checking.label(provider, "provider")
        if self._only is None:
            self._say_which()
        return self._only

    def _say_which(self) -> NoReturn:
        names = ", ".join(sorted(self.providers))
        hint = (
            f"pass provider= one of {names}" if names else "register one with open(providers=[...]) or pass provider="
        )
        msg = f"which provider is meant? {hint}"
        raise ConfigurationError(msg)

    def provider(self, name: str) -> Provider:
        """Return a registered provider."""
        if name not in self.providers:
            known = ", ".join(sorted(self.providers)) or "none"
            msg = f"no provider {name!r} is registered (known: {known}); pass it to open(providers=[...])"
            raise ConfigurationError(msg)
        return self.providers[name]
