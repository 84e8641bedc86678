"""A provider that speaks OAuth 2: the grants that need no browser, over httpx.

It blocks; the asynchronous face runs it in a worker thread. Nothing is repeated inside.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Literal, Self
from urllib.parse import quote_plus

from tokenkeep import _checking
from tokenkeep.errors import AcquireInDoubt, ProviderError, ProviderRejected, ProviderUnavailable
from tokenkeep.expiry import checked
from tokenkeep.model import AcquiredToken, NewToken
from tokenkeep.ports import ExpiryPolicy
from tokenkeep.providers._form_post import Answer, Cut, Unsent, checked_url, post, require_httpx
from tokenkeep.providers._rfc6749 import (
    REJECTIONS,
    TEMPORARY,
    Refusal,
    Unreadable,
    basic,
    fields_of,
    refusal_of,
    token_of,
)
from tokenkeep.secret import Secret

type Form = Mapping[str, str | Secret]
type Grant = Literal["client_credentials", "refresh_token"]

_PASSING: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


class OAuth2Provider:
    """Acquire tokens from an OAuth 2 token endpoint.

    With `grant="client_credentials"` (RFC 6749 section 4.4) `acquire` asks for a token of the application itself.
    With `grant="refresh_token"` (section 6) somebody authorises the application once, its first token comes in by
    `vault.store()`, and the vault renews it from then on; only then is the provider a `Renewing` one, and only
    with a `revocation_endpoint` a `Revoking` one (RFC 7009).

    A token ends by its `expires_in`. When that is missing, zero, negative or no number it tells nothing, and `expiry`
    decides; without a policy the token then lives until it is rejected.

    Args:
        name: what the tokens are filed under.
        token_endpoint: https, or http on this machine. Redirects are not followed.
        client_id: goes with `client_secret` as HTTP Basic (section 2.3.1), or alone in the form.
        client_secret: `None` for a public client.
        grant: how tokens are asked for.
        scope: what to ask for; empty: what the provider gives by default.
        expiry: when the tokens end that do not say so themselves.
        revocation_endpoint: where tokens are revoked; the same rules as for `token_endpoint`.

    Raises:
        ConfigurationError: httpx is not installed.
        ValueError: an address without TLS, with a password or without a host; an empty id or secret.
    """

    def __new__(
        cls, *_: Any, grant: Grant = "client_credentials", revocation_endpoint: str | None = None, **__: Any
    ) -> Self:
        """Give it the powers that it was configured for, because the vault asks for them by `isinstance`."""
        powers = {
            (False, False): OAuth2Provider,
            (False, True): _Revoking,
            (True, False): _Renewing,
            (True, True): _RenewingAndRevoking,
        }
        chosen = powers[grant == "refresh_token", revocation_endpoint is not None]
        made: Self = object.__new__(chosen if cls is OAuth2Provider else cls)  # type: ignore[assignment]  # a subclass of cls
        return made

    def __init__(
        self,
        name: str,
        *,
        token_endpoint: str,
        client_id: str,
        client_secret: str | Secret | None = None,
        grant: Grant = "client_credentials",
        scope: Collection[str] = (),
        expiry: ExpiryPolicy | None = None,
        revocation_endpoint: str | None = None,
    ) -> None:
        require_httpx()
        if grant not in {"client_credentials", "refresh_token"}:
            msg = f"grant must be 'client_credentials' or 'refresh_token', not {grant!r}"
            raise ValueError(msg)
        self.name = _checking.name(name, "name")
        self.expiry = None if expiry is None else checked(expiry, "expiry")
        self._grant = grant
        self._scope = tuple(_checking.scopes(scope, "scope"))
        self._client_id = _checking.name(client_id, "client_id")
        self._client_secret = _client_secret(client_secret)
        self._token_endpoint = checked_url(token_endpoint, "token_endpoint")
        self._revocation_endpoint = (
            None if revocation_endpoint is None else checked_url(revocation_endpoint, "revocation_endpoint")
        )

    def __repr__(self) -> str:
        return f"OAuth2Provider({self.name!r}, grant={self._grant!r})"

    def acquire(self, user_id: str) -> Sequence[NewToken]:
        """Ask for a token of the application; repeating it is safe."""
        return self._granted({"grant_type": "client_credentials"}, user_id)

    def _granted(self, form: Form, user_id: str) -> Sequence[NewToken]:
        return _raised(self._attempt(form, user_id))

    def _attempt(self, form: Form, user_id: str) -> Sequence[NewToken] | ProviderError:
        """Ask the token endpoint once.

        A failure is returned and raised further up: a traceback that shows local variables would show what was sent
        and what came.
        """
        if self._scope:
            form = {**form, "scope": " ".join(self._scope)}
        answer = self._ask(self._token_endpoint, form, user_id)
        if isinstance(answer, ProviderError):
            return answer
        try:
            return (token_of(fields_of(answer.body), self._scope),)
        except Unreadable as error:
            return self._lost(str(error), form, user_id)

    def _ask(self, url: str, form: Form, user_id: str) -> Answer | ProviderError:
        """Send one form, and return the answer if it is no refusal."""
        plain = {name: value.reveal() if isinstance(value, Secret) else value for name, value in form.items()}
        identity, headers = self._identity()
        try:
            answer = post(url, {**plain, **identity}, headers)
        except Unsent as error:
            return self._unavailable(str(error), user_id)
        except Cut as error:
            return self._lost(str(error), form, user_id)
        refusal = _refusal(answer, self._sent(form, headers))
        return answer if refusal is None else self._refused(answer, refusal, form, user_id)

    def _identity(self) -> tuple[dict[str, str], dict[str, str]]:
        if self._client_secret is None:
            return {"client_id": self._client_id}, {}
        return {}, {"Authorization": basic(self._client_id, self._client_secret)}

    def _sent(self, form: Form, headers: Mapping[str, str]) -> list[str]:
        """Collect every form in which a secret went out."""
        held = [*form.values(), self._client_secret]
        secrets = [value.reveal() for value in held if isinstance(value, Secret)]
        coded = [header.removeprefix("Basic ") for header in headers.values()]
        return secrets + [quote_plus(secret) for secret in secrets] + coded

    def _refused(self, answer: Answer, refusal: Refusal, form: Form, user_id: str) -> ProviderError:
        """Tell a refusal that stays from one that passes (RFC 6749 section 5.2)."""
        code, status = refusal.code, answer.status
        said = f"the provider answered {': '.join(part for part in (str(status), code, refusal.description) if part)}"
        if status in _PASSING or code in TEMPORARY:
            return self._unavailable(said, user_id, answer)
        if code is not None and code in REJECTIONS:
            return ProviderRejected(f"{said}; {REJECTIONS[code]}", provider=self.name, user_id=user_id, code=code)
        if status == HTTPStatus.GATEWAY_TIMEOUT:
            return self._lost(said, form, user_id)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return self._unavailable(said, user_id, answer)
        hint = (
            "redirects are not followed; check the address" if status in range(300, 400) else "check the configuration"
        )
        return ProviderRejected(f"{said}; {hint}", provider=self.name, user_id=user_id, code=code)

    def _unavailable(self, why: str, user_id: str, answer: Answer | None = None) -> ProviderUnavailable:
        wait = answer.retry_after if answer else None
        return ProviderUnavailable(f"{why}; try again later", provider=self.name, user_id=user_id, retry_after=wait)

    def _lost(self, why: str, form: Form, user_id: str) -> ProviderError:
        """The answer did not come: harmless, unless it held the successor of a refresh token."""
        if "refresh_token" not in form:
            return self._unavailable(why, user_id)
        reason = (
            f"{why}; the refresh token may have been spent and its successor lost. If the provider refuses it from now "
            "on, authorise the application again and give its new token to vault.store()"
        )
        return AcquireInDoubt(reason, provider=self.name, user_id=user_id)


class _Renewing(OAuth2Provider):
    """The refresh_token grant."""

    def acquire(self, user_id: str) -> Sequence[NewToken]:
        reason = (
            "there is no refresh token to begin with; authorise the application, then "
            "vault.store(user_id, NewToken(access_token, refresh_token=...))"
        )
        raise ProviderRejected(reason, provider=self.name, user_id=user_id)

    def renew(self, user_id: str, refresh_token: Secret) -> Sequence[NewToken]:
        return self._granted({"grant_type": "refresh_token", "refresh_token": refresh_token}, user_id)


class _Revoking(OAuth2Provider):
    """RFC 7009."""

    def revoke(self, token: AcquiredToken) -> None:
        """End the refresh token first: a provider may end the whole grant with it (section 2.1)."""
        for hint, secret in (("refresh_token", token.refresh_token), ("access_token", token.access_token)):
            if secret is not None and self._revocation_endpoint is not None:
                form: Form = {"token": secret, "token_type_hint": hint}
                _raised(self._ask(self._revocation_endpoint, form, token.user_id))


class _RenewingAndRevoking(_Renewing, _Revoking):
    """Both."""


def _raised[T](outcome: T | ProviderError) -> T:
    if isinstance(outcome, ProviderError):
        raise outcome
    return outcome


def _client_secret(value: str | Secret | None) -> Secret | None:
    if value is None:
        return None
    secret = Secret(value)
    if not secret:
        msg = "client_secret must not be empty; leave it out for a public client"
        raise ValueError(msg)
    return secret


def _refusal(answer: Answer, sent: Sequence[str]) -> Refusal | None:
    """Read a refusal, by its status, or under a 200 as some providers send it; `None` when it is none."""
    try:
        fields = fields_of(answer.body)
    except Unreadable:
        fields = {}
    accepted = HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES
    if accepted and ("access_token" in fields or not fields.get("error")):
        return None
    return refusal_of(fields, sent)
