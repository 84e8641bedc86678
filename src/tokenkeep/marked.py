"""A token's digest in the place where the token itself used to stand, and the mark that tells the two apart.

base64url of SHA-256 has 43 characters without its padding, as many as `secrets.token_urlsafe()` gives. The mark is
no character of base64url, nor of a bearer token (RFC 6750 section 2.1): what stands in a stolen table is never
accepted from outside, although digests and tokens from before live side by side in one column.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final

MARK: Final = "$"
WIDTH: Final = 43
"""Characters of a marked digest: the mark, and 42 that hold 252 bits."""


def marked_digest(token: str) -> str:
    """Return what is kept in the place of a token."""
    return MARK + urlsafe_b64encode(sha256(token.encode()).digest()).decode()[: WIDTH - len(MARK)]


def is_marked(text: str) -> bool:
    """Tell whether text from the database is a digest; anything else is a token from before."""
    return text.startswith(MARK)


def presentable(token: object, *, longest: int) -> bool:
    """Tell whether a token from outside is worth a query: ASCII without NUL, not too long, and no dumped digest."""
    return (
        isinstance(token, str)
        and 0 < len(token) <= longest
        and token.isascii()
        and "\x00" not in token
        and not is_marked(token)
    )
