"""${message}"""

from __future__ import annotations

from typing import Final

revision: Final = ${repr(up_revision)}
down_revision: Final = ${repr(down_revision)}


def upgrade() -> None:
    """Each statement must find out whether it has been done: on MariaDB a revision may stop half-way."""
    ${upgrades if upgrades else "raise NotImplementedError"}
