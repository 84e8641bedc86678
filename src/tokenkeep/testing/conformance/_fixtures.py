"""The fixtures behind the suites; a store overrides `url` and, when it must, any other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Protocol

import pytest
import pytest_asyncio

from tokenkeep import AsyncTokenIssuer, AsyncTokenVault, KeyRing
from tokenkeep.ports import Provider
from tokenkeep.testing import FakeClock, FakeProvider, faces


class OpenVault(Protocol):
    """Opens a vault on the store under test; it is closed at the end of the test."""

    def __call__(self, *providers: Provider, **options: Any) -> Awaitable[AsyncTokenVault]:
        """Open with these providers; options are those of `TokenVault.open`."""


class OpenIssuer(Protocol):
    """Opens an issuer on the store under test; it is closed at the end of the test."""

    def __call__(self, **options: Any) -> Awaitable[AsyncTokenIssuer]:
        """Open with the options of `TokenIssuer.open`; a lifetime of one hour when none is given."""


class Fixtures:
    """What both suites stand on."""

    @pytest.fixture
    def url(self) -> str:
        """Return the URL of an empty store."""
        msg = "give this class a fixture `url` that leads to an empty store"
        raise NotImplementedError(msg)

    @pytest.fixture(params=["sync", "async"])
    def face(self, request: pytest.FixtureRequest) -> faces.Face:
        """Run each test on both faces."""
        face: faces.Face = request.param
        return face

    @pytest.fixture
    def keys(self) -> KeyRing:
        """Return a key ring with one new key."""
        return KeyRing.generate()

    @pytest.fixture
    def clock(self) -> FakeClock:
        """Return the clock that everything in the test goes by."""
        return FakeClock()

    @pytest.fixture
    def provider(self) -> FakeProvider:
        """Return a provider that grants one token an hour, without refresh token."""
        return FakeProvider()


class VaultFixtures(Fixtures):
    """A way to open vaults."""

    @pytest_asyncio.fixture
    async def open_vault(self, url: str, face: faces.Face, keys: KeyRing, clock: FakeClock) -> AsyncIterator[OpenVault]:
        """Open as many vaults as the test likes."""
        async with AsyncExitStack() as stack:

            async def open_one(*providers: Provider, **options: Any) -> AsyncTokenVault:
                given = {"keys": keys, "clock": clock, **options}
                return await stack.enter_async_context(faces.open_vault(face, url, providers=providers, **given))

            yield open_one


class IssuerFixtures(Fixtures):
    """A way to open issuers."""

    @pytest_asyncio.fixture
    async def open_issuer(
        self, url: str, face: faces.Face, keys: KeyRing, clock: FakeClock
    ) -> AsyncIterator[OpenIssuer]:
        """Open as many issuers as the test likes."""
        async with AsyncExitStack() as stack:

            async def open_one(**options: Any) -> AsyncTokenIssuer:
                given = {"lifetime": timedelta(hours=1), "keys": keys, "clock": clock, **options}
                return await stack.enter_async_context(faces.open_issuer(face, url, **given))

            yield open_one
