"""Issued tokens in a FastAPI application: a dependency, a cookie, two routers, and tokens of a vault.

bearer = Bearer(issuer, cookie=SessionCookie())
Me = Annotated[IssuedToken, Depends(bearer)]
"""

try:
    import fastapi as _fastapi  # noqa: F401  # to name the extra when it is missing
except ModuleNotFoundError as error:
    msg = 'tokenkeep.fastapi needs FastAPI: pip install "tokenkeep[fastapi]"'
    raise ModuleNotFoundError(msg, name=error.name) from None

from tokenkeep.fastapi.bearer import Bearer
from tokenkeep.fastapi.clients import Clients
from tokenkeep.fastapi.cookies import SessionCookie
from tokenkeep.fastapi.lifespans import lifespan
from tokenkeep.fastapi.oauth import oauth_router
from tokenkeep.fastapi.provider_tokens import ProviderToken
from tokenkeep.fastapi.sessions import SessionInfo, Sessions, token_answer

__all__ = [
    "Bearer",
    "Clients",
    "ProviderToken",
    "SessionCookie",
    "SessionInfo",
    "Sessions",
    "lifespan",
    "oauth_router",
    "token_answer",
]
