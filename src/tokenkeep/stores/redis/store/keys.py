"""What a Redis knows of the keys."""

from __future__ import annotations

from datetime import datetime

from tokenkeep.ports import KeyUse
from tokenkeep.stores.plain import to_micros
from tokenkeep.stores.redis.store.database import Database
from tokenkeep.stores.redis.store.sweeping import Sweep
from tokenkeep.stores.redis.store.values import pairs, suspicion

_PAGE = 1000


class RedisKeys:
    """Implements `KeyStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def known_keys(self) -> dict[str, bytes]:
        held = pairs(await self._database.ask("HGETALL", self._database.names.keys))
        with suspicion(self._database.name):
            return {key_id.decode(): bytes.fromhex(value.split()[0].decode()) for key_id, value in held.items()}

    async def remember_key(self, key_id: str, check_value: bytes, at: datetime) -> None:
        await self._database.ask("HSETNX", self._database.names.keys, key_id, f"{check_value.hex()} {to_micros(at)}")

    async def keys_in_use(self) -> dict[str, KeyUse]:
        sealed, digests = await self._counted(b"a"), await self._counted(b"i")
        return {
            key_id: KeyUse(sealed=sealed.get(key_id, 0), digests=digests.get(key_id, 0))
            for key_id in sealed.keys() | digests.keys()
        }

    async def _counted(self, kind: bytes) -> dict[str, int]:
        """Count the tokens under each key, in the hashes of a kind of every user."""
        counts: dict[str, int] = {}
        sweep = Sweep(self._database, self._database.names.every(kind))
        while (place := await sweep.next()) is not None:
            for key_id in (await self._under_keys(place)).values():
                counts[key_id.decode()] = counts.get(key_id.decode(), 0) + 1
        return counts

    async def _under_keys(self, place: bytes) -> dict[bytes, bytes]:
        """Return the fields that name a key; a large hash is read in pieces, which may tell of a field twice."""
        found: dict[bytes, bytes] = {}
        cursor = b"0"
        while True:
            cursor, flat = await self._database.ask("HSCAN", place, cursor, "MATCH", "K*", "COUNT", _PAGE)
            found |= pairs(flat)
            if int(cursor) == 0:
                return found
