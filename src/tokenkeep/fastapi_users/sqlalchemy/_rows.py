"""What is done in the table of access tokens, on a plain session."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, Generic

from sqlalchemy import ColumnElement, delete, inspect, or_, select, update
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from tokenkeep.errors import ConfigurationError
from tokenkeep.fastapi_users._originals import AP
from tokenkeep.fastapi_users.sqlalchemy._durable import commit, durable, untouched
from tokenkeep.fastapi_users.sqlalchemy._shown import kept_forms, show
from tokenkeep.fastapi_users.sqlalchemy._tables import SQLAlchemyBaseRichAccessTokenTable
from tokenkeep.fastapi_users.sqlalchemy._types import AtRest, TokenAtRest, utc
from tokenkeep.marked import is_marked, marked_digest, presentable

LONGEST: Final = 255
"""Characters of a token that is looked up in a column without a length."""

BATCH: Final = 1000
"""Rows that one transaction deletes."""


class TokenRows(Generic[AP]):  # noqa: UP046  # fastapi-users' own type variables
    """The rows of one model. Every method takes the session to work in.

    Args:
        model: the mapped class of the table.
        user_table: the mapped class of its users, where both are to be read in one statement.
        accept_clear: whether a token in clear from before is accepted.
        now: tells the time.

    Raises:
        ConfigurationError: the model's `token` column is not one that digests.
    """

    def __init__(self, model: type[AP], user_table: Any, *, accept_clear: bool, now: Callable[[], datetime]) -> None:
        mapper: Any = inspect(model)
        columns = mapper.columns
        if not isinstance(columns.token.type, TokenAtRest):
            msg = (
                f"{model.__name__}.token does not digest: derive {model.__name__} from SQLAlchemyBaseAccessTokenTable, "
                f"or declare the column as mapped_column(TokenAtRest(43))"
            )
            raise ConfigurationError(msg)
        self.model: Any = model
        self.user_table = user_table
        self.rich = issubclass(model, SQLAlchemyBaseRichAccessTokenTable)
        self._mapper = mapper
        self._table = columns.token.table
        self._token = columns.token
        self._created_at = columns.created_at
        self._user_id = columns.user_id
        self._longest = columns.token.type.length or LONGEST
        self._accept_clear = accept_clear
        self._now = now

    # --- reading ---

    def find(self, session: Session, token: str, max_age: datetime | None) -> AP | None:
        """Return the row of a token, alive; a row in clear is rewritten as a digest on the way."""
        return self._find(session, token, max_age, select(self.model, self._token))[0]

    def find_with_user(self, session: Session, token: str, max_age: datetime | None) -> tuple[AP | None, Any]:
        """Return the row of a token and its user, in one statement."""
        (key,) = inspect(self.user_table).primary_key
        both = select(self.model, self._token, self.user_table).join(self.user_table, key == self._user_id)
        return self._find(session, token, max_age, both)

    def _find(self, session: Session, token: str, max_age: datetime | None, what: Any) -> tuple[AP | None, Any]:
        if not presentable(token, longest=self._longest):
            return None, None
        ours = untouched(session)
        row = self._row(session, what, token, max_age)
        if row is not None and not is_marked(row[1]) and ours and self._rewrite(session, token):
            session.expunge(row[0])
            row = self._row(session, what, token, max_age)
        if row is None:
            return None, None
        show(row[0], token)
        return row[0], row[2] if len(row) > 2 else None  # noqa: PLR2004  # with the user

    def _row(self, session: Session, what: Any, token: str, max_age: datetime | None) -> Any:
        forms = [AtRest(marked_digest(token)), *([AtRest(token)] if self._accept_clear else [])]
        statement = what.where(self._token.in_(forms), *self._alive(max_age))
        with session.no_autoflush:
            rows = session.execute(statement).unique().all()
        return next((row for row in rows if row[1] in forms), None)  # a database may take a for A

    def _alive(self, max_age: datetime | None) -> list[ColumnElement[bool]]:
        terms = [] if max_age is None else [self._created_at >= utc(max_age)]
        if self.rich:
            ends = self._mapper.columns.expires_at
            terms.append(or_(ends.is_(None), ends > self._now()))
        return terms

    def _rewrite(self, session: Session, token: str) -> bool:
        """Put the digest in the place of a token in clear. What fails now is done when it is seen again."""
        statement = self._change([AtRest(token)], {self._token: AtRest(marked_digest(token))})
        try:
            session.execute(statement)
            commit(session)
        except DBAPIError:
            session.rollback()
            return False
        return True

    def _change(self, forms: Iterable[AtRest], values: dict[Any, Any]) -> Any:
        """Make an UPDATE. It names `created_at`, which old MariaDB tables would set to now by themselves."""
        kept = {self._created_at: self._created_at}
        return update(self._table).where(self._token.in_(forms)).values(kept | values)

    # --- writing ---

    def create(self, session: Session, create_dict: dict[str, Any]) -> AP:
        """Insert a row; a duplicate raises `IntegrityError`."""
        access_token = self.model(**_in_utc(create_dict))
        bearer = self._checked(access_token.token)
        access_token.token = AtRest(marked_digest(bearer))
        with durable(session, self._mapper) as writing:
            writing.add(access_token)
            writing.flush()
        if writing is not session:
            session.add(access_token)
        with session.no_autoflush:
            session.refresh(access_token)
        show(access_token, bearer)
        return access_token  # type: ignore[no-any-return]

    def update(self, session: Session, access_token: AP, update_dict: dict[str, Any]) -> AP:
        """Change a row; one that was deleted meanwhile stays deleted."""
        values = _in_utc(update_dict)
        bearer = values.get("token")
        if bearer is not None:
            self._checked(bearer)
        columns = {self._mapper.columns[key]: value for key, value in values.items() if key in self._mapper.columns}
        with durable(session, self._mapper) as writing:
            matched = self._changed(writing, access_token, columns) if columns else 1
        for key in values.keys() - self._mapper.columns.keys():
            setattr(access_token, key, values[key])
        if bearer is not None:
            session.expunge(access_token)
            return self._find(session, bearer, None, select(self.model, self._token))[0] or access_token
        return self._reread(session, access_token) if matched else self._forgotten(session, access_token, values)

    def delete(self, session: Session, access_token: AP) -> None:
        """Delete a row, in one statement. Safe to repeat."""
        with durable(session, self._mapper) as writing:
            writing.execute(delete(self._table).where(self._token.in_(kept_forms(access_token))))
        if access_token in session:
            session.expunge(access_token)

    def delete_token(self, session: Session, token: str, user_id: Any) -> bool:
        """Delete a user's token, in one statement; tell whether there was one."""
        if not presentable(token, longest=self._longest):
            return False
        forms = [AtRest(marked_digest(token)), *([AtRest(token)] if self._accept_clear else [])]
        return self._deleted(session, self._token.in_(forms), self._user_id == user_id) > 0

    def touch(self, session: Session, access_token: AP, used_at: datetime, expires_at: datetime | None) -> None:
        """Write down a use and the end that follows from it; a row that is gone stays gone."""
        columns = self._mapper.columns
        values = {columns.last_used_at: utc(used_at), columns.expires_at: expires_at and utc(expires_at)}
        with durable(session, self._mapper) as writing:
            self._changed(writing, access_token, values)

    # --- many rows ---

    def of_user(self, session: Session, user_id: Any) -> list[AP]:
        """Return a user's tokens, newest first; what is in clear is rewritten first, so that none can be read."""
        mine = self._user_id == user_id
        with session.no_autoflush:
            clear = [AtRest(one) for one in session.scalars(select(self._token).where(mine)) if not is_marked(one)]
            if clear and self._accept_clear:
                with durable(session, self._mapper) as writing:
                    for one in clear:
                        writing.execute(self._change([one], {self._token: AtRest(marked_digest(one))}))
            statement = select(self.model).where(mine, self._token.not_in(clear), *self._alive(None))
            return list(session.scalars(statement.order_by(self._created_at.desc())).unique())

    def revoke_all(self, session: Session, user_id: Any, keep: Any) -> int:
        """Delete a user's tokens but one: a raw token or an object."""
        terms = [self._user_id == user_id]
        if isinstance(keep, str):
            terms.append(self._token.not_in([AtRest(marked_digest(keep)), AtRest(keep)]))
        elif keep is not None:
            terms.append(self._token.not_in(kept_forms(keep)))
        return self._deleted(session, *terms)

    def purge_expired(self, session: Session, max_age: datetime | None) -> int:
        """Delete what has ended, in batches of a thousand, each with its own commit."""
        ends = [] if max_age is None else [self._created_at < utc(max_age)]
        if self.rich:
            ends.append(self._mapper.columns.expires_at <= self._now())
        if not ends:
            msg = "this table keeps no expires_at: say with max_age from when on tokens are still wanted"
            raise ValueError(msg)
        purged = 0
        while dead := [AtRest(one) for one in session.scalars(select(self._token).where(or_(*ends)).limit(BATCH))]:
            purged += self._deleted(session, self._token.in_(dead), or_(*ends))
        return purged

    # --- helpers ---

    def _changed(self, session: Session, access_token: AP, values: dict[Any, Any]) -> int:
        result: Any = session.execute(self._change(kept_forms(access_token), values))
        return int(result.rowcount)

    def _deleted(self, session: Session, *terms: ColumnElement[bool]) -> int:
        with durable(session, self._mapper) as writing:
            result: Any = writing.execute(delete(self._table).where(*terms))
            return int(result.rowcount)

    def _checked(self, token: Any) -> str:
        if not presentable(token, longest=self._longest):
            msg = (
                f"token must be 1 to {self._longest} ASCII characters without NUL, and not begin with $; "
                f"a longer one wants a wider column, for example TokenAtRest(255)"
            )
            raise ValueError(msg)
        return str(token)

    def _reread(self, session: Session, access_token: AP) -> AP:
        with suppress(InvalidRequestError), session.no_autoflush:  # deleted just now: it stays as it was read
            if access_token not in session:
                session.add(access_token)
            session.refresh(access_token)
        return access_token

    def _forgotten(self, session: Session, access_token: AP, values: dict[str, Any]) -> AP:
        if access_token in session:
            session.expunge(access_token)
        for key in values.keys() & self._mapper.columns.keys():
            set_committed_value(access_token, key, values[key])
        return access_token


def _in_utc(values: dict[str, Any]) -> dict[str, Any]:
    """Put aware times into UTC, for columns whose own type leaves the zone out."""
    return {key: utc(value) if isinstance(value, datetime) and value.tzinfo else value for key, value in values.items()}
