"""The one door through which redis-py's errors become ours. They hold no address, user, password or value."""

from __future__ import annotations

from typing import Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    ClusterError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.sentinel import MasterNotFoundError

from tokenkeep.errors import StoreError, StoreUnavailable
from tokenkeep.stores.redis.client import Busy

DRIVERS: Final = (RedisError, RedisClusterException, OSError, EOFError, Busy, RuntimeError)
"""What can come out of redis-py; `RuntimeError` where asyncio can do nothing any more, at the end of a process."""

_NEVER: Final = (AuthenticationError, AuthorizationError, NoPermissionError, RuntimeError)

_PASSING: Final = (
    *(RedisConnectionError, RedisTimeoutError, OSError, EOFError, Busy),
    *(ClusterDownError, ClusterError, RedisClusterException, TryAgainError, MasterDownError, ReadOnlyError),
)

_NO_CLUSTER: Final = "CLUSTER MODE IS NOT ENABLED"
_TIMED_OUT: Final = "no answer in time; the server is slow, stopped or cut off, so what was asked may have been done"

_WAYS_OUT: Final[tuple[tuple[tuple[type[Exception], ...], str], ...]] = (
    ((AuthenticationError, AuthorizationError), "the user name or the password is wrong; check the URL"),
    ((NoPermissionError,), "this user lacks a right; grant it what docs/backends.md names, on the keys of the prefix"),
    ((OutOfMemoryError,), "the server is full and takes no writes; raise maxmemory"),
    ((ReadOnlyError,), "the server is a replica and takes no writes; name the sentinels or the cluster in the URL"),
    ((ClusterDownError, MasterDownError), "a part of the cluster is down; see CLUSTER INFO, then try again"),
    ((AskError,), "it is a member of a cluster; write the URL as redis+cluster://, without a number"),
    ((MasterNotFoundError,), "no sentinel knows a master of this name; check master= and the sentinels"),
    ((TimeoutError, RedisTimeoutError), _TIMED_OUT),
    ((RuntimeError,), "the program ends without having closed it, in the event loop that opened it"),
)


def is_passing(error: Exception) -> bool:
    """Tell whether asking again in a moment may help: a restart or a failover is under way."""
    return isinstance(error, _PASSING) and not (
        isinstance(error, _NEVER) or _is_of_tls(error) or _says(error, _NO_CLUSTER)
    )


def as_ours(name: str, error: Exception) -> StoreError:
    """Return what redis-py says of the store `name` as one of our errors."""
    if _says(error, _NO_CLUSTER):
        return StoreUnavailable(f"{name}: it is a single server and no cluster; write the URL as redis://")
    if _is_of_tls(error):
        return StoreUnavailable(
            f"{name}: no connection by TLS; check rediss://, ssl_ca_certs= and the host name against the server's"
        )
    for kinds, way_out in _WAYS_OUT:
        if isinstance(error, kinds):
            return StoreUnavailable(f"{name}: {way_out}")
    if isinstance(error, ResponseError):
        word = str(error).partition(" ")[0]
        said = f" ({word})" if word.isalpha() and word.isupper() else ""
        return StoreError(f"{name}: the server refused{said}; a key there may not be one that tokenkeep wrote")
    what = type(error).__name__
    return StoreUnavailable(f"{name}: it cannot be reached or went away ({what}); check that it runs, and its address")


def _is_of_tls(error: Exception) -> bool:
    return _says(error, "SSL") or _says(error, "CERTIFICATE")


def _says(error: BaseException | None, words: str) -> bool:
    while error is not None:
        if words in str(error).upper():
            return True
        error = error.__cause__ or error.__context__
    return False
