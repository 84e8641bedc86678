"""Which database and which key file are meant, and opening a vault there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tokenkeep.api import TokenVault
from tokenkeep.cli.session import Session
from tokenkeep.errors import ConfigurationError, StoreUnavailable
from tokenkeep.keyring import FILE_VARIABLE, KEYS_VARIABLE, KeyRing
from tokenkeep.ports import Provider


def open_vault(
    session: Session, *, providers: Sequence[Provider] = (), create: bool = False, keys: KeyRing | None = None
) -> TokenVault:
    """Open the vault of a session; without `create` a SQLite file that is not there is an error, not made."""
    if not create:
        need_database(session)
    return TokenVault.open(session.url, providers=providers, keys=keys, namespace=session.namespace)


def need_database(session: Session) -> None:
    """Refuse to go on where a SQLite file is missing: a mistyped URL would look like an empty vault."""
    if not database_exists(session):
        path = sqlite_file(session)
        msg = f"there is no database {path}; `tokenkeep login USER` makes it, or name another one with --url"
        raise StoreUnavailable(msg)


def database_exists(session: Session) -> bool:
    """Tell whether the SQLite file is there; of any other database only opening it can tell."""
    path = sqlite_file(session)
    return path is None or path.exists()


def sqlite_file(session: Session) -> Path | None:
    """Return the file that a SQLite URL names; `None` for memory and for servers."""
    scheme, _, path = session.url.partition(":///")
    if scheme.partition("+")[0] != "sqlite" or path in {"", ":memory:"}:
        return None
    return Path(path)


def key_file(session: Session) -> Path:
    """Return the file that the keys of a session are kept in, be it there or not.

    Raises:
        ConfigurationError: they are not kept in a file.
    """
    if os.environ.get(KEYS_VARIABLE, "").strip():
        msg = f"the keys are in {KEYS_VARIABLE}, not in a file that could be changed; name a file with --file"
        raise ConfigurationError(msg)
    if named := os.environ.get(FILE_VARIABLE, "").strip():
        return Path(named)
    if path := sqlite_file(session):
        return path.with_name(f"{path.name}.key")
    msg = f"there is no key file beside this database: name one with --file, and then in {FILE_VARIABLE}"
    raise ConfigurationError(msg)


def key_ring(session: Session) -> KeyRing:
    """Return the keys of a session; none are made.

    Raises:
        ConfigurationError: there are none.
    """
    if os.environ.get(KEYS_VARIABLE, "").strip():
        return KeyRing.from_env()
    return KeyRing.from_file(key_file(session))
