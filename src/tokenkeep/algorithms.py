"""The inventory of cryptography (OWASP ASVS 5.0, 11.1.1): what is used for what. A test holds it against the source."""

from __future__ import annotations

from typing import Final, NamedTuple


class Algorithm(NamedTuple):
    """One use of one algorithm.

    Attributes:
        security: bits.
        source: where it is specified.
    """

    use: str
    name: str
    security: int
    source: str


ALGORITHMS: Final = (
    Algorithm("acquired tokens at rest", "AES-256-GCM", 256, "NIST SP 800-38D"),
    Algorithm("a key for each sealed value", "HKDF-SHA256", 256, "RFC 5869"),
    Algorithm("issued tokens at rest, with keys", "HMAC-SHA256", 256, "RFC 2104"),
    Algorithm("issued tokens at rest, without keys", "SHA-256", 256, "FIPS 180-4"),
    Algorithm("proofs of the audit trail", "HMAC-SHA256", 256, "RFC 2104"),
    Algorithm("the chain of the audit trail", "SHA-256", 128, "FIPS 180-4"),
    Algorithm("fingerprints of refresh tokens", "HMAC-SHA256", 256, "RFC 2104"),
    Algorithm("ids of issued tokens, names of keys in Redis", "SHA-256", 128, "FIPS 180-4"),
    Algorithm("keys, tokens, salts and nonces", "the operating system's generator", 256, "os.urandom"),
)
"""Security against the attack that matters: a preimage or a forgery, for names and links a collision."""
