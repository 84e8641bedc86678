"""Events of the trail, the heads of their chains and the rows that they tell of, all in one statement of PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import CTE, Dialect, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from tokenkeep.stores.sql.arrays import Rows
from tokenkeep.stores.sql.database import Asking
from tokenkeep.stores.sql.schema import Tables

_HEAD: Final = ("digest", "namespace", "user_id", "sequence")
_EVENT: Final = (
    *("digest", "namespace", "provider", "user_id", "action", "token_id", "at", "actor", "detail", "sequence"),
    *("proof", "key_id"),
)


class Appending:
    """What would be a statement for each kind of row, and a round trip for each.

    Args:
        unset: the other columns of a head that begins.
        beside: rows of another table that are added with the events.
    """

    def __init__(
        self, tables: Tables, dialect: Dialect, unset: Mapping[str, Any], *, beside: Rows | None = None
    ) -> None:
        audit, heads = tables.audit, tables.audit_head
        self._events = Rows(audit, _EVENT, "event", dialect)
        self._begun = Rows(heads, _HEAD, "begun", dialect)
        self._moved = Rows(heads, _HEAD, "moved", dialect)
        self._beside = beside
        others = {name: literal(value, heads.c[name].type) for name, value in unset.items()}
        begun = (
            insert(heads)
            .from_select([*_HEAD, *others], select(*(self._begun[name] for name in _HEAD), *others.values()))
            .on_conflict_do_nothing()
            .returning(heads.c.sequence)
            .cte("heads_begun")
        )
        here = (heads.c[name] == self._moved[name] for name in ("namespace", "user_id"))
        moved = update(heads).where(*here).values({name: self._moved[name] for name in ("sequence", "digest")})
        changes: list[CTE] = [moved.cte("heads_moved"), self._events.insertion().cte("events_written")]
        if beside is not None:
            changes.append(beside.insertion().cte("rows_added"))
        self._statement = select(func.count()).select_from(begun).add_cte(*changes)

    async def append(
        self,
        asking: Asking,
        events: Sequence[Mapping[str, Any]],
        *,
        begun: Sequence[Mapping[str, Any]],
        moved: Sequence[Mapping[str, Any]],
        beside: Sequence[Mapping[str, Any]] = (),
    ) -> bool:
        """Write them; `False` when somebody else has begun one of the chains: then the transaction must not commit."""
        parameters = {
            **self._events.parameters(events),
            **self._begun.parameters(begun),
            **self._moved.parameters(moved),
            **({} if self._beside is None else self._beside.parameters(beside)),
        }
        row = await asking.first(self._statement, parameters)
        return int(row[0]) == len(begun)
