"""The form of an issued token, and what the database keeps in its place.

An access token is `<prefix>_<43 characters><checksum>`, a refresh token `<prefix>-r_<43 characters><checksum>`:
256 random bits in base 62, then the CRC-32 of all that stands before it as eight lower-case hexadecimal
characters, which catches every change of a single character. All are b64token characters of RFC 6750
section 2.1. No prefix holds a hyphen, so no token of one type reads as one of the other.
"""

from __future__ import annotations

import re
import secrets
from binascii import crc32
from hashlib import sha256
from hmac import compare_digest
from typing import Final, Protocol

from tokenkeep.errors import UnknownKey
from tokenkeep.secret import Secret

RANDOM_BITS: Final = 256
"""RFC 6749 section 10.10 asks for a guess probability of at most 2^-128, better 2^-160."""

BODY: Final = 43
"""Characters of base 62 that hold 256 bits: 62^43 is a little more than 2^256."""

CHECKSUM: Final = 8
ID_BYTES: Final = 16

SCANNER_PATTERN: Final = r"\b[a-z][a-z0-9_]{0,19}(?:-r)?_[0-9A-Za-z]{43}[0-9a-f]{8}\b"
"""For secret scanners: finds the tokens of every prefix; `well_formed` then weeds out what only looks like one."""

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PREFIX: Final = re.compile(r"[a-z](?:[a-z0-9_]{0,18}[a-z0-9])?")
_PUBLIC_ID: Final = re.compile(r"[0-9a-f]{32}")

_FOR_ID: Final = b"tokenkeep issued token id\x00"
_FOR_DIGEST: Final = b"tokenkeep issued token digest\x00"


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
        self._length = len(self._head) + BODY + CHECKSUM
        self._shape = re.compile(self._head + r"[0-9A-Za-z]+").fullmatch

    @property
    def key_id(self) -> str | None:
        """The key that digests new tokens; `None` when there is no key ring."""
        return None if self._keys is None else self._keys.key_id

    def new(self) -> Secret:
        """Make a token from the operating system's generator."""
        unchecked = self._head + _base62(secrets.randbits(RANDOM_BITS))
        return Secret(unchecked + _checksum(unchecked))

    def well_formed(self, token: object) -> bool:
        """Tell whether this could be one of ours. Looks at the length first; any object may be asked about."""
        return (
            isinstance(token, str)
            and len(token) == self._length
            and self._shape(token) is not None
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
    """Derive the primary key and public id of a well-formed token: 16 bytes, the same under every key."""
    return fingerprint(token)[:ID_BYTES]


def public_id(raw: bytes) -> str:
    """Write a token's id as 32 hexadecimal characters."""
    return raw.hex()


def parse_public_id(text: object) -> bytes | None:
    """Read what `public_id` wrote; `None` for anything else."""
    if not isinstance(text, str) or not _PUBLIC_ID.fullmatch(text):
        return None
    return bytes.fromhex(text)


def _base62(number: int) -> str:
    digits = []
    for _ in range(BODY):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def _checksum(text: str) -> str:
    return crc32(text.encode()).to_bytes(CHECKSUM // 2).hex()
