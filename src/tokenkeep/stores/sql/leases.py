"""Single-flight in SQL: one row an account, changed only by conditional updates."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    update,
)

from tokenkeep.model import Account
from tokenkeep.ports import Clock, Entry, Failure, Lease, LeaseState, Right
from tokenkeep.stores.sql.audit import SqlAudit
from tokenkeep.stores.sql.database import Database, Transaction
from tokenkeep.stores.sql.errors import Conflict
from tokenkeep.stores.sql.repeating import Doubt, reads, writes
from tokenkeep.stores.sql.schema import Tables
from tokenkeep.stores.sql.types import to_microseconds

_MICROSECONDS: Final = 1_000_000

_DATABASE_CLOCK: Final = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
    "mysql": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
    "mariadb": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
}
"""Microseconds since 1970-01-01 UTC by the database's own clock."""


class SqlLeases:
    """Implements `LeaseStore`.

    Args:
        clock: times the leases instead of the database's own clock; `None` where hosts may disagree.
    """

    def __init__(self, database: Database, tables: Tables, audit: SqlAudit, *, clock: Clock | None) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock
        self._statements(tables)

    def _statements(self, tables: Tables) -> None:
        table, c = tables.lease, tables.lease.c
        given = bindparam("now", type_=BigInteger)
        clock: ColumnElement[int] = literal_column(_DATABASE_CLOCK[self._database.dialect.name], BigInteger)
        now = func.coalesce(given, clock)
        ours = and_(c.namespace == bindparam("ns"), c.provider == bindparam("pr"), c.user_id == bindparam("us"))
        mine = and_(ours, c.owner == bindparam("me"), c.fence == bindparam("my_fence"))
        ttl = bindparam("ttl", type_=BigInteger)
        never = bindparam("never", type_=BigInteger)
        self._state = select(
            c.fence, c.owner, c.until, c.failed_fence, c.failure, c.reason, c.retry_at, now.label("now")
        ).where(ours)
        self._insert = insert(table).values(
            namespace=bindparam("ns"), provider=bindparam("pr"), user_id=bindparam("us"),
            fence=0, until=0, failures=0, reason="",
        )  # fmt: skip
        self._take = (
            update(table)
            .where(ours, or_(c.owner.is_(None), c.until <= now))
            .values(owner=bindparam("me"), fence=c.fence + 1, until=now + ttl)
        )
        self._taken = select(c.owner, c.fence, c.begun, c.fingerprint, c.failures).where(ours)
        self._keep = update(table).where(mine, c.until > now).values(until=now + ttl)
        self._intend = update(table).where(mine).values(begun=c.fence, fingerprint=bindparam("print"))
        free = {"owner": None, "until": 0}
        done = {"begun": None, "fingerprint": None}
        well = {"failures": 0, "failed_fence": None, "failure": None, "reason": "", "retry_at": None}
        self._release = update(table).where(mine).values(**free)
        self._succeed = update(table).where(mine).values(**free, **done, **well)
        unheld = and_(ours, c.owner.is_(None), c.begun.is_(None))
        self._pass = update(table).where(unheld).values(**well, fence=c.fence + 1)
        self._fail = update(table).where(mine).values(
            **free,
            **done,
            failures=c.failures + 1,
            failed_fence=c.fence,
            failure=bindparam("failure_name"),
            reason=bindparam("why"),
            retry_at=case((never == 1, null()), else_=now + bindparam("retry", type_=BigInteger)),
        )  # fmt: skip
        self._break = update(table).where(ours).values(**free, fence=c.fence + 1)
        self._forget = delete(table).where(ours, c.owner.is_(None))
        steps = tables.step
        self._claim = (
            update(steps)
            .where(steps.c.account == bindparam("key"), steps.c.step <= bindparam("after"))
            .values(step=bindparam("upto"))
        )
        self._first_claim = insert(steps).values(account=bindparam("key"), step=bindparam("upto"))
        self._claimed = select(steps.c.step).where(steps.c.account == bindparam("key"))

    def _at(self, account: Account, **more: Any) -> dict[str, Any]:
        """The parameters of every statement about an account; `now` is null for the database's clock."""
        now = None if self._clock is None else to_microseconds(self._clock.now())
        return {"ns": account.namespace, "pr": account.provider, "us": account.user_id, "now": now, **more}

    def _mine(self, lease: Lease, **more: Any) -> dict[str, Any]:
        return self._at(lease.account, me=lease.owner, my_fence=lease.fence, **more)

    @reads
    async def lease_state(self, transaction: Transaction, account: Account) -> LeaseState:
        row = await transaction.first(self._state, self._at(account))
        if row is None:
            return LeaseState()
        never = row.failure is not None and row.retry_at is None
        return LeaseState(
            fence=row.fence,
            held_for=0.0 if row.owner is None else max(0.0, (row.until - row.now) / _MICROSECONDS),
            failed_fence=row.failed_fence,
            failure=row.failure,
            reason=row.reason,
            retry_in=None if never else max(0.0, ((row.retry_at or 0) - row.now) / _MICROSECONDS),
        )

    async def take_lease(self, account: Account, owner: str, ttl: timedelta) -> Lease | None:
        try:
            return await self._take_or_make(account, owner, ttl)
        except Conflict:  # somebody else made the row in the same moment
            return None

    @writes(Doubt.REPEAT)
    async def _take_or_make(
        self, transaction: Transaction, account: Account, owner: str, ttl: timedelta
    ) -> Lease | None:
        parameters = self._at(account, me=owner, ttl=_microseconds(ttl))
        took = await transaction.count(self._take, parameters)
        taken = await transaction.first(self._taken, parameters)
        if taken is None:
            await transaction.run(self._insert, parameters)
            await transaction.run(self._take, parameters)
            taken = (await transaction.rows(self._taken, parameters))[0]
        elif not took and taken.owner != owner:  # an owner asks once, so what is his he took when the answer was lost
            return None
        return Lease(
            account=account,
            owner=owner,
            fence=taken.fence,
            unfinished=taken.begun,
            fingerprint=taken.fingerprint,
            failures=taken.failures,
        )

    @writes(Doubt.REPEAT)
    async def keep_lease(self, transaction: Transaction, lease: Lease, ttl: timedelta) -> bool:
        return bool(await transaction.count(self._keep, self._mine(lease, ttl=_microseconds(ttl))))

    @writes(Doubt.REPEAT)
    async def note_intent(self, transaction: Transaction, lease: Lease, fingerprint: bytes | None) -> bool:
        return bool(await transaction.count(self._intend, self._mine(lease, print=fingerprint)))

    @writes(Doubt.DONE)
    async def drop_lease(
        self, transaction: Transaction, lease: Lease, failure: Failure | None, entry: Entry | None
    ) -> bool:
        if failure is None:
            return bool(await transaction.count(self._release, self._mine(lease)))
        parameters = self._mine(
            lease,
            failure_name=failure.failure,
            why=failure.reason,
            never=int(failure.retry_in is None),
            retry=int((failure.retry_in or 0) * _MICROSECONDS),
        )
        dropped = bool(await transaction.count(self._fail, parameters))
        if dropped and entry is not None:
            await self._audit.append(transaction, lease.account, [entry])
        return dropped

    async def finish(self, transaction: Transaction, right: Right) -> bool:
        """Give the lease back after a success, in the transaction that writes the tokens; `False` when it is lost."""
        if isinstance(right, Lease):
            return bool(await transaction.count(self._succeed, self._mine(right)))
        at = self._at(right.account)
        if await transaction.count(self._pass, at):
            return True
        if await transaction.first(self._taken, at) is not None:
            return False
        await transaction.run(self._insert, at)
        return bool(await transaction.count(self._pass, at))

    async def break_lease(self, transaction: Transaction, account: Account) -> None:
        """Take the right to write from whoever holds the lease, in the transaction that revokes."""
        await transaction.run(self._break, self._at(account))

    async def forget_lease(self, transaction: Transaction, account: Account) -> None:
        """Delete the row that nobody holds, in the transaction that erases the account."""
        await transaction.run(self._forget, self._at(account))

    async def claim_step(self, key: bytes, *, after: int, upto: int) -> bool:
        try:
            return await self._claim_or_first(key, after, upto)
        except Conflict:
            return False

    @writes(Doubt.REPEAT)  # where the answer was lost the step counts as claimed by another: a code is never used twice
    async def _claim_or_first(self, transaction: Transaction, key: bytes, after: int, upto: int) -> bool:
        parameters = {"key": key, "after": after, "upto": upto}
        if await transaction.count(self._claim, parameters):
            return True
        if await transaction.first(self._claimed, parameters) is not None:
            return False
        await transaction.run(self._first_claim, parameters)
        return True


def _microseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
