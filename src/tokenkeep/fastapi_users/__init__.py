"""In the place of `fastapi_users.authentication.strategy.db`: the same names, digests at rest.

The adapters are in `tokenkeep.fastapi_users.sqlalchemy` and `tokenkeep.fastapi_users.beanie`.
"""

from tokenkeep.fastapi_users._originals import AP, AccessTokenDatabase, AccessTokenProtocol
from tokenkeep.fastapi_users._passwords import RevokeOnPasswordChange
from tokenkeep.fastapi_users._strategy import DatabaseStrategy

__all__ = ["AP", "AccessTokenDatabase", "AccessTokenProtocol", "DatabaseStrategy", "RevokeOnPasswordChange"]
