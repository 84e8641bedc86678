"""The page for people: tables, no script, nothing from elsewhere. Everything that is shown is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from tokenkeep.model import Status, TokenInfo

STYLE: Final = (
    "body{font:1rem/1.5 system-ui,sans-serif;margin:2rem}table{border-collapse:collapse}"
    "th,td{text-align:left;padding:.2rem .8rem;border-bottom:1px solid #8884}:root{color-scheme:light dark}"
)
"""Allowed by its digest in the page's policy."""

_FRAME: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>tokenkeep</title><style>{}</style></head>'
    "<body><h1>tokenkeep</h1>{}<p>{}</p></body></html>"
)
_TOKENS: Final = ("user", "provider", "kind", "version", "state", "made", "ends", "uses")
_TIERS: Final = ("store", "state")


def board(infos: Sequence[TokenInfo], status: Status | None, now: datetime) -> str:
    """Show tokens, newest first, and where it may be shown how the store is."""
    body = "<h2>Store</h2>" + _table(_TIERS, _tiers(status)) if status is not None else ""
    body += "<h2>Tokens of the last seven days</h2>"
    body += _table(_TOKENS, map(_row, infos)) if infos else "<p>None that you may see.</p>"
    return _FRAME.format(STYLE, body, escape(f"As of {_moment(now)}"))


def _tiers(status: Status) -> Iterable[Sequence[Any]]:
    for tier in status.tiers:
        yield tier.name, "healthy" if tier.healthy else f"down: {tier.reason}"
    for warning in status.warnings:
        yield "warning", warning


def _row(info: TokenInfo) -> Sequence[Any]:
    return (
        info.user_id,
        info.provider,
        info.kind,
        info.version,
        info.state,
        _moment(info.created_at),
        _moment(info.expires_at),
        info.usage_count,
    )


def _moment(at: datetime | None) -> str:
    return "never" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [_cells("th", head), *(_cells("td", row) for row in rows)]
    return f"<table>{''.join(lines)}</table>"


def _cells(element: str, values: Sequence[Any]) -> str:
    return "<tr>" + "".join(f"<{element}>{escape(str(value))}</{element}>" for value in values) + "</tr>"
