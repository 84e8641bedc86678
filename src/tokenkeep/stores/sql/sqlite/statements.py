"""Statements of SQLAlchemy, compiled once and run on SQLite's own driver."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import ClauseElement, ColumnElement, Dialect, Executable, Select

from tokenkeep._kept import Kept

MOST: Final = 1000
"""Statements that are kept; there are fewer in the whole program."""

_GIVEN: Final = object()
"""In the place of a value that stands in the statement: it has to be given."""

type Values = Mapping[str, Any]
type Change = Callable[[Any], Any]


class Parameter(NamedTuple):
    """One question mark: where its value comes from, and what becomes of it on the way to the driver."""

    name: str
    fixed: Any
    encode: Change | None


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as the driver takes it.

    Attributes:
        row: makes a row of values that can be asked for by name; `None` where the statement names no columns.
        decoders: what to do with each column; `None` where nothing is to be done.
    """

    source: Executable
    sql: str
    parameters: Sequence[Parameter]
    row: Callable[..., Any] | None
    decoders: Sequence[Change | None]

    def bound(self, values: Values) -> list[Any]:
        """Put values in the order of the question marks; others are left out."""
        bound = []
        for name, fixed, encode in self.parameters:
            value = values[name] if fixed is _GIVEN else values.get(name, fixed)
            bound.append(value if encode is None else encode(value))
        return bound

    def decoded(self, row: Sequence[Any]) -> Any:
        """Make of what the driver returned what SQLAlchemy would."""
        if self.row is None:
            return row
        return self.row(
            *[
                value if decode is None or value is None else decode(value)
                for decode, value in zip(self.decoders, row, strict=True)
            ]
        )


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
        fixed = {name: _GIVEN if bind.required else bind.effective_value for bind, name in binds.items()}
        parameters = [Parameter(name, fixed[name], encoders.get(name)) for name in compiled.positiontup]
        columns: list[ColumnElement[Any]] = list(source.selected_columns) if isinstance(source, Select) else []
        kind = namedtuple("Row", [str(column.key) for column in columns], rename=True) if columns else None  # noqa: PYI024  # the names are those of the statement
        decoders = [self._of(column.type).result_processor(self._dialect, None) for column in columns]
        return Statement(source, str(compiled), parameters, kind, decoders)

    def _encoder(self, bind: Any) -> Change | None:
        encoder: Change | None = self._of(bind.type).bind_processor(self._dialect)
        return encoder

    def _of(self, kind: Any) -> Any:
        return kind.dialect_impl(self._dialect)
