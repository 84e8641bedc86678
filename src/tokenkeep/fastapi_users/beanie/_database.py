"""The database adapter for Beanie 2, which works on PyMongo's `AsyncMongoClient`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, Generic, override

from beanie.exceptions import DocumentNotFound
from beanie.odm.utils.encoder import Encoder
from pymongo.errors import PyMongoError

from tokenkeep.fastapi_users._originals import AccessTokenDatabase
from tokenkeep.fastapi_users.beanie._documents import AP_BEANIE, BeanieBaseRichAccessToken
from tokenkeep.marked import is_marked, marked_digest, presentable

LONGEST: Final = 255
"""Characters of a token that is looked up at all."""

BATCH: Final = 1000
"""Documents that one command deletes."""


class BeanieAccessTokenDatabase(AccessTokenDatabase[AP_BEANIE], Generic[AP_BEANIE]):  # noqa: UP046  # AP_BEANIE is a name that others import
    """Keeps access tokens in a collection, as digests.

    Args:
        access_token_model: the Beanie document of the tokens.
        accept_clear: whether tokens in clear from before are accepted, and rewritten as digests when they are seen.
        now: tells the time, aware.
    """

    def __init__(
        self,
        access_token_model: type[AP_BEANIE],
        *,
        accept_clear: bool = True,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.access_token_model: Any = access_token_model
        self._accept_clear = accept_clear
        self._now = now

    @property
    def keeps_expiry(self) -> bool:
        """Whether the documents keep `expires_at` and `last_used_at`."""
        return issubclass(self.access_token_model, BeanieBaseRichAccessToken)

    @override
    async def get_by_token(self, token: str, max_age: datetime | None = None) -> AP_BEANIE | None:
        """Return the document of a token that was created no earlier than `max_age`; its `.token` is the token.

        A token that cannot be one of ours is `None` without a query: NUL, not ASCII, over 255 characters.
        """
        if not presentable(token, longest=LONGEST):
            return None
        found = await self.access_token_model.find_one({**self._forms(token), **self._alive(max_age)})
        if found is None:
            return None
        if not is_marked(found.token):
            await self._rewrite(found.id, token)
        found.token = token
        return found  # type: ignore[no-any-return]

    @override
    async def create(self, create_dict: dict[str, Any]) -> AP_BEANIE:
        """Insert a document; a duplicate raises `DuplicateKeyError`.

        Raises:
            ValueError: the token could never be presented: it is too long, or not ASCII.
        """
        access_token = self.access_token_model(**create_dict)
        _checked(access_token.token)
        await access_token.create()
        return access_token  # type: ignore[no-any-return]

    @override
    async def update(self, access_token: AP_BEANIE, update_dict: dict[str, Any]) -> AP_BEANIE:
        """Change a document; one that was deleted meanwhile stays deleted, and nothing is raised."""
        bearer = update_dict.get("token")
        values = dict(update_dict) if bearer is None else update_dict | {"token": marked_digest(_checked(bearer))}
        await self.access_token_model.find_one({"_id": access_token.id}).set(values)  # and no upsert
        try:
            await access_token.sync()
        except DocumentNotFound:
            for name, value in update_dict.items():
                setattr(access_token, name, value)
        if bearer is not None:
            access_token.token = bearer
        return access_token

    @override
    async def delete(self, access_token: AP_BEANIE) -> None:
        """Delete a document. Safe to repeat."""
        await access_token.delete()

    # --- more than the original ---

    async def delete_token(self, token: str, user_id: Any) -> bool:
        """Delete this user's token, in one command; tell whether there was one."""
        if not presentable(token, longest=LONGEST):
            return False
        return await self._deleted({**self._forms(token), "user_id": user_id}) > 0

    async def touch(self, access_token: AP_BEANIE, used_at: datetime, expires_at: datetime | None) -> None:
        """Write down a use and the end that follows from it; a document that is gone stays gone."""
        collection = self.access_token_model.get_pymongo_collection()
        values = {"last_used_at": used_at, "expires_at": expires_at}
        await collection.update_one({"_id": access_token.id}, {"$set": values})

    async def list_for_user(self, user_id: Any) -> list[AP_BEANIE]:
        """Return a user's tokens, newest first. Their `.token` is a digest, which opens nothing."""
        found = self.access_token_model.find({"user_id": user_id, **self._alive(None)}).sort("-created_at")
        mine = [one for one in await found.to_list() if self._accept_clear or is_marked(one.token)]
        for one in mine:
            if not is_marked(one.token):
                await self._rewrite(one.id, one.token)
                vars(one)["token"] = marked_digest(one.token)
        return mine

    async def revoke_all(self, user_id: Any, *, keep: str | AP_BEANIE | None = None) -> int:
        """Delete a user's tokens, but the one to `keep`: a raw token, or an object; return how many."""
        query: dict[str, Any] = {"user_id": user_id}
        if isinstance(keep, str):
            query["token"] = {"$nin": [marked_digest(keep), keep]}
        elif keep is not None:
            query["_id"] = {"$ne": keep.id}
        return await self._deleted(query)

    async def purge_expired(self, *, max_age: datetime | None = None) -> int:
        """Delete the tokens that ended, or were created before `max_age`, in batches; return how many.

        Raises:
            ValueError: the documents keep no `expires_at`, and `max_age` is not given.
        """
        ends: list[dict[str, Any]] = [] if max_age is None else [{"created_at": {"$lt": max_age}}]
        if self.keeps_expiry:
            ends.append({"expires_at": {"$lte": self._now()}})
        if not ends:
            msg = "these documents keep no expires_at: say with max_age from when on tokens are still wanted"
            raise ValueError(msg)
        collection, purged = self.access_token_model.get_pymongo_collection(), 0
        while dead := [one["_id"] async for one in collection.find({"$or": ends}, {"_id": 1}).limit(BATCH)]:
            purged += await self._deleted({"_id": {"$in": dead}, "$or": ends})
        return purged

    # --- helpers ---

    async def _rewrite(self, identity: Any, token: str) -> None:
        """Put the digest in the place of a token in clear. What fails now is done when it is seen again."""
        collection = self.access_token_model.get_pymongo_collection()
        with suppress(PyMongoError):
            await collection.update_one({"_id": identity, "token": token}, {"$set": {"token": marked_digest(token)}})

    def _forms(self, token: str) -> dict[str, Any]:
        kept = marked_digest(token)
        return {"token": {"$in": [kept, token]} if self._accept_clear else kept}

    def _alive(self, max_age: datetime | None) -> dict[str, Any]:
        terms: dict[str, Any] = {} if max_age is None else {"created_at": {"$gte": max_age}}
        if self.keeps_expiry:
            terms["$or"] = [{"expires_at": None}, {"expires_at": {"$gt": self._now()}}]
        return terms

    async def _deleted(self, query: dict[str, Any]) -> int:
        encoders = self.access_token_model.get_bson_encoders()
        collection = self.access_token_model.get_pymongo_collection()
        result = await collection.delete_many(Encoder(custom_encoders=encoders).encode(query))
        return int(result.deleted_count)


def _checked(token: Any) -> str:
    if not presentable(token, longest=LONGEST):
        msg = f"token must be 1 to {LONGEST} ASCII characters without NUL, and not begin with $"
        raise ValueError(msg)
    return str(token)
