"""Providers without a network: they count, follow a script, and wait at a gate instead of sleeping."""

from __future__ import annotations

import os
import secrets
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

from tokenkeep.errors import ProviderRejected
from tokenkeep.model import AcquiredToken, NewToken
from tokenkeep.ports import CodeWindow, ExpiryPolicy
from tokenkeep.secret import Secret

PATIENCE: Final = 20.0
"""Seconds after which a gate gives up, so that a broken test fails instead of hanging."""

type Outcome = Exception | NewToken | Sequence[NewToken]
"""What one call to a provider comes to."""


class Gate:
    """Holds callers back until it is opened, and tells when the first has arrived."""

    def __init__(self) -> None:
        self._arrived = threading.Event()
        self._open = threading.Event()

    def open(self) -> None:
        """Let everybody through, now and later."""
        self._open.set()

    def wait_for_a_caller(self) -> None:
        """Block until somebody stands at the gate."""
        if not self._arrived.wait(PATIENCE):
            msg = f"nobody called the provider within {PATIENCE:g} s"
            raise TimeoutError(msg)

    def pass_through(self) -> None:
        """Block until the gate is open."""
        self._arrived.set()
        if not self._open.wait(PATIENCE):
            msg = f"the gate of the fake provider stayed shut for {PATIENCE:g} s"
            raise TimeoutError(msg)


class FakeProvider:
    """Grant made-up tokens, each different, and count the logins.

    A call does the next thing of the `script`, else what `fail` has set for the user, else it grants one
    token of each kind. Safe to call from several threads.

    Args:
        name: the name its tokens are filed under.
        expiry: the policy it hands to the vault; `None` when only each token tells.
        lifetime: the `expires_in` of each token; `None` when the provider does not say.
        kinds: the kinds of token that one login yields.
        refresh: whether the first kind comes with a refresh token.
        journal: a file that gets one line a login, for counting across processes.
    """

    def __init__(
        self,
        name: str = "fake",
        *,
        expiry: ExpiryPolicy | None = None,
        lifetime: timedelta | None = timedelta(hours=1),
        kinds: Sequence[str] = ("access",),
        refresh: bool = False,
        journal: Path | None = None,
    ) -> None:
        self._name = name
        self._expiry = expiry
        self._lifetime = lifetime
        self._kinds = tuple(kinds)
        self._refresh = refresh
        self._journal = journal
        self._lock = threading.Lock()
        self._calls: list[str] = []
        self._granted: list[Secret] = []
        self._script: deque[Outcome] = deque()
        self._failures: dict[str, Exception] = {}
        self._gate: Gate | None = None

    @property
    def name(self) -> str:
        """The name its tokens are filed under."""
        return self._name

    @property
    def expiry(self) -> ExpiryPolicy | None:
        """The policy it was made with."""
        return self._expiry

    @property
    def calls(self) -> tuple[str, ...]:
        """The user id of each login that was begun, in order."""
        with self._lock:
            return tuple(self._calls)

    @property
    def logins(self) -> int:
        """How many logins were begun."""
        return len(self.calls)

    @property
    def granted(self) -> tuple[Secret, ...]:
        """Every secret it ever made up, for a search afterwards."""
        with self._lock:
            return tuple(self._granted)

    def script(self, *outcomes: Outcome) -> None:
        """Set what the next logins come to, one each; later ones are granted as usual."""
        self._script.extend(outcomes)

    def fail(self, user_id: str, error: Exception | None) -> None:
        """Let every login of one user fail from now on; with `None` they succeed again."""
        with self._lock:
            self._failures.pop(user_id, None)
            if error is not None:
                self._failures[user_id] = error

    @contextmanager
    def held(self) -> Iterator[Gate]:
        """Hold logins at a gate inside the block. It opens at the end of the block at the latest."""
        gate = self._gate = Gate()
        try:
            yield gate
        finally:
            self._gate = None
            gate.open()

    def acquire(self, user_id: str) -> Sequence[NewToken]:
        """Log in, which may fail as the test has set."""
        self._count(user_id)
        if self._gate is not None:
            self._gate.pass_through()
        with self._lock:
            outcome = self._script.popleft() if self._script else self._failures.get(user_id)
        return self._granting(user_id) if outcome is None else self._come_to(outcome)

    def _count(self, user_id: str) -> None:
        with self._lock:
            self._calls.append(user_id)
        if self._journal is not None:
            journal = os.open(self._journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(journal, f"{os.getpid()} {user_id}\n".encode())
            finally:
                os.close(journal)

    def _come_to(self, outcome: Outcome) -> Sequence[NewToken]:
        if isinstance(outcome, Exception):
            raise outcome
        tokens = (outcome,) if isinstance(outcome, NewToken) else tuple(outcome)
        with self._lock:
            for token in tokens:
                self._granted.extend(secret for secret in (token.access_token, token.refresh_token) if secret)
        return tokens

    def _granting(self, user_id: str) -> Sequence[NewToken]:
        return [
            NewToken(
                self._secret(kind),
                kind=kind,
                refresh_token=self._refresh_token(user_id) if self._refresh and kind == self._kinds[0] else None,
                expires_in=self._lifetime,
                profile={"user_name": f"the person {user_id!r}"},
            )
            for kind in self._kinds
        ]

    def _refresh_token(self, user_id: str) -> Secret | None:  # noqa: ARG002  # a provider that renews keeps them by user
        return self._secret("refresh")

    def _secret(self, kind: str) -> Secret:
        secret = Secret(f"{self._name}-{kind}-{secrets.token_hex(16)}")
        with self._lock:
            self._granted.append(secret)
        return secret


class RenewingProvider(FakeProvider):
    """Also trades refresh tokens: only the newest of a user is good, and with `rotating` only once.

    Args:
        rotating: whether each renewal brings a new refresh token and spends the old one.
    """

    def __init__(
        self,
        name: str = "fake",
        *,
        expiry: ExpiryPolicy | None = None,
        lifetime: timedelta | None = timedelta(hours=1),
        rotating: bool = True,
    ) -> None:
        super().__init__(name, expiry=expiry, lifetime=lifetime, refresh=True)
        self._rotating = rotating
        self._good: dict[str, Secret] = {}
        self._renewals: list[str] = []
        self._renewal_script: deque[Outcome] = deque()

    @property
    def renewals(self) -> int:
        """How many renewals were begun."""
        with self._lock:
            return len(self._renewals)

    def script_renewals(self, *outcomes: Outcome) -> None:
        """Set what the next renewals come to, one each."""
        self._renewal_script.extend(outcomes)

    def renew(self, user_id: str, refresh_token: Secret) -> Sequence[NewToken]:
        """Spend a refresh token; one that is not the user's newest is `invalid_grant` (RFC 6749 section 5.2)."""
        with self._lock:
            self._renewals.append(user_id)
            outcome = self._renewal_script.popleft() if self._renewal_script else None
        if outcome is not None:
            return self._come_to(outcome)
        if self._good.get(user_id) != refresh_token:
            reason = "invalid_grant: the refresh token is unknown or spent"
            raise ProviderRejected(reason, provider=self.name, user_id=user_id)
        successor = self._refresh_token(user_id) if self._rotating else None
        return [NewToken(self._secret("access"), refresh_token=successor, expires_in=self._lifetime)]

    def _refresh_token(self, user_id: str) -> Secret:
        self._good[user_id] = secret = self._secret("refresh")
        return secret


class RevokingProvider(FakeProvider):
    """Also ends tokens on request, and remembers which.

    Attributes:
        attempts: how often it was asked, whatever came of it.
    """

    def __init__(
        self,
        name: str = "fake",
        *,
        lifetime: timedelta | None = timedelta(hours=1),
        kinds: Sequence[str] = ("access",),
        refresh: bool = False,
    ) -> None:
        super().__init__(name, lifetime=lifetime, kinds=kinds, refresh=refresh)
        self.attempts = 0
        self._revoked: list[Secret] = []
        self._revocation_script: deque[BaseException] = deque()

    @property
    def revoked(self) -> tuple[Secret, ...]:
        """The access tokens that were ended here, in order."""
        with self._lock:
            return tuple(self._revoked)

    def script_revocations(self, *errors: BaseException) -> None:
        """Let the next revocations fail, one each."""
        self._revocation_script.extend(errors)

    def revoke(self, token: AcquiredToken) -> None:
        """End a token; safe to repeat."""
        with self._lock:
            self.attempts += 1
            if self._revocation_script:
                raise self._revocation_script.popleft()
            self._revoked.append(token.access_token)


class OneTimeCodeProvider(FakeProvider):
    """Logs in with a code that is good for one login in each time step (RFC 6238 section 5.2)."""

    period: Final = timedelta(seconds=30)

    def code_window(self, user_id: str) -> CodeWindow:
        """Tell which code the next login of this user will use."""
        return CodeWindow(
            account=f"{self.name}/{user_id}", period=self.period, begin_within=self.period, lead=timedelta(seconds=1)
        )
