"""Who is at the other end: the address of a client, which only the connection or a proxy of ours can tell."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.requests import HTTPConnection

type Address = IPv4Address | IPv6Address


class Addresses:
    """Reads the address of the client (OWASP ASVS 5.0, 15.3.4).

    Args:
        trusted_proxies: addresses and networks, such as `10.0.0.0/8`, whose `X-Forwarded-For` is believed.
            Without any the header is not looked at.

    Raises:
        ValueError: one of them is neither.
    """

    def __init__(self, trusted_proxies: Collection[str] = ()) -> None:
        if isinstance(trusted_proxies, str):
            msg = "trusted_proxies must be a collection of str"
            raise TypeError(msg)
        self._proxies = [ip_network(proxy) for proxy in trusted_proxies]

    def of(self, connection: HTTPConnection) -> str | None:
        """Return the nearest address that is no proxy of ours; `None` when there is none, as on a Unix socket."""
        address = _parsed(connection.client.host) if connection.client else None
        if not self._proxies:
            return None if address is None else str(address)
        hops = [hop for header in connection.headers.getlist("x-forwarded-for") for hop in header.split(",")]
        while address is not None and self._ours(address) and hops:
            nearer = _parsed(hops.pop().strip())
            if nearer is None:
                break
            address = nearer
        return None if address is None else str(address)

    def _ours(self, address: Address) -> bool:
        return any(address in network for network in self._proxies)


def _parsed(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
