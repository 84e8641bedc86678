"""Who may call the service, and what each of them may do: issued tokens in a namespace of their own.

A scope is an action, alone or for accounts: `status`, `token:upstox/alice`, `token:upstox/*`, `token:*`. Provider and
user are written as in a URL, so `*` in a name is `%2A`. `*` alone is everything; no scope is nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote

from tokenkeep.api import AsyncTokenIssuer, TokenIssuer
from tokenkeep.errors import ConfigurationError
from tokenkeep.keyring import KeyRing
from tokenkeep.model import IssuedToken
from tokenkeep.verifying import EVERYTHING

PREFIX: Final = "tkc"
"""What the token of a caller begins with. An application's issuer that uses it too is kept apart by the namespace."""

LIFETIME: Final = timedelta(days=365)
"""How long a caller's token lives where nothing else is said."""

KEPT_UNDER: Final = "callers"
"""The user id under which they are all filed; each is told by its name."""

TOKEN: Final = "token"  # noqa: S105  # the name of an action
REPORT: Final = "report"

ON_ACCOUNTS: Final = (TOKEN, REPORT)
"""Get and reject the token of an account; read its history and figures, which hold no secret."""

STATUS: Final = "status"
METRICS: Final = "metrics"
INTROSPECT: Final = "introspect"
REVOKE: Final = "revoke"

ALONE: Final = (STATUS, METRICS, INTROSPECT, REVOKE)
"""See how the store is; read the metrics; ask about the application's own issued tokens; end one of them."""

_PART: Final = r"(?:[A-Za-z0-9_.~-]|%[0-9A-F]{2})+"
_SCOPE: Final = re.compile(rf"\*|(?:{'|'.join(ALONE)})|(?:{'|'.join(ON_ACCOUNTS)}):(?:\*|{_PART}/(?:\*|{_PART}))")


def namespace_of(namespace: str) -> str:
    """Return where the callers of a vault's namespace are: no token that an application issues is one of theirs."""
    return f"{namespace}/callers"


def _options(namespace: str, keys: KeyRing | None) -> dict[str, Any]:
    return {"namespace": namespace_of(namespace), "prefix": PREFIX, "lifetime": LIFETIME, "keys": keys}


def open_callers(url: str, namespace: str, *, keys: KeyRing | None = None) -> TokenIssuer:
    """Open the issuer of the callers, for the command."""
    return TokenIssuer.open(url, **_options(namespace, keys))


def open_callers_async(url: str, namespace: str, *, keys: KeyRing | None = None) -> AsyncTokenIssuer:
    """Open the issuer of the callers, for the service."""
    return AsyncTokenIssuer.open(url, **_options(namespace, keys))


def checked(scopes: Collection[str]) -> frozenset[str]:
    """Return the scopes.

    Raises:
        ConfigurationError: there is none, or one of them means nothing here.
    """
    if not scopes:
        msg = f"a caller without a scope may do nothing: give it one, such as {TOKEN}:upstox/alice"
        raise ConfigurationError(msg)
    for scope in scopes:
        if not _SCOPE.fullmatch(scope):
            accounts = ", ".join(f"{action}:PROVIDER/USER" for action in ON_ACCOUNTS)
            msg = (
                f"{scope!r} is no scope of the service: it knows {', '.join(ALONE)}, {accounts} (written as in a URL; "
                f"{TOKEN}:PROVIDER/* for every user, {TOKEN}:* for every account) and * for everything"
            )
            raise ConfigurationError(msg)
    return frozenset(scopes)


def scope_for(action: str, provider: str, user_id: str) -> str:
    """Return the scope that allows an action on one account and nothing else."""
    return f"{action}:{quote(provider, safe='')}/{quote(user_id, safe='')}"


def may(caller: IssuedToken, action: str) -> bool:
    """Tell whether a caller may do what concerns no account."""
    return not caller.scopes.isdisjoint({action, EVERYTHING})


def may_on(caller: IssuedToken, action: str, provider: str, user_id: str) -> bool:
    """Tell whether a caller may do this on this account."""
    exact = scope_for(action, provider, user_id)
    return not caller.scopes.isdisjoint({exact, f"{exact.partition('/')[0]}/*", f"{action}:*", EVERYTHING})
