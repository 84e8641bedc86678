"""Issued tokens in SQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Final

from sqlalchemy import Select, and_, bindparam, case, delete, func, insert, or_, select, update

from tokenkeep.buckets import day_of, first_id
from tokenkeep.model import Account, Statistics
from tokenkeep.ports import Entry, Grant, IssuedRecord, Spending
from tokenkeep.stores.sql.appending import Appending
from tokenkeep.stores.sql.arrays import Rows
from tokenkeep.stores.sql.audit import SqlAudit
from tokenkeep.stores.sql.database import Asking, Database, Transaction
from tokenkeep.stores.sql.issued_records import ADDED, account_of, noted, record, rows_of, values_of
from tokenkeep.stores.sql.lookup import Lookup
from tokenkeep.stores.sql.partitions import SqlPartitions
from tokenkeep.stores.sql.repeating import Doubt, reads, reports, writes
from tokenkeep.stores.sql.schema import Tables
from tokenkeep.stores.sql.servers.engine import EngineDatabase
from tokenkeep.stores.sql.sqlite.reading import FileReader
from tokenkeep.stores.sql.wire.question import Wire, WritingWire

_TOGETHER: Final = 1000
"""Tokens that are revoked in one transaction."""


class _Refused(Exception):
    """The choice was to add nothing: the transaction rolls back. It never leaves the store."""


class SqlIssued:
    """Implements `IssuedStore`."""

    def __init__(
        self,
        database: Database,
        tables: Tables,
        audit: SqlAudit,
        partitions: SqlPartitions | None,
        *,
        reader: FileReader | Wire | None,
    ) -> None:
        self._database = database
        self._partitions = partitions
        self._audit = audit
        self._wire = reader if isinstance(reader, WritingWire) else None
        self._read_statements(tables)
        self._write_statements(tables)
        self._access = Lookup(database, self._access_token, reader, record)
        self._coarse = self._access
        if isinstance(reader, FileReader):
            self._coarse = Lookup(database, self._access_token, reader, record, moving=tables.issued.c.last_used_at)
        self._refresh = Lookup(database, self._refresh_token, None, record)

    def _read_statements(self, tables: Tables) -> None:
        table, c = tables.issued, tables.issued.c
        lean = select(
            c.id, c.digest, c.key_id, c.namespace, c.user_id, c.name, c.scopes, c.created_at, c.expires_at, c.client,
            c.metadata, c.last_used_at,
        )  # fmt: skip
        record = lean.add_columns(c.family, c.generation, c.access_lifetime)
        users = and_(c.namespace == bindparam("ns"), c.user_id == bindparam("us"))
        alive = and_(c.revoked_at.is_(None), c.expires_at > bindparam("at"), c.spent_at.is_(None))
        this = and_(c.id == bindparam("token_id"), c.revoked_at.is_(None))
        self._access_token = lean.where(this, c.access_lifetime.is_(None))
        self._refresh_token = record.where(this, c.access_lifetime.is_not(None))
        self._listed = record.where(users, alive).order_by(c.created_at.desc(), c.id).limit(bindparam("count"))
        unrevoked = select(c.id, c.user_id, c.family).where(c.revoked_at.is_(None))
        self._unrevoked = unrevoked.where(
            c.id == bindparam("token_id"), c.namespace == bindparam("ns")
        ).with_for_update()
        self._family_unrevoked = unrevoked.where(c.family == bindparam("kin")).with_for_update()
        self._family_of = select(c.family).where(c.id == bindparam("token_id"), users)
        self._others: Select[Any] = (
            unrevoked.where(users, c.id != bindparam("keep"), or_(c.family.is_(None), c.family != bindparam("kin")))
            .limit(bindparam("count"))
            .with_for_update()
        )
        self._living: Select[Any] = record.where(users, alive).order_by(c.id).with_for_update()
        self._theirs = select(c.id).where(users).limit(bindparam("count"))
        self._figures = (
            select(
                func.count().label("total"),
                func.coalesce(func.sum(case((alive, 1), else_=0)), 0).label("active"),
                func.coalesce(func.sum(c.usage_count), 0).label("used"),
                func.max(c.created_at).label("made"),
                func.max(c.last_used_at).label("last"),
            )
            .select_from(table)
            .where(users, c.access_lifetime.is_(None))
        )
        self._known = select(c.id).where(c.id == bindparam("token_id"))
        self._boundary = (
            select(c.id)
            .where(c.id > bindparam("after"), c.id < bindparam("end"))
            .order_by(c.id)
            .offset(bindparam("count"))
            .limit(1)
        )
        self._spending = (
            select(c.revoked_at, c.spent_at, c.successors).where(c.id == bindparam("token_id")).with_for_update()
        )
        self._later_spent = (
            select(c.id)
            .where(c.family == bindparam("kin"), c.generation > bindparam("gen"), c.spent_at.is_not(None))
            .limit(1)
        )

    def _write_statements(self, tables: Tables) -> None:
        table, c = tables.issued, tables.issued.c
        this = c.id == bindparam("token_id")
        last = c.last_used_at
        self._insert = insert(table)
        self._at_once = self._audit.appending(lambda dialect: Rows(table, ADDED, "issued", dialect))
        self._revoke = update(table).where(this, c.revoked_at.is_(None)).values(revoked_at=bindparam("at"))
        self._use = (
            update(table)
            .where(this, c.revoked_at.is_(None))
            .values(
                usage_count=c.usage_count + bindparam("uses"),
                last_used_at=case((or_(last.is_(None), last < bindparam("at")), bindparam("at")), else_=last),
            )
        )
        self._redigest = (
            update(table)
            .where(this, c.digest == bindparam("old"), c.revoked_at.is_(None))
            .values(digest=bindparam("new"), key_id=bindparam("key"))
        )
        self._delete = delete(table).where(this)
        self._spend = update(table).where(this).values(spent_at=bindparam("at"), successors=bindparam("so_many"))
        ours = c.namespace.concat("") == bindparam("ns")  # no index fits this: the sweep goes by ranges of the key
        over = (ours, c.expires_at < bindparam("before"))
        self._sweep = delete(table).where(*over, c.id > bindparam("after"), c.id <= bindparam("upto"))

    # --- adding and finding

    async def add(self, grants: Sequence[Grant]) -> None:
        await self._placed(lambda: self._add(grants), grants)

    async def _add(self, grants: Sequence[Grant]) -> None:
        database, at_once = self._database, self._at_once
        if self._wire is not None and at_once is not None and isinstance(database, EngineDatabase):
            await database.write_by(
                self._wire, lambda asking: self._insert_at_once(asking, at_once, grants), Doubt.DONE
            )
        else:
            await database.write(lambda transaction: self._insert_all(transaction, grants), Doubt.DONE)

    async def _placed[T](self, write: Callable[[], Awaitable[T]], grants: Sequence[Grant]) -> T:
        if self._partitions is None:
            return await write()
        return await self._partitions.placed(write, [record.id for grant in grants for record in grant.records])

    async def _insert_all(self, transaction: Transaction, grants: Sequence[Grant]) -> None:
        if self._at_once is not None:
            await self._insert_at_once(transaction, self._at_once, grants)
        else:
            await transaction.run(self._insert, rows_of(grants))
            await self._audit.append_each(transaction, noted(grants))

    async def _insert_at_once(self, asking: Asking, at_once: Appending, grants: Sequence[Grant]) -> None:
        await self._audit.append_at_once(asking, noted(grants), at_once, beside=rows_of(grants))

    async def add_within(
        self,
        grant: Grant,
        choose: Callable[[Sequence[IssuedRecord]], Collection[bytes] | None],
        ended: Callable[[str], Entry],
    ) -> list[bytes] | None:
        try:
            return await self._placed(lambda: self._add_within(grant, choose, ended), [grant])
        except _Refused:
            return None

    @writes(Doubt.DONE)
    async def _add_within(
        self,
        transaction: Transaction,
        grant: Grant,
        choose: Callable[[Sequence[IssuedRecord]], Collection[bytes] | None],
        ended: Callable[[str], Entry],
    ) -> list[bytes]:
        first = grant.records[0]
        await self._audit.append_each(transaction, [(account_of(first), grant.entry)])  # whoever appends to it waits
        at = {"ns": first.namespace, "us": first.user_id, "at": grant.entry.at}
        rows = await transaction.rows(self._living, at)
        chosen = choose([record(row) for row in rows])
        if chosen is None:
            raise _Refused
        await transaction.run(self._insert, [values_of(record) for record in grant.records])
        ending = [row for row in rows if bytes(row.id) in chosen]
        alone = [row for row in ending if row.family is None]
        kin = sorted({bytes(row.family) for row in ending if row.family is not None})
        families = [await transaction.rows(self._family_unrevoked, {"kin": one}) for one in kin]
        return await self._revoke_rows(transaction, first.namespace, [*alone, *chain(*families)], ended)

    def find(self, token_id: bytes, *, coarse: bool = False) -> Coroutine[Any, Any, IssuedRecord | None]:
        return (self._coarse if coarse else self._access).find(token_id)

    def find_refresh(self, token_id: bytes) -> Coroutine[Any, Any, IssuedRecord | None]:
        return self._refresh.find(token_id)

    # --- ending

    @writes(Doubt.DONE)
    async def end_issued(
        self, transaction: Transaction, namespace: str, token_id: bytes, entry: Callable[[str], Entry]
    ) -> list[bytes]:
        row = await transaction.first(self._unrevoked, {"ns": namespace, "token_id": token_id})
        if row is None:
            return []
        rows = [row] if row.family is None else await transaction.rows(self._family_unrevoked, {"kin": row.family})
        return await self._revoke_rows(transaction, namespace, rows, entry)

    async def _revoke_rows(
        self, transaction: Transaction, namespace: str, rows: Sequence[Any], entry: Callable[[str], Entry]
    ) -> list[bytes]:
        """Revoke rows that this transaction has locked."""
        ids = [bytes(row.id) for row in rows]
        entries = [(Account(namespace, "", row.user_id), entry(row.id.hex())) for row in rows]
        if ids:
            moments = [noted.at for _, noted in entries]
            await transaction.run(
                self._revoke, [{"token_id": token_id, "at": at} for token_id, at in zip(ids, moments, strict=True)]
            )
            await self._audit.append_each(transaction, entries)
        return ids

    async def end_all_issued(
        self, namespace: str, user_id: str, entry: Callable[[str], Entry], *, keep: bytes | None
    ) -> list[bytes]:
        ended: list[bytes] = []
        while batch := await self._end_some(namespace, user_id, entry, keep):
            ended += batch
            if len(batch) < _TOGETHER:
                break
        return ended

    @writes(Doubt.DONE)
    async def _end_some(
        self,
        transaction: Transaction,
        namespace: str,
        user_id: str,
        entry: Callable[[str], Entry],
        keep: bytes | None,
    ) -> list[bytes]:
        users = {"ns": namespace, "us": user_id}
        kept = await transaction.first(self._family_of, {**users, "token_id": keep or b""})
        kin = b"" if kept is None else kept.family or b""
        rows = await transaction.rows(self._others, {**users, "keep": keep or b"", "kin": kin, "count": _TOGETHER})
        return await self._revoke_rows(transaction, namespace, rows, entry)

    # --- refreshing

    async def spend(
        self, spent: IssuedRecord, grant: Grant, reused: Callable[[str], Entry], *, grace: timedelta, successors: int
    ) -> Spending:
        return await self._placed(
            lambda: self._spend_once(spent, grant, reused, grace=grace, successors=successors), [grant]
        )

    @writes(Doubt.REPEAT)
    async def _spend_once(
        self,
        transaction: Transaction,
        spent: IssuedRecord,
        grant: Grant,
        reused: Callable[[str], Entry],
        *,
        grace: timedelta,
        successors: int,
    ) -> Spending:
        at = grant.entry.at
        row = await transaction.first(self._spending, {"token_id": spent.id})
        if row is None or row.revoked_at is not None:
            return Spending.REFUSED
        if row.spent_at is not None:
            if await transaction.first(self._known, {"token_id": grant.records[0].id}) is not None:
                return Spending.DONE  # it is what this very grant did, when the answer to its COMMIT was lost
            kin = {"kin": spent.family, "gen": spent.generation}
            if at - row.spent_at >= grace or await transaction.first(self._later_spent, kin) is not None:
                family = await transaction.rows(self._family_unrevoked, kin)
                await self._revoke_rows(transaction, spent.namespace, family, reused)
                return Spending.REUSED
            if row.successors >= successors:
                return Spending.REFUSED
        first = row.spent_at or at
        used = {"token_id": spent.id, "at": first, "so_many": (row.successors or 0) + 1}
        await transaction.run(self._spend, used)
        await self._insert_all(transaction, [grant])
        return Spending.DONE

    # --- the rest

    @reads
    async def issued(
        self, transaction: Transaction, namespace: str, user_id: str, *, now: datetime, limit: int
    ) -> list[IssuedRecord]:
        parameters = {"ns": namespace, "us": user_id, "at": now, "count": limit}
        return [record(row) for row in await transaction.rows(self._listed, parameters)]

    async def count_issued_uses(self, uses: Sequence[tuple[bytes, int, datetime]]) -> None:
        if uses:  # in one order everywhere, so that two processes do not wait for each other
            await self._count([{"token_id": token_id, "uses": count, "at": at} for token_id, count, at in sorted(uses)])

    @writes()
    async def _count(self, transaction: Transaction, rows: Sequence[Mapping[str, Any]]) -> None:
        await transaction.run(self._use, rows)

    @writes(Doubt.DONE)
    async def redigest(
        self, transaction: Transaction, token_id: bytes, old: bytes, new: bytes, key_id: str | None
    ) -> bool:
        parameters = {"token_id": token_id, "old": old, "new": new, "key": key_id}
        return bool(await transaction.count(self._redigest, parameters))

    @writes(Doubt.DONE)
    async def erase_issued(self, transaction: Transaction, namespace: str, user_id: str, *, limit: int) -> int:
        rows = await transaction.rows(self._theirs, {"ns": namespace, "us": user_id, "count": limit})
        if rows:
            await transaction.run(self._delete, [{"token_id": bytes(row.id)} for row in rows])
        return len(rows)

    @writes(Doubt.REPEAT)
    async def purge_issued(
        self, transaction: Transaction, namespace: str, *, before: datetime, after: bytes, limit: int
    ) -> tuple[int, bytes | None]:
        end = first_id(day_of(before) + 1)
        edge = await transaction.first(self._boundary, {"after": after, "end": end, "count": limit - 1})
        upto = end if edge is None else bytes(edge.id)
        parameters = {"ns": namespace, "before": before, "after": after, "upto": upto}
        return await transaction.count(self._sweep, parameters), None if edge is None else upto

    @reports
    async def issued_statistics(
        self, transaction: Transaction, namespace: str, user_id: str, *, now: datetime
    ) -> Statistics:
        [row] = await transaction.rows(self._figures, {"ns": namespace, "us": user_id, "at": now})
        return Statistics(
            total_tokens=row.total,
            active_tokens=int(row.active),
            total_usage=int(row.used),
            avg_usage_per_token=int(row.used) / row.total if row.total else 0.0,
            last_generation=row.made,
            last_usage=row.last,
        )
