"""The SQL that gives each user of the tables the least that he needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from typing import Final

from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.sql.compiler import IdentifierPreparer

from tokenkeep.errors import ConfigurationError
from tokenkeep.stores.sql.naming import Naming

ROLES: Final = ("owner", "writer", "verifier", "auditor")
"""Owner: changes tables. Writer: the application. Verifier: checks issued tokens. Auditor: adds to the trail."""

_TABLES: Final = ("meta", "key", "token", "lease", "step", "audit", "audit_head", "issued", "revision", "verify")
_PREPARERS: Final[Mapping[str, IdentifierPreparer]] = {
    "postgresql": postgresql.dialect().identifier_preparer,  # type: ignore[no-untyped-call]  # SQLAlchemy's
    "mariadb": mysql.dialect().identifier_preparer,
}
_PLACE: Final = re.compile(r"\{\{('?)(\w+)'?\}\}")


def role_statements(dialect: str, naming: Naming) -> str:
    """Return a script for `psql` or `mariadb` that makes the roles and grants; it may be run again.

    Raises:
        ConfigurationError: the database has no roles.
    """
    preparer = _PREPARERS.get(dialect)
    if preparer is None:
        known = " and ".join(_PREPARERS)
        msg = f"there are roles in {known}, not in {dialect}; a SQLite file is guarded by the rights of the file"
        raise ConfigurationError(msg)
    names = _names(dialect, naming, preparer)

    def put(place: re.Match[str]) -> str:
        literal, name = place.groups()
        return f"'{naming.prefix}{name}'" if literal else names[name]  # the prefix was checked: no quote is in it

    template = resources.files("tokenkeep.stores.sql").joinpath(f"roles_{dialect}.sql").read_text(encoding="utf-8")
    return _PLACE.sub(put, template)


def _names(dialect: str, naming: Naming, preparer: IdentifierPreparer) -> dict[str, str]:
    quote = preparer.quote_identifier
    schema = naming.schema or ("public" if dialect == "postgresql" else None)
    qualified = f"{quote(schema)}." if schema else ""
    pattern = quote(schema.replace("_", r"\_")) if schema else ""  # an underscore stands for any character there
    return {
        **{role: quote(f"{naming.prefix}{role}") for role in ROLES},
        **{table: f"{qualified}{quote(f'{naming.prefix}{table}')}" for table in _TABLES},
        "audit_sequence": f"{qualified}{quote(f'{naming.prefix}audit_id_seq')}",
        "schema": quote(schema) if schema else "",
        "everything": f"{pattern}.*" if schema else "*",
    }
