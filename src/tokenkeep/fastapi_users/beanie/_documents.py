"""Base classes for the documents of access tokens. What Beanie writes of them is the digest, whoever asks it to."""

from __future__ import annotations

from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar, override

from beanie import Document, PydanticObjectId
from pydantic import BaseModel, Field
from pymongo import IndexModel

from tokenkeep.marked import is_marked, marked_digest


class BeanieBaseAccessToken(BaseModel):
    """An access token; mix it with `beanie.Document`.

    `.token` is the raw token on an object that was just made or found by it. Everything that Beanie sends to the
    database it takes from the iteration over the model, and there stands the digest.
    """

    token: str
    user_id: PydanticObjectId
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    class Settings:
        """Inherit it: `class Settings(BeanieBaseAccessToken.Settings)`."""

        indexes: ClassVar[list[Any]] = [IndexModel("token", unique=True)]

    @override
    def __iter__(self) -> Generator[tuple[str, Any], None, None]:
        for name, value in super().__iter__():
            yield name, kept(value) if name == "token" else value

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        if name == "token" and value == kept(self.token):
            return  # Beanie read the document anew; the digest is of the token that is shown
        super().__setattr__(name, value)


class BeanieBaseAccessTokenDocument(BeanieBaseAccessToken, Document):
    """An access token as a document of its own."""


class BeanieBaseRichAccessToken(BeanieBaseAccessToken):
    """The same, with an end, a last use, a name and scopes for each token, and an index on `user_id`."""

    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    name: str | None = None
    scopes: list[str] = Field(default_factory=list)

    class Settings(BeanieBaseAccessToken.Settings):
        """Inherit it: `class Settings(BeanieBaseRichAccessToken.Settings)`."""

        indexes: ClassVar[list[Any]] = [*BeanieBaseAccessToken.Settings.indexes, IndexModel("user_id")]


AP_BEANIE = TypeVar("AP_BEANIE", bound=BeanieBaseAccessTokenDocument)


def kept(token: str) -> str:
    """Return what is kept in the place of `.token`, which may be a digest already."""
    return token if is_marked(token) else marked_digest(token)
