"""A process that changes the keys two rows at a time, and says how far it is."""

from __future__ import annotations

import json
import sys
import time

from tokenkeep import KeyRing, TokenVault, upkeep


def main(url: str, keys: str, stop: int) -> None:
    """Rotate; after so many rows, or at the end, stay to be killed."""
    upkeep._BATCH = 2  # type: ignore[misc]

    def tell(done: int, _: int) -> None:
        print(json.dumps({"done": done}), flush=True)  # noqa: T201  # what it is for
        if done >= stop:
            time.sleep(60)

    with TokenVault.open(url, keys=KeyRing.from_file(keys)) as vault:
        tell(0, 0)
        vault.rotate_keys(tell)
        time.sleep(60)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
