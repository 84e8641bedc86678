"""Issuing tokens and verifying them: the bearer, the scopes, the ends."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import timedelta

import pytest

from tokenkeep import IssuedToken
from tokenkeep.testing import FakeClock
from tokenkeep.testing.conformance._fixtures import IssuerFixtures, OpenIssuer

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)

MALFORMED: dict[str, str] = {
    "empty": "",
    "a space": " ",
    "the prefix alone": "tk_",
    "NUL": "tk_\x00",
    "a lone surrogate": "tk_\ud800",
    "one megabyte": "tk_" + "A" * 1_000_000,
    "Unicode digits": "tk_" + "٣" * 50,
    "quotes": "tk_' OR '1'='1",
    "percent": "%s%s%n%(x)s",
    "newline": "tk_\r\nSet-Cookie: x=y",
    "another's": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "a JWT": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.",
    "the scheme too": "Bearer tk_abc",
}


def bearer(issued: IssuedToken) -> str:
    """Return the plain token, which `issue` alone shows."""
    assert issued.token is not None
    return issued.token.reveal()


def damaged(token: str) -> list[str]:
    """Return the token with one character changed, left out or added, at several places."""
    places = (0, 3, len(token) // 2, len(token) - 1)
    changed = [token[:i] + ("A" if token[i] != "A" else "B") + token[i + 1 :] for i in places]
    return [*changed, *(token[:i] + token[i + 1 :] for i in places), token + "A", f" {token}", f"{token}\n", token * 2]


@pytest.mark.asyncio
class Issuing(IssuerFixtures):
    """`issue` and `verify`."""

    async def test_an_issued_token_is_verified_as_its_owner(self, open_issuer: OpenIssuer, clock: FakeClock) -> None:
        issuer = await open_issuer()
        issued = await issuer.issue(
            "alice", scopes={"orders:read"}, name="laptop", client="Firefox", metadata={"ip": "::1"}
        )
        who = await issuer.verify(bearer(issued))
        assert who is not None
        assert who.id == issued.id
        assert (who.namespace, who.user_id, who.name, who.client) == ("default", "alice", "laptop", "Firefox")
        assert who.scopes == frozenset({"orders:read"})
        assert who.metadata == {"ip": "::1"}
        assert who.created_at == clock.now()
        assert who.expires_at == clock.now() + HOUR

    @pytest.mark.requirement("T7")
    async def test_the_token_is_shown_once_and_never_again(self, open_issuer: OpenIssuer) -> None:
        issuer = await open_issuer()
        issued = await issuer.issue("alice")
        token = bearer(issued)
        assert issued.refresh_token is None
        assert token not in repr(issued)
        assert issued.id not in token
        for later in [await issuer.verify(token), *(await issuer.tokens("alice"))]:
            assert later is not None
            assert later.token is None
            assert token not in repr(later)

    @pytest.mark.requirement("T2")
    async def test_a_token_bears_its_prefix_and_characters_that_any_header_carries(
        self, open_issuer: OpenIssuer
    ) -> None:
        issuer = await open_issuer(prefix="acme")
        tokens = {bearer(await issuer.issue("alice")) for _ in range(50)}
        assert len(tokens) == 50
        assert all(re.fullmatch(r"acme_[A-Za-z0-9._~+/-]{43,}=*", token) for token in tokens)

    @pytest.mark.requirement("V7")
    @pytest.mark.parametrize("token", MALFORMED.values(), ids=MALFORMED)
    async def test_a_malformed_bearer_is_nobody(self, open_issuer: OpenIssuer, token: str) -> None:
        issuer = await open_issuer()
        await issuer.issue("alice")
        assert await issuer.verify(token) is None

    @pytest.mark.requirement("T3")
    async def test_a_token_with_one_changed_character_is_nobody(self, open_issuer: OpenIssuer) -> None:
        issuer = await open_issuer()
        token = bearer(await issuer.issue("alice"))
        for forged in damaged(token):
            assert await issuer.verify(forged) is None
        assert await issuer.verify(token) is not None

    async def test_the_id_of_a_token_is_not_the_token(self, open_issuer: OpenIssuer) -> None:
        issuer = await open_issuer()
        issued = await issuer.issue("alice")
        assert await issuer.verify(issued.id) is None
        assert await issuer.verify(f"tk_{issued.id}") is None

    @pytest.mark.requirement("Z1")
    @pytest.mark.parametrize(
        ("granted", "asked", "allowed"),
        [
            ((), (), True),
            ((), ("orders:read",), False),
            (("orders:read",), (), True),
            (("orders:read",), ("orders:read",), True),
            (("orders:read",), ("orders:read", "orders:write"), False),
            (("orders:read", "orders:write"), ("orders:write",), True),
            (("orders",), ("orders:read",), False),
            (("orders:read",), ("ORDERS:READ",), False),
            (("*",), ("orders:read", "anything"), True),
            (("orders:*",), ("orders:read",), False),
            (("orders:read",), ("*",), False),
        ],
    )
    async def test_what_was_not_granted_is_denied(
        self, open_issuer: OpenIssuer, granted: Collection[str], asked: Collection[str], *, allowed: bool
    ) -> None:
        issuer = await open_issuer()
        token = bearer(await issuer.issue("alice", scopes=granted))
        assert (await issuer.verify(token, scopes=asked) is not None) is allowed

    @pytest.mark.requirement("X5")
    async def test_a_token_is_good_until_just_before_its_end_and_not_at_it(
        self, open_issuer: OpenIssuer, clock: FakeClock
    ) -> None:
        issuer = await open_issuer()
        token = bearer(await issuer.issue("alice"))
        clock.advance(HOUR - SECOND)
        assert await issuer.verify(token) is not None
        clock.advance(SECOND)
        assert await issuer.verify(token) is None
        assert await issuer.tokens("alice") == []

    async def test_a_single_token_may_have_a_lifetime_of_its_own(
        self, open_issuer: OpenIssuer, clock: FakeClock
    ) -> None:
        issuer = await open_issuer()
        issued = await issuer.issue("alice", lifetime=timedelta(minutes=5))
        assert issued.expires_at == clock.now() + timedelta(minutes=5)
        clock.advance(timedelta(minutes=5))
        assert await issuer.verify(bearer(issued)) is None

    @pytest.mark.requirement("X1")
    async def test_no_amount_of_use_carries_a_token_past_its_end(
        self, open_issuer: OpenIssuer, clock: FakeClock
    ) -> None:
        issuer = await open_issuer(idle=timedelta(minutes=10))
        token = bearer(await issuer.issue("alice"))
        for _ in range(11):
            clock.advance(timedelta(minutes=5))
            assert await issuer.verify(token) is not None
        clock.advance(timedelta(minutes=5))
        assert await issuer.verify(token) is None

    @pytest.mark.requirement("X2")
    async def test_a_token_that_lies_idle_too_long_is_nobody_however_long_it_could_have_lived(
        self, open_issuer: OpenIssuer, clock: FakeClock
    ) -> None:
        issuer = await open_issuer(lifetime=timedelta(days=1), idle=timedelta(minutes=30))
        token = bearer(await issuer.issue("alice"))
        for _ in range(5):
            clock.advance(timedelta(minutes=29))
            assert await issuer.verify(token) is not None
        clock.advance(timedelta(minutes=30))
        assert await issuer.verify(token) is None

    async def test_a_verification_with_the_wrong_scopes_is_no_use_and_saves_no_idle_token(
        self, open_issuer: OpenIssuer, clock: FakeClock
    ) -> None:
        issuer = await open_issuer(lifetime=timedelta(days=1), idle=timedelta(minutes=30))
        token = bearer(await issuer.issue("alice"))
        clock.advance(timedelta(minutes=20))
        assert await issuer.verify(token, scopes={"orders:read"}) is None
        clock.advance(timedelta(minutes=10))
        assert await issuer.verify(token) is None

    @pytest.mark.parametrize(
        "span", [timedelta(0), timedelta(seconds=-1), timedelta(days=40_000)], ids=["none", "negative", "absurd"]
    )
    async def test_an_absurd_lifetime_is_refused(self, open_issuer: OpenIssuer, span: timedelta) -> None:
        with pytest.raises(ValueError, match="lifetime"):
            await open_issuer(lifetime=span)
        with pytest.raises(ValueError, match="idle"):
            await open_issuer(idle=span)
        issuer = await open_issuer()
        with pytest.raises(ValueError, match="lifetime"):
            await issuer.issue("alice", lifetime=span)

    @pytest.mark.parametrize("prefix", ["", "with space", "under_score_", "é", "x" * 300, "a\nb"])
    async def test_a_prefix_that_a_header_cannot_carry_is_refused(self, open_issuer: OpenIssuer, prefix: str) -> None:
        with pytest.raises(ValueError, match="prefix"):
            await open_issuer(prefix=prefix)

    @pytest.mark.parametrize("user", ["", "x" * 256, "ali\x00ce", "ali\ud800ce"], ids=["empty", "256", "NUL", "lone"])
    async def test_a_bad_user_id_is_refused_by_every_method(self, open_issuer: OpenIssuer, user: str) -> None:
        issuer = await open_issuer()
        for call in (
            issuer.issue(user),
            issuer.revoke_all(user),
            issuer.tokens(user),
            issuer.statistics(user),
            issuer.audit_trail(user),
        ):
            with pytest.raises(ValueError, match="user_id"):
                await call

    async def test_scopes_given_as_one_string_are_refused(self, open_issuer: OpenIssuer) -> None:
        issuer = await open_issuer()
        with pytest.raises(TypeError, match="scopes"):
            await issuer.issue("alice", scopes="orders:read")
        with pytest.raises(TypeError, match="scopes"):
            await issuer.verify("tk_x", scopes="orders:read")
        with pytest.raises(ValueError, match="scopes"):
            await issuer.issue("alice", scopes={"orders read"})
