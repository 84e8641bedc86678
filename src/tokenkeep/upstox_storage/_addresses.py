"""From what the classes of the page are given to the URLs of a vault."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from tokenkeep.errors import ConfigurationError

_REDIS: Final = ("host", "port", "db", "username", "password", "ssl")


def sqlite_url(db_path: str | PathLike[str]) -> str:
    """Return the URL of a SQLite file."""
    path = fspath(db_path)
    return "sqlite://" if path == ":memory:" else f"sqlite:///{path}"


def postgresql_url(connection_string: str) -> str:
    """Return the URL for a URL or for what libpq calls a connection string (`host=db dbname=app`).

    Raises:
        ConfigurationError: it is neither.
    """
    scheme, separator, rest = connection_string.partition("://")
    if separator:
        return f"postgresql://{rest}" if scheme == "postgres" else connection_string
    parts = _libpq(connection_string)
    user, password = (quote(parts.pop(name, ""), safe="") for name in ("user", "password"))
    login = f"{user}:{password}@" if password else f"{user}@" if user else ""
    host, port, name = parts.pop("host", ""), parts.pop("port", ""), parts.pop("dbname", "")
    if host.startswith("/"):
        parts["host"], host = host, ""
    place = f"{host}:{port}" if port else host
    return f"postgresql://{login}{place}/{quote(name, safe='')}{'?' if parts else ''}{urlencode(parts)}"


def _libpq(connection_string: str) -> dict[str, str]:
    try:
        from psycopg import Error, conninfo  # noqa: PLC0415  # a driver, loaded when it is needed
    except ModuleNotFoundError:
        msg = 'the driver for PostgreSQL is missing: pip install "tokenkeep[postgres]"'
        raise ConfigurationError(msg) from None
    try:
        return {name: str(value) for name, value in conninfo.conninfo_to_dict(connection_string).items()}
    except Error:
        msg = "the connection string cannot be read; write it as postgresql://user:password@host/database"
        raise ConfigurationError(msg) from None


def mongo_url(connection_string: str, database_name: str) -> str:
    """Return the URL with the database in it; one that it names already stays what the password is checked against."""
    parts = urlsplit(connection_string)
    if not parts.scheme.startswith("mongodb"):
        msg = "the connection string cannot be read; write it as mongodb://user:password@host:27017/"
        raise ConfigurationError(msg)
    other, query = parts.path.lstrip("/"), parts.query
    if other and parts.username and "authsource" not in {name.lower() for name in parse_qs(query)}:
        query = f"{query}{'&' if query else ''}authSource={other}"
    return parts._replace(path=f"/{quote(database_name, safe='')}", query=query).geturl()


def redis_url(config: Mapping[str, Any]) -> str:
    """Return the URL for the keywords of `redis.Redis`.

    Raises:
        ConfigurationError: a keyword that a URL does not say.
    """
    unknown = sorted(set(config) - set(_REDIS) - {"decode_responses"})
    if unknown:
        msg = f"redis_config takes {', '.join(_REDIS)}, and not {', '.join(unknown)}; leave that out"
        raise ConfigurationError(msg)
    scheme = "rediss" if config.get("ssl") else "redis"
    user, password = (quote(str(config.get(name) or ""), safe="") for name in ("username", "password"))
    login = f"{user}:{password}@" if password else f"{user}@" if user else ""
    host, port = config.get("host") or "localhost", config.get("port") or 6379
    place = f"[{host}]" if ":" in host else host
    return f"{scheme}://{login}{place}:{port}/{config.get('db') or 0}"
