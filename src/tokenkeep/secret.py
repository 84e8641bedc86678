"""A string that shows itself only when it is asked to."""

from __future__ import annotations

import hmac
from typing import Final, NoReturn, Self

_MASK: Final = "**********"


class Secret:
    """Hold a secret string; only `reveal` gives it out.

    `str`, `repr` and every format specification show a mask. Pickling raises `TypeError`, and the JSON
    encoder refuses it, because a secret that travels must be sealed first. Copies are the object itself,
    so `copy.deepcopy` and `dataclasses.asdict` hand the mask on. Two secrets compare in constant time
    (OWASP ASVS 5.0, 11.2.4). A secret has no length and cannot be indexed.
    """

    __slots__ = ("_value",)

    _value: str

    def __init__(self, value: str | Secret) -> None:
        if isinstance(value, Secret):
            value = value.reveal()
        if not isinstance(value, str):
            msg = f"a secret must be a str, not {type(value).__name__}"
            raise TypeError(msg)
        object.__setattr__(self, "_value", value)

    def reveal(self) -> str:
        """Return the plain value. Do not keep it, log it or put it into an exception."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret('{_MASK}')"

    def __str__(self) -> str:
        return _MASK

    def __format__(self, spec: str) -> str:
        return _MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_encoded(self), _encoded(other))

    def __hash__(self) -> int:
        return hash((Secret, self.reveal()))

    def __bool__(self) -> bool:
        return bool(self.reveal())

    def __setattr__(self, name: str, value: object) -> NoReturn:
        msg = "a Secret cannot be changed"
        raise AttributeError(msg)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        msg = "a Secret cannot be pickled; seal it with a KeyRing, or call reveal() where you mean to show it"
        raise TypeError(msg)


def _encoded(secret: Secret) -> bytes:
    """Encode anything: an encoding error would carry the secret."""
    return secret.reveal().encode("utf-8", "surrogatepass")
