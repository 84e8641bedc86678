"""Putting what was read into the vault, so that it may be repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from enum import StrEnum

from tokenkeep.api import TokenVault
from tokenkeep.importing.entries import Entry


class Outcome(StrEnum):
    """What became of an entry."""

    STORED = "stored"
    IN_PLACE = "already in place"
    KEPT = "not stored: the vault has a newer one"


def land(
    vault: TokenVault, provider: str, entries: Sequence[Entry], *, dry: bool, advance: Callable[[], object]
) -> list[Outcome]:
    """Store what is not in place yet, and tell what became of each; `dry` only tells."""
    outcomes = []
    for entry in entries:
        outcome = outcome_of(vault, provider, entry)
        if outcome is Outcome.STORED and not dry:
            vault.store(entry.user_id, entry.token, provider=provider)
        outcomes.append(outcome)
        advance()
    return outcomes


def outcome_of(vault: TokenVault, provider: str, entry: Entry) -> Outcome:
    """Compare an entry with what is in place. A token made after the one of the file is never replaced."""
    kind = entry.token.kind
    in_place = vault.get_valid(entry.user_id, provider=provider, kind=kind, min_validity=timedelta(0))
    if in_place is None:
        return Outcome.STORED
    if in_place.access_token == entry.token.access_token:
        return Outcome.IN_PLACE
    newer = entry.made_at is not None and entry.made_at < in_place.created_at
    ends, would_end = in_place.expires_at, entry.token.expires_at
    longer = would_end is not None and (ends is None or ends > would_end)
    return Outcome.KEPT if newer or longer else Outcome.STORED
