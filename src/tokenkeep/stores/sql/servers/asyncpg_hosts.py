"""asyncpg on several hosts: each has its own time, and one that is not ready is passed over.

asyncpg itself gives `timeout` to all hosts together, so that a silent first one uses it up, and it stops at a host
that is starting up (asyncpg 0.32, `connect_utils._connect`). libpq does neither.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import asyncpg

_PASSED_OVER: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


async def connect(*, host: Any = None, port: Any = None, **options: Any) -> Any:
    """Connect to the first host that is what the options want; the error is that of the last one."""
    if not isinstance(host, list):
        return await asyncpg.connect(host=host, port=port, **options)
    *others, last = zip(host, port, strict=True)
    for one, its_port in others:
        with suppress(*_PASSED_OVER):
            return await asyncpg.connect(host=one, port=its_port, **options)
    return await asyncpg.connect(host=last[0], port=last[1], **options)
