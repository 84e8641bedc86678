"""In the place of `fastapi_users_db_sqlalchemy.access_token` and `.generics`: the same names, digests at rest."""

from tokenkeep.fastapi_users.sqlalchemy._database import SQLAlchemyAccessTokenDatabase
from tokenkeep.fastapi_users.sqlalchemy._tables import (
    SQLAlchemyBaseAccessTokenTable,
    SQLAlchemyBaseAccessTokenTableUUID,
    SQLAlchemyBaseRichAccessTokenTable,
    SQLAlchemyBaseRichAccessTokenTableUUID,
)
from tokenkeep.fastapi_users.sqlalchemy._types import GUID, TIMESTAMPAware, TokenAtRest, now_utc

__all__ = [
    "GUID",
    "SQLAlchemyAccessTokenDatabase",
    "SQLAlchemyBaseAccessTokenTable",
    "SQLAlchemyBaseAccessTokenTableUUID",
    "SQLAlchemyBaseRichAccessTokenTable",
    "SQLAlchemyBaseRichAccessTokenTableUUID",
    "TIMESTAMPAware",
    "TokenAtRest",
    "now_utc",
]
