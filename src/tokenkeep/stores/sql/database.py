"""What a SQL database is asked: transactions go in, rows come out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, Dialect, Executable

from tokenkeep.errors import StoreError
from tokenkeep.stores.sql.repeating import Doubt
from tokenkeep.stores.sql.servers.replica import Replica

type Values = Mapping[str, Any]
type Parameters = Values | Sequence[Values]


class Asking(Protocol):
    """An open transaction as far as rows go."""

    async def first(self, statement: Executable, parameters: Values | None = None) -> Any:
        """Return the first row, or `None`."""

    async def rows(self, statement: Executable, parameters: Values | None = None) -> Sequence[Any]:
        """Return all rows."""


class Transaction(Asking, Protocol):
    """An open transaction: statements go in, rows come out."""

    async def run(self, statement: Executable, parameters: Parameters | None = None) -> None:
        """Execute a statement once, or once for each of a list of parameters."""

    async def count(self, statement: Executable, parameters: Parameters | None = None) -> int:
        """Execute a change and return how many rows it matched."""

    async def plainly(self, function: Callable[[Connection], Any]) -> Any:
        """Call a function that wants SQLAlchemy's plain connection, such as `MetaData.create_all`."""


class Database(Protocol):
    """Transactions on one database.

    Attributes:
        name: what errors call the database; never a data source name.
    """

    @property
    def name(self) -> str: ...  # stands above

    @property
    def dialect(self) -> Dialect:
        """Whose SQL it speaks."""

    @property
    def replica(self) -> Replica | None:
        """What may answer reports in its place."""

    async def read[T](self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `work` in a transaction that only reads, again when the connection is lost."""

    async def report[T](self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Like `read`, but what comes back may be older: from the replica while that answers."""

    async def write[T](self, work: Callable[[Transaction], Awaitable[T]], doubt: Doubt = Doubt.TELL) -> T:
        """Run `work` in a transaction that commits after it and rolls back on an error.

        Until it commits nothing has happened, so it may run again; it must change nothing but the database.
        """

    def as_ours(self, error: BaseException) -> StoreError:
        """Return a driver's error as one of ours, to be raised where the original is no longer handled."""

    async def close(self) -> None:
        """Close what it opened. Safe to repeat."""

    def forget_connections(self) -> None:
        """Let go of every connection without closing it: they belong to the parent after a fork."""
