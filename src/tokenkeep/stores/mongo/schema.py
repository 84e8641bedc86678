"""The collections and their indexes.

| collection | `_id` | shard key |
|---|---|---|
| `tokenkeep_token` | the key of namespace, provider, user and kind: one token in place | `{_id: "hashed"}` |
| `tokenkeep_history` | the token's id: what was in place; `revoke_at` marks those with secrets | `{_id: "hashed"}` |
| `tokenkeep_lease` | the key of namespace, provider and user | `{_id: "hashed"}` |
| `tokenkeep_step` | the digest of an account for one-time codes | `{_id: "hashed"}` |
| `tokenkeep_audit` | an ObjectId; a number for what `db copy` brought from SQL | `{namespace: 1, user_id: 1}` |
| `tokenkeep_audit_head` | the key of namespace and user: the head of a chain of events | `{_id: "hashed"}` |
| `tokenkeep_issued` | 16 bytes derived from the token | `{_id: "hashed"}` |
| `tokenkeep_key`, `tokenkeep_meta` | a name | leave unsharded |
"""

from __future__ import annotations

from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel

SCHEMA_VERSION: Final = 1

TOKEN: Final = "tokenkeep_token"  # noqa: S105  # the name of a collection
HISTORY: Final = "tokenkeep_history"
LEASE: Final = "tokenkeep_lease"
STEP: Final = "tokenkeep_step"
AUDIT: Final = "tokenkeep_audit"
HEAD: Final = "tokenkeep_audit_head"
ISSUED: Final = "tokenkeep_issued"
KEY: Final = "tokenkeep_key"
META: Final = "tokenkeep_meta"

WISHED: Final = {"$gte": -(2**63)}
"""What is asked of `revoke_at` for the history that keeps its secrets, so that the partial index is recognised."""

_ACCOUNT: Final = [("namespace", ASCENDING), ("user_id", ASCENDING), ("provider", ASCENDING)]
_NEWEST: Final = [("created_at", DESCENDING), ("version", DESCENDING)]

INDEXES: Final[dict[str, list[IndexModel]]] = {
    TOKEN: [
        IndexModel(_ACCOUNT, name="account"),
        IndexModel([("id", ASCENDING)], name="id"),
        IndexModel([("namespace", ASCENDING), ("expires_at", ASCENDING)], name="expires"),
        IndexModel([("namespace", ASCENDING), *_NEWEST], name="created"),
        IndexModel([("key_id", ASCENDING), ("id", ASCENDING)], name="key"),
    ],
    HISTORY: [
        IndexModel([*_ACCOUNT, *_NEWEST], name="account"),
        IndexModel([*_ACCOUNT, ("kind", ASCENDING), ("version", DESCENDING)], name="version"),
        IndexModel([("namespace", ASCENDING), ("ended_at", ASCENDING)], name="ended"),
        IndexModel([("namespace", ASCENDING), *_NEWEST], name="created"),
        IndexModel(
            [("revoke_at", ASCENDING), ("namespace", ASCENDING)],
            name="revoke",
            partialFilterExpression={"revoke_at": {"$exists": True}},
        ),
    ],
    STEP: [IndexModel([("purge_at", ASCENDING)], name="purge", expireAfterSeconds=0)],
    AUDIT: [
        IndexModel(
            [("namespace", ASCENDING), ("user_id", ASCENDING), ("at", DESCENDING), ("_id", DESCENDING)], name="user"
        ),
        IndexModel([("namespace", ASCENDING), ("at", ASCENDING)], name="at"),
        IndexModel([("namespace", ASCENDING), ("user_id", ASCENDING), ("sequence", ASCENDING)], name="chain"),
    ],
    HEAD: [IndexModel([("namespace", ASCENDING), ("user_id", ASCENDING)], name="user")],
    ISSUED: [
        IndexModel([("namespace", ASCENDING), ("user_id", ASCENDING), ("created_at", DESCENDING)], name="user"),
        IndexModel(
            [("family", ASCENDING)],
            name="family",
            partialFilterExpression={"family": {"$exists": True}},
        ),
    ],
}
"""What `prepare` makes. The one TTL index is on a field that no token and no history has: it deletes neither."""
