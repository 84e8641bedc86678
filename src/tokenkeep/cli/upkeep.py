"""Keeping house: erasing what has ended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from tokenkeep.cli.moments import moment
from tokenkeep.cli.session import Session, command
from tokenkeep.cli.stores import open_vault


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
    with open_vault(session) as vault, session.screen.progress("erasing"):
        purged = vault.purge(expired_before=expired, audit_before=audit)
    if session.screen.json:
        session.screen.data(purged)
    session.screen.facts(
        {
            "secrets erased": purged.secrets,
            "tokens deleted": purged.tokens,
            "audit events deleted": purged.audit_events,
        }
    )
