"""The raw token on an object of the ORM, beside the digest in its row.

The row's identity is the digest. What `.token` shows is the token, for the one who just made or presented it; the
type of the column digests it again, should the ORM ever send it to the database.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy.orm.attributes import set_committed_value

from tokenkeep.fastapi_users.sqlalchemy._types import AtRest
from tokenkeep.marked import is_marked, marked_digest

_BEARER: Final = "_tokenkeep_bearer"


def show(access_token: Any, bearer: str) -> None:
    """Let `.token` be the raw token, now and after every refresh."""
    setattr(access_token, _BEARER, bearer)
    set_committed_value(access_token, "token", bearer)


def show_again(access_token: Any, _context: Any, _attributes: Any) -> None:
    """After a refresh has read the digest, put the raw token back."""
    bearer = vars(access_token).get(_BEARER)
    if bearer is not None and vars(access_token).get("token") == marked_digest(bearer):
        set_committed_value(access_token, "token", bearer)


def kept_forms(access_token: Any) -> list[AtRest]:
    """Return what may stand in the database for an object: its digest, and the token if it may be in clear."""
    shown = vars(access_token).get(_BEARER) or access_token.token
    if isinstance(shown, AtRest) and is_marked(shown):
        return [shown]
    return [AtRest(marked_digest(shown)), AtRest(shown)]
