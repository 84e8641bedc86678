"""TLS to Redis with a private authority, for the tier and for the store: the right one works, a wrong one does not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import redis

from servers import certificates
from servers.certificates import Certificates
from servers.redis_server import Redis
from tokenkeep import KeyRing, NewToken
from tokenkeep.errors import StoreUnavailable
from tokenkeep.testing import FakeProvider, faces


class WithTls(Redis):
    """A server that takes nothing but TLS."""

    made: Certificates

    @classmethod
    @contextmanager
    def showing(cls, made: Certificates) -> Iterator[Self]:
        """Run a server that shows a certificate."""
        server = cls("--tls-auth-clients", "no", "--tls-ca-cert-file", str(made.authority))
        server.made = made
        server.start()
        try:
            yield server
        finally:
            server.stop()

    def command(self) -> Sequence[str]:
        shown = ("--tls-cert-file", str(self.made.certificate), "--tls-key-file", str(self.made.key))
        return [*super().command(), "--port", "0", "--tls-port", str(self.port), *shown]

    def connect(self, number: int = 0) -> Any:
        return redis.Redis(
            host=self.host, port=self.port, db=number, socket_timeout=5, ssl=True, ssl_ca_certs=str(self.made.authority)
        )


@pytest.fixture(scope="module")
def server(redis_server: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WithTls]:  # noqa: ARG001  # where one runs, both do
    with WithTls.showing(certificates.make(tmp_path_factory.mktemp("tls"))) as running:
        yield running


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """An authority that signed nothing here."""
    return certificates.make(tmp_path).authority


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> faces.Face:
    chosen: faces.Face = request.param
    return chosen


@pytest.mark.requirement("D7")
async def test_redis_as_the_store_is_verified_by_the_right_authority_and_refused_by_another(
    server: WithTls, stranger: Path, face: faces.Face
) -> None:
    url, keys = f"rediss://localhost:{server.port}/{len(face)}", KeyRing.generate()
    right = f"{url}?ssl_ca_certs={server.made.authority}"
    async with faces.open_vault(face, right, providers=[FakeProvider()], keys=keys) as vault:
        await vault.store("alice", NewToken("t"))
        assert await vault.get_valid("alice") is not None
        assert not [warning for warning in (await vault.status()).warnings if "not verified" in warning]
    for wrong in (f"{url}?ssl_ca_certs={stranger}", url, url.replace("rediss", "redis")):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable) as refused:
            async with faces.open_vault(face, f"{wrong}{'&' if '?' in wrong else '?'}retry_timeout=1", keys=keys):
                pass
        assert time.monotonic() - began < 10
        assert str(server.port) not in str(refused.value)
        if wrong.startswith("rediss"):
            assert "TLS" in str(refused.value)


@pytest.mark.requirement("D7")
async def test_the_redis_tier_is_verified_by_the_right_authority_and_refused_by_another(
    server: WithTls, stranger: Path, tmp_path: Path, face: faces.Face
) -> None:
    cache, keys = f"rediss://localhost:{server.port}/2?timeout=5&ssl_ca_certs=", KeyRing.generate()
    for authority, is_right in ((server.made.authority, True), (stranger, False)):
        with server.connect(2) as client:
            client.flushdb()
        url = f"sqlite:///{tmp_path}/{is_right}.db"
        async with faces.open_vault(face, url, keys=keys, cache=f"{cache}{authority}") as vault:
            await vault.store("alice", NewToken("t", expires_in=3600), provider="p")
            assert await vault.get_valid("alice", provider="p") is not None
            tier = (await vault.status()).tiers[-1]
            assert tier.healthy is is_right
        with server.connect(2) as client:
            assert bool(client.keys()) is is_right


async def test_a_link_that_leaves_the_machine_without_tls_is_said(face: faces.Face) -> None:
    from tokenkeep.stores.redis.store.opening import open_redis  # noqa: PLC0415  # an opener, without a server

    for url, is_said in (
        ("redis://db.example:6379/0", True),
        ("rediss://db.example:6379/0", False),
        ("redis://localhost:6379/0", False),
        ("redis+cluster://127.0.0.1:1,10.0.0.1:1", True),
    ):
        backend = open_redis(url, asynchronous=face == "async", actor="me", clock=None).backend
        health: Any = backend.health
        assert bool([warning for warning in health._link if "not verified" in warning]) is is_said
