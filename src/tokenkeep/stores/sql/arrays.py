"""Many rows in one statement: a list for each column. For servers that have arrays, which is PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BindParameter,
    ColumnElement,
    Dialect,
    String,
    Table,
    TableValuedAlias,
    bindparam,
    cast,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.types import NULLTYPE, TypeEngine

from tokenkeep.stores.sql.types import Json, Prose

_NUMBER: Final = "number_of_the_row"


class Rows:
    """Rows that come as parameters, to be selected from.

    A column that is the same in all of them comes once, and its list is empty: but for the first, which says how many
    they are.

    Args:
        table: whose columns they are like.
        names: of the columns.
        label: begins the names of the parameters.
    """

    def __init__(self, table: Table, names: Iterable[str], label: str, dialect: Dialect) -> None:
        self._columns = [table.c[name] for name in names]
        self._label = label
        self._dialect = dialect
        self.table = table
        lists = [
            cast(self._parameter(f"list_{column.name}"), ARRAY(_plain(column.type))).label(column.name)
            for column in self._columns
        ]
        names = [column.name for column in self._columns]
        valued = func.unnest(*lists).table_valued(*names, with_ordinality=_NUMBER, name=label)
        self.source: TableValuedAlias = valued.render_derived()

    def _parameter(self, name: str) -> BindParameter[Any]:
        return bindparam(f"{self._label}_{name}", type_=NULLTYPE)

    def __getitem__(self, name: str) -> ColumnElement[Any]:
        """Return a column of the rows."""
        kind = self.table.c[name].type
        found = func.coalesce(self.source.c[name], cast(self._parameter(name), _plain(kind)))
        return cast(found, kind) if isinstance(kind, Json) else found

    def insertion(self) -> Insert:
        """Return the statement that adds them to the table, in their order."""
        names = [column.name for column in self._columns]
        chosen = select(*(self[name] for name in names)).order_by(self.source.c[_NUMBER])
        return insert(self.table).from_select(names, chosen)

    def parameters(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Turn rows into parameters."""
        found: dict[str, Any] = {}
        for place, column in enumerate(self._columns):
            name, kind = column.name, column.type
            values = [row[name] for row in rows]
            same = bool(place and values) and values.count(values[0]) == len(values)
            if isinstance(kind, Json | Prose):
                values = [self._written(kind, value) for value in (values[:1] if same else values)]
            found[f"{self._label}_list_{name}"] = [] if same else values
            found[f"{self._label}_{name}"] = values[0] if same else None
        return found

    def _written(self, kind: Json | Prose, value: Any) -> str | None:
        """Write JSON down: an array of it would be in each driver's own form."""
        if value is None or isinstance(kind, Prose):
            return kind.process_bind_param(value, self._dialect)
        return json.dumps(kind.process_bind_param(value, self._dialect))


def _plain(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    return String() if isinstance(kind, String | Json | Prose) else kind
