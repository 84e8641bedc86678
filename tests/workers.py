"""What a process of its own does in a test: `python workers.py WORK JSON`; it prints one line of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tokenkeep import AsyncTokenVault, KeyRing, NewToken, TokenVault
from tokenkeep.testing import FakeClock, FakeProvider


class Patient(FakeProvider):
    """Ends no login before all the processes of the test have begun to ask."""

    def __init__(self, journal: Path, asking: Path, processes: int) -> None:
        super().__init__(journal=journal)
        self.asking = asking
        self.processes = processes

    def begin_to_ask(self) -> None:
        with self.asking.open("a") as file:
            file.write("x")

    def acquire(self, user_id: str) -> Any:
        patience = time.monotonic() + 20
        while len(self.asking.read_text()) < self.processes and time.monotonic() < patience:
            time.sleep(0.005)
        return super().acquire(user_id)


def crowd(url: str, keys: str, folder: str, threads: int, processes: int) -> Any:
    """Let many threads ask for the same user at once."""
    provider = Patient(Path(folder, "journal"), Path(folder, "asking"), processes)
    with TokenVault.open(url, providers=[provider], keys=KeyRing.from_file(keys)) as vault:
        provider.begin_to_ask()
        with ThreadPoolExecutor(threads) as pool:
            tokens = list(pool.map(lambda _: vault.get_or_create("alice"), range(threads)))
    return sorted({(token.id, token.access_token.reveal()) for token in tokens})


def stuck_leader(url: str, keys: str, folder: str) -> Any:
    """Begin a login and never come back."""
    provider = FakeProvider(journal=Path(folder, "journal"))
    with (
        TokenVault.open(url, providers=[provider], keys=KeyRing.from_file(keys), clock=FakeClock()) as vault,
        provider.held(),
    ):
        vault.get_or_create("alice")


def leave_without_closing(url: str, keys: str, uses: int) -> Any:
    """Use a token and let the interpreter end."""
    vault = TokenVault.open(url, providers=[FakeProvider()], keys=KeyRing.from_file(keys)).__enter__()
    for _ in range(uses):
        vault.get_or_create("alice")
    return uses


def leave_a_loop_without_closing(url: str, keys: str, uses: int) -> Any:
    """Use a token in an event loop and let the interpreter end."""

    async def use() -> int:
        vault = await AsyncTokenVault.open(url, providers=[FakeProvider()], keys=KeyRing.from_file(keys)).__aenter__()
        for _ in range(uses):
            await vault.get_or_create("alice")
        return uses

    return asyncio.run(use())


def fork(url: str, keys: str) -> Any:
    """Use a token before and after a fork, on both sides: 3 + 2 + 1 uses."""
    with TokenVault.open(url, providers=[FakeProvider()], keys=KeyRing.from_file(keys)) as vault:
        for _ in range(3):
            vault.get_or_create("alice")
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of any fork beside threads, ours too
        child = os.fork()
        if child == 0:
            for _ in range(2):
                vault.get_or_create("alice")
            vault.store("bob", NewToken("made-in-the-child"))
            vault.close()
            os._exit(0)
        _, code = os.waitpid(child, 0)
        vault.get_or_create("alice")
        read = vault.get_valid("bob")
        return [code, None if read is None else read.access_token.reveal()]


WORK: dict[str, Callable[..., Any]] = {
    work.__name__: work for work in (crowd, stuck_leader, leave_without_closing, leave_a_loop_without_closing, fork)
}

if __name__ == "__main__":
    print(json.dumps(WORK[sys.argv[1]](**json.loads(sys.argv[2]))))  # noqa: T201  # the answer
