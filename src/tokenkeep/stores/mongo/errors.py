"""The one door through which PyMongo's errors become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bson.errors import BSONError
from pymongo.errors import (
    BulkWriteError,
    DuplicateKeyError,
    InvalidOperation,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from tokenkeep.errors import StoreError, StoreUnavailable

_BY_CODE: Final = {
    13: "this user lacks a right; grant it readWrite on this database (and for `tokenkeep db init` the right to make "
    "indexes), then try again",
    18: "the user name or the password is wrong, or the user belongs to another database; check the URL, and its "
    "authSource=",
    112: "too many others write the same document; try again",
    10334: "a document is larger than MongoDB keeps (16 MB); give the token a smaller profile or metadata",
    8000: "the user name or the password is wrong; check the URL",
}
"""Codes of MongoDB (src/mongo/base/error_codes.yml) that somebody can do something about."""


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Raise what PyMongo says about the database `name` as one of our errors.

    The driver's error hangs on as the cause only where its text is free of documents and keys.
    """
    try:
        yield
    except (BulkWriteError, DuplicateKeyError):
        msg = f"{name}: a document of the same key is there already; nothing was written, try again"
        raise StoreError(msg) from None
    except (BSONError, OverflowError):
        msg = f"{name}: a value cannot be kept as BSON, or a document there cannot be read as such"
        raise StoreError(msg) from None
    except InvalidOperation as error:
        msg = f"{name}: the connection was closed; open it again"
        raise StoreUnavailable(msg) from error
    except PyMongoError as error:
        msg = f"{name}: {_way_out(error)}"
        raise StoreUnavailable(msg) from error


def _way_out(error: PyMongoError) -> str:
    if isinstance(error, NotPrimaryError):
        return "the server is no primary and takes no writes; name the replica set in the URL (replicaSet=), try again"
    if isinstance(error, OperationFailure) and error.code in _BY_CODE:
        return _BY_CODE[error.code]
    text = str(error).lower()
    if any(sign in text for sign in ("ssl", "tls", "certificate")):
        return "no connection by TLS; check tls=, tlsCAFile= and the host name in the URL against the server's"
    if isinstance(error, ServerSelectionTimeoutError):
        return "no server can be reached; check that it runs, its address, and whether it wants tls=true in the URL"
    if error.timeout:
        return "no answer in time; the server is slow, stopped or cut off, so what was asked may have been done"
    return f"the server refused or went away ({type(error).__name__}); see the cause, then try again"
