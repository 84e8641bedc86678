"""Committing a change of ours without committing what is the caller's.

The caller's session may hold objects that nobody has decided upon yet. What it has flushed is marked on it by
events; SQLAlchemy tells of the rest itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy.event import listen
from sqlalchemy.orm import Mapper, Session, SessionTransaction, SessionTransactionOrigin

_WRITTEN: Final = "tokenkeep: flushed and not committed"


def untouched(session: Session) -> bool:
    """Tell whether no transaction is open and nothing waits: one that begins now is ours alone."""
    return not session.in_transaction() and not _pending(session)


@contextmanager
def durable(session: Session, mapper: Mapper[Any]) -> Iterator[Session]:
    """Yield the session in which to make a change of this mapper's table, committed at the end of the block.

    It is the caller's when nothing in it waits to be committed. It is one of our own, on a second connection, when
    there are objects that have not been flushed. When there are changes in an open transaction, or the caller opened
    one by `begin`, ours joins them and is committed or rolled back with them.
    """
    if _joined(session):
        with _savepoint(session):
            yield session
    elif _pending(session):
        with Session(session.get_bind(mapper), expire_on_commit=False) as own:
            yield own
            own.commit()
    else:
        try:
            yield session
            commit(session)
        except BaseException:
            session.rollback()
            raise


def commit(session: Session) -> None:
    """Commit, and let what the caller has loaded stay loaded: a lazy load is an error on an async session."""
    expires, session.expire_on_commit = session.expire_on_commit, False
    try:
        session.commit()
    finally:
        session.expire_on_commit = expires


@contextmanager
def _savepoint(session: Session) -> Iterator[None]:
    """Keep a failure of ours from the caller's changes; with nothing before it, SQLite would commit a savepoint."""
    if session.info.get(_WRITTEN, False):
        with session.begin_nested():
            yield
    else:
        yield
        session.flush()


def _pending(session: Session) -> bool:
    return bool(session.new or session.deleted or session.dirty)


def _joined(session: Session) -> bool:
    transaction = session.get_transaction()
    return transaction is not None and (
        session.info.get(_WRITTEN, False)
        or session.in_nested_transaction()
        or transaction.origin is SessionTransactionOrigin.BEGIN
    )


def _mark(session: Session, _context: Any) -> None:
    session.info[_WRITTEN] = True


def _mark_bulk(context: Any) -> None:
    context.session.info[_WRITTEN] = True


def _unmark(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info.pop(_WRITTEN, None)


listen(Session, "after_flush", _mark)
listen(Session, "after_bulk_update", _mark_bulk)
listen(Session, "after_bulk_delete", _mark_bulk)
listen(Session, "after_transaction_end", _unmark)
