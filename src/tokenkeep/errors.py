"""Every error that tokenkeep raises on purpose.

Each builds its own sentence, which says what to do next, and keeps its facts as attributes. None holds a
secret or a data source name. Bad arguments are `ValueError` or `TypeError`, raised before any I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Self


class TokenKeepError(Exception):
    """The base of all errors of this package."""


class ConfigurationError(TokenKeepError):
    """What was asked for cannot be set up: an unknown URL scheme, a missing driver, extra or variable."""


class ProviderError(TokenKeepError):
    """Acquiring, renewing or revoking a token at a provider failed.

    Attributes:
        provider: the name of the provider.
        user_id: whose token it was; `None` when not known.
    """

    def __init__(self, reason: str, *, provider: str = "", user_id: str | None = None) -> None:
        self.reason = reason
        self.provider = provider
        self.user_id = user_id
        super().__init__(reason)

    def __str__(self) -> str:
        subject = ", ".join(part for part in (self.provider, repr(self.user_id) if self.user_id else "") if part)
        return f"{subject}: {self.reason}" if subject else self.reason


class ProviderRejected(ProviderError):
    """The provider said no, and would again: wrong credentials, an unknown client, a spent grant.

    It is never repeated by itself, because a wrong PIN or code counts down to a lock.

    Attributes:
        code: the provider's own word for it, such as `invalid_grant` (RFC 6749 section 5.2); `None` without one.
    """

    def __init__(self, reason: str, *, provider: str = "", user_id: str | None = None, code: str | None = None) -> None:
        super().__init__(reason, provider=provider, user_id=user_id)
        self.code = code


class ProviderUnavailable(ProviderError):
    """The provider could not be asked, or could not answer; a later attempt may succeed.

    Attributes:
        retry_after: how long to wait before the next attempt; `None` when not known.
    """

    def __init__(
        self,
        reason: str,
        *,
        provider: str = "",
        user_id: str | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(reason, provider=provider, user_id=user_id)
        self.retry_after = retry_after


class AcquireInDoubt(ProviderError):
    """A token was asked for, and it is not known whether one was granted.

    The provider may have minted a token or spent a refresh token whose successor never arrived. The call
    that raises this does not repeat it; a later call may, and then finds out which of the two it was.
    """


class StoreError(TokenKeepError):
    """The database did not do what was asked."""


class StoreUnavailable(StoreError):
    """The database cannot be reached or cannot be written: locked, full, read-only, gone.

    Attributes:
        contention: it is there, but others wrote the same rows at that moment.
    """

    contention = False


class SchemaMismatch(StoreError):
    """The database holds a schema that this version of tokenkeep cannot use.

    Attributes:
        found: the schema version in the database; `None` when it is no tokenkeep database.
        expected: the schema version this program was written for.
    """

    def __init__(self, reason: str, *, found: int | None, expected: int) -> None:
        self.found = found
        self.expected = expected
        super().__init__(reason)

    @classmethod
    def of(cls, store: str, *, found: int | None, expected: int, when_older: str) -> Self:
        """Say it of a store; `when_older` is the way out when it is not newer than this program."""
        newer = found is not None and found > expected
        way_out = "it was written by a newer tokenkeep; upgrade this program" if newer else when_older
        reason = f"{store} holds schema {found}, this program needs {expected}: {way_out}"
        return cls(reason, found=found, expected=expected)

    @classmethod
    def unreadable(cls, store: str, *, expected: int) -> Self:
        """Say that a store names a version that is none."""
        reason = f"{store} names no schema version that can be read; restore it from a backup"
        return cls(reason, found=None, expected=expected)


class LimitReached(TokenKeepError):
    """The user has as many tokens as the issuer allows, and it was opened to refuse another.

    Attributes:
        limit: how many that is.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"this user has {limit} tokens, which is the limit; one has to be revoked or to end first")


class SealingError(TokenKeepError):
    """A sealed value cannot be opened: it was changed, moved to another row, or is not ours."""


class UnknownKey(SealingError):
    """A value was sealed under a key that the key ring does not hold.

    Attributes:
        key_ids: the ids of the missing keys, sorted.
    """

    def __init__(self, key_ids: Iterable[str], reason: str = "") -> None:
        self.key_ids = tuple(sorted(key_ids))
        names = ", ".join(self.key_ids)
        hint = "add the missing key to TOKENKEEP_KEYS or to the key file; sealed tokens cannot be read without it"
        super().__init__(f"no key {names} in the key ring{f' ({reason})' if reason else ''}: {hint}")
