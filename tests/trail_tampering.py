"""Ways to change the audit trail behind the store's back: what `Tamper` of the conformance suite asks for."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final

from pymongo import MongoClient
from redis import Redis
from redis.cluster import RedisCluster
from sqlalchemy import create_engine, text

from tokenkeep.stores.mongo.documents import key_of
from tokenkeep.stores.redis.address import parsed
from tokenkeep.stores.redis.store.events import Owner
from tokenkeep.stores.redis.store.names import Names, Whose

EDIT: Final = text("UPDATE tokenkeep_audit SET actor = 'eve' WHERE user_id = :user AND sequence = :sequence")
REMOVE: Final = text("DELETE FROM tokenkeep_audit WHERE user_id = :user AND sequence = :sequence")
PUT_IN: Final = text(
    "INSERT INTO tokenkeep_audit (namespace, provider, user_id, action, token_id, at, actor, detail) "
    "SELECT namespace, provider, user_id, action, token_id, at, actor, detail FROM tokenkeep_audit "
    "WHERE user_id = :user ORDER BY id DESC LIMIT 1"
)
GIVE_AWAY: Final = (
    text("UPDATE tokenkeep_audit SET user_id = :other WHERE user_id = :user"),
    text("UPDATE tokenkeep_audit_head SET user_id = :other WHERE user_id = :user"),
)
DRIVERS: Final = {"postgresql": "postgresql+psycopg", "mariadb": "mariadb+pymysql"}


class SqlTamper:
    """On any SQL database, by its URL."""

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        scheme = scheme.partition("+")[0]
        self._url = f"{DRIVERS.get(scheme, scheme)}://{rest}"

    def execute(self, *statements: Any, **parameters: Any) -> None:
        engine = create_engine(self._url)
        try:
            with engine.begin() as connection:
                for statement in statements:
                    connection.execute(statement, parameters)
        finally:
            engine.dispose()

    def edit(self, user_id: str, sequence: int) -> None:
        self.execute(EDIT, user=user_id, sequence=sequence)

    def remove(self, user_id: str, sequence: int) -> None:
        self.execute(REMOVE, user=user_id, sequence=sequence)

    def put_in(self, user_id: str) -> None:
        self.execute(PUT_IN, user=user_id)

    def give_away(self, user_id: str, other: str) -> None:
        self.execute(*GIVE_AWAY, user=user_id, other=other)


class MongoTamper:
    """On MongoDB, by the URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def edit(self, user_id: str, sequence: int) -> None:
        with closing(MongoClient[dict[str, Any]](self._url)) as client:
            audit = client.get_default_database()["tokenkeep_audit"]
            audit.update_one({"user_id": user_id, "sequence": sequence}, {"$set": {"actor": "eve"}})

    def remove(self, user_id: str, sequence: int) -> None:
        with closing(MongoClient[dict[str, Any]](self._url)) as client:
            client.get_default_database()["tokenkeep_audit"].delete_one({"user_id": user_id, "sequence": sequence})

    def put_in(self, user_id: str) -> None:
        with closing(MongoClient[dict[str, Any]](self._url)) as client:
            audit = client.get_default_database()["tokenkeep_audit"]
            newest = audit.find_one({"user_id": user_id}, sort=[("sequence", -1)])
            assert newest is not None
            chain = {"_id", "sequence", "digest", "proof", "key_id"}
            audit.insert_one({name: value for name, value in newest.items() if name not in chain})

    def give_away(self, user_id: str, other: str) -> None:
        with closing(MongoClient[dict[str, Any]](self._url)) as client:
            database = client.get_default_database()
            database["tokenkeep_audit"].update_many({"user_id": user_id}, {"$set": {"user_id": other}})
            [head] = database["tokenkeep_audit_head"].find({"user_id": user_id})
            database["tokenkeep_audit_head"].delete_one({"_id": head["_id"]})
            key = key_of("default", other)
            database["tokenkeep_audit_head"].insert_one({**head, "_id": key, "user_id": other})


class RedisTamper:
    """On Redis as the store, one server or a cluster, by the URL."""

    def __init__(self, url: str) -> None:
        self._address = parsed(url)
        self._names = Names(self._address.prefix)

    def _client(self) -> Any:
        host, port = self._address.nodes[0]
        if self._address.form == "cluster":
            return RedisCluster(host, port)
        return Redis(host, port, self._address.database)

    def _trail(self, user_id: str) -> bytes:
        return self._names.trail(Whose.of("default", user_id))

    def _events(self, client: Any, user_id: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        return list(client.xrange(self._trail(user_id)))

    def edit(self, user_id: str, sequence: int) -> None:
        with closing(self._client()) as client:
            events = self._events(client, user_id)
            client.delete(self._trail(user_id))
            for entry_id, fields in events:
                edited = {b"actor": b"eve"} if int(fields[b"sequence"]) == sequence else {}
                client.xadd(self._trail(user_id), {**fields, **edited}, entry_id)

    def remove(self, user_id: str, sequence: int) -> None:
        with closing(self._client()) as client:
            for entry_id, fields in self._events(client, user_id):
                if int(fields[b"sequence"]) == sequence:
                    client.xdel(self._trail(user_id), entry_id)

    def put_in(self, user_id: str) -> None:
        with closing(self._client()) as client:
            _, fields = self._events(client, user_id)[-1]
            chain = {b"sequence", b"digest", b"proof", b"key"}
            client.xadd(self._trail(user_id), {name: b"" if name in chain else fields[name] for name in fields})

    def give_away(self, user_id: str, other: str) -> None:
        new = Owner("default", other).text()
        with closing(self._client()) as client:
            for entry_id, fields in self._events(client, user_id):
                client.xadd(self._trail(other), {**fields, b"user": new}, entry_id)
            chains = [self._names.chain(Whose.of("default", user)) for user in (user_id, other)]
            client.hset(chains[1], mapping={**client.hgetall(chains[0]), b"user": new})
            client.delete(chains[0])
            client.delete(self._trail(user_id))
