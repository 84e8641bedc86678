"""How a backend is. Nothing here raises: a store that is down is what is told."""

from __future__ import annotations

from contextlib import suppress

from tokenkeep.errors import StoreError
from tokenkeep.model import Status
from tokenkeep.ports import Backend


async def status_of(backend: Backend) -> Status:
    """Ask each tier, and where the durable one answers its schema, keys and settings too."""
    tiers = await backend.health.tiers()
    schema_version = await backend.health.schema_version()
    key_ids: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    wishes: int | None = None
    if schema_version is not None:
        with suppress(StoreError):
            key_ids = tuple(sorted(await backend.keys.keys_in_use()))
            warnings = await backend.health.warnings()
            wishes = await backend.wishes.count_wishes()
    return Status(
        tiers=tiers, schema_version=schema_version, key_ids=key_ids, warnings=warnings, awaiting_revocation=wishes
    )
