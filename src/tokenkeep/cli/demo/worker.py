"""One process of the demo: a vault of its own, asked by many threads. Commands and answers are lines of JSON."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock, Thread
from typing import Any, override

from tokenkeep.api import TokenVault
from tokenkeep.errors import TokenKeepError
from tokenkeep.keyring import KeyRing
from tokenkeep.model import NewToken
from tokenkeep.providers.upstox import UpstoxCredentials, UpstoxProvider

_TELLING = Lock()


def tell(**answer: Any) -> None:
    """Write one line to the demo."""
    with _TELLING:
        sys.stdout.write(json.dumps({"pid": os.getpid(), **answer}) + "\n")
        sys.stdout.flush()


class Announcing(UpstoxProvider):
    """The real provider, which says first that this process leads."""

    @override
    def acquire(self, user_id: str) -> Sequence[NewToken]:
        tell(leads=user_id)
        return super().acquire(user_id)


def ask(vault: TokenVault, user: str, threads: int) -> None:
    """Let threads ask for the same token at once, and tell what they got: digests, no tokens."""

    def one(_: int) -> tuple[str, float]:
        started = time.monotonic()
        token = vault.get_or_create(user)
        digest = hashlib.sha256(token.access_token.reveal().encode()).hexdigest()
        return digest, time.monotonic() - started

    try:
        with ThreadPoolExecutor(threads) as pool:
            answers = list(pool.map(one, range(threads)))
    except TokenKeepError as error:
        tell(failed=user, why=str(error))
        return
    tell(
        got=user,
        answers=len(answers),
        tokens=sorted({digest for digest, _ in answers}),
        slowest=max(wait for _, wait in answers),
    )


def serve(vault: TokenVault) -> None:
    """Do what the demo says until it says no more; what is then under way is let go."""
    asking: list[Thread] = []
    for line in sys.stdin:
        wanted = json.loads(line)
        asking.append(Thread(target=ask, args=(vault, wanted["user"], wanted["threads"]), daemon=True))
        asking[-1].start()
    if any(thread.is_alive() for thread in asking):
        os._exit(1)


def main() -> None:
    """Read the settings from the first line of stdin: they hold credentials, and arguments are seen by everybody."""
    settings: Mapping[str, Any] = json.loads(sys.stdin.readline())
    accounts = {user: UpstoxCredentials(**fields) for user, fields in settings["accounts"].items()}
    provider = Announcing(accounts, base_domain=settings["base_domain"])
    keys = KeyRing.from_file(settings["key_file"])
    with TokenVault.open(settings["url"], providers=[provider], keys=keys) as vault:
        import upstox_totp  # noqa: F401, PLC0415  # half a second now, instead of in the first login

        tell(ready=True)
        serve(vault)


if __name__ == "__main__":
    main()
