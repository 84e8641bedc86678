"""The token in a dictionary that these classes return."""

from __future__ import annotations

from typing import Self, SupportsIndex


class TokenText(str):
    """A token that works as a `str` wherever one is wanted, and is masked where it is printed with its dictionary.

    `repr` shows a mask; `str`, a format and each piece give the real characters, because the text goes into a
    header. A piece (`token[:20]`) is masked in the same way.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'**********'"

    def __getitem__(self, key: SupportsIndex | slice) -> Self:
        return type(self)(super().__getitem__(key))
