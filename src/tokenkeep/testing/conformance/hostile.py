"""Text that means something to a database, a shell or a log, through every argument that takes text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from tokenkeep import AsyncTokenIssuer, AsyncTokenVault, NewToken, Secret
from tokenkeep.testing.conformance._fixtures import IssuerFixtures, OpenIssuer, OpenVault, VaultFixtures
from tokenkeep.testing.conformance.issuing import bearer

HOSTILE: Final = (
    *("'", "\\", "' OR '1'='1", "'; DROP TABLE tokenkeep_token; --", "%(ns)s", ":ns", "?", '{"$gt": ""}', "$where"),
    *("]] redis.call('FLUSHALL')", "\r\nFLUSHALL\r\n", "a}b{c", "w:", "*", "\u0000x", "\ud800", "😀İı", "x" * 300),
)

type Use = Callable[[AsyncTokenVault, str], Awaitable[Any]]

THROUGH: Final[dict[str, Use]] = {
    "user_id": lambda vault, text: vault.store(text, NewToken("t", expires_in=600)),
    "provider": lambda vault, text: vault.store("mallory", NewToken("t", expires_in=600), provider=text),
    "kind": lambda vault, text: vault.store("mallory", NewToken("t", kind=text, expires_in=600)),
    "token": lambda vault, text: vault.store("mallory", NewToken(text, refresh_token=text, expires_in=600)),
    "token_type": lambda vault, text: vault.store("mallory", NewToken("t", token_type=text, expires_in=600)),
    "scope": lambda vault, text: vault.store("mallory", NewToken("t", scope=(text,), expires_in=600)),
    "profile": lambda vault, text: vault.store("mallory", NewToken("t", profile={text: text}, expires_in=600)),
    "metadata": lambda vault, text: vault.store("mallory", NewToken("t", metadata={text: [text]}, expires_in=600)),
    "read": lambda vault, text: vault.get_valid(text, kind=text),
    "history": lambda vault, text: vault.history(text, provider=text),
    "revoke": lambda vault, text: vault.revoke(text, provider=text),
    "trail": lambda vault, text: vault.audit_trail(text),
    "head": lambda vault, text: vault.check_audit("mallory", head=text),
    "forget": lambda vault, text: vault.forget(text),
}

type IssuerUse = Callable[[AsyncTokenIssuer, str], Awaitable[Any]]

THROUGH_THE_ISSUER: Final[dict[str, IssuerUse]] = {
    "user_id": lambda issuer, text: issuer.issue(text),
    "name": lambda issuer, text: issuer.issue("mallory", name=text),
    "client": lambda issuer, text: issuer.issue("mallory", client=text),
    "scopes": lambda issuer, text: issuer.issue("mallory", scopes={text}),
    "metadata": lambda issuer, text: issuer.issue("mallory", metadata={text: [text]}),
    "verify": lambda issuer, text: issuer.verify(text, scopes={text}),
    "refresh": lambda issuer, text: issuer.refresh(Secret(text)),
    "revoke": lambda issuer, text: issuer.revoke(text),
    "revoke_all": lambda issuer, text: issuer.revoke_all(text),
    "keep": lambda issuer, text: issuer.revoke_all("mallory", keep=text),
    "tokens": lambda issuer, text: issuer.tokens(text),
    "statistics": lambda issuer, text: issuer.statistics(text),
    "head": lambda issuer, text: issuer.check_audit("mallory", head=text),
    "forget": lambda issuer, text: issuer.forget(text),
}


async def outcome(use: Callable[[Any, str], Awaitable[Any]], service: Any, text: str) -> Any:
    """Return what came back; `None` where the text was refused as an argument."""
    try:
        return await use(service, text)
    except (ValueError, TypeError):
        return None


@pytest.mark.asyncio
class HostileToTheVault(VaultFixtures):
    """Whatever comes, it is kept as it is or refused as an argument, and nobody else notices."""

    @pytest.mark.requirement("D1")
    async def test_hostile_text_through_every_argument_of_the_vault_is_kept_or_refused(
        self, open_vault: OpenVault
    ) -> None:
        vault = await open_vault()
        await vault.store("alice", NewToken("the token of alice", metadata={"a": 1}), provider="p")
        before = await vault.history("alice", provider="p"), await vault.audit_trail("alice")
        named = _Named(vault)
        for text in HOSTILE:
            for use in THROUGH.values():
                token = await outcome(use, named, text)
                if hasattr(token, "access_token"):
                    await self._is_kept(vault, token)
        assert (await vault.history("alice", provider="p"), await vault.audit_trail("alice")) == before
        alice = await vault.get_valid("alice", provider="p")
        assert alice is not None
        assert alice.access_token.reveal() == "the token of alice"

    @staticmethod
    async def _is_kept(vault: AsyncTokenVault, stored: Any) -> None:
        read = await vault.get_valid(stored.user_id, provider=stored.provider, kind=stored.kind)
        assert read is not None
        for name in ("id", "user_id", "provider", "kind", "access_token", "refresh_token", "token_type", "scope"):
            assert getattr(read, name) == getattr(stored, name)
        assert (dict(read.profile), dict(read.metadata)) == (dict(stored.profile), dict(stored.metadata))


class _Named:
    """A vault whose methods mean the provider `p` where none is named."""

    def __init__(self, vault: AsyncTokenVault) -> None:
        self._vault = vault

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._vault, name)
        if name in {"store", "get_valid"}:
            return lambda *args, **options: method(*args, **{"provider": "p", **options})
        return method


@pytest.mark.asyncio
class HostileToTheIssuer(IssuerFixtures):
    """The same of issued tokens."""

    @pytest.mark.requirement("D1")
    async def test_hostile_text_through_every_argument_of_the_issuer_is_kept_or_refused(
        self, open_issuer: OpenIssuer
    ) -> None:
        issuer = await open_issuer()
        alices = await issuer.issue("alice", name="a phone", refresh=True)
        before = await issuer.tokens("alice"), await issuer.audit_trail("alice")
        for text in HOSTILE:
            for use in THROUGH_THE_ISSUER.values():
                issued = await outcome(use, issuer, text)
                if hasattr(issued, "token") and issued.token is not None:
                    await self._is_kept(issuer, issued)
        assert (await issuer.tokens("alice"), await issuer.audit_trail("alice")) == before
        assert await issuer.verify(bearer(alices)) is not None

    @staticmethod
    async def _is_kept(issuer: AsyncTokenIssuer, issued: Any) -> None:
        read = await issuer.verify(bearer(issued))
        assert read is not None
        for name in ("id", "user_id", "name", "client", "scopes"):
            assert getattr(read, name) == getattr(issued, name)
        assert dict(read.metadata) == dict(issued.metadata)
