"""What the keys are called."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from secrets import token_hex
from typing import Final, NamedTuple

from tokenkeep.errors import ConfigurationError
from tokenkeep.model import Account
from tokenkeep.stores.redis.bell import channel_of

_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_NAMESPACE_BYTES: Final = 16


class Whose(NamedTuple):
    """A user of a namespace, as a name that no user id can be mistaken for: digests of both."""

    tag: bytes

    @classmethod
    def of(cls, namespace: str, user_id: str) -> Whose:
        """Return the name of a user."""
        joined = f"{len(namespace)}:{namespace}{len(user_id)}:{user_id}"
        return cls(namespace_tag(namespace) + b"." + _text(sha256(joined.encode()).digest()))

    def is_in(self, namespace: str) -> bool:
        """Tell whether the user belongs to a namespace."""
        return self.tag.startswith(namespace_tag(namespace) + b".")


def namespace_tag(namespace: str) -> bytes:
    """Return the name of a namespace."""
    return _text(sha256(namespace.encode()).digest()[:_NAMESPACE_BYTES])


def _text(digest: bytes) -> bytes:
    """Write a digest in characters that mean nothing to Redis."""
    return urlsafe_b64encode(digest).rstrip(b"=")


class Names:
    """The keys below one prefix. All keys of a user share a hash tag, so they share a slot.

    Raises:
        ConfigurationError: the prefix has characters that mean something to Redis.
    """

    def __init__(self, prefix: str) -> None:
        if not _PREFIX.fullmatch(prefix):
            msg = "prefix= in the Redis URL must be 1 to 64 of the characters A-Z a-z 0-9 _ . : -"
            raise ConfigurationError(msg)
        self.base: Final = f"{prefix}:store:".encode()
        self.schema: Final = self.base + b"schema"
        self.keys: Final = self.base + b"keys"
        self.channel: Final = channel_of(prefix)

    def place(self, whose: Whose) -> bytes:
        """Tokens in place, and leases."""
        return self.of(whose, b"a")

    def place_of(self, account: Account) -> bytes:
        """Tokens in place of the user of an account."""
        return self.place(Whose.of(account.namespace, account.user_id))

    def history(self, whose: Whose) -> bytes:
        """Tokens that were in place."""
        return self.of(whose, b"h")

    def order(self, whose: Whose) -> bytes:
        """The history in its order."""
        return self.of(whose, b"o")

    def trail(self, whose: Whose) -> bytes:
        """The audit trail."""
        return self.of(whose, b"e")

    def chain(self, whose: Whose) -> bytes:
        """What is known of the chain of the audit trail beside its events."""
        return self.of(whose, b"c")

    def issued(self, whose: Whose) -> bytes:
        """Issued tokens."""
        return self.of(whose, b"i")

    def by_end(self, whose: Whose) -> bytes:
        """The ids of issued tokens by their end."""
        return self.of(whose, b"x")

    def living(self, whose: Whose) -> bytes:
        """The ids of issued tokens that are not revoked, by their end."""
        return self.of(whose, b"w")

    def answer(self, whose: Whose) -> bytes:
        """A new key for the answer to one change."""
        return self.answer_at(b"%s{%s}" % (self.base, whose.tag))

    @staticmethod
    def answer_at(key: bytes) -> bytes:
        """A new key for the answer to one change, in the slot of a key."""
        return b"%s:r:%s" % (key, token_hex(16).encode())

    def to_token(self, token_id: str) -> bytes:
        """What leads from an acquired token's id to its user."""
        return self.base + b"t:" + token_id.encode()

    def to_issued(self, token_id: bytes) -> bytes:
        """What leads from an issued token's id to its user."""
        return self.base + b"p:" + token_id.hex().encode()

    def step(self, key: bytes) -> bytes:
        """A claimed time step."""
        return b"%s{step:%s}" % (self.base, key.hex().encode())

    def account_of_step(self, key: bytes) -> bytes:
        """Return whose time step it is."""
        return bytes.fromhex(key[len(self.base) :].removeprefix(b"{step:").removesuffix(b"}").decode())

    def every_step(self) -> bytes:
        """Return the pattern of claimed time steps."""
        return b"%s{step:*}" % self.base

    def of(self, whose: Whose, kind: bytes) -> bytes:
        """Return a user's key of a kind."""
        return b"%s{%s}:%s" % (self.base, whose.tag, kind)

    def every(self, kind: bytes, namespace: str | None = None) -> bytes:
        """Return the pattern of a kind of key of every user, of a namespace or of all."""
        whose = b"*" if namespace is None else namespace_tag(namespace) + b".*"
        return b"%s{%s}:%s" % (self.base, whose, kind)

    def whose(self, key: bytes) -> Whose:
        """Return the user that a key belongs to."""
        return Whose(key[len(self.base) + 1 :].partition(b"}")[0])
