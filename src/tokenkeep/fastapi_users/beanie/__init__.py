"""In the place of `fastapi_users_db_beanie.access_token`: the same names, digests at rest."""

from tokenkeep.fastapi_users.beanie._database import BeanieAccessTokenDatabase
from tokenkeep.fastapi_users.beanie._documents import (
    AP_BEANIE,
    BeanieBaseAccessToken,
    BeanieBaseAccessTokenDocument,
    BeanieBaseRichAccessToken,
)

__all__ = [
    "AP_BEANIE",
    "BeanieAccessTokenDatabase",
    "BeanieBaseAccessToken",
    "BeanieBaseAccessTokenDocument",
    "BeanieBaseRichAccessToken",
]
