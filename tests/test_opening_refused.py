"""What cannot be opened is refused with the way out, and left as it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from tokenkeep import KeyRing
from tokenkeep.errors import ConfigurationError, SchemaMismatch, StoreUnavailable, TokenKeepError
from tokenkeep.testing import FakeProvider, faces

HOUR = timedelta(hours=1)


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> faces.Face:
    face: faces.Face = request.param
    return face


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def refusal(face: faces.Face, url: str, error: type[TokenKeepError] = TokenKeepError) -> str:
    """Try to open a vault and an issuer; both refuse with the same sentence."""
    sentences = set()
    for opening in (
        lambda: faces.open_vault(face, url, providers=[FakeProvider()], keys=KeyRing.generate()),
        lambda: faces.open_issuer(face, url, lifetime=HOUR, keys=KeyRing.generate()),
    ):
        with pytest.raises(error) as refused:
            async with opening():
                pass
        sentences.add(str(refused.value))
    [sentence] = sentences
    return sentence


@pytest.mark.parametrize(
    "url", ["", "tokens.db", "sqllite:///tokens.db", "oracle://scott:tiger@db/x", "://", "sqlite+nonsense:///x"]
)
async def test_an_unknown_url_is_refused_with_the_schemes_that_work_and_no_password(
    face: faces.Face, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sentence = await refusal(face, url, ConfigurationError)
    assert "sqlite" in sentence.lower()
    assert "tiger" not in sentence
    assert files(tmp_path) == []


async def test_a_file_that_is_no_database_is_refused_by_name_and_left_untouched(
    face: faces.Face, tmp_path: Path
) -> None:
    path = tmp_path / "letter.txt"
    content = b"Dear Alice, this is no database. " * 100
    path.write_bytes(content)
    sentence = await refusal(face, f"sqlite:///{path}", StoreUnavailable)
    assert "letter.txt" in sentence
    assert str(tmp_path) not in sentence
    assert path.read_bytes() == content


async def test_a_file_in_a_folder_that_does_not_exist_is_refused_with_the_way_out(
    face: faces.Face, tmp_path: Path
) -> None:
    sentence = await refusal(face, f"sqlite:///{tmp_path}/nowhere/tokens.db", StoreUnavailable)
    assert "tokens.db" in sentence
    assert "folder" in sentence


async def test_a_newer_schema_is_refused_with_both_versions_and_left_as_it_was(
    face: faces.Face, tmp_path: Path
) -> None:
    path = tmp_path / "tokens.db"
    async with faces.open_vault(face, f"sqlite:///{path}", providers=[FakeProvider()], keys=KeyRing.generate()):
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE tokenkeep_meta SET value = '99' WHERE name = 'schema_version'")
    with pytest.raises(SchemaMismatch, match="upgrade") as refused:
        async with faces.open_vault(face, f"sqlite:///{path}", keys=KeyRing.generate()):
            pass
    assert refused.value.found == 99
    assert refused.value.expected >= 1
    assert "tokens.db" in str(refused.value)


async def test_the_tables_of_somebody_else_in_the_file_are_left_alone(face: faces.Face, tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE token (id INTEGER PRIMARY KEY, words TEXT)")
        connection.execute("INSERT INTO token (words) VALUES ('mine')")
    async with faces.open_vault(
        face, f"sqlite:///{path}", providers=[FakeProvider()], keys=KeyRing.generate()
    ) as vault:
        await vault.get_or_create("alice")
        await vault.revoke("alice")
        await vault.purge()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT words FROM token").fetchall() == [("mine",)]


async def test_two_providers_of_one_name_are_refused(face: faces.Face, tmp_path: Path) -> None:
    with pytest.raises((ConfigurationError, ValueError), match="fake"):
        async with faces.open_vault(
            face,
            f"sqlite:///{tmp_path}/tokens.db",
            providers=[FakeProvider(), FakeProvider()],
            keys=KeyRing.generate(),
        ):
            pass


@pytest.mark.parametrize("namespace", ["", "x" * 256, "a\x00b", "a\ud800"], ids=["empty", "256", "NUL", "lone"])
async def test_a_bad_namespace_is_refused_before_a_file_is_made(
    face: faces.Face, namespace: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="namespace"):
        async with faces.open_vault(
            face, f"sqlite:///{tmp_path}/tokens.db", keys=KeyRing.generate(), namespace=namespace
        ):
            pass
    with pytest.raises(ValueError, match="namespace"):
        async with faces.open_issuer(
            face, f"sqlite:///{tmp_path}/tokens.db", lifetime=HOUR, keys=KeyRing.generate(), namespace=namespace
        ):
            pass
    assert files(tmp_path) == []
