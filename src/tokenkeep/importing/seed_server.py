"""The PostgreSQL tables that the storage classes in the documentation of upstox-totp wrote. They are only read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, TextClause, inspect, text

from tokenkeep import _checking
from tokenkeep.copying import batches
from tokenkeep.importing.entries import Contents, Entry, Origin, Unreadable
from tokenkeep.importing.seed_page import entry_at
from tokenkeep.model import Account, Action
from tokenkeep.ports import AuditStore, Room, Transferable
from tokenkeep.ports import Entry as Event
from tokenkeep.stores.sql.database import Database

BATCH: Final = 500

_TRAIL: Final = "upstox_token_audit"
_TOKENS: Final[Mapping[str, TextClause]] = {
    "upstox_tokens": text("SELECT * FROM upstox_tokens WHERE id > :after ORDER BY id LIMIT :count"),
    "upstox_token_backup": text("SELECT * FROM upstox_token_backup WHERE id > :after ORDER BY id LIMIT :count"),
}
_EVENTS: Final = text(
    "SELECT a.id, a.action, a.performed_at, a.token_id, t.user_id FROM upstox_token_audit a "
    "JOIN upstox_tokens t ON t.id = a.token_id WHERE a.id > :after ORDER BY a.id LIMIT :count"
)
_EVENT_COUNT: Final = text("SELECT count(*) FROM upstox_token_audit WHERE id > :after")
_ACTIONS: Final = {"created": Action.CREATED, "deactivated": Action.REPLACED, "used": Action.USED}


@dataclass(frozen=True, slots=True)
class SeedServer:
    """A PostgreSQL database with tables of those classes, and what it is called."""

    database: Database
    source: str

    async def tables(self) -> list[str]:
        """Return which of the three tables are there.

        Raises:
            Unreadable: none.
        """
        wanted = (*_TOKENS, _TRAIL)

        def present(connection: Connection) -> list[str]:
            return [name for name in wanted if inspect(connection).has_table(name)]

        found: list[str] = await self.database.read(lambda transaction: transaction.plainly(present))
        if not set(found) & set(_TOKENS):
            msg = f"{self.database.name} has no table upstox_tokens or upstox_token_backup; check the URL at --from"
            raise Unreadable(msg)
        return found

    async def read(self, origin: Origin) -> Contents:
        """Read the live tokens, the newest of each user.

        Raises:
            Unreadable: a live row is malformed; nothing is imported then.
        """
        found = Contents(remedy="when nothing uses them any more, drop the tables, and their backups")
        newest: dict[str, Entry] = {}
        people: set[str] = set()
        for table in (name for name in await self.tables() if name in _TOKENS):
            async for row in self._rows(_TOKENS[table], 0):
                entry = _entry(table, row, origin, found)
                if entry is None:
                    continue
                people.add(row["user_id"])
                older = newest.get(entry.user_id)
                if older is not None:
                    older, entry = sorted((older, entry), key=_age)
                    found.skip(older.place, "a newer row of the same user is active too")
                newest[entry.user_id] = entry
        if origin.user is not None and len(people) > 1:
            msg = "the tables hold tokens of several users; --user is for those of one"
            raise Unreadable(msg)
        found.entries = list(newest.values())
        return found

    async def count_events(self, after: int) -> int:
        """Return how many events there are past a row."""
        if _TRAIL not in await self.tables():
            return 0
        row = await self.database.read(lambda transaction: transaction.first(_EVENT_COUNT, {"after": after}))
        return int(row[0])

    async def events(self, after: int, origin: Origin) -> AsyncIterator[tuple[str, Event | None]]:
        """Yield (user, event) in their order; no event for an action that is not known."""
        if _TRAIL not in await self.tables():
            return
        async for row in self._rows(_EVENTS, after):
            user = _checking.name(origin.user or row["user_id"], "user_id")
            action = _ACTIONS.get(row["action"])
            detail = {"imported_from": self.name, "row": row["id"], "token_row": row["token_id"]}
            at = row["performed_at"].astimezone(UTC)
            yield user, None if action is None else Event(action=action, at=at, detail=detail)

    @property
    def name(self) -> str:
        """What the trail calls the table that an event comes from."""
        return f"{self.source}.{_TRAIL}"

    async def _rows(self, statement: TextClause, after: int) -> AsyncIterator[Mapping[str, Any]]:
        while rows := await self._batch(statement, after):
            for row in rows:
                yield row._mapping  # noqa: SLF001  # the documented way to a row by names
            after = rows[-1].id

    async def _batch(self, statement: TextClause, after: int) -> Sequence[Any]:
        parameters = {"after": after, "count": BATCH}
        return await self.database.read(lambda transaction: transaction.rows(statement, parameters))


async def last_event(transfer: Transferable, account: Account, source: str) -> int:
    """Return the last row of a table of events that the trail has taken over; 0 for none."""
    last = 0
    async for rows in batches(transfer, Room.AUDIT):
        for row in rows:
            if (row["namespace"], row["provider"]) == account[:2] and row["detail"].get("imported_from") == source:
                last = max(last, int(row["detail"]["row"]))
    return last


async def take_over(audit: AuditStore, account: Account, user: str, event: Event) -> None:
    """Put an event into the trail, under the time at which it happened."""
    await audit.note(account._replace(user_id=user), event)


def _entry(table: str, row: Mapping[str, Any], origin: Origin, found: Contents) -> Entry | None:
    place = f"{table} {row['id']}"
    if not row["is_active"]:
        found.skip(place, "not active")
        return None
    told = row.get("user_data")
    fields = {**(told if isinstance(told, Mapping) else {}), **row}
    try:
        made_at, stated = (_instant(row[name], name) for name in ("created_at", "expires_at"))
        entry = entry_at(place, fields, origin, made_at=made_at, stated=stated)
    except (ValueError, TypeError) as error:
        msg = f"{place}: {error}; nothing was imported"
        raise Unreadable(msg) from None
    if entry.token.expires_at is not None and entry.token.expires_at <= origin.now:
        found.skip(place, "expired")
        return None
    return entry


def _instant(value: Any, name: str) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        msg = f"{name} is no time with a zone"
        raise ValueError(msg)
    return value.astimezone(UTC)


def _age(entry: Entry) -> datetime:
    return entry.made_at or datetime.min.replace(tzinfo=UTC)
