"""Secrets that sing: remember each one that was made, then look for it where it must not be."""

from __future__ import annotations

import base64
import logging
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

from tokenkeep.secret import Secret

SHORTEST: Final = 4
"""A secret of fewer characters than this (a two-digit PIN) turns up anywhere by chance."""


class Canary:
    """Search bytes, files and log records for secrets: raw, in hex, in base64 and quoted for a URL."""

    def __init__(self) -> None:
        self._needles: dict[bytes, str] = {}

    def watch(self, *secrets: str | Secret, label: str = "secret") -> None:
        """Remember secrets to look for; the label is what a finding shows of them.

        Raises:
            ValueError: too short to be recognised.
        """
        for secret in secrets:
            plain = Secret(secret).reveal()
            if len(plain) < SHORTEST:
                msg = f"a secret to look for must have at least {SHORTEST} characters"
                raise ValueError(msg)
            self._needles.update(dict.fromkeys(disguises(plain), label))

    def found_in(self, text: str | bytes, place: str = "text") -> list[str]:
        """Return one line for each watched secret that stands there: its label and the place."""
        haystack = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        return sorted({f"{label} in {place}" for needle, label in self._needles.items() if needle in haystack})

    def found_in_files(self, folder: Path, *, but: Collection[Path] = ()) -> list[str]:
        """Search the names and the bytes of all files below a folder, but those in `but`."""
        findings: list[str] = []
        for path in sorted(folder.rglob("*")):
            findings += self.found_in(path.name, f"the name of {path.name}")
            if path.is_file() and path not in but:
                findings += self.found_in(path.read_bytes(), path.name)
        return findings

    def found_in_records(self, records: Iterable[logging.LogRecord]) -> list[str]:
        """Search log records: the message, its arguments, the traceback and whatever was attached."""
        findings: list[str] = []
        for record in records:
            shown = logging.Formatter("%(name)s %(message)s").format(record)
            findings += self.found_in(f"{shown} {vars(record)!r}", f"a log record of {record.name}")
        return findings

    def found_in_error(self, error: BaseException) -> list[str]:
        """Search an error, its arguments and attributes, and all that it was caused by."""
        return [
            finding
            for link in _chain(error)
            for finding in self.found_in(f"{link!s} {link!r} {vars(link)!r}", f"a {type(link).__name__}")
        ]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def disguises(plain: str) -> frozenset[bytes]:
    """Return the forms in which a secret might be written down by mistake."""
    raw = plain.encode()
    quoted = {plain, quote(plain, safe=""), quote_plus(plain)}
    return frozenset(
        {form.encode() for form in quoted} | {raw.hex().encode(), raw.hex().upper().encode()} | set(_base64(raw))
    )


def _base64(raw: bytes) -> Iterator[bytes]:
    """Yield what base64 shows of the bytes at each of the three places where they may begin in a longer text."""
    for shift in range(3):
        whole = len(raw) - (len(raw) + shift) % 3
        body = base64.b64encode(bytes(shift) + raw[:whole])
        inner = body[-(-shift * 8 // 6) :] if shift else body
        if len(inner) >= SHORTEST * 2:
            yield inner
            yield inner.replace(b"+", b"-").replace(b"/", b"_")
