"""A standby of PostgreSQL that takes over, and one that answers reports."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from crowd_control import Workers
from servers.postgres import Postgres
from servers.postgres_standby import Pair, replicated
from tokenkeep import KeyRing, TokenIssuer, TokenVault

HOUR = timedelta(hours=1)
WAYS = (("sync", "postgresql"), ("async", "postgresql"), ("async", "postgresql+asyncpg"))
PROCESSES = 8
LONGEST = 20 + 10 + 2 * 3 + 4
"""What docs/scaling.md promises for these bounds, and four seconds for a busy machine."""

BOUNDS = "retry_timeout=20&statement_timeout=10&connect_timeout=3&pool_size=4"


@pytest.fixture
def pair(postgres_server: Postgres) -> Iterator[Pair]:  # noqa: ARG001  # where one runs, two do
    with replicated() as pair:
        yield pair


@pytest.mark.requirement("K4")
def test_a_standby_takes_over_while_eight_processes_work_and_nothing_acknowledged_is_lost(
    pair: Pair, tmp_path: Path
) -> None:
    keys = KeyRing.generate()
    keys.save(tmp_path / "keys")
    database = pair.primary.database()
    url = f"{pair.url(database.name)}?{BOUNDS}"
    with TokenVault.open(url, keys=keys):
        pair.wait_for_the_standby()
    with Workers() as crew:
        workers = [
            crew.start(
                "failover_worker.py",
                url=url.replace("postgresql", WAYS[number % 3][1], 1),
                keys=str(tmp_path / "keys"),
                face=WAYS[number % 3][0],
                number=number,
            )
            for number in range(PROCESSES)
        ]
        for worker in workers:
            worker.hear(working=True)
        pair.standby.receive_nothing()
        pair.wait_until_commits_hang(PROCESSES)  # so that each process loses the answer to a COMMIT
        pair.primary.kill()
        for worker in workers:
            worker.tell("failed")
        pair.standby.promote()
        for worker in workers:
            worker.hear(recovered=True)
            worker.leave()
        told: list[dict[str, Any]] = [worker.everything("told")[0] for worker in workers]
    assert [wrong for one in told for wrong in one["wrong"]] == []
    assert max(one["longest"] for one in told) < LONGEST
    with TokenVault.open(url, keys=keys) as vault, TokenIssuer.open(url, lifetime=HOUR, keys=keys) as issuer:
        for one in told:
            for user, text in one["stored"].items():
                read = vault.get_valid(user, provider="p")
                assert read is not None
                assert read.access_token.reveal() == text
            assert [token for token in one["revoked"] if issuer.verify(token) is not None] == []
            assert [token for token in one["alive"] if issuer.verify(token) is None] == []
