"""What fastapi-users defines: its own where it is installed, and the same shapes where it is not."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

__all__ = ["AP", "ID", "NO_SUCH_USER", "UP", "AccessTokenDatabase", "AccessTokenProtocol", "OriginalStrategy"]

if TYPE_CHECKING:
    from fastapi_users.authentication.strategy.db import AP, AccessTokenDatabase, AccessTokenProtocol
    from fastapi_users.authentication.strategy.db import DatabaseStrategy as OriginalStrategy
    from fastapi_users.models import ID, UP

    NO_SUCH_USER: Final[tuple[type[Exception], ...]] = ()
else:
    try:
        from fastapi_users.authentication.strategy.db import AP, AccessTokenDatabase, AccessTokenProtocol
        from fastapi_users.authentication.strategy.db import DatabaseStrategy as OriginalStrategy
        from fastapi_users.exceptions import InvalidID, UserNotExists
        from fastapi_users.models import ID, UP

        NO_SUCH_USER = (UserNotExists, InvalidID)
    except ImportError:
        ID = TypeVar("ID")
        UP = TypeVar("UP")
        NO_SUCH_USER = (LookupError, ValueError)

        class AccessTokenProtocol(Protocol[ID]):
            """What a row of the table of access tokens has."""

            token: str
            user_id: ID
            created_at: datetime

        AP = TypeVar("AP", bound=AccessTokenProtocol)

        class AccessTokenDatabase(Protocol, Generic[AP]):  # noqa: UP046  # AP is a name that others import
            """What a database adapter does for `DatabaseStrategy`."""

            async def get_by_token(self, token: str, max_age: datetime | None = None) -> AP | None:
                """Return the row of a token that was created no earlier than `max_age`."""

            async def create(self, create_dict: dict[str, Any]) -> AP:
                """Make a row."""

            async def update(self, access_token: AP, update_dict: dict[str, Any]) -> AP:
                """Change a row."""

            async def delete(self, access_token: AP) -> None:
                """Delete a row."""

        class OriginalStrategy(Generic[UP, ID, AP]):  # noqa: UP046  # the same
            """The place of fastapi-users' own strategy."""
