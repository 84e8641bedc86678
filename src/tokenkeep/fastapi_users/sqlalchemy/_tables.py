"""Base classes for the table of access tokens: the original's columns, and richer ones."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.event import listen
from sqlalchemy.orm import Mapped, Mapper, declared_attr, mapped_column

from tokenkeep.fastapi_users._originals import ID
from tokenkeep.fastapi_users.sqlalchemy import _deleted_users, _shown
from tokenkeep.fastapi_users.sqlalchemy._types import GUID, TIMESTAMPAware, TokenAtRest, now_utc
from tokenkeep.marked import WIDTH


class SQLAlchemyBaseAccessTokenTable(Generic[ID]):  # noqa: UP046  # fastapi-users' own type variables
    """The table of access tokens; it wants a `user_id` column."""

    __tablename__ = "accesstoken"

    if TYPE_CHECKING:
        token: str
        created_at: datetime
        user_id: ID
    else:
        token: Mapped[str] = mapped_column(TokenAtRest(length=WIDTH), primary_key=True)
        created_at: Mapped[datetime] = mapped_column(
            TIMESTAMPAware(timezone=True), index=True, nullable=False, default=now_utc
        )


class SQLAlchemyBaseAccessTokenTableUUID(SQLAlchemyBaseAccessTokenTable[uuid.UUID]):
    """The table of access tokens of users whose id is a UUID, in the table `user`."""

    if TYPE_CHECKING:
        user_id: uuid.UUID
    else:

        @declared_attr
        def user_id(cls) -> Mapped[uuid.UUID]:  # noqa: N805  # declared_attr hands over the class
            return mapped_column(GUID, ForeignKey("user.id", ondelete="cascade"), nullable=False)


class SQLAlchemyBaseRichAccessTokenTable(SQLAlchemyBaseAccessTokenTable[ID]):
    """The same, with an end, a last use, a name and scopes for each token, and an index on `user_id`."""

    if TYPE_CHECKING:
        expires_at: datetime | None
        last_used_at: datetime | None
        name: str | None
        scopes: list[str]
    else:
        expires_at: Mapped[datetime | None] = mapped_column(TIMESTAMPAware(timezone=True), nullable=True)
        last_used_at: Mapped[datetime | None] = mapped_column(TIMESTAMPAware(timezone=True), nullable=True)
        name: Mapped[str | None] = mapped_column(String(length=255), nullable=True)
        scopes: Mapped[list[str]] = mapped_column(JSON, nullable=False, default=list)


class SQLAlchemyBaseRichAccessTokenTableUUID(
    SQLAlchemyBaseRichAccessTokenTable[uuid.UUID], SQLAlchemyBaseAccessTokenTableUUID
):
    """The richer table of users whose id is a UUID, in the table `user`."""


def _prepare(mapper: Mapper[Any], class_: type) -> None:
    """Give a token column that a subclass declared anew its type, and the richer table its index."""
    table: Any = mapper.local_table
    column = table.c.get("token")
    if column is not None and isinstance(column.type, String):
        column.type = TokenAtRest(length=column.type.length)
    owner = table.c.get("user_id")
    if issubclass(class_, SQLAlchemyBaseRichAccessTokenTable) and owner is not None:
        indexed = any(owner.name == next(iter(index.columns)).name for index in table.indexes)
        if not (owner.index or indexed):
            Index(f"ix_{table.name}_user_id", owner)


listen(SQLAlchemyBaseAccessTokenTable, "instrument_class", _prepare, propagate=True)
listen(SQLAlchemyBaseAccessTokenTable, "mapper_configured", _deleted_users.take_their_tokens, propagate=True)
listen(SQLAlchemyBaseAccessTokenTable, "refresh", _shown.show_again, propagate=True)
