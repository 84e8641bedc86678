"""TLS to a server: what the options of a URL ask for, and whether it is verified."""

from __future__ import annotations

import ssl
from collections.abc import MutableMapping
from typing import Final

from tokenkeep.errors import ConfigurationError
from tokenkeep.stores.sql.servers.address import Address

_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")

_UNVERIFIED: Final = (
    "the link to the server is not verified, so somebody in between could read and change what goes over it; "
)


def of_postgresql(options: MutableMapping[str, str]) -> ssl.SSLContext | str | None:
    """Take libpq's `ssl...` options out of a URL's for a driver that is not libpq; `None` where none is given."""
    mode = options.pop("sslmode", None)
    authority, certificate, key = (options.pop(name, None) for name in ("sslrootcert", "sslcert", "sslkey"))
    if mode is not None and mode not in _MODES:
        msg = f"sslmode in the database URL must be one of {', '.join(_MODES)}"
        raise ConfigurationError(msg)
    if mode in {None, "disable", "allow", "prefer"} and authority is None:
        return mode
    context = _context(authority, certificate, key)
    # libpq: `require` with an authority's file verifies like `verify-ca`; without one it only encrypts
    context.check_hostname = mode == "verify-full"
    if mode not in {"verify-ca", "verify-full"} and authority is None:
        context.verify_mode = ssl.CERT_NONE
    return context


def of_mariadb(options: MutableMapping[str, str]) -> ssl.SSLContext | None:
    """Take the `ssl...` options out of a URL's; `None` where none is given.

    With `ssl_ca` (or `ssl=true`: the authorities of this machine) the server is verified, its name too unless
    `ssl_verify_identity=false`.
    """
    wanted = _flag(options, "ssl", default=False)
    authority, certificate, key = (options.pop(name, None) for name in ("ssl_ca", "ssl_cert", "ssl_key"))
    identity = _flag(options, "ssl_verify_identity", default=True)
    verified = _flag(options, "ssl_verify_cert", default=True)
    if not wanted and authority is None and certificate is None:
        return None
    context = _context(authority, certificate, key)
    context.check_hostname = identity and verified
    if not verified:
        context.verify_mode = ssl.CERT_NONE
    return context


def _flag(options: MutableMapping[str, str], name: str, *, default: bool) -> bool:
    text = options.pop(name, None)
    if text is None:
        return default
    if text.lower() not in (*_TRUE, *_FALSE):
        msg = f"{name} in the database URL must be true or false"
        raise ConfigurationError(msg)
    return text.lower() in _TRUE


def _context(authority: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if authority == "system" else authority)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except OSError as error:
        msg = f"a certificate or key named in the database URL cannot be read ({type(error).__name__}); check the files"
    else:
        return context
    raise ConfigurationError(msg)


def warnings(address: Address, *, way_out: str, verified: bool) -> tuple[str, ...]:
    """Say that the link is not verified. What never leaves the machine needs no certificate."""
    return () if verified or address.is_local else (_UNVERIFIED + way_out,)
