"""The command `tokenkeep`. The command line is loaded when it is wanted, which the demo's processes never do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["app", "main"]  # app comes by __getattr__


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these arguments, by default those of the process, and exit."""
    from tokenkeep.cli.application import run  # noqa: PLC0415  # see above

    run(arguments)


def __getattr__(name: str) -> Any:
    if name != "app":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from tokenkeep.cli.application import app  # noqa: PLC0415  # see above

    return app
