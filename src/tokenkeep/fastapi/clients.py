"""Programs that may ask about tokens, each with a secret of its own (RFC 6749 section 2.3.1)."""

import base64
import binascii
from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Final
from urllib.parse import unquote_plus

from fastapi import Request
from fastapi.openapi.models import HTTPBase
from fastapi.security.base import SecurityBase

from tokenkeep.fastapi.oauth_answers import OAuthRefusal
from tokenkeep.secret import Secret

SHORTEST: Final = 16
"""Characters of a client secret."""

_LONGEST_HEADER: Final = 1024
_NOBODY: Final = sha256(b"").digest()


class Clients(SecurityBase):
    """A dependency that gives the id of the client that asks, authenticated by HTTP Basic.

    Anybody else is answered 401 with `invalid_client`. Secrets are compared in constant time; of an unknown
    client too.

    Args:
        secrets: of each client, by its id.

    Raises:
        ValueError: there is no client, or a secret is shorter than 16 characters.
    """

    def __init__(self, secrets: Mapping[str, str | Secret]) -> None:
        plain = {client: Secret(secret).reveal() for client, secret in secrets.items()}
        if not plain or min(map(len, plain.values())) < SHORTEST:
            msg = f"name at least one client, each with a secret of at least {SHORTEST} characters"
            raise ValueError(msg)
        self._digests = {client: _digest(secret) for client, secret in plain.items()}
        self.model = HTTPBase(scheme="basic", description="The id and secret of a client of this application.")
        self.scheme_name = "client"

    async def __call__(self, request: Request) -> str:
        """Return the client's id."""
        client, secret = basic_credentials(request.headers.getlist("authorization"))
        known = self._digests.get(client)
        same = compare_digest(_digest(secret), known or _NOBODY)
        if known is None or not same:
            raise OAuthRefusal(401, "invalid_client")
        return client


def basic_credentials(headers: list[str]) -> tuple[str, str]:
    """Return id and secret out of `Authorization` headers; empty ones, which nobody has, when there are none."""
    if len(headers) != 1 or len(headers[0]) > _LONGEST_HEADER:
        return "", ""
    scheme, _, encoded = headers[0].partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        client, _, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return unquote_plus(client), unquote_plus(secret)


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()
