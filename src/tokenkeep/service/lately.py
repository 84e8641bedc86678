"""Who asks while nobody can be asked who it is: the metrics have to tell of an outage."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from fastapi import HTTPException

from tokenkeep._kept import Kept
from tokenkeep.digest import fingerprint
from tokenkeep.fastapi import Bearer
from tokenkeep.model import IssuedToken

TRUSTED_FOR: Final = 300.0
"""Seconds for which a caller who was known stays so while the store cannot be asked."""

_MOST: Final = 100


class Lately:
    """Verifies tokens, and in an outage trusts those that were good a moment ago. Only for what holds no secret."""

    def __init__(self, bearer: Bearer, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._bearer = bearer
        self._monotonic = monotonic
        self._known: Kept[bytes, tuple[float, IssuedToken]] = Kept(_MOST)

    async def verified(self, token: str) -> IssuedToken | None:
        """Return whose token it is, or was; `None` when it is not good.

        Raises:
            HTTPException: 503: the store cannot be asked, and the token was not seen lately.
        """
        mark = fingerprint(token)
        try:
            who = await self._bearer.verified(token)
        except HTTPException:
            known = self._known.get(mark)
            if known is None or self._monotonic() - known[0] > TRUSTED_FOR:
                raise
            return known[1]
        self._known.pop(mark, None)
        if who is not None:
            self._known.keep(mark, (self._monotonic(), who))
        return who
