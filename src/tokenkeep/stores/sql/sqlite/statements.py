"""Statements of SQLAlchemy, compiled once and run on SQLite's own driver."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import ClauseElement, ColumnElement, Dialect, Executable, LargeBinary, Select

from tokenkeep._kept import Kept

MOST: Final = 1000
"""Statements that are kept; there are fewer in the whole program."""

type Values = Mapping[str, Any]
type Change = Callable[[Any], Any]
type Changes = Sequence[tuple[int, Change]]
"""What becomes of the values at some places; null is null everywhere."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as the driver takes it.

    Attributes:
        pick: puts values in the order of the question marks, with those that stand in the statement.
        encoders: what to do with them.
        row: makes a row of values that can be asked for by name; `None` where the statement names no columns.
        decoders: what to do with the columns first.
    """

    source: Executable
    sql: str
    pick: Callable[[Values], list[Any]]
    encoders: Changes
    row: Callable[[Sequence[Any]], Any] | None
    decoders: Changes

    def bound(self, values: Values) -> list[Any]:
        """Put values in the order of the question marks; others are left out."""
        return _changed(self.pick(values), self.encoders)

    def decoded(self, row: Sequence[Any]) -> Any:
        """Make of what the driver returned what SQLAlchemy would."""
        return row if self.row is None else self.row(_changed(list(row), self.decoders))


def _changed(values: list[Any], changes: Changes) -> list[Any]:
    for place, change in changes:
        value = values[place]
        if value is not None:
            values[place] = change(value)
    return values


class Statements:
    """Compiles each constant once for each set of parameters that it is run with. Safe to use from threads."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._kept: Kept[tuple[int, tuple[str, ...]], Statement | None] = Kept(MOST)

    def compiled(self, source: Executable, values: Values) -> Statement | None:
        """Return the statement; `None` for one whose text depends on its values, which SQLAlchemy has to run."""
        key = (id(source), tuple(values))
        kept = self._kept.get(key)
        if kept is not None and kept.source is source:
            return kept
        made = self._compile(source, sorted(values))
        if made is not None:
            self._kept.keep(key, made)
        return made

    def _compile(self, source: Executable, names: list[str]) -> Statement | None:
        assert isinstance(source, ClauseElement)  # noqa: S101  # what can be executed is one
        compiled: Any = source.compile(dialect=self._dialect, column_keys=names)
        binds = compiled.bind_names  # one name may stand at several places, and have a type at only one of them
        if any(bind.expanding for bind in binds):
            return None
        encoders = {name: encode for bind, name in binds.items() if (encode := self._encoder(bind)) is not None}
        fixed = {name: bind.effective_value for bind, name in binds.items() if not bind.required}
        order: list[str] = compiled.positiontup
        columns: list[ColumnElement[Any]] = list(source.selected_columns) if isinstance(source, Select) else []
        kind: Any = namedtuple("Row", [str(column.key) for column in columns], rename=True) if columns else None  # noqa: PYI024  # the names are those of the statement
        decoders = [self._of(column.type).result_processor(self._dialect, None) for column in columns]
        return Statement(
            source, str(compiled), _picking(order, fixed), _at([encoders.get(name) for name in order]),
            None if kind is None else kind._make, _at(decoders),
        )  # fmt: skip

    def _encoder(self, bind: Any) -> Change | None:
        kind = self._of(bind.type)
        if isinstance(kind, LargeBinary):
            return None  # SQLAlchemy wraps bytes for drivers that would take them for text
        encoder: Change | None = kind.bind_processor(self._dialect)
        return encoder

    def _of(self, kind: Any) -> Any:
        return kind.dialect_impl(self._dialect)


def _at(changes: Sequence[Change | None]) -> Changes:
    return [(place, change) for place, change in enumerate(changes) if change is not None]


def _picking(names: Sequence[str], fixed: Values) -> Callable[[Values], list[Any]]:
    """Put values in the order of `names`; what is `fixed` need not be given."""
    if len(names) > 1 and not fixed:
        picked = itemgetter(*names)  # a tuple at one go
        return lambda values: list(picked(values))
    return lambda values: [values.get(name, fixed[name]) if name in fixed else values[name] for name in names]
