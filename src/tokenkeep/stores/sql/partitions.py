"""Partitions of the table of issued tokens: on PostgreSQL, and only where `tokenkeep db partition` made the table so.

A partition holds the ids of so many whole days, from a multiple of that number on. It is made beside the table and
then attached, which stops nobody. To drop one the whole table must be locked for a moment; whoever comes in that
moment waits for as long as we may wait for the lock, so that is short, and tried again. `DETACH CONCURRENTLY` would
lock less, but it waits for every open transaction, in no transaction of its own, and leaves a half-detached partition
when it is stopped.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import DDL, bindparam, func, select, text

from tokenkeep.buckets import BUCKET_BYTES, LAST_DAY, day_of, first_id, start_of
from tokenkeep.errors import StoreUnavailable
from tokenkeep.stores.sql.database import Database, Transaction
from tokenkeep.stores.sql.errors import NoPartition, Undone
from tokenkeep.stores.sql.repeating import Doubt, reads, writes
from tokenkeep.stores.sql.schema import Tables

WIDTH: Final = "issued_partition_days"
"""Under this name `meta` says how many days a partition holds."""

_LISTED: Final = text("""
    SELECT part.relname AS name, pg_catalog.pg_get_expr(part.relpartbound, part.oid) AS bound,
           pg_catalog.pg_has_role(parent.relowner, 'USAGE') AS ours,
           pg_catalog.pg_has_role(part.relowner, 'USAGE') AS part_is_ours
    FROM pg_catalog.pg_class AS parent
    LEFT JOIN pg_catalog.pg_inherits AS i ON i.inhparent = parent.oid
    LEFT JOIN pg_catalog.pg_class AS part ON part.oid = i.inhrelid
    WHERE parent.oid = pg_catalog.to_regclass(:parent) AND parent.relkind = 'p'
    ORDER BY part.relname
""")
_BOUND: Final = re.compile(r"FOR VALUES FROM \('\\x([0-9a-f]{4})0*'\) TO \((?:'\\x([0-9a-f]{4})0*'|MAXVALUE)\)")

_ONE_AT_A_TIME: Final = text("SELECT pg_catalog.pg_advisory_xact_lock(8316299830250469743)")
_PATIENCE: Final = text("SET LOCAL lock_timeout = '3s'")
_SHORT_PATIENCE: Final = text("SET LOCAL lock_timeout = '50ms'")
_CREATE: Final = "CREATE TABLE %(partition)s (LIKE %(parent)s INCLUDING ALL)"
_ATTACH: Final = "ALTER TABLE %(parent)s ATTACH PARTITION %(partition)s FOR VALUES FROM ('\\x%(first)s') TO (%(end)s)"
_DETACH: Final = "ALTER TABLE %(parent)s DETACH PARTITION %(partition)s"
_DROP: Final = "DROP TABLE %(partition)s"
_TOP: Final = "MAXVALUE"


class Partition(NamedTuple):
    """One partition: the days from `first` on, before `end`. `ours`: this user may drop it."""

    name: str
    first: int
    end: int
    ours: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """How the table is divided.

    Attributes:
        days: that a partition holds; `None`: it was divided by somebody else.
        partitions: those that are understood, by their days.
        strangers: the names of the others, such as a default partition.
        ours: whether this user may make partitions.
    """

    days: int | None
    partitions: tuple[Partition, ...]
    strangers: tuple[str, ...]
    ours: bool

    def missing(self, wanted: Collection[int]) -> list[int]:
        """Return the first days of the partitions that these days need and that are not there."""
        there = {day for part in self.partitions for day in range(part.first, part.end)}
        return sorted({day - day % (self.days or 1) for day in wanted if day not in there})

    def faults(self) -> list[str]:
        """Return a sentence for each thing that is not as `tokenkeep db partition` leaves it."""
        found = [f"a partition of issued tokens that is not ours: {name}" for name in self.strangers]
        if self.days is None:
            found.append("issued tokens are in partitions that `tokenkeep db partition` did not make")
        return found


class SqlPartitions:
    """Implements `Partitions`.

    Attributes:
        parent: the quoted name of the whole table.
    """

    def __init__(self, database: Database, tables: Tables) -> None:
        self._database = database
        self._issued = tables.issued
        self.parent = database.dialect.identifier_preparer.format_table(tables.issued)
        c = tables.issued.c
        others = func.count().filter(c.namespace != bindparam("ns"))  # of no namespace: a null counts none
        self._counted = select(
            func.count().label("rows"), others.label("others"), func.max(c.expires_at).label("latest")
        ).where(c.id >= bindparam("first"), c.id < bindparam("end"))
        self._width = select(tables.meta.c.value).where(tables.meta.c.name == WIDTH)

    @reads
    async def layout(self, transaction: Transaction) -> Layout | None:
        """Return how the table is divided; `None`: it is one table."""
        return await self._layout(transaction)

    async def _layout(self, transaction: Transaction) -> Layout | None:
        rows = await transaction.rows(_LISTED, {"parent": self.parent})
        if not rows:
            return None
        width = await transaction.first(self._width)
        known, strangers = [], []
        for name, bound, _, ours in rows:
            read = _BOUND.fullmatch(bound or "")
            if read is not None:
                end = LAST_DAY + 1 if read[2] is None else int(read[2], 16)
                known.append(Partition(name, int(read[1], 16), end, ours))
            elif name is not None:
                strangers.append(name)
        days = None if width is None else int(width.value)
        return Layout(days, tuple(sorted(known, key=_first)), tuple(strangers), rows[0].ours)

    # --- making

    async def placed[T](self, write: Callable[[], Awaitable[T]], ids: Collection[bytes]) -> T:
        """Write rows with these ids; when their partition is not there, make it and write again.

        Raises:
            StoreUnavailable: it is not there, and this user may not make it.
        """
        try:
            return await write()
        except NoPartition:
            pass  # what follows is no part of its handling: its error would hang on as the context
        days = {int.from_bytes(row_id[:BUCKET_BYTES]) for row_id in ids}
        layout = await self.layout()
        if layout is None or layout.days is None or not layout.ours:
            raise self._nowhere(days if layout is None else layout.missing(days))
        await self._make(days)
        return await write()

    def _nowhere(self, days: Collection[int]) -> StoreUnavailable:
        last = start_of(max(days, default=0)).date()
        return StoreUnavailable(
            f"{self._database.name} has no partition for tokens that end on {last}, and this user may not make one: "
            "run `tokenkeep db maintain` as the owner of the tables, with an --ahead that reaches that day"
        )

    async def make_partitions(self, first: datetime, last: datetime) -> int:
        wanted = range(day_of(first), day_of(last) + 1)
        layout = await self.layout()
        if layout is None or layout.days is None or not layout.ours or not layout.missing(wanted):
            return 0
        return await self._make(wanted)

    @writes(Doubt.REPEAT)
    async def _make(self, transaction: Transaction, wanted: Collection[int]) -> int:
        await transaction.run(_PATIENCE)
        await transaction.run(_ONE_AT_A_TIME)
        layout = await self._layout(transaction)
        if layout is None or layout.days is None:
            return 0
        missing = layout.missing(wanted)
        for first in missing:
            names = self._names(f"{self._issued.name}_{start_of(first):%Y%m%d}")
            end = first_id(first + layout.days)
            bounds = {"first": first_id(first).hex(), "end": f"'\\x{end.hex()}'" if len(end) == BUCKET_BYTES else _TOP}
            await transaction.run(ddl(_CREATE, names))
            await transaction.run(ddl(_ATTACH, names | bounds))
        return len(missing)

    def _names(self, partition: str) -> dict[str, str]:
        preparer = self._database.dialect.identifier_preparer
        schema = self._issued.schema
        qualified = f"{preparer.quote_schema(schema)}." if schema else ""
        return {"parent": self.parent, "partition": f"{qualified}{preparer.quote(partition)}"}

    # --- dropping

    async def drop_ended(self, namespace: str | None, *, before: datetime) -> int:
        layout = await self.layout()
        if layout is None or not layout.ours:
            return 0
        dropped = 0
        for part in layout.partitions:
            if part.ours and part.end <= day_of(before):
                dropped += await self._drop_if_over(part, namespace, before)
        return dropped

    async def _drop_if_over(self, part: Partition, namespace: str | None, before: datetime) -> int:
        figures = await self._count(part, namespace)
        if figures.others or (figures.latest is not None and figures.latest >= before):
            return 0
        try:
            dropped = await self._drop(part)
        except Undone:  # somebody reads it all the time, such as a backup
            return 0
        return int(figures.rows) if dropped else 0

    @reads
    async def _count(self, transaction: Transaction, part: Partition, namespace: str | None) -> Any:
        """Count what is in a partition that nobody writes to any more. It reads the whole of it, and nothing else."""
        bounds = {"first": first_id(part.first), "end": first_id(part.end)}
        return await transaction.first(self._counted, {**bounds, "ns": namespace})

    @writes(Doubt.DONE)
    async def _drop(self, transaction: Transaction, part: Partition) -> bool:
        """Drop a partition; `False` when somebody else has."""
        await transaction.run(_SHORT_PATIENCE)
        await transaction.run(_ONE_AT_A_TIME)
        layout = await self._layout(transaction)
        if layout is None or part not in layout.partitions:
            return False
        names = self._names(part.name)
        await transaction.run(ddl(_DETACH, names))
        await transaction.run(ddl(_DROP, names))
        return True


def ddl(statement: str, names: dict[str, str]) -> DDL:
    """Put quoted names into a statement."""
    return DDL(statement, context=names)  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped


def _first(part: Partition) -> int:
    return part.first
