"""The file that keys are kept in: one a line, read with care, written so that a crash loses nothing."""

from __future__ import annotations

import os
import stat
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Final

from tokenkeep.secret import Secret

MAX_BYTES: Final = 1 << 20
"""Bytes that are read; no key file comes near it, but a mistaken path may lead to something endless."""

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def read_lines(path: Path) -> list[Secret]:
    """Return the lines without comments and blanks. Warns when others than the owner have rights to the file.

    What is not UTF-8 comes out as replacement characters, which no key holds. May raise `OSError`.
    """
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        content = Secret(file.read(MAX_BYTES).decode("utf-8", "replace"))
    if mode & _OTHERS:
        msg = f"the key file {path.name} is open to others than its owner: run `chmod 600` on it"
        warnings.warn(msg, UserWarning, stacklevel=4)
    stripped = (line.partition("#")[0].strip() for line in content.reveal().splitlines())
    return [Secret(line) for line in stripped if line]


def write(path: Path, content: Secret, *, replace: bool = True) -> None:
    """Put a file of mode 0600 in place whole, durable when it returns. May raise `OSError`.

    With `replace=False` a file that is there stays, and `FileExistsError` is raised: of several processes
    one writes.
    """
    import tempfile  # noqa: PLC0415  # few programs write keys

    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  # a descriptor has no path
            file.write(content.reveal())
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)  # noqa: PTH105  # beside os.link, which pathlib spells backwards
        else:
            os.link(temporary, path)  # fails when the target exists, in one step
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108  # mkstemp gives a str
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Make the name durable too: fsync of a file says nothing of its folder entry (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
