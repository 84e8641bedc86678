"""Whole rows, in and out of SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, Insert, Select, bindparam, func, insert, select, tuple_
from sqlalchemy import Table as SqlTable

from tokenkeep.ports import Room, Row
from tokenkeep.stores.sql.database import Database, Transaction
from tokenkeep.stores.sql.partitions import SqlPartitions
from tokenkeep.stores.sql.repeating import Doubt, reads, writes
from tokenkeep.stores.sql.schema import Tables


class _Statements(NamedTuple):
    key: tuple[Column[Any], ...]
    total: Select[Any]
    first: Select[Any]
    next: Select[Any]
    add: Insert


class SqlTransfer:
    """Implements `Transferable`."""

    def __init__(self, database: Database, tables: Tables, partitions: SqlPartitions | None) -> None:
        self._database = database
        self._partitions = partitions
        self._rooms = {room: _statements(getattr(tables, room.value)) for room in Room}
        audit = tables.audit
        name = database.dialect.identifier_preparer.format_table(audit)
        highest = select(func.max(audit.c.id)).scalar_subquery()
        self._go_on = select(func.setval(func.pg_get_serial_sequence(name, "id"), highest, type_=BigInteger))

    @reads
    async def count_rows(self, transaction: Transaction, room: Room) -> int:
        row = await transaction.first(self._rooms[room].total)
        return int(row[0])

    @reads
    async def read_rows(self, transaction: Transaction, room: Room, *, after: Row | None, limit: int) -> list[Row]:
        statements = self._rooms[room]
        past = {} if after is None else {f"past_{column.name}": after[column.name] for column in statements.key}
        statement = statements.first if after is None else statements.next
        return [_plain(row) for row in await transaction.rows(statement, {**past, "count": limit})]

    async def add_rows(self, room: Room, rows: Sequence[Row]) -> int:
        if self._partitions is None or room is not Room.ISSUED:
            return await self._add_rows(room, rows)
        return await self._partitions.placed(lambda: self._add_rows(room, rows), [row["id"] for row in rows])

    @writes(Doubt.REPEAT)
    async def _add_rows(self, transaction: Transaction, room: Room, rows: Sequence[Row]) -> int:
        statements = self._rooms[room]
        keys = [tuple(row[column.name] for column in statements.key) for row in rows]
        there = {tuple(row) for row in await transaction.rows(_known(statements.key, keys))} if keys else set()
        new = [dict(row) for row, key in zip(rows, keys, strict=True) if key not in there]
        if new:
            await transaction.run(statements.add, new)
        if new and room is Room.AUDIT and self._database.dialect.name == "postgresql":
            await transaction.run(self._go_on)  # the next event of a program goes behind those that came with their ids
        return len(new)


def _statements(table: SqlTable) -> _Statements:
    key = tuple(table.primary_key.columns)
    past = tuple_(*(bindparam(f"past_{column.name}", type_=column.type) for column in key))
    first = select(table).order_by(*key).limit(bindparam("count"))
    return _Statements(
        key=key,
        total=select(func.count()).select_from(table),
        first=first,
        next=first.where(tuple_(*key) > past),
        add=insert(table),
    )


def _known(key: tuple[Column[Any], ...], values: Sequence[tuple[Any, ...]]) -> Select[Any]:
    if len(key) == 1:
        return select(*key).where(key[0].in_([value for (value,) in values]))
    return select(*key).where(tuple_(*key).in_(values))


def _plain(row: Any) -> Row:
    values = row._asdict()  # documented, of a row and of a named tuple
    return {name: bytes(value) if isinstance(value, memoryview) else value for name, value in values.items()}
