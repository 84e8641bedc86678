"""A client of redis-py of any kind, spoken to in one way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from tokenkeep._stepping import settle
from tokenkeep.stores.redis.address import Address
from tokenkeep.stores.redis.lines import Lines

PATIENCE: Final = 0.1
"""Seconds for each wait on a socket: to connect, to be answered."""

AT_ONCE: Final = 100
"""How many questions an event loop has under way at once, each on a connection of its own; others wait.

Threads are few: each may have one.
"""


class Busy(Exception):
    """Another thread is connecting, and takes its time."""


class Clients:
    """The client of this process and, on the async face, of this event loop: made when wanted, again elsewhere."""

    def __init__(self, address: Address, *, asynchronous: bool) -> None:
        self._connect = _connecting(address, asynchronous=asynchronous)
        self.asynchronous = asynchronous
        self._in_cluster = address.form == "cluster"
        self._patience = address.timeout or PATIENCE
        self._lock = threading.Lock()
        self._gate: asyncio.Semaphore | None = None
        self._client: Any = None
        self._lines: Lines | None = None
        self._parts: dict[int, Any] = {}
        self._loop: object = None
        self._forgotten: list[Any] = []

    def client(self) -> Any:
        """Return the client.

        Raises:
            Busy: somebody else has been connecting for too long.
        """
        loop = asyncio.get_running_loop() if self.asynchronous else None
        client = self._client
        return client if client is not None and loop is self._loop else self._renewed(loop)

    async def get(self, key: bytes) -> Any:
        """Return the value of a key, by the shortest way that there is."""
        client = self.client()
        lines = self._lines
        return await self._in_turn(client.get if lines is None else lines.get, key)

    async def ask(self, command: str, *words: bytes) -> Any:
        """Return the answer to a command that names a key, by the shortest way that there is."""
        client = self.client()
        lines = self._lines
        if lines is None:
            return await self._in_turn(client.execute_command, command, *words)
        return await self._in_turn(lines.ask, command.encode(), *words)

    async def _in_turn(self, ask: Callable[..., Any], *words: str | bytes) -> Any:
        gate = self._gate
        if gate is None:
            return await settle(ask(*words))
        async with gate:
            return await settle(ask(*words))

    async def nodes(self) -> list[Any]:
        """Return the clients of each server that holds keys of its own: of one, or of every master of a cluster."""
        client = self.client()
        if not self._in_cluster:
            return [client]
        if self.asynchronous:
            await client.initialize()
            return list(client.get_primaries())
        return [client.get_redis_connection(node) for node in client.get_primaries()]

    def _renewed(self, loop: object) -> Any:
        if not self._lock.acquire(timeout=self._patience):
            raise Busy
        try:
            if self._client is None or loop is not self._loop:
                self._forgotten.append((self._client, self._lines))
                self._client = self._lines = None
                client = self._connect()
                self._lines = None if self._in_cluster else Lines(client.connection_pool)
                self._gate = asyncio.Semaphore(AT_ONCE) if self.asynchronous else None
                self._client, self._loop = client, loop
                self._parts = _parts_of(client) if self._in_cluster and not self.asynchronous else {}
            return self._client
        finally:
            self._lock.release()

    def failed(self) -> None:
        """After a failure: close what redis-py has dropped of a cluster while it looked for its new layout."""
        client = self._client
        if client is None or not self._in_cluster or self.asynchronous:
            return
        with self._lock:
            before, self._parts = self._parts, _parts_of(client)
            for part in before.keys() - self._parts.keys():
                before[part].close()

    async def close(self) -> None:
        """Close the client. Safe to repeat."""
        self.failed()
        client, self._client = self._client, None
        if client is None or (self.asynchronous and asyncio.get_running_loop() is not self._loop):
            return
        for one in (client, *_sentinels_of(client)):
            with suppress(Exception):  # the server may be gone, and then there is nobody to take leave of
                await settle(one.aclose() if self.asynchronous else one.close())

    def forget(self) -> None:
        """Let go of the connections without closing them."""
        self._forgotten.append((self._client, self._lines))
        self._client = self._lines = None
        self._lock = threading.Lock()


def _sentinels_of(client: Any) -> list[Any]:
    """Return the clients of the sentinels, which redis-py leaves open."""
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return [] if manager is None else list(manager.sentinels)


def _connecting(address: Address, *, asynchronous: bool) -> Callable[[], Any]:
    """Return what makes a client; it never waits longer than the address says, and repeats nothing by itself."""
    patience = address.timeout or PATIENCE
    retry: Any = AsyncRetry if asynchronous else Retry
    options: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        "protocol": 2,
        "driver_info": None,
        "retry": retry(NoBackoff(), 0),
        "max_connections": 2 * AT_ONCE if asynchronous else 1 << 31,
    }
    if address.tls:
        options |= {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True, **address.files}
    if address.form == "cluster":
        return _cluster(address, options, asynchronous=asynchronous)
    options["db"] = address.database
    if address.form == "sentinel":
        return _sentinel(address, options, asynchronous=asynchronous)
    kind: Any = redis.asyncio.Redis if asynchronous else redis.Redis
    host, port = address.nodes[0]
    return lambda: kind(host=host, port=port, maint_notifications_config=_quiet(), **options)


def _quiet() -> MaintNotificationsConfig:
    return MaintNotificationsConfig(enabled=False)


def _cluster(address: Address, options: dict[str, Any], *, asynchronous: bool) -> Callable[[], Any]:
    node: Any = AsyncClusterNode if asynchronous else ClusterNode
    kind: Any = redis.asyncio.RedisCluster if asynchronous else redis.RedisCluster

    def connect() -> Any:
        first = [node(host, port) for host, port in address.nodes]
        client = None
        try:
            client = kind(startup_nodes=first, require_full_coverage=False, **options)
        finally:
            if not asynchronous:
                _drop_what_only_asked(first, client)
        return client

    return connect


def _drop_what_only_asked(first: list[Any], client: Any) -> None:
    """Close the connections that asked for the layout of the cluster; redis-py makes others and leaves them open."""
    kept = {} if client is None else _parts_of(client)
    for node in first:
        if node.redis_connection is not None and id(node.redis_connection) not in kept:
            node.redis_connection.close()


def _parts_of(cluster: Any) -> dict[int, Any]:
    """Return the clients of single nodes that a synchronous client of a cluster consists of."""
    return {id(node.redis_connection): node.redis_connection for node in cluster.get_nodes() if node.redis_connection}


def _sentinel(address: Address, options: dict[str, Any], *, asynchronous: bool) -> Callable[[], Any]:
    kind: Any = redis.asyncio.Sentinel if asynchronous else redis.Sentinel
    own = {name: value for name, value in options.items() if name not in {"db", "username", "password"}}

    def connect() -> Any:
        sentinels = kind(list(address.nodes), sentinel_kwargs=own, **options)
        return sentinels.master_for(address.master)

    return connect
