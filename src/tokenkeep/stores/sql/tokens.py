"""Acquired tokens in SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, and_, bindparam, case, delete, func, insert, or_, select, update

from tokenkeep.model import Account, EndReason, Statistics, TokenInfo
from tokenkeep.ports import Entry, Right, TokenRecord, Use, may_still_be_good
from tokenkeep.stores.sql.audit import SqlAudit
from tokenkeep.stores.sql.database import Database, Transaction
from tokenkeep.stores.sql.errors import Conflict
from tokenkeep.stores.sql.leases import SqlLeases
from tokenkeep.stores.sql.lookup import Lookup
from tokenkeep.stores.sql.repeating import Doubt, reads, reports, writes
from tokenkeep.stores.sql.schema import IN_PLACE, Tables
from tokenkeep.stores.sql.servers.postgresql_bell import TELL, topic_of
from tokenkeep.stores.sql.sqlite.reading import FileReader
from tokenkeep.stores.sql.wire.question import Wire


class SqlTokens:
    """Implements `TokenStore`."""

    def __init__(
        self,
        database: Database,
        tables: Tables,
        audit: SqlAudit,
        leases: SqlLeases,
        *,
        reader: FileReader | Wire | None,
    ) -> None:
        self._database = database
        self._audit = audit
        self._leases = leases
        self._tells = database.dialect.name == "postgresql"
        self._read_statements(tables)
        self._write_statements(tables)
        self._lookup = Lookup(database, self._in_place, reader, record_of)

    def _read_statements(self, tables: Tables) -> None:
        table, c = tables.token, tables.token.c
        account = and_(c.namespace == bindparam("ns"), c.provider == bindparam("pr"), c.user_id == bindparam("us"))
        record = select(*columns_of(tables))
        alive = and_(
            c.active == IN_PLACE, c.rejected_at.is_(None), or_(c.expires_at.is_(None), c.expires_at > bindparam("at"))
        )
        info = select(
            c.id, c.namespace, c.provider, c.user_id, c.kind, c.version, c.token_type, c.scope, c.created_at,
            c.expires_at, c.rejected_at, c.ended_at, c.end_reason, c.last_used_at, c.usage_count, c.profile, c.metadata,
            case((alive, 1), else_=0).label("alive"),
        )  # fmt: skip
        self._in_place = record.where(account, c.kind == bindparam("kind"), c.active == IN_PLACE)
        self._all_in_place = record.where(account, c.active == IN_PLACE).order_by(c.kind)
        self._versions = select(c.kind, func.max(c.version)).where(account).group_by(c.kind)
        self._known = select(c.id).where(c.id == bindparam("token_id"))
        self._history = info.where(account).order_by(c.created_at.desc(), c.version.desc()).limit(bindparam("count"))
        made = info.where(
            c.namespace == bindparam("ns"), c.created_at >= bindparam("start"), c.created_at < bindparam("end")
        )
        newest = (c.created_at.desc(), c.version.desc())
        self._made = made.order_by(*newest).limit(bindparam("count"))
        self._made_for = made.where(c.user_id == bindparam("us")).order_by(*newest).limit(bindparam("count"))
        figures = select(
            func.count().label("total"),
            func.coalesce(func.sum(case((alive, 1), else_=0)), 0).label("active"),
            func.coalesce(func.sum(c.usage_count), 0).label("used"),
            func.max(c.created_at).label("made"),
            func.max(c.last_used_at).label("last"),
        ).select_from(table)
        self._figures = figures.where(account)
        self._figures_of_kind = figures.where(account, c.kind == bindparam("kind"))
        ended = select(c.id).where(account, c.active.is_(None))
        self._ended = ended.where(c.revoke_at.is_(None)).limit(bindparam("count"))
        self._wished = ended.where(c.revoke_at.is_not(None))
        # One provider after the other, along the index: no index has the user before the provider.
        self._next_provider = select(func.min(c.provider)).where(
            c.namespace == bindparam("ns"), c.provider > bindparam("past")
        )
        self._any_of = select(c.id).where(account).limit(1)
        self._sealed = (
            record.where(c.key_id.in_(bindparam("keys", expanding=True)), c.id > bindparam("after"))
            .where(or_(c.access_sealed.is_not(None), c.refresh_sealed.is_not(None)))
            .order_by(c.id)
            .limit(bindparam("count"))
        )

    def _write_statements(self, tables: Tables) -> None:
        table, c = tables.token, tables.token.c
        account = and_(c.namespace == bindparam("ns"), c.provider == bindparam("pr"), c.user_id == bindparam("us"))
        ended = {"active": None, "access_sealed": None, "refresh_sealed": None}
        self._insert = insert(table).returning(TELL) if self._tells else insert(table)
        ending = (
            update(table)
            .where(account, c.kind == bindparam("of_kind"), c.active == IN_PLACE)
            .values(active=None, ended_at=bindparam("at"), end_reason=bindparam("why"))
        )
        self._end = ending.values(**ended)
        self._wish = ending.values(revoke_at=bindparam("at"))
        self._reject = (
            update(table)
            .where(c.id == bindparam("token_id"), c.active == IN_PLACE, c.rejected_at.is_(None))
            .values(rejected_at=bindparam("at"))
        )
        self._use = (
            update(table)
            .where(c.id == bindparam("token_id"))
            .values(
                usage_count=c.usage_count + bindparam("uses"),
                last_used_at=case(
                    (or_(c.last_used_at.is_(None), c.last_used_at < bindparam("at")), bindparam("at")),
                    else_=c.last_used_at,
                ),
            )
        )
        spent = and_(c.namespace == bindparam("ns"), c.expires_at < bindparam("expired"), c.refresh_sealed.is_(None))
        spent = and_(spent, c.active == IN_PLACE)
        dead = or_(c.ended_at < bindparam("ended"), and_(c.active == IN_PLACE, c.expires_at < bindparam("ended")))
        self._spent = select(c.id).where(spent, c.access_sealed.is_not(None)).order_by(c.id).limit(bindparam("count"))
        self._erase = (
            update(table)
            .where(c.id == bindparam("token_id"), spent)
            .values(**ended, ended_at=bindparam("expired"), end_reason=EndReason.EXPIRED.value)
        )
        self._dead = select(c.id).where(c.namespace == bindparam("ns"), dead).order_by(c.id).limit(bindparam("count"))
        self._delete = delete(table).where(c.id == bindparam("token_id"))
        self._reseal = (
            update(table)
            .where(c.id == bindparam("token_id"), c.key_id == bindparam("old_key"), c.version == bindparam("seen"))
            .where(or_(c.access_sealed.is_not(None), c.refresh_sealed.is_not(None)))
            .values(access_sealed=bindparam("access"), refresh_sealed=bindparam("refresh"), key_id=bindparam("new_key"))
        )

    async def load(self, account: Account, kind: str) -> TokenRecord | None:
        return await self._lookup.find(*account, kind)

    @reads
    async def loaded(self, transaction: Transaction, account: Account) -> list[TokenRecord]:
        return [record_of(row) for row in await transaction.rows(self._all_in_place, _at(account))]

    @reads
    async def versions(self, transaction: Transaction, account: Account) -> dict[str, int]:
        return {row[0]: row[1] for row in await transaction.rows(self._versions, _at(account))}

    async def replace(self, records: Sequence[TokenRecord], right: Right, entries: Sequence[Entry]) -> bool:
        try:
            return await self._replace(records, right, entries)
        except Conflict:
            return await self._is_known(records[0].id)

    @reads
    async def _is_known(self, transaction: Transaction, token_id: str) -> bool:
        return await transaction.first(self._known, {"token_id": token_id}) is not None

    @writes(Doubt.REPEAT)
    async def _replace(
        self, transaction: Transaction, records: Sequence[TokenRecord], right: Right, entries: Sequence[Entry]
    ) -> bool:
        if not await self._leases.finish(transaction, right):
            return await transaction.first(self._known, {"token_id": records[0].id}) is not None
        said = {"topic": topic_of(right.account)} if self._tells else {}
        for record in records:
            why = EndReason.REPLACED.value
            this = {**_at(record.account), "of_kind": record.kind, "why": why, "at": record.created_at}
            await transaction.run(self._end, this)
            await transaction.run(self._insert, {**_values(record), **said})
        await self._audit.append(transaction, right.account, entries)
        return True

    @writes(Doubt.DONE)
    async def reject(self, transaction: Transaction, token_id: str, account: Account, entry: Entry) -> bool:
        rejected = bool(await transaction.count(self._reject, {"token_id": token_id, "at": entry.at}))
        if rejected:
            await self._audit.append(transaction, account, [entry])
        return rejected

    @writes(Doubt.DONE)
    async def revoke(
        self, transaction: Transaction, account: Account, entry: Callable[[str], Entry], *, wishing: bool
    ) -> int:
        await self._leases.break_lease(transaction, account)
        rows = [record_of(row) for row in await transaction.rows(self._all_in_place, _at(account))]
        entries = [entry(row.id) for row in rows]
        for row, noted in zip(rows, entries, strict=True):
            end = self._wish if wishing and may_still_be_good(row, noted.at) else self._end
            this = {**_at(account), "of_kind": row.kind, "why": EndReason.REVOKED.value, "at": noted.at}
            await transaction.run(end, this)
        await self._audit.append(transaction, account, entries)
        return len(entries)

    async def history(self, account: Account, *, now: datetime, limit: int) -> list[TokenInfo]:
        return await self._infos(self._history, {**_at(account), "at": now, "count": limit})

    async def created_between(
        self, namespace: str, start: datetime, end: datetime, *, user_id: str | None, now: datetime, limit: int
    ) -> list[TokenInfo]:
        parameters = {"ns": namespace, "start": start, "end": end, "at": now, "count": limit}
        if user_id is None:
            return await self._infos(self._made, parameters)
        return await self._infos(self._made_for, {**parameters, "us": user_id})

    @reports
    async def _infos(self, transaction: Transaction, statement: Any, parameters: Mapping[str, Any]) -> list[TokenInfo]:
        return [_info(row) for row in await transaction.rows(statement, parameters)]

    @reports
    async def statistics(
        self, transaction: Transaction, account: Account, *, kind: str | None, now: datetime
    ) -> Statistics:
        statement = self._figures if kind is None else self._figures_of_kind
        [row] = await transaction.rows(statement, {**_at(account), "at": now, "kind": kind})
        return Statistics(
            total_tokens=row.total,
            active_tokens=int(row.active),
            total_usage=int(row.used),
            avg_usage_per_token=int(row.used) / row.total if row.total else 0.0,
            last_generation=row.made,
            last_usage=row.last,
        )

    async def count_uses(self, uses: Sequence[Use]) -> None:
        if uses:  # in one order everywhere, so that two processes do not wait for each other
            in_order = sorted(uses, key=lambda use: use.token_id)
            await self._count(
                [{"token_id": use.token_id, "uses": use.count, "at": use.last_used_at} for use in in_order]
            )

    @writes()
    async def _count(self, transaction: Transaction, rows: Sequence[Mapping[str, Any]]) -> None:
        await transaction.run(self._use, rows)

    @writes(Doubt.DONE)
    async def purge(
        self, transaction: Transaction, namespace: str, *, expired_before: datetime, ended_before: datetime, limit: int
    ) -> tuple[int, int]:
        parameters = {"ns": namespace, "expired": expired_before, "ended": ended_before, "count": limit}
        dead = [{"token_id": row.id} for row in await transaction.rows(self._dead, parameters)]
        if dead:
            await transaction.run(self._delete, dead)
        spent = [{**parameters, "token_id": row.id} for row in await transaction.rows(self._spent, parameters)]
        if spent:
            await transaction.run(self._erase, spent)
        return len(spent), len(dead)

    @reads
    async def providers_of(self, transaction: Transaction, namespace: str, user_id: str) -> list[str]:
        found, past = [], ""
        while past := (await transaction.first(self._next_provider, {"ns": namespace, "past": past}))[0] or "":
            if await transaction.first(self._any_of, _at(Account(namespace, past, user_id))) is not None:
                found.append(past)
        return found

    @writes(Doubt.DONE)
    async def erase(self, transaction: Transaction, account: Account, *, limit: int) -> tuple[int, int]:
        rows = await transaction.rows(self._ended, {**_at(account), "count": limit})
        if rows:
            await transaction.run(self._delete, [{"token_id": row.id} for row in rows])
        if len(rows) < limit:
            await self._leases.forget_lease(transaction, account)
        return len(rows), len(await transaction.rows(self._wished, _at(account)))

    @reads
    async def sealed_under(
        self, transaction: Transaction, key_ids: Sequence[str], *, after: str, limit: int
    ) -> list[TokenRecord]:
        rows = await transaction.rows(self._sealed, {"keys": list(key_ids), "after": after, "count": limit})
        return [record_of(row) for row in rows]

    @writes(Doubt.DONE)
    async def reseal(self, transaction: Transaction, pairs: Sequence[tuple[TokenRecord, TokenRecord]]) -> int:
        return sum([await transaction.count(self._reseal, _swap(old, new)) for old, new in pairs])


def _at(account: Account) -> dict[str, Any]:
    return {"ns": account.namespace, "pr": account.provider, "us": account.user_id}


def columns_of(tables: Tables) -> list[Column[Any]]:
    """Return the columns that make a record, in the order of `record_of`."""
    c = tables.token.c
    return [
        c.id, c.namespace, c.provider, c.user_id, c.kind, c.version, c.access_sealed, c.refresh_sealed, c.key_id,
        c.token_type, c.scope, c.created_at, c.expires_at, c.last_used_at, c.usage_count, c.rejected_at, c.profile,
        c.metadata,
    ]  # fmt: skip


def record_of(row: Sequence[Any]) -> TokenRecord:
    """Build a record from the columns of `columns_of`."""
    (
        row_id, namespace, provider, user_id, kind, version, access, refresh, key_id, token_type, scope,
        created_at, expires_at, last_used_at, usage_count, rejected_at, profile, metadata,
    ) = row  # fmt: skip
    return TokenRecord(
        id=row_id,
        account=Account(namespace, provider, user_id),
        kind=kind,
        version=version,
        access_sealed=access,
        refresh_sealed=refresh,
        key_id=key_id,
        token_type=token_type,
        scope=tuple(scope),
        created_at=created_at,
        expires_at=expires_at,
        last_used_at=last_used_at,
        usage_count=usage_count,
        rejected=rejected_at is not None,
        profile=profile,
        metadata=metadata,
    )


def _values(record: TokenRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        **record.account._asdict(),
        "kind": record.kind,
        "version": record.version,
        "active": 1,
        "access_sealed": record.access_sealed,
        "refresh_sealed": record.refresh_sealed,
        "key_id": record.key_id,
        "token_type": record.token_type,
        "scope": list(record.scope),
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "last_used_at": record.last_used_at,
        "usage_count": record.usage_count,
        "profile": dict(record.profile),
        "metadata": dict(record.metadata),
    }


def _swap(old: TokenRecord, new: TokenRecord) -> dict[str, Any]:
    return {
        "token_id": old.id,
        "seen": old.version,
        "old_key": old.key_id,
        "new_key": new.key_id,
        "access": new.access_sealed,
        "refresh": new.refresh_sealed,
    }


def _info(row: Any) -> TokenInfo:
    values = row._asdict()  # documented, of a row and of a named tuple
    active = bool(values.pop("alive"))
    reason = values.pop("end_reason")
    values["scope"] = tuple(values["scope"])
    return TokenInfo(**values, end_reason=None if reason is None else EndReason(reason), active=active)
