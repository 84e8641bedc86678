"""Keeping house: erasing what has ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from tokenkeep.api import TokenIssuer
from tokenkeep.cli import accounts, exits
from tokenkeep.cli.moments import moment
from tokenkeep.cli.session import Session, command
from tokenkeep.cli.stores import key_ring, open_vault

_ANY: Final = timedelta(hours=1)
"""The lifetime of what an issuer here would issue; it issues nothing."""


@command
def purge(
    session: Session,
    *,
    expired_before: Annotated[
        str, typer.Option(help="erase secrets that ended before: a date, a time, or a span ago such as 7d")
    ] = "0s",
    audit_before: Annotated[
        str | None, typer.Option(help="delete audit events from before; default: none", show_default=False)
    ] = None,
) -> None:
    """Erase the secrets of tokens that have ended, in bounded batches; their history stays for a year."""
    now = datetime.now(UTC)
    expired = moment(expired_before, "--expired-before", now=now)
    audit = None if audit_before is None else moment(audit_before, "--audit-before", now=now)
    known = accounts.without_account(session.provider)
    with (
        open_vault(session, providers=[] if known is None else [known]) as vault,
        session.screen.progress("erasing"),
    ):
        purged = vault.purge(expired_before=expired, audit_before=audit)
    if session.screen.json:
        session.screen.data(purged)
    session.screen.facts(
        {
            "secrets erased": purged.secrets,
            "tokens deleted": purged.tokens,
            "audit events deleted": purged.audit_events,
            "revoked at the provider": purged.provider_revoked,
        }
    )


@command
def forget(
    session: Session, user: Annotated[str, typer.Argument(help="your name for the user", show_default=False)]
) -> int:
    """Remove a user: revoke all tokens, acquired and issued, then delete them and their history.

    The audit trail stays. The exit code is 5 while a provider has still to be told.
    """
    known = accounts.without_account(session.provider)
    with open_vault(session, providers=[] if known is None else [known]) as vault:
        acquired = vault.forget(user)
    ring = key_ring(session)
    with TokenIssuer.open(session.url, lifetime=_ANY, namespace=session.namespace, keys=ring) as issuer:
        issued = issuer.forget(user)
    told = {
        "acquired_tokens": acquired.tokens,
        "issued_tokens": issued.tokens,
        "awaiting_revocation": acquired.awaiting_revocation,
    }
    if session.screen.json:
        session.screen.data({"user_id": user, **told})
    else:
        session.screen.facts({name.replace("_", " "): number for name, number in told.items()})
    if acquired.awaiting_revocation:
        session.screen.note("a provider has still to be told; `tokenkeep purge` tells it, then forget once more")
        return exits.UNAVAILABLE
    return exits.OK
