"""All commands under one roof, and how a call that typer itself refuses ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer

from tokenkeep.cli import auditing, callers, db, exits, keys, reports, serving, tokens, upkeep
from tokenkeep.cli.demo.command import demo
from tokenkeep.cli.importing import import_file
from tokenkeep.cli.screen import Screen
from tokenkeep.cli.session import root


def _app() -> typer.Typer:
    # Tracebacks of typer's own show local variables, and those hold secrets.
    plain = {"no_args_is_help": True, "pretty_exceptions_enable": False, "rich_markup_mode": "rich"}
    made = typer.Typer(name="tokenkeep", epilog=exits.epilogue(), **plain)  # type: ignore[arg-type]
    made.callback()(root(_tokenkeep))
    for name, function in (
        ("demo", demo),
        ("login", tokens.login),
        ("get", tokens.get),
        ("watch", tokens.watch),
        ("list", reports.listed),
        ("history", reports.history),
        ("stats", reports.stats),
        ("audit", auditing.audit),
        ("import", import_file),
        ("revoke", tokens.revoke),
        ("forget", upkeep.forget),
        ("purge", upkeep.purge),
        ("status", reports.status),
        ("serve", serving.serve),
    ):
        made.command(name)(function)
    ring = typer.Typer(help="The keys that seal the tokens.", **plain)  # type: ignore[arg-type]
    for name, function in (
        ("new", keys.new),
        ("list", keys.listed),
        ("algorithms", keys.algorithms),
        ("rotate", keys.rotate),
    ):
        ring.command(name)(function)
    made.add_typer(ring, name="keys")
    made.add_typer(db.group(plain), name="db")
    made.add_typer(callers.group(plain), name="callers")
    return made


def _tokenkeep() -> None:
    """Access tokens, kept in the database you already have."""


app = _app()


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command, and exit."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    screen = Screen(json="--json" in given)
    try:
        code = app(given, prog_name="tokenkeep", standalone_mode=False)
    except KeyboardInterrupt:
        code = exits.INTERRUPTED
    except typer.Abort:
        code = exits.INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):  # what typer raises about the command line has one
            raise
        screen.refuse("UsageError", _usage(error), exits.USAGE)
        code = exits.USAGE
    sys.exit(code if isinstance(code, int) else exits.OK)


def _usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    path = "tokenkeep" if context is None else context.command_path
    return f"{error.format_message().rstrip('.') or 'what is to be done?'}; see `{path} --help`"
