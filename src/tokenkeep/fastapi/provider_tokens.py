"""A valid token of a provider for the endpoint, out of a vault."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from inspect import Parameter, Signature
from typing import Annotated, Final

from fastapi import HTTPException, Security

from tokenkeep.api import AsyncTokenVault
from tokenkeep.errors import (
    AcquireInDoubt,
    ConfigurationError,
    ProviderError,
    ProviderRejected,
    ProviderUnavailable,
    TokenKeepError,
)
from tokenkeep.fastapi import answers
from tokenkeep.fastapi.bearer import Bearer
from tokenkeep.model import AcquiredToken, IssuedToken

_LOG: Final = logging.getLogger("tokenkeep.fastapi")

REJECTED: Final = "The provider refused the login of this account; it has to be put right before it is tried again."
UNAVAILABLE: Final = "The provider cannot be reached now."
IN_DOUBT: Final = "It is not known whether the provider granted a token; ask again."


class ProviderToken:
    """Gives an endpoint the `AcquiredToken` of whoever asks, and of nobody else.

    502 when the provider refused, 503 with `Retry-After` when it or the database cannot be asked or the outcome
    is in doubt. The answer holds no word of the provider's; the reason is logged.

    Args:
        bearer: says who asks.
        provider: `None` means the only one registered.
        scopes: needed of the one who asks.
        user_id: under which key the vault keeps the token of the one who asks; `None` for their user id.
    """

    def __init__(  # the parts of a look-up
        self,
        vault: AsyncTokenVault,
        bearer: Bearer,
        *,
        provider: str | None = None,
        kind: str = "access",
        scopes: Collection[str] = (),
        user_id: Callable[[IssuedToken], str] | None = None,
    ) -> None:
        self._vault = vault
        self._provider = provider
        self._kind = kind
        self._user_id = user_id or _own_user_id
        asker = Annotated[IssuedToken, Security(bearer, scopes=sorted(scopes))]
        self.__signature__ = Signature([Parameter("who", Parameter.KEYWORD_ONLY, annotation=asker)])

    async def __call__(self, *, who: IssuedToken) -> AcquiredToken:
        """Return a valid token, acquired now where there is none."""
        try:
            return await self._vault.get_or_create(self._user_id(who), provider=self._provider, kind=self._kind)
        except ConfigurationError:  # a mistake of the program, not of this request
            raise
        except TokenKeepError as error:
            _LOG.warning("no provider token: %s", error)
            raise provider_trouble(error) from None


def _own_user_id(who: IssuedToken) -> str:
    return who.user_id


def provider_trouble(error: TokenKeepError) -> HTTPException:
    """Return the answer to a request that got no token; it holds no word of the provider's."""
    if isinstance(error, ProviderRejected):
        return HTTPException(502, REJECTED)
    if isinstance(error, AcquireInDoubt):
        return answers.unavailable(IN_DOUBT)
    if isinstance(error, ProviderUnavailable):
        return answers.unavailable(UNAVAILABLE, after=error.retry_after)
    return HTTPException(502, REJECTED) if isinstance(error, ProviderError) else answers.unavailable()
