"""What a URL says about where Redis is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from tokenkeep.errors import ConfigurationError

PATTERNS: Final = (
    "redis://user:password@host:6379/0, redis+cluster://host:6379,host:6379 or "
    "redis+sentinel://host:26379,host:26379/0?master=name (rediss for TLS, valkey and valkeys likewise)"
)
_TLS: Final = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}
_FILES: Final[tuple[str, ...]] = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_SPANS: Final[dict[str, tuple[float, float]]] = {
    "timeout": (0.005, 10.0),
    "max_staleness": (0.1, 3600.0),
    "retry_timeout": (0.0, 30.0),
}
_PORTS: Final[dict[str, int]] = {"": 6379, "cluster": 6379, "sentinel": 26379}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where Redis is and how to speak to it.

    Attributes:
        form: "" for one server, "cluster" or "sentinel".
        nodes: host and port of each.
        master: what the sentinels call it.
        files: of certificates, by redis-py's names.
        prefix: begins every key.
        timeout: seconds for each wait on a socket; `None` where the URL says nothing.
        max_staleness: how long a copy lives; `None` where the URL says nothing.
        retry_timeout: seconds for which a lost server is looked for again; `None` where the URL says nothing.
    """

    form: str
    nodes: tuple[tuple[str, int], ...]
    tls: bool
    username: str | None
    password: str | None = field(repr=False)
    database: int
    master: str | None
    files: Mapping[str, str]
    prefix: str
    timeout: float | None
    max_staleness: timedelta | None
    retry_timeout: float | None

    @property
    def is_local(self) -> bool:
        """Whether nothing that is said to Redis leaves this machine."""
        return all(_is_loopback(host) for host, _ in self.nodes)

    def check_files(self) -> None:
        """Look for the files.

        Raises:
            ConfigurationError: one cannot be read.
        """
        for name, path in self.files.items():
            try:
                Path(path).open("rb").close()
            except OSError as error:
                msg = f"the file that {name}= in the Redis URL names cannot be read: {error.strerror}"
                raise ConfigurationError(msg) from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parsed(url: str) -> Address:
    """Read a URL.

    Raises:
        ConfigurationError: it cannot be read, or has an option that is not known. It is never shown.
    """
    scheme, _, rest = url.partition("://")
    dialect, _, form = scheme.partition("+")
    if dialect not in _TLS or form not in _PORTS or "#" in rest:
        raise _unreadable()
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    login, _, hosts = authority.rpartition("@")
    options = _options(query)
    user, _, password = login.partition(":")
    master = options.pop("master", None)
    if (form == "sentinel") != bool(master):
        msg = "redis+sentinel:// needs ?master=, the name by which the sentinels know the master; no other form has it"
        raise ConfigurationError(msg)
    files = {name: options.pop(name) for name in _FILES if name in options}
    spans = {name: _span(name, options.pop(name, None)) for name in _SPANS}
    prefix = options.pop("prefix", "tokenkeep")
    if options:
        msg = f"unknown options in the Redis URL: {', '.join(sorted(options))}; known are {', '.join(_known())}"
        raise ConfigurationError(msg)
    if (path or "0") != "0" and form == "cluster":
        msg = "a Redis Cluster has no numbered databases; leave the number out of the URL, prefix= keeps things apart"
        raise ConfigurationError(msg)
    if not (path or "0").isdecimal() or (len(nodes := _nodes(hosts, _PORTS[form])) > 1 and not form):
        raise _unreadable()
    staleness = spans["max_staleness"]
    return Address(
        form=form,
        nodes=nodes,
        tls=_TLS[dialect],
        username=unquote(user) or None,
        password=unquote(password) or None,
        database=int(path or "0"),
        master=master,
        files=files,
        prefix=prefix,
        timeout=spans["timeout"],
        max_staleness=None if staleness is None else timedelta(seconds=staleness),
        retry_timeout=spans["retry_timeout"],
    )


def _unreadable() -> ConfigurationError:
    msg = f"the Redis URL cannot be read; write it as {PATTERNS}, special characters of the password percent-encoded"
    return ConfigurationError(msg)


def _known() -> list[str]:
    return sorted((*_FILES, *_SPANS, "master", "prefix"))


def _options(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) != len(pairs):
        msg = "an option stands twice in the Redis URL; leave one of them out"
        raise ConfigurationError(msg)
    return options


def _span(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    least, most = _SPANS[name]
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not least <= seconds <= most:
        msg = f"{name}= in the Redis URL must be a number of seconds from {least:g} to {most:g}"
        raise ConfigurationError(msg)
    return seconds


def _nodes(hosts: str, port: int) -> tuple[tuple[str, int], ...]:
    try:
        split = [urlsplit(f"//{host}") for host in hosts.split(",")]
        nodes = tuple((one.hostname or "", one.port or port) for one in split)
    except ValueError:
        raise _unreadable() from None
    if not all(host for host, _ in nodes):
        raise _unreadable()
    return nodes
