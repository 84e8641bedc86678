"""Exit codes: what a script can tell from how the command ended."""

from __future__ import annotations

from typing import Final

from tokenkeep.errors import AcquireInDoubt, ProviderRejected, ProviderUnavailable, SealingError, StoreError

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOTHING: Final = 3
REJECTED: Final = 4
UNAVAILABLE: Final = 5
STORE: Final = 6
SEALING: Final = 7
TAMPERED: Final = 8
INTERRUPTED: Final = 130
"""128 and the number of SIGINT, as shells count."""

MEANING: Final = {
    OK: "done",
    FAILED: "any other failure: something is not set up, a file cannot be imported, a defect",
    USAGE: "the command was called wrongly",
    NOTHING: "there is no such token",
    REJECTED: "the provider said no; correct the cause before you try again",
    UNAVAILABLE: "the provider could not answer, or it is in doubt whether it granted a token; try again later",
    STORE: "the database cannot be used, or holds another schema",
    SEALING: "a key is missing or wrong, or a sealed token was changed",
    TAMPERED: "the audit trail was changed, or events are missing",
    INTERRUPTED: "interrupted with Ctrl-C",
}

_CODES: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], int], ...]] = (
    (ProviderRejected, REJECTED),
    ((ProviderUnavailable, AcquireInDoubt), UNAVAILABLE),
    (StoreError, STORE),
    (SealingError, SEALING),
    (ValueError, USAGE),
)


def code_of(error: BaseException) -> int:
    """Return the exit code that tells of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def epilogue() -> str:
    """Return what stands below `tokenkeep --help`."""
    lines = [f"{code}: {meaning}" for code, meaning in MEANING.items()]
    return "Exit codes\n\n" + "\n\n".join(lines)
