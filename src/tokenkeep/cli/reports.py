"""Commands that tell what is known of tokens. None of them shows one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from tokenkeep.cli import exits
from tokenkeep.cli.moments import moment
from tokenkeep.cli.screen import Screen, sentence_of
from tokenkeep.cli.session import Session, command
from tokenkeep.cli.stores import open_vault
from tokenkeep.cli.tokens import User
from tokenkeep.errors import SealingError, StoreError
from tokenkeep.model import Statistics, Status, TierStatus, TokenInfo

Limit = Annotated[int, typer.Option(min=1, help="how many at most")]

_WHEN: Final = "a date, a time, or a span ago such as 12h or 7d"


@command
def listed(
    session: Session,
    *,
    since: Annotated[str, typer.Option(help=f"made at or after: {_WHEN}")] = "7d",
    until: Annotated[str, typer.Option(help=f"made before: {_WHEN}")] = "0s",
    user: Annotated[str | None, typer.Option(help="only this user's", show_default=False)] = None,
    limit: Limit = 1000,
) -> None:
    """Show the tokens made in a span of time, of every provider, without secrets."""
    now = datetime.now(UTC)
    start, end = moment(since, "--since", now=now), moment(until, "--until", now=now)
    with open_vault(session) as vault:
        infos = vault.created_between(start, end, user_id=user, limit=limit)
    show_tokens(session.screen, infos)


@command
def history(session: Session, user: User, *, limit: Limit = 10) -> None:
    """Show the tokens that were ever made for a user, newest first, without secrets."""
    with open_vault(session) as vault:
        infos = vault.history(user, provider=session.provider, limit=limit)
    show_tokens(session.screen, infos)


@command
def stats(
    session: Session,
    user: User,
    *,
    kind: Annotated[str, typer.Option(help="access, extended, or all")] = "access",
) -> None:
    """Show counts for a user: tokens, uses, the last of each."""
    with open_vault(session) as vault:
        figures = vault.statistics(user, provider=session.provider, kind=None if kind == "all" else kind)
    show_statistics(session.screen, figures)


@command
def status(session: Session) -> int:
    """Show how the store is: tiers, schema, keys in use, warnings. The exit code tells whether it is healthy."""
    problem: StoreError | SealingError | None = None
    try:
        with open_vault(session) as vault:
            state = vault.status()
    except (StoreError, SealingError) as error:
        problem, state = error, _unhealthy(session, error)
    show_status(session.screen, state)
    if problem is not None:
        return exits.code_of(problem)
    return exits.OK if state.healthy else exits.STORE


def _unhealthy(session: Session, error: Exception) -> Status:
    name = session.url.partition(":")[0].partition("+")[0]
    tier = TierStatus(name=name, healthy=False, reason=sentence_of(error))
    return Status(tiers=(tier,), schema_version=None, key_ids=())


# --- how they are shown, here and in the demo ---


def show_tokens(screen: Screen, infos: Sequence[TokenInfo], *, title: str = "") -> None:
    """Show tokens, one a row."""
    if screen.json:
        screen.data(infos)
        return
    if not infos:
        screen.say("no tokens")
        return
    rows = [
        (info.user_id, info.provider, info.kind, info.version, info.state, info.created_at, info.expires_at,
         info.usage_count)
        for info in infos
    ]  # fmt: skip
    screen.table(("user", "provider", "kind", "version", "state", "made", "expires", "uses"), rows, title=title)


def show_statistics(screen: Screen, figures: Statistics, *, title: str = "") -> None:
    """Show counts."""
    if screen.json:
        screen.data(figures)
        return
    names = {
        "tokens": figures.total_tokens,
        "active": figures.active_tokens,
        "uses": figures.total_usage,
        "uses per token": figures.avg_usage_per_token,
        "last made": figures.last_generation,
        "last used": figures.last_usage,
    }
    screen.facts(names, title=title)


def show_status(screen: Screen, state: Status, *, title: str = "") -> None:
    """Show how the store is."""
    if screen.json:
        screen.data(state)
        return
    tiers = {f"tier {tier.name}": "healthy" if tier.healthy else f"down: {tier.reason}" for tier in state.tiers}
    waits = {"to be revoked at the provider": state.awaiting_revocation} if state.awaiting_revocation else {}
    screen.facts({**tiers, "schema": state.schema_version, "keys in use": state.key_ids, **waits}, title=title)
    for warning in state.warnings:
        screen.note(warning)
