"""The two pages, without a script; everything that is shown is escaped."""

from __future__ import annotations

from datetime import datetime
from html import escape

from tokenkeep.model import Dashboard

FRAME = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Broker dashboard</title><h1>Broker dashboard</h1>{}'
)
LOGIN = '<form method="post" action="/login"><label>Password <input type="password" name="password" required></label> <button>Log in</button></form>'  # noqa: E501  # one element
BUTTON = '<form method="post" action="/{0}"><button>{1}</button></form>'


def login_page() -> str:
    return FRAME.format(LOGIN)


def dashboard_page(board: Dashboard) -> str:
    """Show the token in place, the figures, and the ten newest events."""
    figures, token = board.statistics, board.active_token
    facts = {
        "Token": "none" if token is None else f"version {token.version}, good until {moment(token.expires_at)}",
        "Account": "" if token is None else str(token.profile.get("user_name", "")),
        "Tokens so far": str(figures.total_tokens),
        "Handed out": str(figures.total_usage),
    }
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items())
    events = "".join(f"<li>{moment(event.at)} {escape(event.action)}</li>" for event in board.recent_activity)
    buttons = "".join(
        BUTTON.format(*button) for button in (("renew", "Get a token"), ("revoke", "Revoke"), ("logout", "Log out"))
    )
    return FRAME.format(f'<table>{rows}</table>{buttons}<p><a href="/profile">Profile</a></p><ul>{events}</ul>')


def moment(at: datetime | None) -> str:
    return "further notice" if at is None else f"{at:%Y-%m-%d %H:%M} UTC"
