from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import stat
import subprocess
import sys
import traceback
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenkeep.errors import ConfigurationError, SealingError
from tokenkeep.keyring import KeyRing, named_in_environment
from tokenkeep.model import Account
from tokenkeep.ports import Binding
from tokenkeep.sealing import RootKey
from tokenkeep.secret import Secret

RING = KeyRing.generate()
PLAIN = Secret("eyJ-canary-4711")
PLACE = Binding(account=Account("default", "upstox", "alice"), kind="access", row="018f-1", field="access_token")
ENVELOPE = RING.seal(PLAIN, PLACE)


def written(root: bytes) -> str:
    """The text of a key, made without looking at how many different bytes it has."""
    return RootKey(root).text.reveal()


def texts_of(ring: KeyRing) -> list[str]:
    return [key.text.reveal() for key in ring._keys.values()]


def shown_by(error: BaseException, *, skip: int = 1) -> str:
    """All that an error tracker would see, but for the frames of the test itself."""
    frame = error.__traceback__
    for _ in range(skip):
        assert frame is not None
        frame = frame.tb_next
    frames = traceback.TracebackException(type(error), error, frame, capture_locals=True)
    context = error.__context__
    return "".join(frames.format()) + repr(vars(error)) + (repr(vars(context)) + repr(context.args) if context else "")


# --- the written form


@given(st.binary(min_size=32, max_size=32).filter(lambda root: len(set(root)) > 16))
def test_a_key_reads_back_from_its_text(root: bytes) -> None:
    key = RootKey.parse(RootKey(root).text)
    assert key is not None
    assert key.id == RootKey(root).id
    assert key.check_value == RootKey(root).check_value


def test_every_changed_character_of_a_key_is_noticed() -> None:
    text = texts_of(KeyRing.generate())[0]
    for position, right in enumerate(text):
        for wrong in {"A", "b", "0", "_", "-", "é", "\n", "\ud800"} - {right}:
            assert RootKey.parse(Secret(text[:position] + wrong + text[position + 1 :])) is None
    assert RootKey.parse(Secret(text + "=")) is None
    assert RootKey.parse(Secret(text[:-1])) is None


@pytest.mark.parametrize(
    "root",
    [bytes(32), b"\xff" * 32, b"k" * 32, b"changeme" * 4, b"ab" * 16, bytes(range(32)), bytes(range(32, 0, -1))],
)
def test_an_example_key_is_refused(root: bytes) -> None:
    with pytest.raises(ConfigurationError, match="not random"):
        KeyRing.from_env({"TOKENKEEP_KEYS": written(root)})


# --- the environment


def test_keys_come_from_the_environment_newest_last(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyRing.generate()
    ring.add()
    ring.add()
    for separator in (",", " ", "\n", ", ", " ,\t"):
        monkeypatch.setenv("TOKENKEEP_KEYS", separator.join(texts_of(ring)))
        assert KeyRing.from_env().key_ids == ring.key_ids
        assert KeyRing.from_env().open(ring.seal(PLAIN, PLACE), PLACE) == PLAIN


def test_the_environment_may_name_a_file_instead(tmp_path: Path) -> None:
    ring = KeyRing.generate()
    ring.save(tmp_path / "keys")
    environ = {"TOKENKEEP_KEY_FILE": str(tmp_path / "keys"), "TOKENKEEP_KEYS": ""}
    assert KeyRing.from_env(environ).key_ids == ring.key_ids


@pytest.mark.requirement("S8")
@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "no keys: set TOKENKEEP_KEYS .* or TOKENKEEP_KEY_FILE"),
        ({"TOKENKEEP_KEYS": " ", "TOKENKEEP_KEY_FILE": ""}, "no keys: set"),
        ({"TOKENKEEP_KEYS": "x", "TOKENKEEP_KEY_FILE": "/y"}, "both set: keep one"),
        ({"TOKENKEEP_KEYS": ", ,"}, "at least one key"),
        ({"TOKENKEEP_KEYS": "hunter2"}, "key 1 in TOKENKEEP_KEYS is malformed"),
        ({"TOKENKEEP_KEY_FILE": "/nowhere/at/all.key"}, r"key file all\.key cannot be read: No such file"),
    ],
)
def test_an_environment_without_good_keys_is_refused_with_the_way_out(environ: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        KeyRing.from_env(environ)
    assert "hunter2" not in str(caught.value)
    assert "/nowhere" not in str(caught.value)


def test_it_can_be_asked_whether_the_environment_names_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not named_in_environment({})
    assert not named_in_environment({"TOKENKEEP_KEYS": " "})
    assert named_in_environment({"TOKENKEEP_KEYS": "x"})
    assert named_in_environment({"TOKENKEEP_KEY_FILE": "x"})
    monkeypatch.setenv("TOKENKEEP_KEYS", "x")
    assert named_in_environment()


# --- the file


def test_a_saved_ring_reads_back_and_only_its_owner_may(tmp_path: Path) -> None:
    ring = KeyRing.generate()
    ring.add()
    path = tmp_path / "tokens.db.key"
    old_umask = os.umask(0)
    try:
        ring.save(path)
    finally:
        os.umask(old_umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyRing.from_file(path).key_ids == ring.key_ids
    assert KeyRing.from_file(str(path)).open(ring.seal(PLAIN, PLACE), PLACE) == PLAIN
    ring.add()
    ring.save(path)
    assert KeyRing.from_file(path).key_ids == ring.key_ids
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokens.db.key"]


def test_comments_blank_lines_and_windows_line_ends_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    ring = KeyRing.generate()
    ring.add()
    one, other = texts_of(ring)
    path.write_bytes(f"# old\r\n\r\n  {one}  # of March\r\n#{one}\r\n{other}\r\n".encode())
    path.chmod(0o600)
    assert KeyRing.from_file(path).key_ids == ring.key_ids


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# only a comment\n"])
def test_an_empty_key_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"key file keys holds no key"):
        KeyRing.from_file(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_key_file_that_others_may_read_is_warned_of(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    KeyRing.generate().save(path)
    path.chmod(mode)
    with pytest.warns(UserWarning, match="key file keys is open to others than its owner: run `chmod 600`"):
        KeyRing.from_file(path)


def test_a_folder_is_no_key_file_neither_to_read_nor_to_write(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    with pytest.raises(ConfigurationError, match="key file keys cannot be read"):
        KeyRing.from_file(tmp_path / "keys")
    with pytest.raises(ConfigurationError, match="key file keys cannot be written"):
        KeyRing.generate().save(tmp_path / "keys")
    with pytest.raises(ConfigurationError, match="key file keys cannot be written"):
        KeyRing.generate().save(tmp_path / "missing" / "keys")
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys"], "no temporary file is left"


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    ring = KeyRing.generate()
    ring.save(path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    ring.add()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ConfigurationError, match="cannot be written: No space left") as caught:
            ring.save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys"]
    assert not any(text in shown_by(caught.value) for text in texts_of(ring))


def test_a_link_to_the_key_file_stays_a_link(tmp_path: Path) -> None:
    ring = KeyRing.generate()
    (tmp_path / "link").symlink_to(tmp_path / "keys")
    ring.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert KeyRing.from_file(tmp_path / "keys").key_ids == ring.key_ids


SAVING = """
import sys
from tokenkeep.keyring import KeyRing
ring = KeyRing.from_file(sys.argv[1])
first = ring.key_id
for _ in range(20):
    ring.add()
print("saving", flush=True)
while True:
    ring.save(sys.argv[1])
"""


def test_a_process_killed_while_it_saves_loses_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    ring = KeyRing.generate()
    ring.save(path)
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", SAVING, path], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"saving\n"
            process.send_signal(signal.SIGKILL)
        assert ring.key_id in KeyRing.from_file(path).key_ids


TOGETHER = """
import multiprocessing, sys
from tokenkeep.keyring import KeyRing
BARRIER = multiprocessing.get_context("fork").Barrier(8)
def one(_):
    BARRIER.wait()
    return KeyRing.kept_in(sys.argv[1]).key_ids
with multiprocessing.get_context("fork").Pool(8) as pool:
    print(len(set(pool.map(one, range(8), chunksize=1))))
"""


def test_processes_that_make_the_file_at_once_share_one_key(tmp_path: Path) -> None:
    for attempt in range(3):
        path = tmp_path / f"{attempt}.key"
        done = subprocess.run([sys.executable, "-c", TOGETHER, path], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["1"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list(tmp_path.iterdir())) == 3, "no temporary file is left"


def test_a_ring_that_is_kept_in_a_file_is_read_and_not_made_again(tmp_path: Path) -> None:
    ring = KeyRing.kept_in(tmp_path / "keys")
    assert KeyRing.kept_in(tmp_path / "keys").key_ids == ring.key_ids
    with pytest.raises(FileExistsError):
        KeyRing.generate().save(tmp_path / "keys", replace=False)
    assert KeyRing.from_file(tmp_path / "keys").key_ids == ring.key_ids


# --- no key is ever shown


def bad_rings(text: str, path: Path) -> list[Any]:
    """Each way of failing that has a key in its hands."""
    head, _, body = text.rpartition("_")
    mistyped = ("B" if body[0] == "A" else "A") + body[1:]
    contents = (f"{text}\n{text}\n", f"{text}x\n", f"{head}_{mistyped}\n", f"{body}\n", f"{text}\n{text[:-1]}\n")
    return [lambda content=content: path.write_text(content) and KeyRing.from_file(path) for content in contents]


@pytest.mark.requirement("S13")
def test_no_failure_shows_a_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    ring = KeyRing.generate()
    text = texts_of(ring)[0]
    body = text.split("_", 2)[2]
    for fail in bad_rings(text, path):
        with pytest.raises(ConfigurationError) as caught:
            fail()
        shown = shown_by(caught.value, skip=2)
        assert "keyring.py" in shown
        assert body[3:-1] not in shown
    with pytest.raises(SealingError) as refused:
        ring.open(ENVELOPE[:1] + bytes.fromhex(ring.key_id) + ENVELOPE[9:], PLACE)
    assert body not in shown_by(refused.value)
    assert repr(ring._newest._pseudorandom) not in shown_by(refused.value)


@pytest.mark.requirement("S13")
@pytest.mark.parametrize("twice", ["{0},{0}", "{0} {1} {0}"])
def test_a_key_named_twice_is_refused_without_showing_it(twice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = texts_of(KeyRing.generate()), texts_of(KeyRing.generate())
    monkeypatch.setenv("TOKENKEEP_KEYS", twice.format(one[0], other[0]))
    with pytest.raises(ConfigurationError, match="names a key twice") as caught:
        KeyRing.from_env()
    shown = shown_by(caught.value)
    assert "keyring.py" in shown
    assert one[0].split("_", 2)[2] not in shown


@pytest.mark.requirement("S13")
def test_a_ring_shows_ids_and_refuses_to_travel() -> None:
    ring = KeyRing.generate()
    ring.add()
    key = ring._newest
    for shown in (repr(ring), str(ring), f"{ring}", f"{ring!r:>90}", repr(vars(ring)), repr(key), f"{key}", str([key])):
        assert ring.key_id in shown
        assert not any(text.split("_", 2)[2] in shown for text in texts_of(ring))
    for travel in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
        for value in (ring, key):
            with pytest.raises(TypeError) as caught:
                travel(value)
            assert not any(text.split("_", 2)[2] in str(caught.value) for text in texts_of(ring))


def test_an_empty_ring_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one key"):
        KeyRing([])


def test_every_pair_of_generated_rings_differs() -> None:
    rings = [KeyRing.generate() for _ in range(20)]
    assert all(one.key_id != other.key_id for one, other in combinations(rings, 2))
