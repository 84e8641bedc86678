"""A changed password ends what was given out under the old one."""

from __future__ import annotations

from typing import Any


class RevokeOnPasswordChange:
    """Put it before `BaseUserManager`, and give `access_token_db` to each manager that you make.

    Every token of a user ends when the password is changed or reset, after the new one has been saved.
    """

    access_token_db: Any = None

    async def _update(self, user: Any, update_dict: dict[str, Any]) -> Any:
        updated = await super()._update(user, update_dict)  # type: ignore[misc]  # BaseUserManager has it
        if "password" in update_dict and self.access_token_db is not None:
            await self.access_token_db.revoke_all(updated.id)
        return updated
