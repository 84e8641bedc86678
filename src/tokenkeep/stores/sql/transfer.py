"""Whole rows, in and out of SQL."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from sqlalchemy import BigInteger, Column, Dialect, Insert, Select, bindparam, func, insert, select, tuple_
from sqlalchemy import Table as SqlTable
from sqlalchemy.dialects import sqlite

from tokenkeep.ports import Room, Row
from tokenkeep.stores.sql.arrays import Rows
from tokenkeep.stores.sql.database import Database, Transaction
from tokenkeep.stores.sql.errors import Conflict
from tokenkeep.stores.sql.partitions import SqlPartitions
from tokenkeep.stores.sql.repeating import Doubt, reads, writes
from tokenkeep.stores.sql.schema import Tables

if TYPE_CHECKING:
    from tokenkeep.stores.sql.servers.psycopg_copying import Copier


_TOGETHER: Final = {"postgresql": 5000, "sqlite": 5000}
"""Rows in one transaction: the more, the less a commit costs each of them."""


class _Statements(NamedTuple):
    """What one kind of row needs.

    Attributes:
        add_new: leaves out what is there, where that takes no question of its own.
        lists: the same for many rows at once.
        copy: adds rows none of which is there.
    """

    key: tuple[Column[Any], ...]
    total: Select[Any]
    first: Select[Any]
    next: Select[Any]
    add: Insert
    add_new: Insert | None
    lists: _Lists | None
    copy: Copier | None


class _Lists(NamedTuple):
    """A statement that adds what is not there yet, and the rows that it takes."""

    rows: Rows
    add: Insert

    @classmethod
    def of(cls, table: SqlTable, dialect: Dialect) -> Self:
        rows = Rows(table, [column.name for column in table.columns], "row", dialect)
        add = rows.insertion().on_conflict_do_nothing(index_elements=list(table.primary_key.columns))
        return cls(rows, add.execution_options(preserve_rowcount=True))


class SqlTransfer:
    """Implements `Transferable`."""

    def __init__(self, database: Database, tables: Tables, partitions: SqlPartitions | None) -> None:
        self._database = database
        self._tables = tables
        self._partitions = partitions
        self.together = _TOGETHER.get(database.dialect.name, 500)
        self._rooms: dict[Room, _Statements] = {}

    def _of(self, room: Room) -> _Statements:
        """Make the statements when they are first wanted: most programs never move a store."""
        if room not in self._rooms:
            self._rooms[room] = _statements(getattr(self._tables, room.value), self._database.dialect)
        return self._rooms[room]

    @reads
    async def count_rows(self, transaction: Transaction, room: Room) -> int:
        row = await transaction.first(self._of(room).total)
        return int(row[0])

    @reads
    async def read_rows(self, transaction: Transaction, room: Room, *, after: Row | None, limit: int) -> list[Row]:
        statements = self._of(room)
        past = {} if after is None else {f"past_{column.name}": after[column.name] for column in statements.key}
        statement = statements.first if after is None else statements.next
        return [_plain(row) for row in await transaction.rows(statement, {**past, "count": limit})]

    async def add_rows(self, room: Room, rows: Sequence[Row]) -> int:
        if self._partitions is None or room is not Room.ISSUED:
            return await self._add_somehow(room, rows)
        return await self._partitions.placed(lambda: self._add_somehow(room, rows), [row["id"] for row in rows])

    async def _add_somehow(self, room: Room, rows: Sequence[Row]) -> int:
        """Add rows in the fastest way there is; the others leave out what is there already."""
        statements = self._of(room)
        if statements.copy is not None and rows:
            with suppress(Conflict):
                return await self._copy_rows(room, statements.copy, rows)
        if statements.lists is not None:
            return await self._add_lists(room, statements.lists, rows)
        return await self._add_rows(statements, rows)

    @writes(Doubt.REPEAT)
    async def _copy_rows(self, transaction: Transaction, room: Room, copy: Copier, rows: Sequence[Row]) -> int:
        await transaction.plainly(lambda connection: copy(connection, rows))
        await self._go_on_behind(transaction, room)
        return len(rows)

    @writes(Doubt.REPEAT)
    async def _add_lists(self, transaction: Transaction, room: Room, lists: _Lists, rows: Sequence[Row]) -> int:
        added = await transaction.count(lists.add, lists.rows.parameters(rows))
        if added:
            await self._go_on_behind(transaction, room)
        return added

    async def _go_on_behind(self, transaction: Transaction, room: Room) -> None:
        """Let the next event of a program go behind those that came with their ids."""
        if room is Room.AUDIT:
            audit = self._tables.audit
            name = self._database.dialect.identifier_preparer.format_table(audit)
            highest = select(func.max(audit.c.id)).scalar_subquery()
            await transaction.run(
                select(func.setval(func.pg_get_serial_sequence(name, "id"), highest, type_=BigInteger))
            )

    @writes(Doubt.REPEAT)
    async def _add_rows(self, transaction: Transaction, statements: _Statements, rows: Sequence[Row]) -> int:
        if statements.add_new is not None:
            return await transaction.count(statements.add_new, rows) if rows else 0
        keys = [tuple(row[column.name] for column in statements.key) for row in rows]
        there = {tuple(row) for row in await transaction.rows(_known(statements.key, keys))} if keys else set()
        new = [dict(row) for row, key in zip(rows, keys, strict=True) if key not in there]
        if new:
            await transaction.run(statements.add, new)
        return len(new)


def _statements(table: SqlTable, dialect: Dialect) -> _Statements:
    key = tuple(table.primary_key.columns)
    past = tuple_(*(bindparam(f"past_{column.name}", type_=column.type) for column in key))
    first = select(table).order_by(*key).limit(bindparam("count"))
    return _Statements(
        key=key,
        total=select(func.count()).select_from(table),
        first=first,
        next=first.where(tuple_(*key) > past),
        add=insert(table),
        add_new=sqlite.insert(table).on_conflict_do_nothing(key) if dialect.name == "sqlite" else None,
        lists=_Lists.of(table, dialect) if dialect.name == "postgresql" else None,
        copy=_copier(table, dialect),
    )


def _copier(table: SqlTable, dialect: Dialect) -> Copier | None:
    if dialect.driver != "psycopg" or dialect.is_async:
        return None
    from tokenkeep.stores.sql.servers.psycopg_copying import Copier  # noqa: PLC0415  # drivers are imported when they are wanted

    return Copier(table)


def _known(key: tuple[Column[Any], ...], values: Sequence[tuple[Any, ...]]) -> Select[Any]:
    if len(key) == 1:
        return select(*key).where(key[0].in_([value for (value,) in values]))
    return select(*key).where(tuple_(*key).in_(values))


def _plain(row: Any) -> Row:
    values = row._asdict()  # documented, of a row and of a named tuple
    return {name: bytes(value) if isinstance(value, memoryview) else value for name, value in values.items()}
