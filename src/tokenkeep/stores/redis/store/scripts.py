"""The scripts, each in a file of the folder `lua`, with what they have in common before it."""

from __future__ import annotations

from importlib import resources
from typing import Final, NamedTuple

from redis.commands.core import Script as Named


class Script(NamedTuple):
    """A script, and the name that Redis knows it by once it has seen it."""

    text: bytes
    name: bytes


def _read(name: str) -> str:
    return resources.files(__package__ or "").joinpath("lua", f"{name}.lua").read_text()


_COMMON: Final = _read("common")


def script(name: str) -> Script:
    """Read a script."""
    text = f"{_COMMON}\n{_read(name)}".encode()
    return Script(text, str(Named(None, text).sha).encode())  # type: ignore[arg-type]  # no client is needed for bytes
