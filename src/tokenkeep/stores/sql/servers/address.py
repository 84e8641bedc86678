"""What the URL of a server says: where it is, which driver, which options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final, Self

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from tokenkeep.errors import ConfigurationError
from tokenkeep.stores.sql.naming import Naming
from tokenkeep.stores.sql.servers.limits import Limits

_SEVERAL_HOSTS: Final = re.compile(r"(?P<before>[^/@]+://(?:[^@/]*@)?)(?P<hosts>[^/?]*,[^/?]*)(?P<after>[/?].*)?")

_PORT: Final = re.compile(r":\d+$")


def parsed(url: str, example: str) -> URL:
    """Read a URL.

    Raises:
        ConfigurationError: it cannot be read; the sentence shows the example, never the URL.
    """
    try:
        return make_url(_hosts_as_options(url))
    except (ArgumentError, ValueError):
        msg = f"the database URL cannot be read; write it as {example}, with : / @ % of a password as %3A %2F %40 %25"
    raise ConfigurationError(msg)


def _hosts_as_options(url: str) -> str:
    """Write `//h1:p1,h2:p2/db` as `///db?host=h1:p1&host=h2:p2`, which is what SQLAlchemy reads."""
    match = _SEVERAL_HOSTS.fullmatch(url)
    if match is None:
        return url
    path, _, query = (match["after"] or "/").partition("?")
    hosts = [f"host={host}" for host in _with_ports(match["hosts"], url)]
    return f"{match['before']}{path or '/'}?{'&'.join([*hosts, *([query] if query else [])])}"


def _with_ports(hosts: str, scheme: str) -> list[str]:
    """Split `h1:p1,h2`; a port that is not named is the usual one."""
    usual = 5432 if scheme.startswith("postgresql") else 3306
    return [host if _PORT.search(host) else f"{host}:{usual}" for host in hosts.split(",")]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is and how to speak to it.

    Attributes:
        url: without the options that SQLAlchemy does not hand on to the driver.
        driver: the driver that was named; empty for the default one.
        hosts: all of them, without ports; none for a socket of this machine.
        options: what is left of the options, for the driver.
        replicas: servers with a port each that may answer reports, and nothing else.
        is_replica: whether this is itself the way to those servers.
    """

    url: URL
    driver: str
    hosts: tuple[str, ...]
    options: Mapping[str, str]
    limits: Limits
    naming: Naming
    replicas: tuple[str, ...] = ()
    is_replica: bool = False

    @classmethod
    def read(cls, url: str, example: str) -> Self:
        """Read a URL.

        Raises:
            ConfigurationError: it cannot be read, names no database, or an option twice.
        """
        found = parsed(url, example)
        if not found.database:
            msg = f"the database URL names no database; write it as {example}"
            raise ConfigurationError(msg)
        several = _as_tuple(found.query.get("host", ()))
        options: dict[str, str] = {}
        for name, value in found.query.items():
            if name == "host":
                continue
            if not isinstance(value, str):
                msg = f"the database URL gives {name} twice; give it once"
                raise ConfigurationError(msg)
            options[name] = value
        limits, naming = Limits.taken_from(options), Naming.taken_from(options)
        named = options.pop("replica", "")
        replicas = tuple(_with_ports(named, found.drivername)) if named else ()
        hosts = tuple(_without_port(host) for host in several) or ((found.host,) if found.host else ())
        bare = found.set(query={"host": several} if several else {})
        return cls(bare, found.drivername.partition("+")[2], hosts, options, limits, naming, replicas)

    def of_replica(self) -> Address | None:
        """Return the way to the replicas, with the same user, database and options; `None` where none is named.

        One that does not answer is not waited for: another server has the same answer.
        """
        if not self.replicas:
            return None
        options = {name: value for name, value in self.options.items() if name != "target_session_attrs"}
        return replace(
            self,
            url=URL.create(
                self.url.drivername,
                username=self.url.username,
                password=self.url.password,
                database=self.url.database,
                query={"host": self.replicas},
            ),
            hosts=tuple(_without_port(host) for host in self.replicas),
            options=options,
            limits=replace(self.limits, retry_timeout=0),
            replicas=(),
            is_replica=True,
        )

    @property
    def places(self) -> tuple[tuple[str, int | None], ...]:
        """The hosts with their ports, in the order in which they are tried."""
        several = _as_tuple(self.url.query.get("host", ()))
        if not several:
            return ((self.url.host or "localhost", self.url.port),)
        return tuple((_without_port(host), int(host.rpartition(":")[2])) for host in several)

    @property
    def is_local(self) -> bool:
        """Tell whether nothing leaves this machine."""
        return all(_is_loopback(host) for host in self.hosts)

    def with_driver(self, driver: str) -> URL:
        """Return the URL for SQLAlchemy with a driver named."""
        return self.url.set(drivername=f"{self.url.drivername.partition('+')[0]}+{driver}")

    def choose_driver(self, drivers: Mapping[bool, tuple[str, ...]], *, asynchronous: bool) -> str:
        """Return the driver to use, the first one when none is named.

        Raises:
            ConfigurationError: the face does not take the one that is named.
        """
        known = drivers[asynchronous]
        if self.driver and self.driver not in known:
            face = "async" if asynchronous else "sync"
            msg = f"the {face} face takes {' or '.join(known)} and not {self.driver!r}; leave the driver out of the URL"
            raise ConfigurationError(msg)
        return self.driver or known[0]


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _without_port(host: str) -> str:
    return host.rpartition(":")[0] if _PORT.search(host) else host


def _is_loopback(host: str) -> bool:
    if host in {"", "localhost"} or host.startswith("/"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
