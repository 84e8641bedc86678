"""Several Redis servers together: a cluster of three masters and three replicas, a master watched by sentinels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Self

import redis
from redis.crc import key_slot

from servers.common import PATIENCE, Died, program
from servers.redis_server import Redis

SLOTS: Final = 16_384
MASTER: Final = "tokens"


class Node(Redis):
    """A member of a cluster."""

    def command(self) -> Sequence[str]:
        cluster = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "1000")
        return [*super().command(), "--databases", "1", "--repl-diskless-sync-delay", "0", *cluster]

    def ask(self) -> None:
        with redis.Redis(host=self.host, port=self.port, socket_timeout=5) as client:
            client.ping()


class Cluster:
    """Six nodes on loopback."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """Run a cluster for the length of a block."""
        with ExitStack() as stack:
            nodes = [stack.enter_context(Node.running()) for _ in range(6)]
            cluster = cls(nodes)
            cluster.join()
            yield cluster

    def join(self) -> None:
        """Make one cluster of the nodes; return when every replica follows its master."""
        nodes = self.nodes
        nodes[0].run(
            *(program("redis-cli"), "--cluster", "create", *(f"{node.host}:{node.port}" for node in nodes)),
            *("--cluster-replicas", "1", "--cluster-yes"),
        )
        until(lambda: all(self.said(node, "CLUSTER INFO")["cluster_state"] == "ok" for node in nodes))
        until(lambda: str([self.said(node, "INFO") for node in nodes]).count("'state': 'online'") == 3)

    @property
    def url(self) -> str:
        """What leads to all nodes."""
        return "redis+cluster://" + ",".join(f"{node.host}:{node.port}" for node in self.nodes)

    @staticmethod
    def said(node: Node, question: str) -> Any:
        with node.connect() as client:
            return client.execute_command(question)

    def client(self) -> Any:
        """Return a client of the whole cluster."""
        return redis.RedisCluster(host=self.nodes[0].host, port=self.nodes[0].port)

    def flush(self) -> None:
        """Empty every master."""
        for node in self.nodes:
            if self.said(node, "INFO")["role"] == "master":
                with node.connect() as client:
                    client.flushall()

    def master_of(self, key: bytes) -> Node:
        """Return the node that answers for a key."""
        for node in self.nodes:
            with node.connect() as client:
                for begin, end, master, *_ in client.cluster("SLOTS"):
                    if begin <= key_slot(key) <= end:
                        return next(one for one in self.nodes if one.port == master[1])
        msg = "nobody answers for the key"
        raise Died(msg)


class Sentinel(Redis):
    """One that watches the master on the port `watched`."""

    def __init__(self, watched: str) -> None:
        super().__init__()
        self.watched = watched

    def install(self) -> None:
        super().install()
        lines = [
            f"sentinel monitor {MASTER} {self.host} {self.watched} 2",
            f"sentinel down-after-milliseconds {MASTER} 500",
            f"sentinel failover-timeout {MASTER} 3000",
        ]
        Path(self.folder, "sentinel.conf").write_text("\n".join(lines))

    def command(self) -> Sequence[str]:
        where = ("--port", str(self.port), "--bind", self.host, "--dir", str(self.folder))
        return [program("redis-server"), str(self.folder / "sentinel.conf"), "--sentinel", *where]

    def ask(self) -> None:
        with redis.Redis(host=self.host, port=self.port, socket_timeout=5) as client:
            client.ping()


class Watched:
    """A master, two replicas, three sentinels."""

    def __init__(self, master: Redis, sentinels: Sequence[Sentinel]) -> None:
        self.master = master
        self.sentinels = sentinels

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """Run them for the length of a block."""
        with ExitStack() as stack:
            master = stack.enter_context(Redis.running("--repl-diskless-sync-delay", "0"))
            following = ("--replicaof", f"{master.host} {master.port}")
            for _ in range(2):
                stack.enter_context(Redis.running(*following))
            until(lambda: str(master.connect().info("replication")).count("'state': 'online'") == 2)
            sentinels = [stack.enter_context(Sentinel.running(str(master.port))) for _ in range(3)]
            watched = cls(master, sentinels)
            until(watched.know_each_other)
            yield watched

    def know_each_other(self) -> bool:
        """Tell whether every sentinel knows both replicas and both others."""
        for sentinel in self.sentinels:
            with sentinel.connect() as client:
                known = client.sentinel_master(MASTER)
            if (known["num-slaves"], known["num-other-sentinels"]) != (2, 2):
                return False
        return True

    @property
    def url(self) -> str:
        """What leads to the master by way of the sentinels."""
        hosts = ",".join(f"{one.host}:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{hosts}/0?master={MASTER}"


def until(ready: Callable[[], bool]) -> None:
    """Return when it is so; an error means not yet."""
    patience = time.monotonic() + PATIENCE
    while True:
        try:
            if ready():
                return
        except redis.RedisError:
            pass
        if time.monotonic() > patience:
            msg = "the servers did not find each other"
            raise Died(msg)
        time.sleep(0.05)
