"""What a wrong URL, password, server or schema gets: one of our errors, in bounded time, without the URL in it."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from servers import certificates
from servers.common import free_port
from servers.mongo import Mongo
from servers.proxy import FaultProxy
from tokenkeep import AsyncTokenVault, KeyRing, NewToken, TokenVault
from tokenkeep.errors import ConfigurationError, SchemaMismatch, StoreError, StoreUnavailable, TokenKeepError
from tokenkeep.testing import FakeProvider, faces

PASSWORD = "pw-that-no-error-may-show"


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> faces.Face:
    found: faces.Face = request.param
    return found


def name_in(url: str) -> str:
    """The name of the database in a URL."""
    return url.rpartition("/")[2].partition("?")[0]


async def opening(face: faces.Face, url: str) -> TokenKeepError:
    """Try to open, and return the error that comes of it, which must show no password in any of its causes."""
    with pytest.raises((StoreError, ConfigurationError)) as refused:
        async with faces.open_vault(face, url, providers=[FakeProvider()], keys=KeyRing.generate()):
            pass
    shown = "".join(traceback.format_exception(refused.value))
    assert PASSWORD not in shown
    assert "mongodb://" not in str(refused.value).replace("mongodb://user:password@host:27017/database", "")
    return refused.value


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("127.0.0.1", "names no database"),
        ("127.0.0.1/", "names no database"),
        ("127.0.0.1/?replicaSet=x", "names no database"),
        ("127.0.0.1/a.b", "no usable database name"),
        ("127.0.0.1/a%24b", "cannot be read|no usable"),
        (f"u:{PASSWORD}@extra@127.0.0.1/db", "cannot be read"),
        (f"u:{PASSWORD}/x@127.0.0.1/db", "cannot be read"),
        (f"u:1/{PASSWORD}@127.0.0.1/db", "cannot be read|no usable"),
        (f"u:{PASSWORD}#x@127.0.0.1/db", "cannot be read"),
        ("127.0.0.1:port/db", "cannot be read"),
        ("127.0.0.1:99999/db", "cannot be read"),
        ("[::1/db", "cannot be read"),
        ("/db", "cannot be read"),
        ("127.0.0.1/db?tls=perhaps", "does not take these options .* tls"),
        ("127.0.0.1/db?tsl=true", "does not take these options .* tsl"),
        ("127.0.0.1/db?timeoutMS=soon", "does not take these options .* timeoutms"),
        ("127.0.0.1/db?tls=true&tlsCAFile=/no/such/file", "does not take these options|file .* cannot be read"),
        (f"127.0.0.1/db?authMechanism={PASSWORD}", "does not take these options .* authmechanism"),
    ],
)
async def test_a_url_that_cannot_be_read_is_refused_before_anything_is_asked(
    face: faces.Face, rest: str, message: str
) -> None:
    error = await opening(face, f"mongodb://{rest}")
    assert isinstance(error, ConfigurationError)
    assert error.__cause__ is None
    with pytest.raises(ConfigurationError, match=message):
        raise error


async def test_a_driver_is_not_named_in_a_mongo_url(face: faces.Face) -> None:
    assert "the face picks it" in str(await opening(face, "mongodb+motor://127.0.0.1/db"))


async def test_a_dns_seed_list_that_does_not_exist_is_unavailable(face: faces.Face) -> None:
    assert isinstance(
        await opening(face, "mongodb+srv://cluster.tokenkeep.invalid/db?timeoutMS=2000"), StoreUnavailable
    )


async def test_nobody_there_is_said_within_the_bound(face: faces.Face) -> None:
    began = time.monotonic()
    error = await opening(face, f"mongodb://127.0.0.1:{free_port()}/db?serverSelectionTimeoutMS=300")
    assert isinstance(error, StoreUnavailable)
    assert "no server can be reached" in str(error)
    assert time.monotonic() - began < 5


# --- who may come in -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(mongo_server: Mongo) -> Iterator[Mongo]:
    """A server with passwords: `keeper` may read and write `db`, `reader` may only read `shelf`."""
    assert mongo_server.pid
    with Mongo.running("--sync-on-commit") as server:
        with server.connect() as client:
            for name, role, where in (("keeper", "readWrite", "db"), ("reader", "read", "shelf")):
                client["db"].command("createUser", name, pwd=PASSWORD, roles=[{"role": role, "db": where}])
        server.options = ("--auth",)
        server.restart()
        yield server


def test_the_right_password_opens(guarded: Mongo) -> None:
    url = f"mongodb://keeper:{PASSWORD}@127.0.0.1:{guarded.port}/db"
    with TokenVault.open(url, providers=[FakeProvider()], keys=KeyRing.generate()) as vault:
        assert vault.get_or_create("alice").version == 1


@pytest.mark.parametrize(
    ("who", "where", "message"),
    [
        (f"keeper:{PASSWORD}-but-wrong@", "db", "password is wrong"),
        (f"nobody:{PASSWORD}@", "db", "password is wrong"),
        (f"keeper:{PASSWORD}@", "shelf", "password is wrong"),
        (f"keeper:{PASSWORD}@", "shelf?authSource=db", "lacks a right"),
        ("", "shelf", "lacks a right"),
        (f"reader:{PASSWORD}@", "shelf?authSource=db", "lacks a right"),
    ],
)
async def test_whoever_may_not_is_told_so(guarded: Mongo, face: faces.Face, who: str, where: str, message: str) -> None:
    error = await opening(face, f"mongodb://{who}127.0.0.1:{guarded.port}/{where}")
    assert isinstance(error, StoreUnavailable)
    assert message in str(error)


# --- TLS -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificates:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def encrypted(mongo_server: Mongo, shown: certificates.Certificates) -> Iterator[Mongo]:
    assert mongo_server.pid
    options = ("--tls-cert-file", str(shown.certificate), "--tls-key-file", str(shown.key))
    server = Mongo(*options, tls=True, tlsCAFile=str(shown.authority))
    server.start()
    yield server
    server.stop()


async def test_tls_with_the_right_authority_opens(
    encrypted: Mongo, shown: certificates.Certificates, face: faces.Face
) -> None:
    url = f"mongodb://127.0.0.1:{encrypted.port}/db_{face}?tls=true&tlsCAFile={shown.authority}"
    async with faces.open_vault(face, url, providers=[FakeProvider()], keys=KeyRing.generate()) as vault:
        assert (await vault.status()).healthy


@pytest.mark.parametrize("options", ["", "&tls=true"])
async def test_a_tls_mismatch_is_unavailable(
    encrypted: Mongo, mongo_server: Mongo, face: faces.Face, options: str
) -> None:
    wrong = "serverSelectionTimeoutMS=500" + options
    error = await opening(face, f"mongodb://127.0.0.1:{encrypted.port}/db?{wrong}")
    assert isinstance(error, StoreUnavailable)
    assert "tls" in str(error)
    if options:
        error = await opening(face, f"mongodb://127.0.0.1:{mongo_server.port}/db?{wrong}")
        assert isinstance(error, StoreUnavailable)
        assert "tls" in str(error)


# --- the server is not the right one ---------------------------------------------------------------------


async def test_a_server_without_replica_set_is_refused_with_the_way_out(mongo_server: Mongo, face: faces.Face) -> None:
    assert mongo_server.pid
    with Mongo.running("--standalone") as server:
        error = await opening(face, server.url("db"))
        assert isinstance(error, ConfigurationError)
        assert "rs.initiate()" in str(error)
        with server.connect() as client:
            assert client["db"].list_collection_names() == []


@pytest.mark.parametrize(
    ("found", "known"), [(2, 2), (999, 999), (0, 0), ("1", None), (None, None), ({"$gt": 0}, None)]
)
async def test_a_schema_that_is_not_ours_is_left_alone(
    mongo_url: str, mongo_server: Mongo, face: faces.Face, found: Any, known: int | None
) -> None:
    name = name_in(mongo_url)
    with mongo_server.connect() as client:
        client[name]["tokenkeep_meta"].insert_one({"_id": "schema_version", "value": found})
        error = await opening(face, mongo_url)
        assert isinstance(error, SchemaMismatch)
        assert (error.found, error.expected) == (known, 1)
        assert client[name].list_collection_names() == ["tokenkeep_meta"]


# --- the server goes away --------------------------------------------------------------------------------


def direct(proxy: FaultProxy, name: str) -> str:
    """A URL through the proxy; `directConnection`, or PyMongo would go round it to the address in the reply."""
    return f"mongodb://127.0.0.1:{proxy.port}/{name}?directConnection=true&timeoutMS=1000&heartbeatFrequencyMS=500"


async def test_a_black_hole_costs_the_time_out_and_heals(
    mongo_server: Mongo, mongo_url: str, face: faces.Face, keys: KeyRing
) -> None:
    name = name_in(mongo_url)
    with FaultProxy(mongo_server.port) as proxy:
        async with faces.open_vault(face, direct(proxy, name), providers=[FakeProvider()], keys=keys) as vault:
            token = await vault.get_or_create("alice")
            proxy.black_hole()
            for call in (vault.get_valid("alice"), vault.store("bob", NewToken("bobs-token"))):
                began = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    await call
                assert time.monotonic() - began < 8
            tier = (await vault.status()).tiers[0]
            assert (tier.healthy, PASSWORD in str(tier.reason)) == (False, False)
            proxy.heal()
            read = await until_it_answers(vault)
            assert read.id == token.id


async def test_a_cut_connection_is_made_good_unseen(
    mongo_server: Mongo, mongo_url: str, face: faces.Face, keys: KeyRing
) -> None:
    name = name_in(mongo_url)
    with FaultProxy(mongo_server.port) as proxy:
        async with faces.open_vault(face, direct(proxy, name), providers=[FakeProvider()], keys=keys) as vault:
            for number in range(1, 4):
                proxy.cut()
                assert (await vault.store("alice", NewToken(f"token-{number}"))).version == number
                proxy.cut()
                read = await vault.get_valid("alice")
                assert read is not None
                assert read.version == number
            assert len(await vault.audit_trail("alice")) == 3


async def until_it_answers(vault: AsyncTokenVault) -> Any:
    patience = time.monotonic() + 20
    while True:
        try:
            return await vault.get_valid("alice")
        except StoreUnavailable:
            assert time.monotonic() < patience
            await asyncio.sleep(0.05)


@pytest.fixture
def keys() -> KeyRing:
    return KeyRing.generate()


def test_an_error_of_the_store_names_no_address(mongo_server: Mongo, mongo_url: str, keys: KeyRing) -> None:
    with (
        FaultProxy(mongo_server.port) as proxy,
        TokenVault.open(direct(proxy, name_in(mongo_url)), providers=[FakeProvider()], keys=keys) as vault,
    ):
        proxy.refuse()
        with pytest.raises(StoreUnavailable) as refused:
            vault.get_valid("alice")
        assert str(proxy.port) not in str(refused.value)
        assert "127.0.0.1" not in str(refused.value)
        proxy.heal()
