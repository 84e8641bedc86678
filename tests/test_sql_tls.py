"""TLS with a private authority: the right one works, a wrong one is refused, an unverified link is said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from servers import certificates
from servers.certificates import Certificates
from servers.common import Server, private_folder
from servers.mariadb import MariaDB
from servers.postgres import Postgres
from sql_ways import WAYS
from tokenkeep import KeyRing, NewToken
from tokenkeep.errors import StoreUnavailable
from tokenkeep.stores.sql.servers import tls
from tokenkeep.stores.sql.servers.address import Address
from tokenkeep.testing import FakeProvider, faces


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> faces.Face:
    face: faces.Face = request.param
    return face


@contextmanager
def shown_by(server: type[Server]) -> Iterator[Certificates]:
    """Make certificates where only the server's user can read its key."""
    ids = server().ids
    folder = private_folder("tls", ids)
    made = certificates.make(folder)
    for file in made:
        file.chmod(0o600 if file == made.key else 0o644)
        if ids is not None:
            os.chown(file, *ids)
    yield made
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def postgres_with_tls() -> Iterator[tuple[Postgres, Certificates]]:
    with shown_by(Postgres) as made:
        settings = {"ssl": "on", "ssl_cert_file": made.certificate, "ssl_key_file": made.key}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with Postgres.running(*options) as server:
            yield server, made


@pytest.fixture(scope="module")
def mariadb_with_tls() -> Iterator[tuple[MariaDB, Certificates]]:
    with (
        shown_by(MariaDB) as made,
        MariaDB.running(f"--ssl-cert={made.certificate}", f"--ssl-key={made.key}", "--ssl=on") as server,
    ):
        yield server, made


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """An authority that signed nothing here."""
    return certificates.make(tmp_path).authority


async def used(face: faces.Face, url: str) -> None:
    async with faces.open_vault(face, url, providers=[FakeProvider()], keys=KeyRing.generate()) as vault:
        await vault.store("alice", NewToken("t"))
        assert await vault.get_valid("alice") is not None
        assert not [warning for warning in (await vault.status()).warnings if "not verified" in warning]


@pytest.mark.requirement("D7")
@pytest.mark.parametrize(("only", "scheme"), [way for way in WAYS if "postgresql" in way[1]], ids=str)
async def test_postgresql_is_verified_by_the_right_authority_and_refused_by_another(
    only: faces.Face, scheme: str, postgres_with_tls: tuple[Postgres, Certificates], stranger: Path
) -> None:
    server, made = postgres_with_tls
    database = server.database()
    url = f"{database.url.replace('postgresql', scheme)}?sslmode=verify-full&retry_timeout=0&sslrootcert="
    await used(only, f"{url}{made.authority}")
    with pytest.raises(StoreUnavailable, match="certificate that can be trusted"):
        await used(only, f"{url}{stranger}")


@pytest.mark.requirement("D7")
async def test_mariadb_is_verified_by_the_right_authority_and_refused_by_another(
    face: faces.Face, mariadb_with_tls: tuple[MariaDB, Certificates], stranger: Path
) -> None:
    server, made = mariadb_with_tls
    url = f"{server.database().url}?retry_timeout=0&ssl_ca="
    await used(face, f"{url}{made.authority}")
    with pytest.raises(StoreUnavailable, match="certificate that can be trusted"):
        await used(face, f"{url}{stranger}")


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("postgresql://db.example/x", True),
        ("postgresql://db.example/x?sslmode=require", True),
        ("postgresql://db.example/x?sslmode=verify-ca", True),
        ("postgresql://db.example/x?sslmode=verify-full", False),
        ("postgresql://127.0.0.1,db.example/x", True),
        ("postgresql://127.0.0.1:5432,localhost:5433/x", False),
        ("postgresql:///x?host=/run/postgresql", False),
        ("postgresql+asyncpg://db.example/x?sslmode=require", True),
        ("postgresql+asyncpg://db.example/x?sslmode=verify-full", False),
        ("mariadb://db.example/x", True),
        ("mariadb://db.example/x?ssl=true", False),
        ("mariadb://db.example/x?ssl=true&ssl_verify_identity=false", True),
        ("mariadb://db.example/x?ssl=true&ssl_verify_cert=false", True),
        ("mariadb://localhost/x", False),
    ],
)
def test_a_link_that_leaves_the_machine_unverified_is_said(url: str, warned: bool) -> None:
    from tokenkeep.stores.sql.servers import mariadb, postgresql  # noqa: PLC0415  # two modules of one shape

    module = postgresql if url.startswith("postgresql") else mariadb
    link = module.Link(Address.read(url, "an example"), asynchronous="asyncpg" in url)
    assert ["not verified" in warning for warning in link.warnings] == [True] * warned


def test_require_with_an_authority_verifies_it_as_libpq_does(tmp_path: Path) -> None:
    authority = certificates.make(tmp_path).authority
    context = tls.of_postgresql({"sslmode": "require", "sslrootcert": str(authority)})
    assert not isinstance(context, str)
    assert context is not None
    assert context.verify_mode.name == "CERT_REQUIRED"
    assert not context.check_hostname
