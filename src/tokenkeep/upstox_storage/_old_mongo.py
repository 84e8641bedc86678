"""The MongoDB collection of the page's class for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from typing import Any

from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from tokenkeep.errors import StoreUnavailable
from tokenkeep.importing.entries import Entry, Origin
from tokenkeep.importing.seed_page import entry_at
from tokenkeep.upstox_storage._takeover import ERASED, OldRow, OldTokens


class MongoCollection:
    """`tokens` of the database that the URL names."""

    def __init__(self, url: str) -> None:
        self._url = url

    @contextmanager
    def __call__(self) -> Iterator[OldTokens]:
        """Connect; who lacks the right to change the collection is told."""
        client: MongoClient[dict[str, Any]] = MongoClient(self._url, appname="tokenkeep", connectTimeoutMS=5000)
        try:
            yield _Opened(client.get_default_database().tokens)
        except PyMongoError as error:
            what = type(error).__name__
            msg = f"the collection tokens cannot be taken over ({what}); this user must be able to read and update it; "
            msg += "nothing is lost: open it again"
            raise StoreUnavailable(msg) from None
        finally:
            client.close()


class _Opened:
    def __init__(self, collection: Collection[dict[str, Any]]) -> None:
        self._collection = collection

    def rows(self) -> Sequence[OldRow]:
        """Return the page's documents; others in a collection of this name are left alone."""
        wanted = {"access_token": {"$type": "string", "$ne": ERASED}, "user_id": {"$type": "string"}}
        return [_row(document) for document in self._collection.find(wanted) if "generation_method" in _made(document)]

    def back_up(self) -> str:
        return ""

    def erase(self, rows: Sequence[OldRow]) -> None:
        gone = {"$set": {"access_token": ERASED, "is_active": False}}
        for row in rows:
            self._collection.update_one({"_id": row.key, "access_token": row.text}, gone)


def _made(document: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = document.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _row(document: Mapping[str, Any]) -> OldRow:
    place = f"document {document['_id']} of tokens"

    def read(origin: Origin) -> Entry:
        made_at, stated = document["created_at"].replace(tzinfo=UTC), document["expires_at"].replace(tzinfo=UTC)
        return entry_at(place, document, origin, made_at=made_at, stated=stated)

    return OldRow(
        place=place,
        key=document["_id"],
        user_id=document["user_id"],
        active=bool(document.get("is_active")),
        text=document["access_token"],
        read=read,
    )
