"""Commands on one user's token: get it, make it, end it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from tokenkeep.api import TokenVault
from tokenkeep.cli import accounts, exits
from tokenkeep.cli.screen import sentence_of
from tokenkeep.cli.session import Session, command
from tokenkeep.cli.stores import database_exists, open_vault
from tokenkeep.cli.wording import text
from tokenkeep.errors import ConfigurationError, TokenKeepError
from tokenkeep.model import AcquiredToken, Acquisition, Action
from tokenkeep.ports import Provider

User = Annotated[str, typer.Argument(help="your name for the account", show_default=False)]

_PUBLIC: Final = (
    *("id", "namespace", "provider", "user_id", "kind", "version", "token_type", "scope"),
    *("created_at", "expires_at", "persisted"),
)

_AT_THE_PROVIDER: Final = {
    Action.PROVIDER_REVOKED: "the provider ended it too",
    Action.PROVIDER_REVOKE_FAILED: "the provider could not be told; `audit` says why, and `purge` tells it again",
}


def public(token: AcquiredToken) -> dict[str, Any]:
    """Return what may be shown of a token: everything but its secrets and what the provider says of its owner."""
    return {name: getattr(token, name) for name in _PUBLIC}


# --- login ---


@command
def login(
    session: Session,
    users: Annotated[list[str], typer.Argument(help="one name or more", show_default=False)],
) -> int:
    """Log in now and keep the token, whatever is in place."""
    provider = accounts.login_at(session.provider)
    if len(users) > 1:
        names = "these names all stand for it, each login waits for a one-time code of its own"
        session.screen.note(f"the environment holds one {session.provider} account: {names}")
    with open_vault(session, providers=[provider], create=True) as vault:
        if len(users) == 1:
            return _log_in(session, vault, users[0])
        results = _log_in_all(session, vault, users)
    _show_results(session, results)
    return next((exits.code_of(result.error) for result in results if result.error is not None), exits.OK)


def _log_in(session: Session, vault: TokenVault, user: str) -> int:
    with session.screen.progress(f"logging {user} in: it takes some seconds, and a one-time code of its own"):
        token = vault.acquire(user)
    if session.screen.json:
        session.screen.data([_result(Acquisition(user_id=user, token=token))])
    session.screen.facts(
        {"user": user, "token": f"version {token.version}, kept", "expires": token.expires_at, "id": token.id}
    )
    return exits.OK


def _log_in_all(session: Session, vault: TokenVault, users: list[str]) -> list[Acquisition]:
    """Log in one after the other: one account has one login every 30 seconds, and Ctrl-C ends it between two."""
    results = []
    with session.screen.progress("logging in", total=len(users)) as progress:
        for user in users:
            progress.update(progress.task_ids[0], description=f"logging {user} in")
            results.append(_attempt(vault, user))
            progress.advance(progress.task_ids[0])
    return results


def _attempt(vault: TokenVault, user: str) -> Acquisition:
    try:
        return Acquisition(user_id=user, token=vault.acquire(user))
    except TokenKeepError as error:
        return Acquisition(user_id=user, error=error)


def _result(result: Acquisition) -> dict[str, Any]:
    error = result.error
    told = None if error is None else {"type": type(error).__name__, "message": sentence_of(error)}
    token = None if result.token is None else public(result.token)
    return {"user_id": result.user_id, "ok": result.ok, "token": token, "error": told}


def _show_results(session: Session, results: list[Acquisition]) -> None:
    if session.screen.json:
        session.screen.data([_result(result) for result in results])
    rows = [
        (result.user_id, "kept" if result.token else "failed", result.token and result.token.expires_at, result.error)
        for result in results
    ]
    session.screen.table(("user", "token", "expires", "why not"), rows)


# --- get ---


@command
def get(
    session: Session,
    user: User,
    *,
    no_login: Annotated[bool, typer.Option("--no-login", help="only read; exit code 3 when there is none")] = False,
    kind: Annotated[str, typer.Option(help="access, or extended where the account has one")] = "access",
    min_validity: Annotated[float, typer.Option(metavar="SECONDS", help="how long it must live at least")] = 60,
) -> int:
    """Print the token and nothing else; log in where there is none that is still good."""
    needed = _seconds(min_validity)
    provider, problem = (None, None) if no_login else _provider_or_problem(session.provider)
    if problem is not None and not database_exists(session):
        raise problem
    providers = [] if provider is None else [provider]
    with open_vault(session, providers=providers, create=provider is not None) as vault:
        if provider is None:
            token = vault.get_valid(user, provider=session.provider, kind=kind, min_validity=needed)
        else:
            with session.screen.progress(f"a token for {user}"):
                token = vault.get_or_create(user, kind=kind, min_validity=needed)
    if token is not None:
        _print(session, token)
        return exits.OK
    if problem is not None:
        raise problem
    sentence = f"there is no valid {kind} token for {user!r}; `tokenkeep login` gets one"
    session.screen.refuse("NoToken", sentence, exits.NOTHING)
    return exits.NOTHING


def _seconds(number: float) -> timedelta:
    try:
        return timedelta(seconds=number)
    except (OverflowError, ValueError):
        msg = "--min-validity takes a number of seconds, at most ten years of them"
        raise ValueError(msg) from None


def _provider_or_problem(name: str) -> tuple[Provider | None, ConfigurationError | None]:
    """Return the provider, or why there can be none: that matters only where no token is in place."""
    try:
        return accounts.login_at(name), None
    except ConfigurationError as error:
        return None, error


def _print(session: Session, token: AcquiredToken) -> None:
    plain = token.access_token.reveal()
    if session.screen.json:
        session.screen.data(public(token) | {"access_token": plain})
        return
    session.screen.raw(plain)


# --- watch ---


@command
def watch(
    session: Session,
    user: User,
    *,
    kind: Annotated[str, typer.Option(help="access, or extended where the account has one")] = "access",
) -> int:
    """Print a line for each new version, never the token, until Ctrl-C."""
    with open_vault(session) as vault:
        for token in vault.watch(user, provider=session.provider, kind=kind):
            if session.screen.json:
                session.screen.data(public(token))
            session.screen.say(f"version {token.version}, expires {text(token.expires_at)}, id {token.id}")
    return exits.OK


# --- revoke ---


@command
def revoke(session: Session, user: User) -> int:
    """End the user's tokens of every kind, here and at the provider where it can."""
    started = datetime.now(UTC)
    known = accounts.without_account(session.provider)
    with open_vault(session, providers=[] if known is None else [known]) as vault:
        revoked = vault.revoke(user, provider=session.provider)
        told = {event.action for event in vault.audit_trail(user) if event.at >= started} & set(_AT_THE_PROVIDER)
    if not revoked:
        session.screen.refuse("NoToken", f"there was no token of {user!r} to end", exits.NOTHING)
        return exits.NOTHING
    if session.screen.json:
        session.screen.data({"user_id": user, "revoked": True, "provider": sorted(told)})
    session.screen.say(f"ended here; {'; '.join(_AT_THE_PROVIDER[action] for action in sorted(told)) or _NOT_TOLD}")
    return exits.OK


_NOT_TOLD: Final = "the provider was not told: it had ended there, or this provider cannot be"
