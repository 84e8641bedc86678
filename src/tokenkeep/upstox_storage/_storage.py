"""What the five classes share: the methods of the page, each a call of the vault."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, Self

from tokenkeep.api import TokenVault
from tokenkeep.errors import ConfigurationError, StoreError
from tokenkeep.keyring import KeyRing
from tokenkeep.model import TokenInfo
from tokenkeep.opening import SystemClock
from tokenkeep.ports import Clock, Provider
from tokenkeep.providers.upstox import UpstoxProvider
from tokenkeep.upstox_storage import _answers
from tokenkeep.upstox_storage._answers import DEFAULT_USER
from tokenkeep.upstox_storage._takeover import Opening, take_over

_KINDS: Final = 2
"""A login yields an access token, and for some accounts an extended one; these classes tell of the first."""

_FIRST: Final = timedelta(microseconds=1)


class Storage:
    """The storage classes of upstox-totp's documentation, on a vault. Safe to share between threads.

    A user may be named as you like, one name for an account. Who names none means the account of the environment:
    it is told of by the broker's id, and found again under that. Times are aware UTC. The methods raise the errors
    of `TokenVault`, those that log in `ConfigurationError` too when the environment has no account.

    Attributes:
        STORED: the keys of what `store_token` returns.
        VALID: the keys of what `get_valid_token` returns.
    """

    STORED: ClassVar[tuple[str, ...]] = ("token", "user_id", "expires_at")
    VALID: ClassVar[tuple[str, ...]] = ("token", "user_name", "expires_at")

    _vault: TokenVault

    def _open(
        self,
        url: str,
        *,
        upstox: Provider | None,
        keys: KeyRing | None,
        clock: Clock | None,
        old: Opening,
        cache: str | None = None,
        concurrency: int = 4,
    ) -> None:
        """Open the vault, and take over what the page's own code has left in the database."""
        self._lacking, self._clock = "", clock or SystemClock()
        self._concurrency = 1 if upstox is None else concurrency  # one account serves the first of a batch
        account = upstox or self._environment()
        self._provider = account.name
        self._vault = TokenVault.open(url, providers=[account], keys=keys, cache=cache, clock=clock)
        self._broker_id: str | None = None
        try:
            sole = DEFAULT_USER if upstox is None else None
            take_over(self._vault, account, old, sole_user=sole, now=self._clock.now())
        except BaseException:
            self.close()
            raise

    def _environment(self) -> Provider:
        """Return the account of the environment; without one what is stored can still be read."""
        try:
            return UpstoxProvider()
        except ConfigurationError as error:
            self._lacking = str(error)
            return UpstoxProvider({})

    def _need_account(self) -> None:
        if self._lacking:
            raise ConfigurationError(self._lacking)

    def _key(self, user_id: str | None) -> str:
        """Return what a user's tokens are filed under."""
        if user_id is None:
            return DEFAULT_USER
        if self._broker_id is None:
            with suppress(StoreError):  # a tier in front may still have the user's token
                known = self._vault.history(DEFAULT_USER, provider=self._provider, limit=1)
                self._broker_id = _answers.name_of(known[0]) if known else None
        return DEFAULT_USER if user_id == self._broker_id else user_id

    def store_token(self, user_identifier: str | None = None) -> dict[str, Any]:
        """Log in now and store the token; calls at the same time share one login."""
        self._need_account()
        token = self._vault.acquire(self._key(user_identifier), provider=self._provider)
        return _answers.chosen(_answers.token(token), self.STORED)

    def get_valid_token(self, user_id: str | None) -> dict[str, Any] | None:
        """Return the token in place if it lasts for a minute at least; never logs in. Counts one use."""
        token = self._vault.get_valid(self._key(user_id), provider=self._provider)
        return None if token is None else _answers.chosen(_answers.token(token), self.VALID)

    def get_or_create_token(self, user_id: str | None = None) -> dict[str, Any]:
        """Return a valid token, logging in where there is none: once, however many ask. The keys are those of both."""
        key = self._key(user_id)
        if self._lacking:
            token = self._vault.get_valid(key, provider=self._provider)
            if token is None:
                self._need_account()
        else:
            token = self._vault.get_or_create(key, provider=self._provider)
        assert token is not None  # noqa: S101  # `_need_account` has raised
        return _answers.chosen(_answers.token(token), dict.fromkeys([*self.STORED, *self.VALID]))

    def store_token_batch(self, user_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Log in for each user; one result a user, in the order given: a token's id, or the error."""
        self._need_account()
        names = list(user_ids)
        keys = [self._key(name) for name in names]
        results = self._vault.acquire_many(keys, provider=self._provider, concurrency=self._concurrency)
        return [_answers.batch_row(result, name) for result, name in zip(results, names, strict=True)]

    def get_token_history(self, user_id: str | None, limit: int = 10) -> list[dict[str, Any]]:
        """Return what was made, newest first, without the tokens."""
        return [_answers.history_row(info) for info in self._history(user_id, limit)]

    def _history(self, user_id: str | None, limit: int) -> list[TokenInfo]:
        known = self._vault.history(self._key(user_id), provider=self._provider, limit=limit * _KINDS)
        return _access(known)[:limit]

    def get_user_statistics(self, user_id: str | None) -> dict[str, Any]:
        """Return how many tokens there are, and how often they were used."""
        return _answers.statistics(self._vault.statistics(self._key(user_id), provider=self._provider))

    def get_audit_trail(self, user_id: str | None, limit: int = 50) -> list[dict[str, Any]]:
        """Return who did what and when, newest first."""
        key = self._key(user_id)
        events = self._vault.audit_trail(key, limit=limit)
        known = self._vault.history(key, provider=self._provider, limit=limit * _KINDS)
        made = {info.id: info.created_at for info in known}
        return [_answers.audit_row(event, self._name(user_id, known), made) for event in events]

    def get_user_dashboard(self, user_id: str | None) -> dict[str, Any]:
        """Return the figures, the ten newest events, and how the active token is."""
        key = self._key(user_id)
        found = self._vault.dashboard(key, provider=self._provider)
        return _answers.dashboard(found, self._name(user_id, self._history(user_id, 1)))

    def _name(self, user_id: str | None, known: list[TokenInfo]) -> str:
        """Return what the caller knows the user by."""
        return user_id or (_answers.name_of(known[0]) if known else DEFAULT_USER)

    def get_tokens_by_timeframe(self, start_date: datetime, end_date: datetime) -> list[dict[str, Any]]:
        """Return what was made for anybody in a time frame, both ends included, newest first; a naive time is UTC."""
        start, end = _aware(start_date), _aware(end_date) + _FIRST
        made = self._vault.created_between(start, end)
        return [_answers.document(info) for info in _access(made) if info.provider == self._provider]

    def cleanup_expired_tokens(self) -> int:
        """Erase the tokens that have ended, and return how many; their history stays for a year."""
        return self._vault.purge().secrets

    def cleanup_old_audit_entries(self, days_to_keep: int = 90) -> int:
        """Delete events older than so many days, and return how many. Erases the tokens that have ended, too."""
        return self._vault.purge(audit_before=self._clock.now() - timedelta(days=days_to_keep)).audit_events

    def get_storage_status(self) -> dict[str, Any]:
        """Return `healthy` or the error for each database, by its name."""
        return _answers.status(self._vault.status(), self._clock.now())

    def close(self) -> None:
        """Write what was counted and close the connections. Safe to repeat."""
        self._vault.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _access(known: list[TokenInfo]) -> list[TokenInfo]:
    return [info for info in known if info.kind == "access"]


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
