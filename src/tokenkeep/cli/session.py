"""What every command is called with, and how every command ends."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Concatenate, Final

import typer

from tokenkeep.cli import exits
from tokenkeep.cli.screen import Screen

URL_VARIABLE: Final = "TOKENKEEP_URL"
NAMESPACE_VARIABLE: Final = "TOKENKEEP_NAMESPACE"

DEFAULT_URL: Final = "sqlite:///tokens.db"
DEFAULT_NAMESPACE: Final = "default"
DEFAULT_PROVIDER: Final = "upstox"

_PANEL: Final = "Everywhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One call of the command: which store, whose tokens, where to write."""

    url: str
    namespace: str
    provider: str
    debug: bool
    screen: Screen


def _option(name: str, words: str, *, variable: str | None, type_: Any, default: Any = None) -> inspect.Parameter:
    option = typer.Option(f"--{name}", help=words, envvar=variable, rich_help_panel=_PANEL, show_default=False)
    return inspect.Parameter(
        f"as_{name}", inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[type_, option]
    )


def _common(*, at_root: bool) -> list[inspect.Parameter]:
    """The options of every command. They may also stand before it, and only there read the environment.

    Read in both places, a variable would overrule an option that stands before the command.
    """
    url, namespace = (URL_VARIABLE, NAMESPACE_VARIABLE) if at_root else (None, None)
    flag = bool | None
    return [
        _option(
            "url",
            f"where the tokens are kept; default: {URL_VARIABLE}, else {DEFAULT_URL} in the working folder",
            variable=url,
            type_=str | None,
        ),
        _option(
            "namespace",
            f"the application or tenant; default: {NAMESPACE_VARIABLE}, else {DEFAULT_NAMESPACE}",
            variable=namespace,
            type_=str | None,
        ),
        _option("provider", f"whose tokens; default: {DEFAULT_PROVIDER}", variable=None, type_=str | None),
        _option("json", "write JSON, errors too", variable=None, type_=flag),
        _option("debug", "show the traceback of an error", variable=None, type_=flag),
    ]


def _shaped(function: Callable[..., None], own: list[inspect.Parameter], *, at_root: bool) -> Callable[..., None]:
    """Give a function the signature that typer reads: a context, its own parameters, the common ones."""
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [context, *own, *_common(at_root=at_root)]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {item.name: item.annotation for item in parameters}
    return function


def command[**P](function: Callable[Concatenate[Session, P], int | None]) -> Callable[..., None]:
    """Make a command of a function that takes a session first; what it returns is the exit code, `None` for 0."""
    _, *own = inspect.signature(function, eval_str=True).parameters.values()

    def called(*, ctx: typer.Context, **given: Any) -> None:
        common = {item.name: given.pop(item.name) for item in _common(at_root=False)}
        session = _session((ctx.obj or {}) | {name: value for name, value in common.items() if value is not None})
        code = guarded(session, partial(function, session, **given))
        if code != exits.OK:
            raise typer.Exit(code)

    called.__name__ = function.__name__
    called.__doc__ = function.__doc__
    return _shaped(called, [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in own], at_root=False)


def root(function: Callable[[], None]) -> Callable[..., None]:
    """Make the callback that takes the common options before a command, and hands them on."""

    def called(*, ctx: typer.Context, **given: Any) -> None:
        ctx.obj = {name: value for name, value in given.items() if value is not None}
        function()

    called.__doc__ = function.__doc__
    return _shaped(called, [], at_root=True)


def _session(common: dict[str, Any]) -> Session:
    return Session(
        url=common.get("as_url") or DEFAULT_URL,
        namespace=common.get("as_namespace") or DEFAULT_NAMESPACE,
        provider=common.get("as_provider") or DEFAULT_PROVIDER,
        debug=bool(common.get("as_debug")),
        screen=Screen(json=bool(common.get("as_json"))),
    )


def guarded(session: Session, work: Callable[[], int | None]) -> int:
    """Do the work of a command; every error is one sentence on stderr and an exit code."""
    try:
        with session.screen.noticing():
            return work() or exits.OK
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except typer.Exit:
        raise
    except Exception as error:  # noqa: BLE001  # the last door: nothing may leave as a traceback
        return session.screen.fail(error, debug=session.debug)
