"""The audit trail in SQL, and its chains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import batched, groupby
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BindParameter,
    Dialect,
    Executable,
    String,
    and_,
    any_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    union,
    update,
)
from sqlalchemy.exc import IntegrityError

from tokenkeep.model import Account, Action, AuditEvent
from tokenkeep.ports import START, Chain, Entry, Link, Mark, Proof, TrailKeys
from tokenkeep.stores.sql.appending import Appending
from tokenkeep.stores.sql.arrays import Rows
from tokenkeep.stores.sql.database import Asking, Database, Transaction
from tokenkeep.stores.sql.errors import Undone
from tokenkeep.stores.sql.repeating import Doubt, reads, reports, writes
from tokenkeep.stores.sql.schema import Tables
from tokenkeep.trail import User, linked, prove_purge, purged_up_to

_ASKED_FOR: Final = 500
"""Users whose heads one statement reads."""

type _Values = Sequence[Mapping[str, Any]]

_UNSET: Final[Mapping[str, Any]] = {
    f"{name}{part}": value
    for name in ("vouched", "purged")
    for part, value in {"": START.sequence, "_digest": START.digest, "_proof": None, "_key_id": None}.items()
}
"""The marks of a chain that begins."""


class SqlAudit:
    """Implements `ChainedAudit`; `append` writes within the transaction of a change.

    It comes last in a transaction: the heads that it locks, in one order everywhere, are held until the commit.
    """

    def __init__(self, database: Database, tables: Tables, *, actor: str) -> None:
        self._database = database
        self._actor = actor
        self._keys: TrailKeys | None = None
        self._has_arrays = database.dialect.name == "postgresql"
        self._statements(tables)
        self._head_statements(tables)
        self._tables = tables
        self._at_once = self.appending()

    def appending(self, beside: Callable[[Dialect], Rows] | None = None) -> Appending | None:
        """Return what appends in one statement, with rows of another table; `None` where the server has no arrays."""
        dialect = self._database.dialect
        if not self._has_arrays:
            return None
        return Appending(self._tables, dialect, _UNSET, beside=None if beside is None else beside(dialect))

    def _statements(self, tables: Tables) -> None:
        table, c = tables.audit, tables.audit.c
        users = and_(c.namespace == bindparam("namespace"), c.user_id == bindparam("user_id"))
        self._insert = insert(table)
        shown = select(c.action, c.user_id, c.token_id, c.at, c.actor, c.detail)
        self._trail = shown.where(users).order_by(c.id.desc()).limit(bindparam("count"))
        self._links = select(table).where(users, c.id > bindparam("past")).order_by(c.id).limit(bindparam("count"))
        self._count = select(func.count()).where(c.namespace == bindparam("namespace"))
        earlier = table.alias("earlier")
        younger = exists().where(
            earlier.c.namespace == c.namespace,
            earlier.c.user_id == c.user_id,
            earlier.c.id < c.id,
            earlier.c.at >= bindparam("before"),
        )
        self._oldest = (
            select(c.id, c.user_id, c.sequence, c.digest)
            .where(c.namespace == bindparam("namespace"), c.at < bindparam("before"), ~younger)
            .order_by(c.id)
            .limit(bindparam("count"))
            .with_for_update()
        )
        self._delete = delete(table).where(c.id == bindparam("event"))

    def _head_statements(self, tables: Tables) -> None:
        table, c = tables.audit_head, tables.audit_head.c
        this = and_(c.namespace == bindparam("ns"), c.user_id == bindparam("us"))
        self._head = select(table).where(this)
        listed: BindParameter[Any] = bindparam("users", type_=ARRAY(String))
        of_them = c.user_id == any_(listed) if self._has_arrays else c.user_id.in_(bindparam("users", expanding=True))
        several = and_(c.namespace == bindparam("ns"), of_them)
        marks = select(c.user_id, c.sequence, c.digest)
        self._held_head = marks.where(this).with_for_update()
        self._held_heads = marks.where(several).order_by(c.user_id).with_for_update()
        self._held_chain = select(table).where(this).with_for_update()
        self._held_chains = select(table).where(several).order_by(c.user_id).with_for_update()
        self._insert_head = insert(table)
        self._move_head = (
            update(table).where(this).values({name: bindparam(f"new_{name}") for name in ("sequence", "digest")})
        )
        self._mark_purge = (
            update(table)
            .where(this)
            .values(
                {
                    name: bindparam(f"new_{name}")
                    for name in ("purged", "purged_digest", "purged_proof", "purged_key_id")
                }
            )
        )
        self._unvouched = (
            select(table)
            .where(tuple_(c.namespace, c.user_id) > tuple_(bindparam("past_namespace"), bindparam("past_user")))
            .where(or_(c.vouched_key_id.is_(None), c.vouched_key_id != bindparam("newest")))
            .order_by(c.namespace, c.user_id)
            .limit(bindparam("count"))
        )
        marks_of = ("vouched", "vouched_digest", "vouched_proof", "vouched_key_id", "purged_proof", "purged_key_id")
        self._vouch = (
            update(table)
            .where(this, c.purged == bindparam("seen_purged"))
            .values({name: bindparam(f"new_{name}") for name in marks_of})
        )
        names = [
            select(column.label("name"))
            .where(namespace == bindparam("ns"), column > bindparam("after"))
            .order_by(column)
            .distinct()
            .limit(bindparam("count"))
            .subquery()
            for namespace, column in (
                (c.namespace, c.user_id),
                (tables.audit.c.namespace, tables.audit.c.user_id),
            )
        ]
        both = union(*(select(part.c.name) for part in names)).subquery()
        self._users = select(both.c.name).order_by(both.c.name).limit(bindparam("count"))

    def use_keys(self, keys: TrailKeys | None) -> None:
        self._keys = keys

    # --- appending

    async def append(self, transaction: Transaction, account: Account, entries: Sequence[Entry]) -> None:
        """Write events in the transaction of the change that they tell of."""
        await self.append_each(transaction, [(account, entry) for entry in entries])

    async def append_each(self, transaction: Transaction, entries: Sequence[tuple[Account, Entry]]) -> None:
        """Write events of several accounts in the transaction of the change that they tell of."""
        if self._at_once is not None:
            await self.append_at_once(transaction, entries, self._at_once)
        elif entries:
            events, begun, moved = await self._following(transaction, entries)
            await self._begin(transaction, begun)
            await self._move(transaction, moved)
            await transaction.run(self._insert, events)

    async def append_at_once(
        self, asking: Asking, entries: Sequence[tuple[Account, Entry]], at_once: Appending, *, beside: _Values = ()
    ) -> None:
        """Do the same by one statement, which `appending` returned, with rows of the other table `beside`."""
        if not entries:
            return
        events, begun, moved = await self._following(asking, entries)
        if not await at_once.append(asking, events, begun=begun, moved=moved, beside=beside):
            raise self._contended()

    async def _following(
        self, asking: Asking, entries: Sequence[tuple[Account, Entry]]
    ) -> tuple[_Values, _Values, _Values]:
        """Link events to the heads of their chains; return them, and the heads that begin and those that move."""
        held = await self._held(asking, {(account.namespace, account.user_id) for account, _ in entries})
        links, last = linked(entries, held, actor=self._actor, keys=self._keys)
        users = sorted(last)
        begun = [{**_user(last[user]), **_marked(last[user])} for user in users if user not in held]
        moved = [{**_user(last[user]), **_marked(last[user])} for user in users if user in held]
        return [_row(link) for link in links], begun, moved

    async def _held(self, asking: Asking, users: Iterable[User]) -> dict[User, Mark]:
        """Lock the heads of chains, in the order of their users, so that nobody else appends before the commit."""
        held: dict[User, Mark] = {}
        for namespace, group in groupby(sorted(users), itemgetter(0)):
            for names in batched((name for _, name in group), _ASKED_FOR):
                rows = await self._lock(asking, self._held_head, self._held_heads, namespace, names)
                held |= {(namespace, name): Mark(sequence, bytes(digest)) for name, sequence, digest in rows}
        return held

    async def _lock(
        self, asking: Asking, one: Executable, several: Executable, namespace: str, names: Sequence[str]
    ) -> Sequence[Any]:
        """Lock heads by one statement; on SQLite by one for each, which there costs less than a longer one."""
        if len(names) > 1 and self._database.dialect.name != "sqlite":
            return await asking.rows(several, {"ns": namespace, "users": list(names)})
        rows = [await asking.first(one, {"ns": namespace, "us": name}) for name in names]
        return [row for row in rows if row is not None]

    async def _begin(self, transaction: Transaction, heads: Sequence[Mapping[str, Any]]) -> None:
        try:
            if heads:
                await transaction.run(self._insert_head, [{**head, **_UNSET} for head in heads])
        except IntegrityError:
            raise self._contended() from None

    def _contended(self) -> Undone:
        msg = f"{self._database.name}: others keep beginning the trail of the same user; try again"
        return Undone(msg, contention=True)

    async def _move(self, transaction: Transaction, heads: Sequence[Mapping[str, Any]]) -> None:
        rows = [
            {
                "ns": head["namespace"],
                "us": head["user_id"],
                "new_sequence": head["sequence"],
                "new_digest": head["digest"],
            }
            for head in heads
        ]
        if rows:
            await transaction.run(self._move_head, rows[0] if len(rows) == 1 else rows)

    @writes()
    async def note(self, transaction: Transaction, account: Account, entry: Entry) -> None:
        await self.append(transaction, account, [entry])

    @writes()
    async def note_each(self, transaction: Transaction, noted: Sequence[tuple[Account, Entry]]) -> None:
        await self.append_each(transaction, noted)

    # --- reading

    @reports
    async def audit_trail(
        self, transaction: Transaction, namespace: str, user_id: str, *, limit: int
    ) -> list[AuditEvent]:
        rows = await transaction.rows(self._trail, {"namespace": namespace, "user_id": user_id, "count": limit})
        return [
            AuditEvent(
                action=Action(row.action),
                user_id=row.user_id,
                token_id=row.token_id,
                at=row.at,
                actor=row.actor,
                detail=row.detail,
            )
            for row in rows
        ]

    @reads
    async def count_audit(self, transaction: Transaction, namespace: str) -> int:
        return int((await transaction.rows(self._count, {"namespace": namespace}))[0][0])

    @reads
    async def audited_users(self, transaction: Transaction, namespace: str, *, after: str, limit: int) -> list[str]:
        rows = await transaction.rows(self._users, {"ns": namespace, "after": after, "count": limit})
        return [row.name for row in rows]

    @reads
    async def chain(self, transaction: Transaction, namespace: str, user_id: str) -> Chain:
        row = await transaction.first(self._head, {"ns": namespace, "us": user_id})
        return Chain(head=None) if row is None else _chain(row)

    @reads
    async def links(
        self, transaction: Transaction, namespace: str, user_id: str, *, after: int, limit: int
    ) -> list[Link]:
        parameters = {"namespace": namespace, "user_id": user_id, "past": after, "count": limit}
        try:
            return [_link(row) for row in await transaction.rows(self._links, parameters)]
        except (TypeError, OverflowError) as error:  # what was put into a column of SQLite may be of any type
            raise ValueError(str(error)) from None

    # --- upkeep

    @writes(Doubt.DONE)
    async def purge_audit(self, transaction: Transaction, namespace: str, before: datetime, *, limit: int) -> int:
        parameters = {"namespace": namespace, "before": before, "count": limit}
        rows = await transaction.rows(self._oldest, parameters)
        if not rows:
            return 0
        users = sorted({row.user_id for row in rows if row.sequence is not None})
        heads = await self._lock(transaction, self._held_chain, self._held_chains, namespace, users)
        marks = [self._purged((namespace, row.user_id), _chain(row), rows) for row in heads]
        if marks:
            await transaction.run(self._mark_purge, marks)
        await transaction.run(self._delete, [{"event": row.id} for row in rows])
        return len(rows)

    def _purged(self, user: User, chain: Chain, rows: Sequence[Any]) -> dict[str, Any]:
        namespace, name = user
        going = [_mark(row.sequence, row.digest) for row in rows if row.user_id == name and row.sequence is not None]
        mark = purged_up_to(chain, going)
        proof = chain.purged_proof if mark == chain.purged else prove_purge(mark, self._keys)
        new = {"purged": mark.sequence, "purged_digest": mark.digest}
        return {"ns": namespace, "us": name, **_new(new | _proved(proof, "purged_"))}

    @reads
    async def unvouched(
        self, transaction: Transaction, key_id: str, *, after: tuple[str, str], limit: int
    ) -> list[tuple[str, str, Chain]]:
        past = {"past_namespace": after[0], "past_user": after[1]}
        rows = await transaction.rows(self._unvouched, {"newest": key_id, **past, "count": limit})
        return [(row.namespace, row.user_id, _chain(row)) for row in rows]

    @writes(Doubt.REPEAT)
    async def vouch(self, transaction: Transaction, namespace: str, user_id: str, chain: Chain) -> bool:
        vouched = {"vouched": chain.vouched.sequence, "vouched_digest": chain.vouched.digest}
        new = _new(vouched | _proved(chain.vouched_proof, "vouched_") | _proved(chain.purged_proof, "purged_"))
        this = {"ns": namespace, "us": user_id, "seen_purged": chain.purged.sequence}
        return bool(await transaction.count(self._vouch, {**this, **new}))


def _row(link: Link) -> dict[str, Any]:
    namespace, provider, user_id = link.account
    entry, (code, key_id), (sequence, digest) = link.entry, link.proof, link.mark or START
    return {
        "namespace": namespace,
        "provider": provider or None,
        "user_id": user_id,
        "action": entry.action.value,
        "token_id": entry.token_id,
        "at": entry.at,
        "actor": link.actor,
        "detail": dict(entry.detail),
        "sequence": sequence,
        "digest": digest,
        "proof": code,
        "key_id": key_id,
    }


def _user(link: Link) -> dict[str, Any]:
    return {"namespace": link.account.namespace, "user_id": link.account.user_id}


def _marked(link: Link) -> dict[str, Any]:
    sequence, digest = link.mark or START
    return {"sequence": sequence, "digest": digest}


def _proved(proof: Proof, prefix: str) -> dict[str, Any]:
    return {f"{prefix}proof": proof.code, f"{prefix}key_id": proof.key_id}


def _new(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"new_{name}": value for name, value in values.items()}


def _link(row: Any) -> Link:
    entry = Entry(action=Action(row.action), at=row.at, token_id=row.token_id, detail=row.detail)
    return Link(
        account=Account(row.namespace, row.provider or "", row.user_id),
        entry=entry,
        actor=row.actor,
        mark=None if row.sequence is None else _mark(row.sequence, row.digest),
        proof=_proof(row.proof, row.key_id),
        place=row.id,
    )


def _chain(row: Any) -> Chain:
    return Chain(
        head=_mark(row.sequence, row.digest),
        vouched=_mark(row.vouched, row.vouched_digest),
        vouched_proof=_proof(row.vouched_proof, row.vouched_key_id),
        purged=_mark(row.purged, row.purged_digest),
        purged_proof=_proof(row.purged_proof, row.purged_key_id),
    )


def _mark(sequence: int, digest: bytes | None) -> Mark:
    return Mark(int(sequence), bytes(digest or b""))


def _proof(code: bytes | None, key_id: str | None) -> Proof:
    return Proof(None if code is None else bytes(code), None if key_id is None else str(key_id))
