"""Bad input is refused at the door: the checks that every public argument passes before any I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

MAX_NAME: Final = 255
"""Characters in a user id; with three labels it stays within the 3,072 bytes of a key in MariaDB."""

MAX_SPAN: Final = timedelta(days=3660)
"""The longest lifetime that is believed: ten years."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""C0 and C1 control characters, the two line ends of Unicode, lone surrogates."""

_ZERO: Final = timedelta(0)
_SHORTEST: Final = timedelta(microseconds=1)

_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""RFC 6749 section 3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )."""


MAX_LABEL: Final = 64
"""Characters in a namespace, provider name, kind or token type."""


def name(value: str, argument: str, *, longest: int = MAX_NAME) -> str:
    """Check a key chosen by the caller: 1 to 255 characters, any Unicode but NUL and lone surrogates."""
    if not isinstance(value, str):
        msg = f"{argument} must be a str, not {type(value).__name__}"
        raise TypeError(msg)
    if not value or len(value) > longest:
        msg = f"{argument} must have 1 to {longest} characters, not {len(value)}"
        raise ValueError(msg)
    if "\x00" in value:
        msg = f"{argument} must not contain NUL"
        raise ValueError(msg)
    if not value.isascii() and not encodable(value):
        msg = f"{argument} must not contain lone surrogates"
        raise ValueError(msg)
    return value


def label(value: str, argument: str) -> str:
    """Check a namespace, a provider's name, a kind or a token type: a name of at most 64 characters."""
    return name(value, argument, longest=MAX_LABEL)


def encodable(value: str) -> bool:
    """Tell whether text can be written as UTF-8. No error is left behind that would hold the text."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def instant(value: datetime, argument: str) -> datetime:
    """Check that a time is aware, and return it in UTC."""
    if not isinstance(value, datetime):
        msg = f"{argument} must be a datetime, not {type(value).__name__}"
        raise TypeError(msg)
    if value.tzinfo is None or value.utcoffset() is None:
        msg = f"{argument} must be aware: give it a time zone, for example datetime.now(UTC)"
        raise ValueError(msg)
    return value.astimezone(UTC)


def span(value: timedelta, argument: str, *, zero: bool = False) -> timedelta:
    """Check that a span is positive (or zero, where that means something) and at most ten years."""
    if not isinstance(value, timedelta):
        msg = f"{argument} must be a timedelta, not {type(value).__name__}"
        raise TypeError(msg)
    if not (_ZERO if zero else _SHORTEST) <= value <= MAX_SPAN:
        msg = f"{argument} must be {'from 0' if zero else 'more than 0'} to {MAX_SPAN.days} days, not {value}"
        raise ValueError(msg)
    return value


def count(value: int, argument: str) -> int:
    """Check a limit: a whole number of at least one."""
    if not isinstance(value, int) or isinstance(value, bool):
        msg = f"{argument} must be an int, not {type(value).__name__}"
        raise TypeError(msg)
    if value < 1:
        msg = f"{argument} must be at least 1, not {value}"
        raise ValueError(msg)
    return value


def scopes(value: Collection[str], argument: str) -> Collection[str]:
    """Check scope values against RFC 6749 section 3.3; a bare string is refused, it would be read by letter."""
    if isinstance(value, str):
        msg = f"{argument} must be a collection of str, for example {{{value!r}}}, not a str"
        raise TypeError(msg)
    for scope in value:
        if not isinstance(scope, str) or not _SCOPE.fullmatch(scope):
            msg = f"{argument} must hold RFC 6749 scope values: printable ASCII without space, quote or backslash"
            raise ValueError(msg)
    return value


def mapping(value: Mapping[str, Any] | None, argument: str) -> Mapping[str, Any]:
    """Check a profile or metadata: a mapping with text keys; `None` is the empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        msg = f"{argument} must be a mapping with str keys"
        raise TypeError(msg)
    return value


def free_text(value: str | None, argument: str) -> str | None:
    """Make text of unknown origin fit to be kept: a device's name, a User-Agent header.

    It is cut to 255 characters; control characters, which could forge a line in a log, become U+FFFD. It
    stays untrusted: escape it where it is shown.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        msg = f"{argument} must be a str, not {type(value).__name__}"
        raise TypeError(msg)
    return _CONTROL.sub("\ufffd", value[:MAX_NAME])


def json_mapping(value: Mapping[str, Any] | None, argument: str) -> Mapping[str, Any]:
    """Check metadata that is kept as JSON: what `mapping` wants, and nothing that JSON does not have."""
    checked = mapping(value, argument)
    if not checked:
        return checked
    try:
        json.dumps(dict(checked), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError):
        msg = f"{argument} must hold what JSON can: text, finite numbers, true, false, null, lists and mappings"
        raise ValueError(msg) from None
    return checked
