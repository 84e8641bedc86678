"""Digests in the place of the tokens that fastapi-users left in clear, all at once.

Nobody is logged out: the tokens go on working, in an application that reads the table with `tokenkeep.fastapi_users`.
It can run beside the application, be interrupted and be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from tokenkeep.errors import ConfigurationError, StoreUnavailable
from tokenkeep.marked import MARK, marked_digest

BATCH: Final = 1000
"""Rows that one transaction rewrites."""

DRIVERS: Final = {
    "sqlite": ("sqlite", ""),
    "postgresql": ("postgresql+psycopg", "postgres"),
    "mysql": ("mysql+pymysql", "mysql"),
    "mariadb": ("mariadb+pymysql", "mysql"),
}
"""By dialect: the driver that is used, whichever the application's URL names, and the extra that brings it."""

type Progress = Callable[[int, int], None]


def adopt(url: str, table: str, *, progress: Progress | None = None) -> int:
    """Rewrite every token in clear as its marked digest, and return how many there were.

    Args:
        url: the application's database, as it writes it itself, or without a driver.
        table: the table's name; of MongoDB the collection's.
        progress: is told after each batch how many are done, and how many there were at the start.

    Raises:
        ConfigurationError: the URL or the table cannot be used.
        StoreUnavailable: the database cannot be reached or written.
    """
    told = progress or _nobody
    if url.startswith(("mongodb://", "mongodb+srv://")):
        return _adopt_collection(url, table, told)
    return _adopt_table(url, table, told)


def _nobody(_done: int, _total: int) -> None:
    """Tell nobody."""


def _adopt_table(url: str, table: str, progress: Progress) -> int:
    from sqlalchemy import MetaData, Table, create_engine  # noqa: PLC0415  # drivers are lazy
    from sqlalchemy.exc import NoSuchTableError  # noqa: PLC0415  # the same

    from tokenkeep.stores.sql.servers.address import parsed  # noqa: PLC0415  # the same

    address = parsed(url, "sqlite:///app.db")
    dialect = address.get_backend_name()
    if dialect not in DRIVERS:
        msg = f"the tokens of {dialect}:// cannot be rewritten; this version knows {', '.join(DRIVERS)} and mongodb"
        raise ConfigurationError(msg)
    driver, extra = DRIVERS[dialect]
    with _installed(driver, extra):
        engine = create_engine(address.set(drivername=driver))
    try:
        with _translated(dialect), engine.connect() as connection:
            tokens = Table(table, MetaData(), autoload_with=connection)
        _fitting(tokens.columns.get("token"), table)
        with _translated(dialect):
            return sum(_batches(engine, tokens, progress))
    except NoSuchTableError:
        raise _no_table(table) from None
    finally:
        engine.dispose()


@contextmanager
def _translated(dialect: str) -> Iterator[None]:
    from sqlalchemy.exc import NoSuchTableError  # noqa: PLC0415  # drivers are lazy

    from tokenkeep.stores.sql.errors import Phase, Place, as_ours, is_of_a_driver  # noqa: PLC0415  # the same

    try:
        yield
    except NoSuchTableError:
        raise
    except Exception as error:
        if not is_of_a_driver(error):
            raise
        ours = as_ours(Place("the application's database", dialect), error, Phase.BEFORE_COMMIT)
    else:
        return
    raise ours  # outside of the except: the driver's own error may quote the statement


def _fitting(column: Any, table: str) -> None:
    if column is None:
        raise _no_table(table)
    if (getattr(column.type, "length", None) or BATCH) < len(marked_digest("")):
        msg = f"{table}.token has room for {column.type.length} characters; a digest wants 43, widen the column first"
        raise ConfigurationError(msg)


def _batches(engine: Any, tokens: Any, progress: Progress) -> Iterator[int]:
    from sqlalchemy import bindparam, func, select, update  # noqa: PLC0415  # drivers are lazy

    clear = tokens.c.token.not_like(f"{MARK}%")
    page = select(tokens.c.token).where(clear).order_by(tokens.c.token).limit(BATCH)
    change = update(tokens).where(tokens.c.token == bindparam("was")).values(token=bindparam("becomes"))
    if "created_at" in tokens.c:  # old MariaDB tables would set it to now by themselves
        change = change.values(created_at=tokens.c.created_at)
    with engine.connect() as connection:
        total = connection.scalar(select(func.count()).select_from(tokens).where(clear))
    done, last = 0, None
    while True:
        with engine.begin() as connection:
            after = page if last is None else page.where(tokens.c.token > last)
            found = list(connection.scalars(after))
            if found:
                connection.execute(change, [{"was": token, "becomes": marked_digest(token)} for token in found])
        if not found:
            return
        done, last = done + len(found), found[-1]
        progress(done, max(done, total))
        yield len(found)


def _adopt_collection(url: str, table: str, progress: Progress) -> int:
    with _installed("mongodb", "mongo"):
        from pymongo import MongoClient, UpdateOne  # noqa: PLC0415  # drivers are lazy
        from pymongo.errors import ConfigurationError as NoDatabase  # noqa: PLC0415  # the same
        from pymongo.errors import PyMongoError  # noqa: PLC0415  # the same
    try:
        with closing(MongoClient[dict[str, Any]](url)) as client:
            collection = client.get_default_database()[table]
            clear = {"token": {"$type": "string", "$not": {"$regex": rf"^\{MARK}"}}}
            total, done = collection.count_documents(clear), 0
            while found := list(collection.find(clear, {"token": 1}).limit(BATCH)):
                collection.bulk_write(
                    [
                        UpdateOne(one, {"$set": {"token": marked_digest(one["token"])}})  # as long as it is that token
                        for one in found
                    ],
                    ordered=False,
                )
                done += len(found)
                progress(done, max(done, total))
            return done
    except NoDatabase:
        msg = "the URL names no database; write it as mongodb://host/database"
        raise ConfigurationError(msg) from None
    except PyMongoError as error:
        msg = f"the application's database refused ({type(error).__name__}); see the cause, then try again"
        raise StoreUnavailable(msg) from error


def _no_table(table: str) -> ConfigurationError:
    return ConfigurationError(f"there is no table {table} with a column token; name the right one with --table")


@contextmanager
def _installed(driver: str, extra: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        msg = f'the driver for {driver} is missing ({error.name}): pip install "tokenkeep[{extra}]"'
        raise ConfigurationError(msg) from error
