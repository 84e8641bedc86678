"""What logs in to an Upstox account: checked at the door, hidden from then on."""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from tokenkeep.errors import ConfigurationError
from tokenkeep.secret import Secret

FIELDS: Final = ("username", "password", "pin_code", "totp_secret", "client_id", "client_secret", "redirect_uri")

_SHORTEST_SEED: Final = 14
"""Bytes, 112 bits (NIST SP 800-63B-4 section 3.1.4.1); pyotp refuses less, and by then a login is under way."""


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class UpstoxCredentials:
    """Everything that one unattended login at Upstox needs.

    Attributes:
        username: the mobile number, ten digits.
        pin_code: the six-digit PIN, as it is typed.
        totp_secret: the base32 seed that Upstox showed when TOTP was set up; blanks in it are dropped.
        client_id: the API key of the application.
        redirect_uri: exactly as it stands in the application's settings.

    Raises:
        ValueError: a value is empty, not printable, or cannot be what it is said to be. It is not shown.
    """

    username: str
    password: Secret
    pin_code: Secret
    totp_secret: Secret
    client_id: str
    client_secret: Secret
    redirect_uri: str

    def __init__(
        self,
        *,
        username: str,
        password: str | Secret,
        pin_code: str | Secret,
        totp_secret: str | Secret,
        client_id: str,
        client_secret: str | Secret,
        redirect_uri: str,
    ) -> None:
        values = {
            "username": _checked(username, "username").reveal(),
            "password": _checked(password, "password"),
            "pin_code": _checked(pin_code, "pin_code"),
            "totp_secret": _seed(totp_secret),
            "client_id": _checked(client_id, "client_id").reveal(),
            "client_secret": _checked(client_secret, "client_secret"),
            "redirect_uri": _uri(redirect_uri),
        }
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)

    @classmethod
    def from_env(cls) -> Self:
        """Read the environment: `UPSTOX_` and the name of each attribute in capitals, `UPSTOX_PIN_CODE`.

        Raises:
            ConfigurationError: a variable is missing, empty or malformed; it is named, its value is not shown.
        """
        variables = {name: f"UPSTOX_{name.upper()}" for name in FIELDS}
        missing = [variable for variable in variables.values() if not os.environ.get(variable)]
        if missing:
            msg = f"set {', '.join(missing)} in the environment, or pass UpstoxCredentials to UpstoxProvider"
            raise ConfigurationError(msg)
        try:
            return cls(**{name: os.environ[variable] for name, variable in variables.items()})
        except ValueError as error:
            problem = str(error)
        msg = f"the environment's Upstox account (UPSTOX_...) cannot be used: {problem}"
        raise ConfigurationError(msg)


def _checked(value: str | Secret, argument: str) -> Secret:
    secret = Secret(value)
    if not secret.reveal().strip():
        msg = f"{argument} must not be empty"
        raise ValueError(msg)
    if not secret.reveal().isprintable():
        msg = f"{argument} must be printable text on one line"
        raise ValueError(msg)
    return Secret(secret.reveal().strip())


def _seed(value: str | Secret) -> Secret:
    seed = Secret("".join(_checked(value, "totp_secret").reveal().split()).rstrip("=").upper())
    if _bytes_of(seed) < _SHORTEST_SEED:
        msg = "totp_secret must be the base32 seed of at least 23 letters and digits 2 to 7, not a one-time code"
        raise ValueError(msg)
    return seed


def _bytes_of(seed: Secret) -> int:
    try:
        return len(base64.b32decode(seed.reveal() + "=" * (-len(seed.reveal()) % 8)))
    except (binascii.Error, ValueError):
        return 0


def _uri(value: str) -> str:
    uri = _checked(value, "redirect_uri").reveal()
    if not urlsplit(uri).scheme:
        msg = "redirect_uri must be a whole URI such as https://127.0.0.1:5000/callback"
        raise ValueError(msg)
    return uri
