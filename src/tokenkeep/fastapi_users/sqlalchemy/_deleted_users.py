"""A deleted user's tokens go with him, also where the database does not hold foreign keys.

SQLite holds none unless it is told to, and gives a free id to the next user: he would inherit the tokens.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, delete
from sqlalchemy.event import listen
from sqlalchemy.exc import NoReferenceError
from sqlalchemy.orm import Mapper


def take_their_tokens(mapper: Mapper[Any], _class: type) -> None:
    """Let the ORM delete the tokens before it deletes the user, where the foreign key says `ON DELETE CASCADE`."""
    owner: Any = mapper.local_table.c.get("user_id")
    for key in () if owner is None else owner.foreign_keys:
        if (key.ondelete or "").lower() == "cascade":
            with suppress(NoReferenceError):  # a table of users that SQLAlchemy does not know
                _follow(mapper, owner, key.column)


def _follow(mapper: Mapper[Any], owner: Any, referred: Any) -> None:
    for user in list(mapper.registry.mappers):
        if user.local_table is referred.table and user.inherits is None:
            _listen(user, referred, owner)


def _listen(user: Mapper[Any], referred: Any, owner: Any) -> None:
    attribute = user.get_property_by_column(referred).key

    def remove(_mapper: Mapper[Any], connection: Connection, target: Any) -> None:
        connection.execute(delete(owner.table).where(owner == getattr(target, attribute)))

    listen(user, "before_delete", remove, propagate=True)
