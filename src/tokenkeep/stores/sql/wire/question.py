"""A look-up in the words of the driver itself: for one key, and for many in one query."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

from sqlalchemy import ARRAY, BindParameter, ColumnElement, Dialect, Select, String, bindparam, func, select
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.sql.visitors import replacement_traverse

from tokenkeep.stores.sql.database import Asking
from tokenkeep.stores.sql.types import Instant, Json
from tokenkeep.stores.sql.wire.coalescing import Key, Row

type Fetch = Callable[[Key], Awaitable[Row]]


@runtime_checkable
class WritingWire(Protocol):
    """Runs transactions past SQLAlchemy, on a connection of its own."""

    async def transact[T](self, work: Callable[[Asking], Awaitable[T]], committing: Callable[[T], None]) -> T:
        """Run `work` in a transaction once; `committing` is told what it returned before that is committed.

        Its statements are those whose values the driver takes as they are.
        """


class Wire(Protocol):
    """Runs look-ups on connections of its own, prepared, which are not reset between them."""

    def fetching(self, question: Question) -> Fetch:
        """Return what finds the row of a key, undecoded."""

    def close(self) -> Awaitable[None] | None:
        """Close its connections."""

    def forget(self) -> None:
        """Let go of its connections without closing them: after a fork they are the parent's."""


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A SELECT of one row by its key.

    Attributes:
        one: takes the parts of a key as $1, $2 ...
        many: takes a list for each part, and returns before each row the number of its key, from 1.
        order: the names of the parts, in the order of the parameters.
        decoders: what to do with each column; `None` where nothing is to be done.
    """

    one: str
    many: str
    order: tuple[str, ...]
    decoders: tuple[Callable[[Any], Any] | None, ...]

    @classmethod
    def of(cls, statement: Select[Any], dialect: Dialect) -> Question:
        """Write a statement down."""
        numbered: Dialect = asyncpg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
        one = statement.compile(dialect=numbered)
        order = tuple(one.positiontup or ())
        many = _for_many(statement, order).compile(dialect=numbered)
        decoders = tuple(_decoder(column, dialect) for column in statement.selected_columns)
        return cls(str(one), str(many), order, decoders)


def _for_many(statement: Select[Any], order: Sequence[str]) -> Select[Any]:
    """Ask for each of a list of keys, each by the index: `unnest(...) AS k, LATERAL (SELECT ...) AS t`."""
    types = {item.key: String() if isinstance(item.type, String) else item.type for item in _parameters(statement)}
    lists = [bindparam(f"list_{name}", type_=ARRAY(types[name])) for name in order]
    keys = func.unnest(*lists).table_valued(*order, with_ordinality="n", name="k").render_derived()

    def replaced(element: Any, **_: Any) -> Any:
        return keys.c[element.key] if isinstance(element, BindParameter) else None

    found = cast("Select[Any]", replacement_traverse(statement, {}, replaced)).lateral("t")
    return select(keys.c.n, *found.c).select_from(keys, found)


def _parameters(statement: Select[Any]) -> list[BindParameter[Any]]:
    found: list[BindParameter[Any]] = []

    def noted(element: Any, **_: Any) -> Any:
        if isinstance(element, BindParameter):
            found.append(element)

    replacement_traverse(statement, {}, noted)
    return found


def _decoder(column: ColumnElement[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """Return what makes of a driver's value what SQLAlchemy would; JSON comes as text."""
    kind = column.type
    if isinstance(kind, Json):
        return lambda value: kind.process_result_value(json.loads(value), dialect)
    if isinstance(kind, Instant):
        return lambda value: kind.process_result_value(value, dialect)
    return None


def in_order(rows: Sequence[Sequence[Any]], count: int) -> list[Row]:
    """Put the numbered rows of `Question.many` to their keys."""
    found: list[Row] = [None] * count
    for row in rows:
        found[row[0] - 1] = row[1:]
    return found
