"""How values read: to people as text, to programs as JSON. No secret passes through here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any, Final

from tokenkeep.model import Status
from tokenkeep.secret import Secret

NONE: Final = "-"


def clean(text: str) -> str:
    """Return text of unknown origin without what could steer a terminal or forge a line."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def text(value: Any) -> str:  # noqa: PLR0911  # one line a type
    """Return a value as a cell of a table shows it; times are in this machine's zone."""
    if value is None or value == "":
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value.astimezone():%Y-%m-%d %H:%M:%S %Z}"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, Mapping):
        return clean(", ".join(f"{key}={text(part)}" for key, part in value.items())) or NONE
    if isinstance(value, (Sequence, AbstractSet)) and not isinstance(value, str):
        return ", ".join(text(part) for part in value) or NONE
    return clean(str(value))


def jsonable(value: Any) -> Any:
    """Return a value as `json` takes it; times are UTC.

    Raises:
        TypeError: there is a secret in it.
    """
    if isinstance(value, Secret):
        msg = "a secret is not shown"
        raise TypeError(msg)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return jsonable(fields | ({"healthy": value.healthy} if isinstance(value, Status) else {}))
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {str(key): jsonable(part) for key, part in value.items()}
    if isinstance(value, (Sequence, AbstractSet)) and not isinstance(value, str):
        return [jsonable(part) for part in value]
    return value


def as_json(value: Any) -> str:
    """Return one line of JSON."""
    return json.dumps(jsonable(value), allow_nan=False)
