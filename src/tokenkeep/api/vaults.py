"""The sync face of the vault, one line a method; all its words stand here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Self

from tokenkeep import opening
from tokenkeep._stepping import run
from tokenkeep.api.watches import Watch
from tokenkeep.keyring import KeyRing
from tokenkeep.lifecycle import Opened
from tokenkeep.model import (
    AcquiredToken,
    Acquisition,
    AuditCheck,
    AuditChecks,
    AuditEvent,
    Dashboard,
    NewToken,
    Purged,
    Rotated,
    Statistics,
    Status,
    TokenInfo,
)
from tokenkeep.opening import Audited
from tokenkeep.outcomes import Forgotten
from tokenkeep.ports import Clock, Provider, Source
from tokenkeep.vault import MIN_VALIDITY, VaultCore
from tokenkeep.watching import INTERVAL


class TokenVault:
    """Acquired tokens: fetched once, shared by every process, sealed at rest, renewed before they die.

    `provider=None` means the only one registered. All methods are safe to call from several threads.
    Every method may raise `StoreUnavailable`; a bad argument is `ValueError` or `TypeError`, before any I/O.
    """

    def __init__(self, opened: Opened[VaultCore]) -> None:
        self._opened = opened

    @classmethod
    def open(  # the fixed public signature
        cls,
        url: Source,
        *,
        providers: Iterable[Provider] = (),
        keys: KeyRing | None = None,
        namespace: str = "default",
        cache: str | None = None,
        audit: Audited = "changes",
        clock: Clock | None = None,
    ) -> Self:
        """Open a vault; use it with `with` or `async with`, or call `close`.

        Args:
            url: where the tokens are kept: `sqlite:///tokens.db`, `sqlite://` for memory, `postgresql://...`,
                `mariadb://...`; or a SQLAlchemy engine of the face's kind, which stays the caller's to close.
            providers: where new tokens come from; none is needed to read or to `store`.
            keys: seals the tokens; `None` reads `TOKENKEEP_KEYS` or `TOKENKEEP_KEY_FILE`, and where neither
                is set makes `<file>.key` beside a SQLite file (mode 0600) and logs that it did.
            namespace: keeps apart what shares a database: tenants, stages, applications.
            cache: the URL of a tier in front of the store; `None` for none.
            audit: `"reads"` writes an event for each token that `get_valid` and `get_or_create` hand out, durable
                before they return; where it cannot be written they raise. `"changes"` counts uses only.
            clock: the time that everything goes by, leases too; `None` for this machine's clock, with
                leases timed by the database's own.

        Raises:
            ConfigurationError: an unknown URL scheme, a missing driver, no keys, two providers of one name.
            SchemaMismatch: the database was written by a newer version.
            UnknownKey: tokens in the database are sealed under a key that the ring lacks.
            SealingError: the ring holds another key under the same id.
        """
        opened = opening.open_vault(
            url,
            asynchronous=False,
            providers=providers,
            keys=keys,
            namespace=namespace,
            cache=cache,
            audit=audit,
            clock=clock,
        )
        run(opened.started())
        return cls(opened)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write the uses that were counted and close what was opened. Safe to repeat."""
        run(self._opened.close())

    def get_valid(
        self,
        user_id: str,
        *,
        provider: str | None = None,
        kind: str = "access",
        min_validity: timedelta = MIN_VALIDITY,
    ) -> AcquiredToken | None:
        """Return the token in place if it lasts for `min_validity` at least; never calls the provider.

        `None` when there is none, or it was rejected or revoked, or ends too soon. Counts one use.

        Raises:
            SealingError: the row cannot be opened; it was changed, or the key is missing (`UnknownKey`).
        """
        return run(self._opened.core.get_valid(user_id, provider=provider, kind=kind, min_validity=min_validity))

    def get_or_create(
        self,
        user_id: str,
        *,
        provider: str | None = None,
        kind: str = "access",
        min_validity: timedelta = MIN_VALIDITY,
    ) -> AcquiredToken:
        """Return a valid token, acquiring one where there is none: one login, however many ask at once.

        A token that ends within `min_validity` is renewed only if the new one would live longer, and is
        served on when that fails. After a failure the provider is left alone for a while; after a
        rejection until `acquire` or `store` succeeded. Counts one use.

        Raises:
            ProviderRejected: the provider said no; nothing is tried again by itself.
            ProviderUnavailable: it could not be asked; `retry_after` says when it will be again.
            AcquireInDoubt: a token may have been granted that did not arrive.
        """
        return run(self._opened.core.get_or_create(user_id, provider=provider, kind=kind, min_validity=min_validity))

    def acquire(self, user_id: str, *, provider: str | None = None) -> AcquiredToken:
        """Log in now, whatever is in place and whatever failed before; those who ask at once share one login.

        Raises:
            ProviderError: as for `get_or_create`.
        """
        return run(self._opened.core.acquire(user_id, provider=provider))

    def acquire_many(
        self,
        user_ids: Iterable[str],
        *,
        provider: str | None = None,
        concurrency: int = 4,
        progress: Callable[[int, int], object] | None = None,
    ) -> list[Acquisition]:
        """Acquire for many users, `concurrency` at a time; one result for each, in the order given.

        One failure stops nobody: it is the `error` of that result. `progress(done, total)` is called
        after each.
        """
        return run(
            self._opened.core.acquire_many(user_ids, provider=provider, concurrency=concurrency, progress=progress)
        )

    def store(self, user_id: str, new_token: NewToken, *, provider: str | None = None) -> AcquiredToken:
        """Put a token in place that arrived another way: a webhook, a paste. Waits for a login under way."""
        return run(self._opened.core.store(user_id, new_token, provider=provider))

    def watch(
        self,
        user_id: str,
        *,
        provider: str | None = None,
        kind: str = "access",
        interval: timedelta = INTERVAL,
    ) -> Watch:
        """Iterate over the token in place, if it is good, and over each newer good one as soon as it is there.

        Never the same twice, never an older after a newer; of several that came in between only the newest.
        Never calls the provider. What was rejected or revoked is passed over, and so is what has ended.
        Each one counts one use when it is handed out. The store is asked each `interval`; where it tells of
        new tokens by itself, they come sooner. What it returns is closed by `with`, and when the vault is.

        Raises:
            StoreUnavailable: while iterating, at the first reading only; an outage after that is waited out.
            SealingError: while iterating, as for `get_valid`.
        """
        return Watch(self._opened.core.watch(user_id, provider=provider, kind=kind, interval=interval))

    def reject(self, token: AcquiredToken) -> None:
        """Say that the provider answered 401 to exactly this token; a newer one is left alone. Safe to repeat."""
        run(self._opened.core.reject(token))

    def revoke(self, user_id: str, *, provider: str | None = None) -> bool:
        """End the user's tokens of every kind here, and at the provider where it can.

        A login that is under way cannot land afterwards. Whether the provider listened is in the audit
        trail. `False` when there was nothing in place. Safe to repeat.
        """
        return run(self._opened.core.revoke(user_id, provider=provider))

    def forget(self, user_id: str) -> Forgotten:
        """Remove a user: revoke all tokens of every provider, then delete their rows and history, in batches.

        A row whose provider could not be told yet stays, sealed: `awaiting_revocation` counts them. `purge` tells the
        provider again; forget once more then.

        The audit trail stays, because it would not be whole without what it tells of the user: the id, those of the
        tokens, moments, the process that did it, and the words in which a login failed; no profile, no metadata.
        `purge(audit_before=...)` deletes it in its time, and leaves the number and digest of its last event beside
        the id. Safe to repeat.
        """
        return run(self._opened.core.forget_user(user_id))

    def history(self, user_id: str, *, provider: str | None = None, limit: int = 10) -> list[TokenInfo]:
        """Return the tokens that were ever made, of every kind, newest first, without secrets."""
        return run(self._opened.core.reports.history(user_id, provider=provider, limit=limit))

    def statistics(self, user_id: str, *, provider: str | None = None, kind: str | None = "access") -> Statistics:
        """Count the user's tokens and their uses; `kind=None` counts every kind."""
        return run(self._opened.core.reports.statistics(user_id, provider=provider, kind=kind))

    def dashboard(self, user_id: str, *, provider: str | None = None) -> Dashboard:
        """Return statistics, the ten newest audit events and the active token."""
        return run(self._opened.core.reports.dashboard(user_id, provider=provider))

    def created_between(
        self, start: datetime, end: datetime, *, user_id: str | None = None, limit: int = 1000
    ) -> list[TokenInfo]:
        """Return the tokens made from `start` (included) to `end` (excluded), newest first, without secrets."""
        return run(self._opened.core.reports.created_between(start, end, user_id=user_id, limit=limit))

    def audit_trail(self, user_id: str, *, limit: int = 50) -> list[AuditEvent]:
        """Return who did what and when, for every provider, newest first."""
        return run(self._opened.core.reports.audit_trail(user_id, limit=limit))

    def check_audit(self, user_id: str, *, head: str | None = None) -> AuditCheck:
        """Check that a user's audit trail is whole: nothing changed, removed or put in.

        Args:
            user_id: whose trail.
            head: from an earlier check, kept where nobody who can write to the database can write. Without it the
                removal of the newest events goes unnoticed if the head that is kept with them was put back too.
        """
        return run(self._opened.core.auditing.check(user_id, head=head))

    def check_audits(
        self,
        *,
        heads: Mapping[str, str] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> AuditChecks:
        """Check the audit trail of every user of the namespace; `progress` is told events done and all there are.

        `heads` are those of an earlier check: a user whose whole trail is gone is noticed by them alone.
        """
        return run(self._opened.core.auditing.check_all(heads=heads, progress=progress))

    def purge(self, *, expired_before: datetime | None = None, audit_before: datetime | None = None) -> Purged:
        """Erase the secrets of tokens that ended before `expired_before` (`None`: now), in bounded batches.

        Their history stays for a year more. Audit events go only when `audit_before` is given.
        """
        return run(self._opened.core.upkeep.purge(expired_before=expired_before, audit_before=audit_before))

    def status(self) -> Status:
        """Tell how the store is; a store that is down is an unhealthy tier, not an error."""
        return run(self._opened.core.reports.status())

    def rotate_keys(self, progress: Callable[[int, int], object] | None = None) -> Rotated:
        """Seal every row under the newest key of the ring; interrupted, the next call goes on.

        `progress(done, total)` is called after each batch. Drop a key from the ring only when it is
        among `Rotated.unused`.
        """
        return run(self._opened.core.upkeep.rotate_keys(progress))
