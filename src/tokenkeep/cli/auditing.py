"""The audit trail: shown, and checked for what was changed or removed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tokenkeep.api import TokenVault
from tokenkeep.cli import exits
from tokenkeep.cli.screen import Screen
from tokenkeep.cli.session import Session, command
from tokenkeep.cli.stores import open_vault
from tokenkeep.cli.wording import jsonable
from tokenkeep.errors import ConfigurationError
from tokenkeep.model import Action, AuditCheck, AuditChecks, AuditEvent

EVENT_NAMES: Final[Mapping[Action, str]] = {
    Action.CREATED: "authn_token_created",
    Action.STORED: "authn_token_created",
    Action.REFRESHED: "authn_token_created",
    Action.REPLACED: "authn_token_revoked",
    Action.REVOKED: "authn_token_revoked",
    Action.PROVIDER_REVOKED: "authn_token_revoked",
    Action.REUSED: "authn_token_reuse",
    Action.EXPIRED: "authn_token_delete",
    Action.USED: "sensitive_read",
    Action.ACQUIRE_FAILED: "authn_login_fail",
}
"""What programs that collect events know them by (OWASP Logging Vocabulary); it has no word for the others."""


@command
def audit(
    session: Session,
    user: Annotated[
        str | None, typer.Argument(help="your name for the account; may be left out with --verify", show_default=False)
    ] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, help="how many at most")] = 50,
    verify: Annotated[bool, typer.Option("--verify", help="check that nothing was changed or removed")] = False,
    heads: Annotated[
        Path | None,
        typer.Option(help="with --verify: a file of heads, to compare with and bring up to date", show_default=False),
    ] = None,
) -> int:
    """Show who did what and when, of every provider, newest first; or check that the trail is whole."""
    if heads is not None and not verify:
        msg = "--heads goes with --verify"
        raise ValueError(msg)
    if verify:
        return _verify(session, user, heads)
    if user is None:
        msg = "name a user, or check every user's trail with --verify"
        raise ValueError(msg)
    with open_vault(session) as vault:
        events = vault.audit_trail(user, limit=limit)
    show_audit(session.screen, events)
    return exits.OK


def _verify(session: Session, user: str | None, file: Path | None) -> int:
    known = {} if file is None else _read(file)
    with open_vault(session) as vault:
        if user is None:
            intact, heads = _verify_all(session.screen, vault, known)
        else:
            check = vault.check_audit(user, head=known.get(user))
            _show_check(session.screen, check)
            intact, heads = check.intact, {} if check.head is None else {user: check.head}
    if not intact:
        session.screen.note("keep the database as it is, and find out who wrote to it; the heads were not written")
        return exits.TAMPERED
    if file is not None:
        _write(file, {**known, **heads})
    return exits.OK


def _verify_all(screen: Screen, vault: TokenVault, known: Mapping[str, str]) -> tuple[bool, Mapping[str, str]]:
    with screen.progress("checking", total=0) as progress:
        task = progress.task_ids[0]
        found = vault.check_audits(
            heads=known, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
    _show_checks(screen, found)
    return found.intact, found.heads


def _show_check(screen: Screen, check: AuditCheck) -> None:
    if screen.json:
        screen.data(check)
        return
    screen.facts(
        {
            "intact": check.intact,
            "events": check.events,
            "proved by a key": check.proved,
            "purged": check.purged,
            "from before there were chains": check.unchained,
            "head": check.head,
        }
    )
    if not check.intact:
        screen.say(_flaw(check), style="bold red")


def _show_checks(screen: Screen, found: AuditChecks) -> None:
    if screen.json:
        screen.data(jsonable(found) | {"intact": found.intact})
        return
    screen.facts(
        {
            "intact": found.intact,
            "users": found.users,
            "events": found.events,
            "proved by a key": found.proved,
            "from before there were chains": found.unchained,
        }
    )
    for check in found.flawed:
        screen.say(f"{check.user_id}: {_flaw(check)}", style="bold red")


def _flaw(check: AuditCheck) -> str:
    return f"event {check.first_bad}: {check.reason}"


def _read(file: Path) -> dict[str, str]:
    try:
        heads = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        msg = f"the file of heads {file.name} cannot be read ({type(error).__name__}); restore it, or name another one"
        raise ConfigurationError(msg) from None
    if not isinstance(heads, dict) or not all(isinstance(head, str) for head in heads.values()):
        msg = f"the file of heads {file.name} is not one that `tokenkeep audit --verify` wrote; name another one"
        raise ConfigurationError(msg)
    return heads


def _write(file: Path, heads: Mapping[str, str]) -> None:
    """Write the heads; a crash leaves the old file or the new one."""
    fresh = file.with_name(f"{file.name}.new")
    try:
        fresh.write_text(json.dumps(heads, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        fresh.replace(file)
    except OSError as error:
        msg = f"the file of heads {file.name} cannot be written: {error.strerror}; check the folder and its rights"
        raise ConfigurationError(msg) from None


def show_audit(screen: Screen, events: Sequence[AuditEvent], *, title: str = "") -> None:
    """Show events, one a row."""
    if screen.json:
        screen.data([_exported(event) for event in events])
        return
    if not events:
        screen.say("no events")
        return
    rows = [(event.at, event.user_id, event.action, event.actor, event.detail) for event in events]
    screen.table(("when", "user", "what", "who", "details"), rows, title=title)


def _exported(event: AuditEvent) -> dict[str, Any]:
    exported: dict[str, Any] = jsonable(event)
    return {"event": EVENT_NAMES.get(event.action, f"tokenkeep_{event.action.value}"), **exported}
