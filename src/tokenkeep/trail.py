"""The chain that proves an audit trail complete. Nothing here touches a database.

**The unit is a user of a namespace.** One chain for a whole namespace would make all writers wait for each other;
changes of one user mostly wait for each other anyway.

**An event** has a number in its chain (1, 2, 3 ...), and a digest: SHA-256 of the digest before it and of all its own
fields, each with its length before it, so that no two events read alike. Where there are keys it has a proof too, an
HMAC of the digest under a subkey of the newest key, with the key's id. As a digest stands for all that came before it,
the next proof covers it too. Before an old key goes, a rotation looks at each chain and has the newest key vouch for
those that are whole; of an event under a key that is gone only that is believed.

**The head** (number and digest of the last event) is kept beside the chain and changed in the same transaction;
appending holds it, so no two events follow the same one. With it stand two proved marks: of the last event that a purge
deleted, so that a purge does not look like tampering, nor tampering like a purge, and of the last one that the last
rotation of keys found in order.

What a check finds: an event that was changed, removed, put in, moved, renumbered or given to somebody else; a head that
was removed or does not fit; with keys also whoever computes all digests anew, for he cannot prove them.

With keys an event without a proof is a flaw, whatever follows it: an honest event behind a forged one does not make it
good. So all programs that write to one namespace need the ring.

What it cannot find: somebody who puts back an older state of one user's whole chain, its head included, or removes both
altogether. Nothing in the database tells a state that is old from one that is new. Therefore a check tells the head;
kept elsewhere and handed to the next check it closes that gap. Without keys the chain shows what was done carelessly or
through the application, not what is done by somebody who knows this page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final, NamedTuple

from tokenkeep.errors import UnknownKey
from tokenkeep.model import Account
from tokenkeep.ports import START, UNPROVED, Chain, Entry, Link, Mark, Proof, TrailKeys

_FORMAT: Final = b"tokenkeep audit event 1\x00"
_OF_AN_EVENT: Final = b"event\x00"
_OF_A_PURGE: Final = b"purge\x00"
_OF_A_ROTATION: Final = b"rotation\x00"
_EXACT: Final = 2**53
"""Up to here every whole number is a float too. `jsonb` makes 1e30 a whole number, which must read the same."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

type User = tuple[str, str]
"""A namespace and a user of it: whose chain it is."""


def digest_of(before: Mark, account: Account, entry: Entry, actor: str) -> bytes:
    """Return the digest of the event that follows `before`."""
    namespace, provider, user_id = account
    action, token, detail = entry.action.value, entry.token_id or "", _canonical(entry.detail)
    lengths = f"{len(namespace)},{len(provider)},{len(user_id)},{len(action)},{len(token)},{len(actor)},{len(detail)}"
    numbers = f"{before.sequence + 1},{(entry.at - _EPOCH) // _MICROSECOND},{lengths}:"
    fields = f"{numbers}{namespace}{provider}{user_id}{action}{token}{actor}{detail}"
    return sha256(_FORMAT + before.digest + fields.encode("utf-8", "surrogatepass")).digest()


def _canonical(detail: Mapping[str, Any]) -> str:
    """Write a detail so that it reads the same from every database."""
    return "{}" if detail == {} else json.dumps(_plain(detail), sort_keys=True, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _EXACT:
        return repr(float(value)) if abs(value) < 10**308 else str(value)
    return repr(value) if isinstance(value, float) else value


def linked(
    noted: Sequence[tuple[Account, Entry]], heads: Mapping[User, Mark], *, actor: str, keys: TrailKeys | None
) -> tuple[list[Link], dict[User, Link]]:
    """Link events to the heads of their chains; return them in their order, and the last of each chain.

    Args:
        noted: in the order in which they happened.
        heads: of the chains that have begun.
        actor: who did it.
        keys: `None` for no proof.
    """
    links: list[Link] = []
    last: dict[User, Link] = {}
    marks = dict(heads)
    key_id = None if keys is None else keys.key_id
    for account, entry in noted:
        user = (account.namespace, account.user_id)
        before = marks.get(user, START)
        digest = digest_of(before, account, entry, actor)
        proof = UNPROVED
        if keys is not None and key_id is not None:
            proof = Proof(keys.trail_proof(_OF_AN_EVENT + digest, key_id), key_id)
        link = Link(account, entry, actor, Mark(before.sequence + 1, digest), proof)
        links.append(link)
        last[user], marks[user] = link, link.mark or START
    return links, last


def prove_purge(mark: Mark, keys: TrailKeys | None) -> Proof:
    """Let the newest key vouch that this event, and all before it, were purged."""
    if keys is None:
        return UNPROVED
    key_id = keys.key_id
    return Proof(keys.trail_proof(_purged(mark), key_id), key_id)


def _purged(mark: Mark) -> bytes:
    return _OF_A_PURGE + mark.sequence.to_bytes(8) + mark.digest


def purged_up_to(chain: Chain, going: Sequence[Mark]) -> Mark:
    """Return the mark that a purge of these events leaves; where they do not follow on, the one before them."""
    mark = chain.purged
    for gone in going:
        if gone.sequence == mark.sequence + 1:
            mark = gone
    return mark


def vouched_for(chain: Chain, at: Mark, keys: TrailKeys) -> Chain:
    """Return a chain that was found whole up to `at`, with marks under the newest key."""
    code = keys.trail_proof(_vouched(at), keys.key_id)
    purge = chain.purged_proof if chain.purged == START else prove_purge(chain.purged, keys)
    return replace(chain, vouched=at, vouched_proof=Proof(code, keys.key_id), purged_proof=purge)


def _vouched(mark: Mark) -> bytes:
    return _OF_A_ROTATION + mark.sequence.to_bytes(8) + mark.digest


def _holds(message: bytes, proof: Proof, keys: TrailKeys) -> bool | None:
    """Tell whether a proof is good; `None` when its key is not in the ring, or there is no proof."""
    if proof.code is None or proof.key_id is None:
        return None
    try:
        return compare_digest(keys.trail_proof(message, proof.key_id), proof.code)
    except UnknownKey:
        return None


class Flaw(NamedTuple):
    """What is wrong with a chain, and from which event on."""

    sequence: int
    reason: str


class Walk:
    """Follows one chain from its start, event by event, and says what is wrong first.

    Attributes:
        at: the last event that was good.
        events: how many were good.
        unchained: events from before the chain began, of which it says nothing.
    """

    def __init__(self, chain: Chain, keys: TrailKeys | None) -> None:
        self._keys = keys
        self._chain = chain
        self._vouched = START
        self.at = chain.purged
        self.events = 0
        self.unchained = 0

    def start(self) -> Flaw | None:
        """Look at the marks that a purge and a rotation left."""
        keys, chain = self._keys, self._chain
        if keys is None:
            return None
        if chain.vouched != START and _holds(_vouched(chain.vouched), chain.vouched_proof, keys):
            self._vouched = chain.vouched
        if chain.purged == START:
            return None
        holds = _holds(_purged(chain.purged), chain.purged_proof, keys)
        if holds:
            return None
        if holds is None and chain.purged_proof.key_id is not None:
            return Flaw(1, f"the mark that a purge left {_missing_key(chain.purged_proof)}")
        return Flaw(1, f"all up to {chain.purged.sequence} is missing, and no key proves that a purge deleted it")

    def step(self, link: Link) -> Flaw | None:
        """Look at the next event."""
        expected = self.at.sequence + 1
        if link.mark is None:
            return self._outside(link, expected)
        if link.mark.sequence > expected:
            return Flaw(expected, "it is missing")
        if link.mark.sequence < expected:
            return Flaw(link.mark.sequence, "it is there twice, or not in its place")
        if not self._follows(link, link.mark):
            return Flaw(expected, "it was changed, or what stood before it was")
        flaw = self._unproved(link.mark, link.proof)
        if flaw is None:
            self.at = link.mark
            self.events += 1
        return flaw

    def _follows(self, link: Link, mark: Mark) -> bool:
        try:
            return compare_digest(digest_of(self.at, link.account, link.entry, link.actor), mark.digest)
        except (AttributeError, OverflowError, TypeError, ValueError):  # something else was put into a column
            return False

    def _outside(self, link: Link, expected: int) -> Flaw | None:
        if link.beside or self.at != START:
            return Flaw(expected, "an event that is in no chain stands after the chain began")
        self.unchained += 1
        return None

    def _unproved(self, mark: Mark, proof: Proof) -> Flaw | None:
        if self._keys is None:
            return None
        if proof.key_id is None:
            return Flaw(mark.sequence, "no key proves it: a program without the keys wrote it, or somebody else did")
        holds = _holds(_OF_AN_EVENT + mark.digest, proof, self._keys)
        if holds is False:
            return Flaw(mark.sequence, "its proof is false: somebody without the key made it")
        if mark.sequence == self._vouched.sequence and mark != self._vouched:
            return Flaw(mark.sequence, "it, or what stood before it, is not what was there when the keys were rotated")
        if holds is None and mark.sequence > self._vouched.sequence:
            return Flaw(mark.sequence, f"it {_missing_key(proof)}")
        return None

    def end(self, chain: Chain) -> Flaw | None:
        """Look whether this is where the chain ends.

        Args:
            chain: read after the last event was.
        """
        at, head = self.at.sequence, chain.head
        if head is None:
            return None if self.at == START else Flaw(at, "the head of the chain is missing")
        if head.sequence > at:
            rest = f", with all up to {head.sequence}" if head.sequence > at + 1 else ""
            return Flaw(at + 1, f"it is missing{rest}")
        if at < self._vouched.sequence:
            return Flaw(
                at + 1, f"it is missing: all up to {self._vouched.sequence} was there when the keys were rotated"
            )
        return None if head == self.at else Flaw(at, "it is not what the head of the chain says")


def _missing_key(proof: Proof) -> str:
    return f"is proved by key {proof.key_id}, which is not in the ring"
