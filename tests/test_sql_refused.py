"""What a server refuses is said with the way out, and without address, user, password or value."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta

import pytest

from servers.common import free_port
from servers.mariadb import MariaDB
from servers.postgres import Postgres
from sql_ways import WAYS, Way
from tokenkeep import KeyRing, NewToken, TokenIssuer, TokenVault
from tokenkeep.errors import ConfigurationError, StoreUnavailable, TokenKeepError
from tokenkeep.stores.sql.server_errors import Kind, understood
from tokenkeep.testing import FakeProvider, faces

HOUR = timedelta(hours=1)


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture
def face(way: Way) -> faces.Face:
    return way[0]


@pytest.fixture
def url(request: pytest.FixtureRequest, way: Way) -> str:
    scheme = way[1]
    found: str = request.getfixturevalue("mariadb_url" if scheme == "mariadb" else "postgres_url")
    return f"{scheme}{found[found.index('://') :]}?retry_timeout=0"


async def refusal(face: faces.Face, url: str, error: type[TokenKeepError] = StoreUnavailable) -> str:
    with pytest.raises(error) as refused:
        async with faces.open_vault(face, url, keys=KeyRing.generate()):
            pass
    hanging: BaseException | None = refused.value
    while hanging is not None:
        for secret in ("canary", "wrong-pw", "127.0.0.1"):
            assert secret not in f"{hanging} {hanging!r} {hanging.args}"
        hanging = hanging.__cause__ or hanging.__context__
    return str(refused.value)


async def test_a_wrong_password(face: faces.Face, url: str) -> None:
    wrong = url.replace(Postgres.password, "wrong-pw").replace(MariaDB.password, "wrong-pw")
    assert "refused the user or the password" in await refusal(face, wrong)


async def test_a_database_that_does_not_exist(face: faces.Face, url: str) -> None:
    assert "nowhere does not exist on that server; create it" in await refusal(
        face, url.replace(url.rpartition("/")[2], "nowhere?retry_timeout=0")
    )


async def test_a_server_that_is_not_there(face: faces.Face, url: str) -> None:
    before, _, after = url.rpartition(":")
    nobody = f"{before}:{free_port()}/{after.partition('/')[2]}"
    assert "cannot be reached; check host and port" in await refusal(face, nobody)


async def test_a_user_without_rights(request: pytest.FixtureRequest, face: faces.Face, url: str) -> None:
    name = url.rpartition("/")[2].partition("?")[0]
    if url.startswith("postgresql"):
        postgres: Postgres = request.getfixturevalue("postgres_server")
        with postgres.connect(name) as connection:
            connection.execute("DROP ROLE IF EXISTS nobody")
            connection.execute("CREATE ROLE nobody LOGIN PASSWORD 'nobody-pw-canary'")
    else:
        mariadb: MariaDB = request.getfixturevalue("mariadb_server")
        with mariadb.connect() as other, other.cursor() as cursor:
            cursor.execute("CREATE OR REPLACE USER nobody@127.0.0.1 IDENTIFIED BY 'nobody-pw-canary'")
            cursor.execute(f"GRANT SELECT ON {name}.* TO nobody@127.0.0.1")
    poor = url.replace("tokenkeep:", "nobody:", 1)
    poor = poor.replace(Postgres.password, "nobody-pw-canary").replace(MariaDB.password, "nobody-pw-canary")
    assert "grant the missing right" in await refusal(face, poor)


@pytest.fixture(scope="module")
def crowded() -> Iterator[Postgres]:
    with Postgres.running("-c", "max_connections=4", "-c", "superuser_reserved_connections=0") as server:
        yield server


@pytest.mark.parametrize("only", ["sync", "async"])
async def test_a_server_that_has_no_connection_left(crowded: Postgres, only: faces.Face) -> None:
    database = crowded.database()
    with ExitStack() as taken:
        for _ in range(4):
            taken.enter_context(crowded.connect())
        assert "has no connection left" in await refusal(only, f"{database.url}?retry_timeout=0")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("postgresql://host", "names no database"),
        ("postgresql://u:p@host:port/db", "cannot be read"),
        ("postgresql://host/db?pool_size=many", "pool_size"),
        ("postgresql://host/db?statement_timeout=0", "statement_timeout"),
        ("postgresql+asyncpg://host/db", "asyncpg"),
        ("postgresql+psycopg2://host/db", "psycopg"),
        ("mariadb://host/db?nonsense=1", "nonsense"),
        ("mariadb+asyncmy://host/db", "asyncmy"),
        ("mariadb://host/db?ssl_ca=/nowhere.pem", "certificate"),
        ("mysql+mysqldb://host/db", "mysqldb"),
    ],
)
def test_a_url_that_means_nothing(bad: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as refused:
        TokenVault.open(bad, keys=KeyRing.generate())
    assert "u:p" not in str(refused.value)


@pytest.mark.parametrize(("url", "driver", "extra"), [
    ("postgresql://h/d", "psycopg", "postgres"), ("mariadb://h/d", "pymysql", "mysql"),
])  # fmt: skip
def test_a_driver_that_is_missing_names_the_extra(url: str, driver: str, extra: str) -> None:
    """In a process of its own, in which the driver cannot be imported."""
    program = (
        f"import sys; sys.modules[{driver!r}] = None\n"
        "from tokenkeep import TokenVault, KeyRing\n"
        f"TokenVault.open({url!r}, keys=KeyRing.generate())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f'pip install "tokenkeep[{extra}]"' in done.stderr.splitlines()[-1]


def test_a_vault_on_a_server_wants_keys_and_an_issuer_does_without(postgres_url: str) -> None:
    with pytest.raises(ConfigurationError, match="keys="):
        TokenVault.open(postgres_url)
    with TokenIssuer.open(postgres_url, lifetime=HOUR) as issuer:
        issued = issuer.issue("alice")
        assert issued.token is not None
        assert issuer.verify(issued.token) is not None
        assert issuer.status().key_ids == ()


@pytest.mark.parametrize("text", ["a\x00b", "lone \ud800", "\ufdd0 0000", "\ufdd00000", "🗝 'quotes' \\ %s"])
async def test_a_profile_of_any_text_comes_back_as_it_was(face: faces.Face, url: str, text: str) -> None:
    async with faces.open_vault(face, url, providers=[FakeProvider()], keys=KeyRing.generate()) as vault:
        profile = {text: [text, {"deep": text}], "n": 1.5}
        await vault.store("alice", NewToken("t", profile=profile))
        token = await vault.get_valid("alice")
        assert token is not None
        assert token.profile == profile


async def test_nothing_is_cut_or_taken_for_something_else(face: faces.Face, url: str) -> None:
    """No column is too short, and no case, accent, space or width is overlooked."""
    users = ["a", "A", "á", "a ", "a\t", "\uff41", "ß", "ss", "x" * 255, "🗝" * 255]
    async with faces.open_vault(face, url, providers=[FakeProvider()], keys=KeyRing.generate()) as vault:
        for user in users:
            await vault.store(user, NewToken(f"token of {user} {'y' * 70_000}"))
        for user in users:
            token = await vault.get_valid(user)
            assert token is not None
            assert token.user_id == user
            assert token.access_token.reveal() == f"token of {user} {'y' * 70_000}"
    async with faces.open_issuer(face, url, lifetime=HOUR, keys=None) as issuer:
        scopes = {f"scope:{number}:{'z' * 60}" for number in range(1500)}
        issued = await issuer.issue("A", scopes=scopes)
        await issuer.issue("a ")
        assert issued.token is not None
        who = await issuer.verify(issued.token)
        assert who is not None
        assert who.scopes == scopes
        assert [token.user_id for token in await issuer.tokens("A")] == ["A"]


def test_what_is_not_known_is_told_by_class_and_code_alone() -> None:
    class Odd(Exception):
        sqlstate = "XX001"

    said = understood("postgresql", Odd("host=db.internal user=alice"))
    assert said.kind is Kind.REFUSED
    assert "Odd XX001" in said.way_out
    assert "alice" not in said.way_out
