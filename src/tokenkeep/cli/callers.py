"""`tokenkeep callers`: who may call the service. The token of a caller is shown once, when it is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from tokenkeep.api import TokenIssuer
from tokenkeep.cli import exits
from tokenkeep.cli.moments import span
from tokenkeep.cli.session import Session, command
from tokenkeep.cli.stores import need_database
from tokenkeep.model import IssuedToken
from tokenkeep.service.callers import KEPT_UNDER, checked, open_callers

Name = Annotated[str, typer.Argument(help="what you call the program, or the person", show_default=False)]

_NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")


def _opened(session: Session, *, create: bool = False) -> TokenIssuer:
    if not create:
        need_database(session)
    return open_callers(session.url, session.namespace)


def _public(caller: IssuedToken) -> dict[str, Any]:
    return {
        "name": caller.name,
        "scopes": sorted(caller.scopes),
        "created_at": caller.created_at,
        "expires_at": caller.expires_at,
        "last_used_at": caller.last_used_at,
        "id": caller.id,
    }


@command
def add(
    session: Session,
    name: Name,
    *,
    scope: Annotated[list[str] | None, typer.Option(help="what it may do; may be repeated", show_default=False)] = None,
    lifetime: Annotated[str, typer.Option(help="how long its token lives: a span such as 12h or 30d")] = "365d",
) -> None:
    """Make a token for a caller of the service, and print it: it is never shown again."""
    if not _NAME.fullmatch(name):
        msg = (
            "a caller's name has 1 to 64 letters, digits and any of . _ @ -, which mean nothing to HTTP Basic or a log"
        )
        raise ValueError(msg)
    scopes, lives = checked(scope or ()), span(lifetime, "--lifetime")
    with _opened(session, create=True) as issuer:
        made = issuer.issue(KEPT_UNDER, scopes=scopes, name=name, lifetime=lives)
    plain = "" if made.token is None else made.token.reveal()
    session.screen.note(f"{name} may: {', '.join(sorted(scopes))}; keep the token where {name} finds it")
    if session.screen.json:
        session.screen.data(_public(made) | {"token": plain})
        return
    session.screen.raw(plain)


@command
def listed(session: Session) -> None:
    """Show the callers whose tokens are good, and what each may do; no token is shown."""
    with _opened(session) as issuer:
        known = issuer.tokens(KEPT_UNDER)
    if session.screen.json:
        session.screen.data([_public(caller) for caller in known])
        return
    if not known:
        session.screen.say("no callers")
        return
    rows = [tuple(_public(caller).values()) for caller in known]
    session.screen.table(("name", "may", "made", "expires", "last used", "id"), rows)


@command
def revoke(
    session: Session,
    name: Annotated[str, typer.Argument(help="a caller's name, or the id of one token", show_default=False)],
) -> int:
    """End every token of a caller, or one of them. The service refuses it from the next request on."""
    with _opened(session) as issuer:
        meant = [caller for caller in issuer.tokens(KEPT_UNDER) if name in (caller.name, caller.id)]
        ended = sum(issuer.revoke(caller) for caller in meant)
    if not ended:
        session.screen.refuse("NoToken", f"there is no caller {name!r}", exits.NOTHING)
        return exits.NOTHING
    if session.screen.json:
        session.screen.data({"name": name, "revoked": ended})
    session.screen.say(f"ended {ended} {'token' if ended == 1 else 'tokens'} of {name}")
    return exits.OK


def group(options: Mapping[str, Any]) -> typer.Typer:
    """Make the group; the options are those of every group of the command."""
    made = typer.Typer(help="Who may call the service, and what each may do.", **options)
    for name, function in (("add", add), ("list", listed), ("revoke", revoke)):
        made.command(name)(function)
    return made
