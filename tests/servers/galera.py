"""Three MariaDB servers that are one Galera cluster: each takes writes, and a commit is certified by all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pymysql

from servers.common import PATIENCE, Missing, free_port, program
from servers.mariadb import MariaDB

LIBRARY: Final = ("usr/lib/galera/libgalera_smm.so", "usr/lib64/galera*/libgalera_smm.so")


class Node(MariaDB):
    """One of them.

    Args:
        first: one that is there already; `None` for the one that founds the cluster.
    """

    name = "galera"

    def __init__(self, first: Node | None = None, *options: str) -> None:
        super().__init__(*options)
        self._first = first
        self.group, self._catching_up, self._copying = free_port(), free_port(), free_port()

    def install(self) -> None:
        self._library = next((str(found) for path in LIBRARY for found in Path("/").glob(path)), "")
        if not self._library:
            msg = "galera-4 is not installed"
            raise Missing(msg)
        program("rsync")
        super().install()

    def command(self) -> Sequence[str]:
        provider = {
            "base_port": self.group,
            "gmcast.listen_addr": f"tcp://{self.host}:{self.group}",
            "ist.recv_addr": f"{self.host}:{self._catching_up}",
            "gcache.size": "16M",
            "evs.keepalive_period": "PT0.5S",
            "evs.suspect_timeout": "PT3S",
            "evs.inactive_timeout": "PT8S",
            "evs.inactive_check_period": "PT0.5S",
            "pc.announce_timeout": "PT1S",
        }
        founders = "" if self._first is None else f"{self.host}:{self._first.group}"
        return [
            *super().command(),
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
            "--wsrep-on=ON",
            f"--wsrep-provider={self._library}",
            f"--wsrep-provider-options={';'.join(f'{name}={value}' for name, value in provider.items())}",
            "--wsrep-cluster-name=tokenkeep",
            f"--wsrep-cluster-address=gcomm://{founders}",
            f"--wsrep-node-address={self.host}",
            "--wsrep-sst-method=rsync",
            f"--wsrep-sst-receive-address={self.host}:{self._copying}",
        ]

    def ask(self) -> None:
        if self.status("wsrep_local_state_comment") != "Synced":
            raise ConnectionError

    def connect(self, database: str | None = None) -> pymysql.Connection[Any]:
        """Connect with every right; what is read is what the cluster had committed."""
        connection = super().connect(database)
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION wsrep_sync_wait = 7")
        return connection

    def status(self, name: str) -> str:
        """Return what the server says of itself."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SHOW GLOBAL STATUS LIKE %s", (name,))
            found = cursor.fetchone()
        return str(found[1]) if found else ""


class Cluster(NamedTuple):
    """All three."""

    nodes: tuple[Node, ...]

    def wait_for(self, size: int) -> None:
        """Wait until the nodes that run agree that they are so many."""
        end = time.monotonic() + PATIENCE
        for node in self.nodes[-size:]:
            while node.status("wsrep_cluster_size") != str(size) or node.status("wsrep_ready") != "ON":
                assert time.monotonic() < end, f"the cluster does not have {size} nodes"
                time.sleep(0.05)
