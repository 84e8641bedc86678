"""The two faces of the issuer, one line a method."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Self

from tokenkeep import opening
from tokenkeep._stepping import run
from tokenkeep.api._words import same_words
from tokenkeep.issuer import IssuerCore
from tokenkeep.keyring import KeyRing
from tokenkeep.lifecycle import Opened
from tokenkeep.limiting import AtLimit
from tokenkeep.model import AuditCheck, AuditChecks, AuditEvent, IssuedToken, Purged, Statistics, Status
from tokenkeep.outcomes import Forgotten
from tokenkeep.ports import Clock, Source
from tokenkeep.secret import Secret


class TokenIssuer:
    """Issued tokens: looked up on every request, revoked at once, and a stolen database holds none that works.

    All methods are safe to call from several threads. Every method may raise `StoreUnavailable`; a bad
    argument is `ValueError` or `TypeError`, before any I/O.
    """

    def __init__(self, opened: Opened[IssuerCore]) -> None:
        self._opened = opened

    @classmethod
    def open(  # noqa: PLR0913  # the fixed public signature
        cls,
        url: Source,
        *,
        lifetime: timedelta,
        idle: timedelta | None = None,
        prefix: str = "tk",
        max_staleness: timedelta = timedelta(0),
        namespace: str = "default",
        limit: int | None = None,
        at_limit: AtLimit = "revoke",
        keys: KeyRing | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """Open an issuer; use it with `with` or `async with`, or call `close`.

        Args:
            url: where the digests are kept: `sqlite:///tokens.db`, `sqlite://` for memory, `postgresql://...`,
                `mariadb://...`; or a SQLAlchemy engine of the face's kind, which stays the caller's to close.
            lifetime: the absolute end of a token after it was issued; nothing extends it (ASVS 5.0, 7.3.2).
            idle: a token that was not used for so long has ended too (ASVS 5.0, 7.3.1); `None` for never.
            prefix: the first letters of each token, by which people and secret scanners know it.
            max_staleness: how long a process may trust what it has read: the bound within which a
                revocation in another process is seen. Zero asks the database on each `verify`.
            namespace: keeps apart what shares a database.
            limit: how many sessions a user may have at once, however many log in at the same moment (ASVS 5.0,
                7.1.2); `None` for no limit. All tokens of the namespace count, but what came of one issue by
                refreshing counts once: tokens for programs belong into a namespace of their own.
            at_limit: `"revoke"` ends the sessions that were issued or refreshed longest ago, `"refuse"` lets `issue`
                raise `LimitReached`.
            keys: keys the digests, so that who can write to the table still forges nothing; `None` as in
                `TokenVault.open`.
            clock: the time that everything goes by; `None` for this machine's clock.

        Raises:
            ConfigurationError: an unknown URL scheme or a missing driver.
            SchemaMismatch: the database was written by a newer version.
            UnknownKey: tokens in the database were issued under a key that the ring lacks.
        """
        opened = opening.open_issuer(
            url,
            asynchronous=False,
            lifetime=lifetime,
            idle=idle,
            prefix=prefix,
            max_staleness=max_staleness,
            namespace=namespace,
            limit=limit,
            at_limit=at_limit,
            keys=keys,
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

    def issue(  # the fixed public signature
        self,
        user_id: str,
        *,
        scopes: Collection[str] = (),
        name: str | None = None,
        lifetime: timedelta | None = None,
        client: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        refresh: bool = False,
    ) -> IssuedToken:
        """Issue a token; it is durable when this returns, and shown only in what this returns.

        Args:
            user_id: whose token it is.
            scopes: what it may do; none means nothing (default deny), `"*"` means everything.
            name: what the user calls it; shown back as untrusted text.
            lifetime: of this token; `None` for that of the issuer.
            client: what it was issued to, for example a user agent; shown back as untrusted text.
            metadata: anything JSON.
            refresh: issue a refresh token with it (RFC 6749 section 1.5).

        Raises:
            LimitReached: the user has as many sessions as `open` allows, and it was told to refuse.
        """
        return run(
            self._opened.core.issue(
                user_id,
                scopes=scopes,
                name=name,
                lifetime=lifetime,
                client=client,
                metadata=metadata,
                refresh=refresh,
            )
        )

    def verify(self, token: str | Secret, *, scopes: Collection[str] = ()) -> IssuedToken | None:
        """Return what a bearer token stands for, if it holds all of `scopes`.

        `None` when it is malformed (without a query), unknown, expired, idle for too long, revoked or
        lacks a scope; never an error, unless the database cannot be asked. Counts one use.
        """
        return run(self._opened.core.verify(token, scopes=scopes))

    def refresh(self, refresh_token: str | Secret) -> IssuedToken | None:
        """Trade a refresh token for a new pair, with the same scopes; the old access token lives to its end.

        A refresh token is good for one trade. Because the answer may be lost, it may be traded once more within
        10 seconds, while nothing that it brought was traded. Any later trade means that somebody else holds a
        copy: all that was issued with it and since is revoked (RFC 9700 section 4.14.2; ASVS 5.0, 10.4.5).
        Nothing extends the absolute end, 30 days after the issue. `None` when it is malformed, unknown, expired,
        revoked or was reused.
        """
        return run(self._opened.core.refresh(refresh_token))

    def revoke(self, token_or_id: str | Secret | IssuedToken) -> bool:
        """End one token, by itself or by its public id. `False` when there was none to end. Safe to repeat."""
        return run(self._opened.core.revoke(token_or_id))

    def revoke_all(self, user_id: str, *, keep: str | Secret | IssuedToken | None = None) -> int:
        """End all tokens of a user but `keep` (a token, its id or its value); return how many."""
        return run(self._opened.core.revoke_all(user_id, keep=keep))

    def forget(self, user_id: str) -> Forgotten:
        """Remove a user: end all tokens, then delete their rows and their history, in bounded batches.

        The audit trail stays, because it would not be whole without what it tells of the user: the id, those of the
        tokens, moments and the process that did it; no name, client or metadata. `purge(audit_before=...)` deletes
        it in its time, and leaves the number and digest of its last event beside the id. Safe to repeat.
        """
        return run(self._opened.core.forget_user(user_id))

    def tokens(self, user_id: str) -> list[IssuedToken]:
        """Return the user's tokens that are good now, newest first."""
        return run(self._opened.core.tokens(user_id))

    def purge(self, *, expired_before: datetime | None = None, audit_before: datetime | None = None) -> Purged:
        """Delete tokens that ended before `expired_before` (`None`: now), in bounded batches.

        Audit events go only when `audit_before` is given.
        """
        return run(self._opened.core.purge(expired_before=expired_before, audit_before=audit_before))

    def statistics(self, user_id: str) -> Statistics:
        """Count the user's tokens and their uses."""
        return run(self._opened.core.statistics(user_id))

    def audit_trail(self, user_id: str, *, limit: int = 50) -> list[AuditEvent]:
        """Return who did what and when, newest first."""
        return run(self._opened.core.audit_trail(user_id, limit=limit))

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

    def status(self) -> Status:
        """Tell how the store is; a store that is down is an unhealthy tier, not an error."""
        return run(self._opened.core.status())


@same_words(TokenIssuer)
class AsyncTokenIssuer:
    """`TokenIssuer` with awaited methods; `open` is called plainly and reads nothing before the first of them."""

    def __init__(self, opened: Opened[IssuerCore]) -> None:
        self._opened = opened

    @classmethod
    def open(  # noqa: PLR0913  # the fixed public signature
        cls,
        url: Source,
        *,
        lifetime: timedelta,
        idle: timedelta | None = None,
        prefix: str = "tk",
        max_staleness: timedelta = timedelta(0),
        namespace: str = "default",
        limit: int | None = None,
        at_limit: AtLimit = "revoke",
        keys: KeyRing | None = None,
        clock: Clock | None = None,
    ) -> Self:
        return cls(
            opening.open_issuer(
                url,
                asynchronous=True,
                lifetime=lifetime,
                idle=idle,
                prefix=prefix,
                max_staleness=max_staleness,
                namespace=namespace,
                limit=limit,
                at_limit=at_limit,
                keys=keys,
                clock=clock,
            )
        )

    async def __aenter__(self) -> Self:
        await self._opened.started()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._opened.close()

    async def issue(  # the fixed public signature
        self,
        user_id: str,
        *,
        scopes: Collection[str] = (),
        name: str | None = None,
        lifetime: timedelta | None = None,
        client: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        refresh: bool = False,
    ) -> IssuedToken:
        core = await self._opened.started()
        return await core.issue(
            user_id,
            scopes=scopes,
            name=name,
            lifetime=lifetime,
            client=client,
            metadata=metadata,
            refresh=refresh,
        )

    async def verify(self, token: str | Secret, *, scopes: Collection[str] = ()) -> IssuedToken | None:
        return await (await self._opened.started()).verify(token, scopes=scopes)

    async def refresh(self, refresh_token: str | Secret) -> IssuedToken | None:
        return await (await self._opened.started()).refresh(refresh_token)

    async def revoke(self, token_or_id: str | Secret | IssuedToken) -> bool:
        return await (await self._opened.started()).revoke(token_or_id)

    async def revoke_all(self, user_id: str, *, keep: str | Secret | IssuedToken | None = None) -> int:
        return await (await self._opened.started()).revoke_all(user_id, keep=keep)

    async def forget(self, user_id: str) -> Forgotten:
        return await (await self._opened.started()).forget_user(user_id)

    async def tokens(self, user_id: str) -> list[IssuedToken]:
        return await (await self._opened.started()).tokens(user_id)

    async def purge(self, *, expired_before: datetime | None = None, audit_before: datetime | None = None) -> Purged:
        core = await self._opened.started()
        return await core.purge(expired_before=expired_before, audit_before=audit_before)

    async def statistics(self, user_id: str) -> Statistics:
        return await (await self._opened.started()).statistics(user_id)

    async def audit_trail(self, user_id: str, *, limit: int = 50) -> list[AuditEvent]:
        return await (await self._opened.started()).audit_trail(user_id, limit=limit)

    async def check_audit(self, user_id: str, *, head: str | None = None) -> AuditCheck:
        return await (await self._opened.started()).auditing.check(user_id, head=head)

    async def check_audits(
        self,
        *,
        heads: Mapping[str, str] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> AuditChecks:
        return await (await self._opened.started()).auditing.check_all(heads=heads, progress=progress)

    async def status(self) -> Status:
        return await (await self._opened.started()).status()
