"""The four faces. `AsyncX` has the methods of `X`, awaited."""

from tokenkeep.api.async_vaults import AsyncTokenVault
from tokenkeep.api.issuers import AsyncTokenIssuer, TokenIssuer
from tokenkeep.api.vaults import TokenVault

__all__ = ["AsyncTokenIssuer", "AsyncTokenVault", "TokenIssuer", "TokenVault"]
