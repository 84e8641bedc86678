"""A wrong key fails at opening, with a sentence."""

from __future__ import annotations

import hmac

from tokenkeep.errors import SealingError, UnknownKey
from tokenkeep.ports import Clock, KeyStore, Sealer


async def check_keys(keys: KeyStore, sealer: Sealer, clock: Clock) -> None:
    """Compare the ring with what the database knows of its keys, and remember the newest.

    Raises:
        UnknownKey: a key that is still in use here, or every key that was ever used here, is missing.
        SealingError: a key of the ring bears the id of another key.
    """
    known = await keys.known_keys()
    for key_id in set(known) & set(sealer.key_ids):
        if not hmac.compare_digest(known[key_id], sealer.check_value(key_id)):
            msg = f"key {key_id} of the key ring is not the key that this database was sealed under"
            raise SealingError(msg)
    missing = set(known) - set(sealer.key_ids)
    if missing and missing == set(known):
        raise UnknownKey(missing, "this database was sealed under other keys than the ring holds")
    if missing and (needed := missing & set(await keys.keys_in_use())):
        raise UnknownKey(needed, "tokens in this database are still sealed under it")
    if sealer.key_id not in known:
        await keys.remember_key(sealer.key_id, sealer.check_value(sealer.key_id), clock.now())
