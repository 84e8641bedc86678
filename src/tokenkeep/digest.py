"""The form of an issued token, and what the database keeps in its place.

An access token is `<prefix>_<52 characters>`, a refresh token `<prefix>-r_<52 characters>`, all in base 62: 43 for
256 random bits, 3 for the day in which the token ends (`tokenkeep.buckets`), 6 for the CRC-32 of all that stands
before it, which catches every change of a single character. All are b64token characters of RFC 6750 section 2.1.
No prefix holds a hyphen, so no token of one type reads as one of the other.

The day is a hint for finding the row and nothing else: the id is derived from the whole token, so a token with
another day is another token, and the end stands in the row.
"""

from __future__ import annotations

import re
import secrets
from binascii import crc32
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from typing import Final, Protocol

from tokenkeep.buckets import BUCKET_BYTES, LAST_DAY, day_of
from tokenkeep.errors import UnknownKey
from tokenkeep.secret import Secret

RANDOM_BITS: Final = 256
"""RFC 6749 section 10.10 asks for a guess probability of at most 2^-128, better 2^-160."""

BODY: Final = 43
"""Characters of base 62 that hold 256 bits: 62^43 is a little more than 2^256."""

BUCKET: Final = 3
CHECKSUM: Final = 6
ID_BYTES: Final = 16

SCANNER_PATTERN: Final = r"\b[a-z][a-z0-9_]{0,19}(?:-r)?_[0-9A-Za-z]{43}[0-9A-H][0-9A-Za-z]{2}[0-4][0-9A-Za-z]{5}\b"
"""For secret scanners: finds the tokens of every prefix; `well_formed` then weeds out what only looks like one."""

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PREFIX: Final = re.compile(r"[a-z](?:[a-z0-9_]{0,18}[a-z0-9])?")
_PUBLIC_ID: Final = re.compile(r"[0-9a-f]{32}")
_PAIRS: Final = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_NO_DAY: Final = bytes(BUCKET_BYTES)
_DAYS_KEPT: Final = 4096

_FOR_ID: Final = b"tokenkeep issued token id\x00"
_FOR_DIGEST: Final = b"tokenkeep issued token digest\x00"
_DERIVED: Final = ID_BYTES - BUCKET_BYTES


class DigestKeys(Protocol):
    """What a key ring does for issued tokens."""

    @property
    def key_id(self) -> str:
        """The id of the newest key."""

    def issued_digest(self, token: bytes, key_id: str) -> bytes:
        """HMAC-SHA256 under a key of the ring; raises `UnknownKey`."""


class TokenForm:
    """Makes tokens of one prefix and type, tells them from anything else, and digests them.

    Without `keys` the digest is a plain SHA-256, which suffices for a secret of 112 bits or more (OWASP ASVS
    5.0, 6.5.2). With keys it is an HMAC, and a plain digest is then never accepted: whoever can write to the
    table but has no key cannot put in a token that verifies.

    Raises:
        ValueError: the prefix has other characters, begins with no letter or ends in an underscore.
    """

    def __init__(self, prefix: str = "tk", *, keys: DigestKeys | None = None, refresh: bool = False) -> None:
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            msg = "prefix must be 1 to 20 lower-case letters, digits or underscores, first a letter, last no underscore"
            raise ValueError(msg)
        self._keys = keys
        self._head = f"{prefix}-r_" if refresh else f"{prefix}_"
        self._length = len(self._head) + BODY + BUCKET + CHECKSUM
        self._shape = re.compile(self._head + r"[0-9A-Za-z]+").fullmatch

    @property
    def key_id(self) -> str | None:
        """The key that digests new tokens; `None` when there is no key ring."""
        return None if self._keys is None else self._keys.key_id

    def new(self, ends_at: datetime) -> Secret:
        """Make a token from the operating system's generator, with the day in which it ends."""
        random, day = _base62(secrets.randbits(RANDOM_BITS), BODY), _base62(day_of(ends_at), BUCKET)
        unchecked = self._head + random + day
        return Secret(unchecked + _checksum(unchecked))

    def well_formed(self, token: object) -> bool:
        """Tell whether this could be one of ours. Looks at the length first; any object may be asked about."""
        return (
            isinstance(token, str)
            and len(token) == self._length
            and self._shape(token) is not None
            and token[-BUCKET - CHECKSUM : -CHECKSUM] <= _LAST_BUCKET
            and token[-CHECKSUM:] == _checksum(token[:-CHECKSUM])
        )

    def digest(self, token: str, key_id: str | None) -> bytes:
        """Digest a well-formed token under a key of the ring, or without one (32 bytes).

        Raises:
            UnknownKey: the ring does not hold this key, or there is no ring.
        """
        if key_id is None:
            return sha256(_FOR_DIGEST + token.encode()).digest()
        if self._keys is None:
            raise UnknownKey([key_id], "issued tokens were digested with a key, and no keys are given")
        return self._keys.issued_digest(token.encode(), key_id)

    def matches(self, token: str, digest: bytes, key_id: str | None) -> bool:
        """Compare a well-formed token with a row in constant time (OWASP ASVS 5.0, 11.2.4).

        `False` too when the row's key is not in the ring, or when it has none although there is a ring.
        """
        if key_id is None and self._keys is not None:
            return False
        try:
            return compare_digest(self.digest(token, key_id), digest)
        except UnknownKey:
            return False


def fingerprint(token: str) -> bytes:
    """Digest any ASCII text, one-way: what a process remembers a token by (32 bytes)."""
    return sha256(_FOR_ID + token.encode()).digest()


def token_id(token: str) -> bytes:
    """Derive the primary key and public id of a well-formed token: 16 bytes, the same under every key.

    They are the day that the token carries (2 bytes, big-endian) and 112 bits that lead nobody back to it. What is
    not well-formed has some id too, which no row has.
    """
    return _bucket(token[-BUCKET - CHECKSUM : -CHECKSUM]) + fingerprint(token)[:_DERIVED]


def public_id(raw: bytes) -> str:
    """Write a token's id as 32 hexadecimal characters."""
    return raw.hex()


def parse_public_id(text: object) -> bytes | None:
    """Read what `public_id` wrote; `None` for anything else."""
    if not isinstance(text, str) or not _PUBLIC_ID.fullmatch(text):
        return None
    return bytes.fromhex(text)


def _base62(number: int, width: int) -> str:
    pairs = []
    for _ in range((width + 1) // 2):
        number, pair = divmod(number, len(_PAIRS))
        pairs.append(_PAIRS[pair])
    return "".join(reversed(pairs))[-width:]


_LAST_BUCKET: Final = _base62(LAST_DAY, BUCKET)
"""Texts of one length in base 62 are ordered as the numbers are: the alphabet is in the order of ASCII."""


def _checksum(text: str) -> str:
    above, low = divmod(crc32(text.encode()), len(_PAIRS))
    high, middle = divmod(above, len(_PAIRS))
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]


@lru_cache(_DAYS_KEPT)
def _bucket(text: str) -> bytes:
    number = 0
    for character in text:
        number = number * len(_ALPHABET) + _ALPHABET.find(character)
    return number.to_bytes(BUCKET_BYTES) if 0 <= number <= LAST_DAY else _NO_DAY
