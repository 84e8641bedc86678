"""Access tokens, kept in the database you already have."""

from tokenkeep.api import AsyncTokenIssuer, AsyncTokenVault, TokenIssuer, TokenVault
from tokenkeep.keyring import KeyRing
from tokenkeep.model import AcquiredToken, IssuedToken, NewToken
from tokenkeep.secret import Secret

__all__ = [
    "AcquiredToken",
    "AsyncTokenIssuer",
    "AsyncTokenVault",
    "IssuedToken",
    "KeyRing",
    "NewToken",
    "Secret",
    "TokenIssuer",
    "TokenVault",
]

__version__ = "0.1.0"
