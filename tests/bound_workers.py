"""A process that trusts what it has verified for a while: it says when it last took a token for good."""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta

from tokenkeep import KeyRing, TokenIssuer


def main(url: str, keys: str, bound: float) -> None:
    """Verify each token that is named without a pause, until it is refused."""
    ring, hour = KeyRing.from_file(keys), timedelta(hours=1)
    with TokenIssuer.open(url, lifetime=hour, keys=ring, max_staleness=timedelta(seconds=bound)) as issuer:
        for line in sys.stdin:
            asked = json.loads(line)
            last = 0.0
            while True:
                began = time.monotonic()
                if issuer.verify(asked["token"]) is None:
                    break
                if not last:
                    print(json.dumps({"good": asked["number"]}), flush=True)  # noqa: T201  # what it is for
                last = began
            print(json.dumps({"refused": asked["number"], "last_good": last}), flush=True)  # noqa: T201  # what it is for


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
