from __future__ import annotations

from pathlib import Path

import pytest

from tokenkeep import KeyRing, TokenVault
from tokenkeep.errors import UnknownKey
from tokenkeep.testing import FakeProvider

USERS = [f"user {number}" for number in range(10)]


class PulledPlug(Exception):
    pass


@pytest.fixture(autouse=True)
def batches_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenkeep.upkeep._BATCH", 3)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/tokens.db"


@pytest.fixture
def keys() -> KeyRing:
    return KeyRing.generate()


@pytest.fixture
def provider(url: str, keys: KeyRing) -> FakeProvider:
    """A provider whose ten tokens are in the vault, sealed under a key that is not the newest any more."""
    provider = FakeProvider(refresh=True)
    with TokenVault.open(url, providers=[provider], keys=keys) as vault:
        for user in USERS:
            vault.get_or_create(user)
    keys.add()
    return provider


def test_the_progress_counts_up_to_the_whole(url: str, keys: KeyRing, provider: FakeProvider) -> None:
    steps: list[tuple[int, int]] = []
    with TokenVault.open(url, providers=[provider], keys=keys) as vault:
        vault.rotate_keys(lambda done, total: steps.append((done, total)))
    assert steps == [(3, 10), (6, 10), (9, 10), (10, 10)]


def test_a_rotation_that_was_cut_off_goes_on_with_what_is_left(url: str, keys: KeyRing, provider: FakeProvider) -> None:
    def pull_the_plug(done: int, _: int) -> None:
        if done >= 6:
            raise PulledPlug

    with TokenVault.open(url, providers=[provider], keys=keys) as vault:
        with pytest.raises(PulledPlug):
            vault.rotate_keys(pull_the_plug)
        assert vault.status().key_ids == tuple(sorted(keys.key_ids))
        assert all(vault.get_valid(user) is not None for user in USERS)
    with TokenVault.open(url, providers=[provider], keys=keys) as vault:
        assert vault.rotate_keys().resealed == 4
        assert vault.status().key_ids == (keys.key_id,)
        tokens = [vault.get_valid(user) for user in USERS]
    assert {token.access_token for token in tokens if token} | {
        token.refresh_token for token in tokens if token
    } == set(provider.granted)


@pytest.mark.requirement("S3")
def test_a_key_that_still_seals_a_row_is_missed_at_opening(url: str, keys: KeyRing, provider: FakeProvider) -> None:
    old, new = keys.key_ids
    with TokenVault.open(url, providers=[provider], keys=keys) as vault:
        vault.acquire(USERS[0])
    keys.drop(old)
    with pytest.raises(UnknownKey) as missed:
        TokenVault.open(url, providers=[provider], keys=keys).__enter__()
    assert missed.value.key_ids == (old,)
    assert new not in missed.value.key_ids


def test_a_key_that_seals_nothing_any_more_may_be_dropped(url: str, keys: KeyRing, provider: FakeProvider) -> None:
    old, new = keys.key_ids
    with TokenVault.open(url, providers=[provider], keys=keys) as vault:
        assert vault.rotate_keys().unused == (old,)
    keys.drop(old)
    with TokenVault.open(url, providers=[provider], keys=keys) as vault:
        assert vault.get_valid(USERS[3]) is not None
        assert vault.status().key_ids == (new,)


def test_a_login_during_a_rotation_is_neither_lost_nor_overwritten(
    url: str, keys: KeyRing, provider: FakeProvider
) -> None:
    with TokenVault.open(url, providers=[provider], keys=keys) as vault:
        vault.rotate_keys(lambda *_: vault.acquire(USERS[-1]))
        read = vault.get_valid(USERS[-1])
    assert read is not None
    assert read.access_token == provider.granted[-2]
    assert read.version == provider.calls.count(USERS[-1])
