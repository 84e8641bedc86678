"""From a URL to a backend on MongoDB."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import PyMongoError
from pymongo.uri_parser import split_options

from tokenkeep.errors import ConfigurationError
from tokenkeep.ports import Clock, OpenedStore
from tokenkeep.stores.mongo.backend import mongo_backend
from tokenkeep.stores.mongo.database import PATIENCE, REACH, Client, Database

_CONNECT: Final = 5000
"""Milliseconds for a connection, unless the URL says otherwise (`connectTimeoutMS`); PyMongo's own are 20,000."""

_NAME: Final = re.compile(r'[^\\/. "$*<>:|?@\x00-\x1f]{1,63}')
"""MongoDB's manual, "Naming Restrictions"; without `@` too, which would be a piece of a user name or password."""

_PATTERN: Final = "mongodb://user:password@host:27017/database?replicaSet=name"


def open_mongo(url: str, *, asynchronous: bool, actor: str, clock: Clock | None) -> OpenedStore:
    """Open a database of a replica set or of a sharded cluster."""
    parts = _split(url)
    options = _options(parts.query)
    connecting = int(options.get("connecttimeoutms", _CONNECT))

    def connect() -> Client:
        kind: Any = AsyncMongoClient if asynchronous else MongoClient
        client: Client = kind(url, connect=False, appname="tokenkeep", retryWrites=True, connectTimeoutMS=connecting)
        return client

    _check(connect)
    name = _database(parts)
    database = Database(
        connect,
        name,
        name=f"the MongoDB database {name}",
        asynchronous=asynchronous,
        patience=_seconds(options, "timeoutms", PATIENCE),
        reach=_seconds(options, "serverselectiontimeoutms", REACH),
    )
    return OpenedStore(backend=mongo_backend(database, actor=actor, clock=clock))


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = None
    if parts is None or "+" in parts.scheme.removesuffix("+srv") or parts.fragment:
        msg = f"the MongoDB URL cannot be read; write it as {_PATTERN}, with every special character of the password "
        raise ConfigurationError(msg + "percent-encoded, and without a driver's name: the face picks it")
    return parts


def _options(query: str) -> Mapping[str, Any]:
    """Return the options by their names in lower case; PyMongo itself would drop what it cannot read."""
    given = {name.lower(): value for name, value in parse_qsl(query, keep_blank_values=True)}
    if given:
        try:
            split_options(query, validate=True, warn=False)
        except (PyMongoError, OSError, TypeError, ValueError):
            msg = f"PyMongo's MongoClient does not take these options with these values: {', '.join(sorted(given))}"
            raise ConfigurationError(msg) from None
    return given


def _seconds(options: Mapping[str, Any], name: str, default: float) -> float:
    """Return a time-out of the URL in seconds; 0 there, PyMongo's word for none, is ours for the default."""
    return float(options.get(name, 0)) / 1000 or default


def _check(connect: Any) -> None:
    """Let PyMongo look at the URL. Nothing is connected, and nothing of what it says is passed on."""
    try:
        connect()
    except OSError as error:
        msg = f"a file that the MongoDB URL names cannot be read: {error.strerror}; check tlsCAFile= and its like"
        raise ConfigurationError(msg) from None
    except (PyMongoError, TypeError, ValueError):
        msg = f"the MongoDB URL cannot be read; write it as {_PATTERN}, with every special character of the password "
        raise ConfigurationError(msg + "percent-encoded") from None


def _database(parts: SplitResult) -> str:
    name = unquote(parts.path.removeprefix("/"))
    if not name:
        msg = f"the MongoDB URL names no database; write it as {_PATTERN}"
        raise ConfigurationError(msg)
    if not _NAME.fullmatch(name):
        msg = f"the MongoDB URL has no usable database name; write it as {_PATTERN}"
        raise ConfigurationError(msg)
    return name
