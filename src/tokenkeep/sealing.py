"""Encryption at rest: what one root key does, and the envelope it makes.

An envelope is `format (1) | key id (8) | salt (16) | nonce (12) | ciphertext and tag`, in bytes. The cipher is
AES-256-GCM (NIST SP 800-38D), its key is derived for each envelope from the root key and the salt by
HKDF-SHA256 (RFC 5869), so no number of records brings a nonce to be used twice under one key.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
from functools import lru_cache
from itertools import pairwise
from struct import Struct
from typing import Final, NoReturn, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tokenkeep.errors import SealingError
from tokenkeep.ports import Binding
from tokenkeep.secret import Secret

ROOT_BYTES: Final = 32
ID_BYTES: Final = 8
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16

FORMAT: Final = 1
"""The only envelope there is: AES-256-GCM under a key derived by HKDF-SHA256."""

CIPHERS_KEPT: Final = 512
"""Derived ciphers kept for each root key: opening a record again then costs no derivation."""

_SALT_AT: Final = 1 + ID_BYTES
_NONCE_AT: Final = _SALT_AT + SALT_BYTES
_CIPHERTEXT_AT: Final = _NONCE_AT + NONCE_BYTES
_SMALLEST: Final = _CIPHERTEXT_AT + TAG_BYTES

_EXTRACT_SALT: Final = b"tokenkeep root key 1"
_FOR_ID: Final = b"key id"
_FOR_SEALING: Final = b"seal"
_FOR_FINGERPRINTS: Final = b"fingerprint"
_FOR_ISSUED: Final = b"issued token"
_FOR_CHECKING: Final = b"check value"
_FOR_TRAIL: Final = b"audit trail"

_LENGTHS: Final = Struct(">6I")
"""Characters in each part of a binding."""

_TEXT: Final = re.compile(r"tkk_[0-9a-f]{16}_([0-9A-Za-z_-]{43})")
_FEWEST_VALUES: Final = 8
"""Distinct bytes in a root key: random ones have about 30 of 32, a key made up by hand has few."""


def envelope(sealed: bytes) -> bytes:
    """Check the outer form of a sealed value, strictly, and return it as `bytes`.

    Raises:
        SealingError: it is not an envelope of a format that this version knows.
    """
    if not isinstance(sealed, bytes):
        sealed = _plain_bytes(sealed)
    if len(sealed) < _SMALLEST:
        msg = f"a sealed value of {len(sealed)} bytes is cut short: restore the row, or acquire the token anew"
        raise SealingError(msg)
    if sealed[0] != FORMAT:
        msg = f"a sealed value has the unknown format {sealed[0]}: it is not ours, or a newer tokenkeep sealed it"
        raise SealingError(msg)
    return sealed


def _plain_bytes(sealed: object) -> bytes:
    """Some drivers hand out a `memoryview` or a `bytearray`."""
    if isinstance(sealed, bytearray | memoryview):
        return bytes(sealed)
    msg = f"a sealed value must be bytes, not {type(sealed).__name__}: the row was not written by tokenkeep"
    raise SealingError(msg)


def key_id_of(whole: bytes) -> str:
    """Tell which key an envelope names."""
    return whole[1:_SALT_AT].hex()


def associated_data(header: bytes, binding: Binding) -> bytes:
    """Join the header and the place of a value, the lengths of its parts first, so that no two places read alike."""
    namespace, provider, user_id = binding.account
    kind, row, field = binding.kind, binding.row, binding.field
    lengths = _LENGTHS.pack(len(namespace), len(provider), len(user_id), len(kind), len(row), len(field))
    return header + lengths + (namespace + provider + user_id + kind + row + field).encode()


class RootKey:
    """One root key of 256 bits; everything it does is done by keys derived from it, one for each purpose.

    It is never shown: `text` wraps it, `repr` tells its id, pickling and copying raise `TypeError`.

    Attributes:
        id: 16 hexadecimal characters, derived one-way from the key.
        text: the written form, `tkk_<id>_<43 base64url characters>`.
        check_value: 32 bytes that only this key yields.
    """

    __slots__ = ("_cipher", "_fingerprints", "_id", "_issued", "_pseudorandom", "_trail", "check_value", "id", "text")

    def __init__(self, root: bytes) -> None:
        self._pseudorandom = hmac.digest(_EXTRACT_SALT, root, "sha256")
        self._id = self._expand(_FOR_ID)[:ID_BYTES]
        self.id = self._id.hex()
        self.text = Secret(f"tkk_{self.id}_{base64.urlsafe_b64encode(root).decode().rstrip('=')}")
        self.check_value = self._expand(_FOR_CHECKING)
        self._fingerprints = hmac.new(self._expand(_FOR_FINGERPRINTS), digestmod="sha256")
        self._issued = hmac.new(self._expand(_FOR_ISSUED), digestmod="sha256")
        self._trail = hmac.new(self._expand(_FOR_TRAIL), digestmod="sha256")
        self._cipher = lru_cache(CIPHERS_KEPT)(self._derive)

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the operating system's generator."""
        return cls(os.urandom(ROOT_BYTES))

    @classmethod
    def parse(cls, text: Secret) -> Self | None:
        """Read the written form; `None` when it is malformed, mistyped or obviously not random.

        No error is raised here, so that no traceback has a frame that holds the key.
        """
        match = _TEXT.fullmatch(text.reveal())
        if match is None:
            return None
        root = base64.urlsafe_b64decode(match[1] + "=")
        if _is_weak(root):
            return None
        key = cls(root)
        return key if key.text == text else None

    def _expand(self, purpose: bytes, salt: bytes = b"") -> bytes:
        """RFC 5869 section 2.3 with L = 32: a single block."""
        return hmac.digest(self._pseudorandom, purpose + b"\x00" + salt + b"\x01", "sha256")

    def _derive(self, salt: bytes) -> AESGCM:
        return AESGCM(self._expand(_FOR_SEALING, salt))

    def seal(self, secret: Secret, binding: Binding) -> bytes:
        """Make an envelope that opens only at `binding`."""
        fresh = os.urandom(SALT_BYTES + NONCE_BYTES)
        salt, nonce = fresh[:SALT_BYTES], fresh[SALT_BYTES:]
        header = bytes((FORMAT,)) + self._id + salt
        bound = associated_data(header, binding)
        return header + nonce + self._cipher(salt).encrypt(nonce, _encoded(secret), bound)

    def open(self, whole: bytes, binding: Binding) -> Secret:
        """Open an envelope of this key; `SealingError` when it was changed or belongs elsewhere."""
        cipher = self._cipher(whole[_SALT_AT:_NONCE_AT])
        bound = associated_data(whole[:_NONCE_AT], binding)
        try:
            plain = cipher.decrypt(whole[_NONCE_AT:_CIPHERTEXT_AT], whole[_CIPHERTEXT_AT:], bound)
        except InvalidTag:
            msg = (
                f"a value sealed under key {self.id} cannot be opened here: it was changed, or moved from another row; "
                "restore the row, or acquire the token anew"
            )
            raise SealingError(msg) from None
        return Secret(plain.decode("utf-8", "surrogatepass"))

    def fingerprint(self, secret: Secret) -> bytes:
        """Digest a secret so that equal ones are recognised (32 bytes)."""
        return _mac(self._fingerprints, _encoded(secret))

    def issued_digest(self, token: bytes) -> bytes:
        """Digest an issued token (32 bytes). The hot path: the keyed state is copied, not rebuilt."""
        return _mac(self._issued, token)

    def trail_proof(self, message: bytes) -> bytes:
        """Vouch for a place in the audit trail (32 bytes)."""
        return _mac(self._trail, message)

    def __repr__(self) -> str:
        return f"<RootKey {self.id}>"

    def __reduce__(self) -> NoReturn:
        msg = "a key cannot be pickled or copied"
        raise TypeError(msg)


def _encoded(secret: Secret) -> bytes:
    return secret.reveal().encode("utf-8", "surrogatepass")


def _mac(keyed: hmac.HMAC, message: bytes) -> bytes:
    state = keyed.copy()
    state.update(message)
    return state.digest()


def _is_weak(root: bytes) -> bool:
    """Few distinct bytes, bytes that count up or down in even steps, or typed text: an example, not a key.

    Of 2^45 random keys one is all printable ASCII.
    """
    steps = {(after - before) % 256 for before, after in pairwise(root)}
    return len(set(root)) < _FEWEST_VALUES or len(steps) == 1 or (root.isascii() and root.decode().isprintable())
