"""What forgetting a user has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What `forget` removed of a user.

    Attributes:
        tokens: rows that were deleted, of tokens and of their history.
        awaiting_revocation: rows that stay, sealed, until their provider has been told: forget once more then.
    """

    tokens: int
    awaiting_revocation: int = 0
