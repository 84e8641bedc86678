"""What an answer of Upstox means: granted, refused, not now, or not known."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, Protocol

from tokenkeep.errors import AcquireInDoubt, ProviderError, ProviderRejected, ProviderUnavailable

TOO_MANY_REQUESTS: Final = "UDAPI10005"
DEAD_TOKEN: Final = "UDAPI100050"  # noqa: S105  # an error code

LONGEST_WAIT: Final = timedelta(days=1)
"""A `Retry-After` past this is not believed: tokens end each morning."""

_TEXT: Final = 200
"""Characters of the provider's own words that an error repeats."""

_TELLING: Final = re.compile(r"[A-Za-z0-9_.~+/=-]{16,}|\b[0-9]{4,}\b")
"""What may be a token, a code, a PIN or a telephone number inside a text that somebody else wrote."""


class Step(StrEnum):
    """The requests of a login by their paths, and that of a logout."""

    DIALOG = "/v2/login/authorization/dialog"
    OTP_GENERATE = "/login/open/v6/auth/1fa/otp/generate"
    OTP_VERIFY = "/login/open/v4/auth/1fa/otp-totp/verify"
    PIN = "/login/open/v3/auth/2fa"
    AUTHORIZE = "/login/v2/oauth/authorize"
    TOKEN = "/v2/login/authorization/token"  # noqa: S105  # a path
    LOGOUT = "/v2/logout"


_CALLED: Final = {
    Step.DIALOG: "the authorization dialog",
    Step.OTP_GENERATE: "the request for a one-time code",
    Step.OTP_VERIFY: "the one-time code",
    Step.PIN: "the PIN",
    Step.AUTHORIZE: "the authorization of the application",
    Step.TOKEN: "the exchange of the code for a token",
    Step.LOGOUT: "the logout",
}

_CHECK: Final = {
    Step.DIALOG: "check client_id and redirect_uri against the settings of the application at Upstox",
    Step.OTP_GENERATE: "check username: it is the ten-digit mobile number of the account that owns the application",
    Step.OTP_VERIFY: "check totp_secret and the clock of this machine before you try again; too many lock the account",
    Step.PIN: "check pin_code before you try again; too many lock the account",
    Step.AUTHORIZE: "check that the application is active at Upstox",
    Step.TOKEN: "check client_secret and redirect_uri against the settings of the application at Upstox",
    Step.LOGOUT: "it may be accepted there until it ends by itself",
}

IN_DOUBT: Final = (
    "a token may have been granted and is lost, and an older one may have ended; acquire a new one deliberately"
)


class Response(Protocol):
    """What is read of an HTTP response of curl_cffi."""

    status_code: int
    content: bytes
    headers: Any


def step_of(url: str) -> Step | None:
    """Tell which step a request of the client is; `None` when its wire has changed."""
    path = url.partition("?")[0]
    return next((step for step in Step if path.endswith(step)), None)


def called(step: Step | None) -> str:
    """Return the words by which an error speaks of a step."""
    return "a request that tokenkeep does not know" if step is None else _CALLED[step]


def document_of(response: Response) -> dict[str, Any] | None:
    """Return the JSON object of a response, whatever parameters its Content-Type has; `None` for anything else."""
    if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        return None
    try:
        document = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def grant_in(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what holds the access token: the flat answer of today, or one wrapped in `data`."""
    for candidate in (document, document.get("data")):
        if isinstance(candidate, dict) and is_token(candidate.get("access_token")):
            return candidate
    return None


def is_token(value: object) -> bool:
    """Tell whether a value can be sent as a bearer token: visible ASCII (RFC 6750 section 2.1)."""
    return isinstance(value, str) and value != "" and value.isascii() and value.isprintable() and " " not in value


def trouble(step: Step | None, response: Response, hidden: Iterable[str]) -> ProviderError | None:
    """Return the error that a response amounts to; `None` when the login may go on.

    `hidden` are strings that must not be repeated from the provider's own words.
    """
    document = document_of(response)
    error = error_in(document)
    status = response.status_code
    if status == 429 or (error and error[0] == TOO_MANY_REQUESTS):  # noqa: PLR2004  # RFC 6585: Too Many Requests
        reason = f"Upstox allows no more requests for now, at {called(step)}; try again later"
        return ProviderUnavailable(reason, retry_after=_retry_after(response))
    if status >= 500:  # noqa: PLR2004  # RFC 9110 section 15.6
        return _unanswered(step, f"Upstox failed with status {status} at {called(step)}")
    if error or (document is not None and status >= 400):  # noqa: PLR2004  # RFC 9110 section 15.5
        return _rejected(step, status, error, hidden)
    if document is None and (step is not Step.DIALOG or status >= 400):  # noqa: PLR2004  # the same
        return _page(step, status)
    return None


def _page(step: Step | None, status: int) -> ProviderError:
    reason = f"Upstox answered {called(step)} with a page instead of JSON (status {status})"
    if status < 400:  # noqa: PLR2004  # a refusal was not processed, anything else may have been
        return _unanswered(step, reason)
    return ProviderUnavailable(f"{reason}: its protection against robots, perhaps; try again later")


def _unanswered(step: Step | None, reason: str) -> ProviderError:
    if step is Step.TOKEN:
        return AcquireInDoubt(f"{reason}: {IN_DOUBT}")
    return ProviderUnavailable(f"{reason}; try again later")


def unreachable(step: Step | None, what: str, *, sent: bool) -> ProviderError:
    """Return the error for a request without a response; `sent` when it may have arrived."""
    reason = f"no answer from Upstox at {called(step)} ({what})"
    if not sent:
        return ProviderUnavailable(f"{reason}; check the network and try again")
    return _unanswered(step, reason)


def misread(step: Step | None, what: str) -> ProviderError:
    """Return the error for an answer that the client could not read; `what` is the name of its exception."""
    reason = f"upstox-totp could not read the answer of Upstox at {called(step)} ({what}): a newer version may"
    return _unanswered(step, reason)


def _rejected(step: Step | None, status: int, error: tuple[str, str] | None, hidden: Iterable[str]) -> ProviderRejected:
    code, words = error or ("", "")
    said = ": ".join(part for part in (scrubbed(code, hidden), scrubbed(words, hidden)) if part)
    advice = "upgrade tokenkeep" if step is None else _CHECK[step]
    return ProviderRejected(f"Upstox refused {called(step)} ({said or f'status {status}'}); {advice}")


def error_in(document: Mapping[str, Any] | None) -> tuple[str, str] | None:
    """Return code and message of an error document of either stage; `None` when it is none."""
    if document is None:
        return None
    listed = document.get("errors")
    first = listed[0] if isinstance(listed, list) and listed else document.get("error")
    if isinstance(first, dict):
        code = first.get("error_code") or first.get("errorCode") or first.get("code") or ""
        return str(code), str(first.get("message") or "")
    if document.get("success") is False or document.get("status") == "error":
        return "", ""
    return None


def scrubbed(text: str, hidden: Iterable[str]) -> str:
    """Return somebody else's words on one line, cut short, without what is or may be a secret."""
    for secret in hidden:
        text = text.replace(secret, "***") if secret else text
    text = _TELLING.sub("***", text)
    return "".join(letter if letter.isprintable() else " " for letter in text)[:_TEXT].strip()


def _retry_after(response: Response) -> timedelta | None:
    """Return the delay that RFC 9110 section 10.2.3 lets a server ask for; a date is not read."""
    text = str(response.headers.get("Retry-After") or "").strip()
    if not (text.isascii() and text.isdecimal()):
        return None
    return min(timedelta(seconds=int(text[:9])), LONGEST_WAIT)
