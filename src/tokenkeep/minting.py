"""New issued tokens: the secret for the caller, and the digest for the store."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Protocol

from tokenkeep import _checking
from tokenkeep.digest import DigestKeys, TokenForm, public_id, token_id
from tokenkeep.model import Action, IssuedToken
from tokenkeep.ports import Entry, Grant, IssuedRecord, Sealer
from tokenkeep.secret import Secret

REFRESH_LIFETIME: Final = timedelta(days=30)
"""The absolute end of what hangs together by refreshing, counted from the issue (NIST SP 800-63B: AAL1)."""


class IssuerKeys(Sealer, DigestKeys, Protocol):
    """What an issuer asks of a key ring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """A grant for the store, and the token for the caller."""

    grant: Grant
    issued: IssuedToken


@lru_cache(1024)
def _shared(scopes: tuple[str, ...]) -> frozenset[str]:
    """Tokens of equal scopes share the set."""
    return frozenset(scopes)


def shown(record: IssuedRecord, token: Secret | None = None, refresh_token: Secret | None = None) -> IssuedToken:
    """Return what people and programs see of a row; the secrets are shown once, when it is new."""
    return IssuedToken(
        id=public_id(record.id),
        namespace=record.namespace,
        user_id=record.user_id,
        name=record.name,
        scopes=_shared(record.scopes),
        created_at=record.created_at,
        expires_at=record.expires_at,
        last_used_at=record.last_used_at,
        client=record.client,
        metadata=record.metadata,
        token=token,
        refresh_token=refresh_token,
    )


class Mint:
    """Makes tokens of one issuer.

    Attributes:
        access: the form of its access tokens.
        refresh: the form of its refresh tokens.
    """

    def __init__(self, prefix: str, keys: IssuerKeys | None, *, namespace: str, lifetime: timedelta) -> None:
        self.access = TokenForm(prefix, keys=keys)
        self.refresh = TokenForm(prefix, keys=keys, refresh=True)
        self._namespace = _checking.label(namespace, "namespace")
        self._lifetime = _checking.span(lifetime, "lifetime")

    def first(  # the fixed public signature of `issue`
        self,
        user_id: str,
        *,
        now: datetime,
        scopes: Collection[str],
        name: str | None,
        lifetime: timedelta | None,
        client: str | None,
        metadata: Mapping[str, Any] | None,
        refresh: bool,
    ) -> Minted:
        """Check what was asked for and make it."""
        span = self._lifetime if lifetime is None else _checking.span(lifetime, "lifetime")
        ends_at = now + span
        secret = self.access.new(ends_at)
        access = IssuedRecord(
            **self._digested(self.access, secret),
            namespace=self._namespace,
            user_id=_checking.name(user_id, "user_id"),
            name=_checking.free_text(name, "name"),
            scopes=tuple(sorted(set(_checking.scopes(scopes, "scopes")))),
            created_at=now,
            expires_at=ends_at,
            client=_checking.free_text(client, "client"),
            metadata=_checking.json_mapping(metadata, "metadata"),
        )
        if not refresh:
            return self._minted(Action.CREATED, now, (access, secret))
        access = replace(access, family=access.id)
        return self._minted(
            Action.CREATED,
            now,
            (access, secret),
            self._refresher(access, generation=0, span=span, ends=now + max(REFRESH_LIFETIME, span)),
        )

    def successor(self, spent: IssuedRecord, now: datetime) -> Minted:
        """Make what a refresh token brings: the same scopes (RFC 6749 section 6), the same absolute end."""
        if spent.access_lifetime is None or spent.generation is None:
            msg = "only a refresh token has successors"
            raise ValueError(msg)
        ends_at = min(now + spent.access_lifetime, spent.expires_at)
        secret = self.access.new(ends_at)
        access = replace(
            spent,
            **self._digested(self.access, secret),
            created_at=now,
            expires_at=ends_at,
            last_used_at=None,
            generation=None,
            access_lifetime=None,
        )
        refresher = self._refresher(
            access, generation=spent.generation + 1, span=spent.access_lifetime, ends=spent.expires_at
        )
        return self._minted(Action.REFRESHED, now, (access, secret), refresher)

    def _refresher(
        self, access: IssuedRecord, *, generation: int, span: timedelta, ends: datetime
    ) -> tuple[IssuedRecord, Secret]:
        secret = self.refresh.new(ends)
        digested = self._digested(self.refresh, secret)
        return replace(access, **digested, expires_at=ends, generation=generation, access_lifetime=span), secret

    def _digested(self, form: TokenForm, secret: Secret) -> dict[str, Any]:
        plain, key_id = secret.reveal(), form.key_id
        return {"id": token_id(plain), "digest": form.digest(plain, key_id), "key_id": key_id}

    def _minted(
        self,
        action: Action,
        now: datetime,
        access: tuple[IssuedRecord, Secret],
        refresher: tuple[IssuedRecord, Secret] | None = None,
    ) -> Minted:
        made = [access] if refresher is None else [access, refresher]
        refresh_token = None if refresher is None else refresher[1]
        issued = shown(*access, refresh_token)
        entry = Entry(action=action, at=now, token_id=issued.id, detail={})
        return Minted(grant=Grant(records=tuple(record for record, _ in made), entry=entry), issued=issued)
