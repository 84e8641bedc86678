from __future__ import annotations

import base64
import random
import subprocess
import sys
import threading
import traceback
from itertools import pairwise
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from tokenkeep.errors import ConfigurationError, SealingError, UnknownKey
from tokenkeep.keyring import KeyRing
from tokenkeep.model import Account
from tokenkeep.ports import Binding, Sealer
from tokenkeep.sealing import CIPHERS_KEPT, RootKey, associated_data
from tokenkeep.secret import Secret

RING = KeyRing.generate()
PLAIN = Secret("eyJ-canary-4711")
PLACE = Binding(account=Account("default", "upstox", "alice"), kind="access", row="018f-1", field="access_token")
ENVELOPE = RING.seal(PLAIN, PLACE)

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ACCOUNTS = st.builds(Account, NAMES, NAMES, NAMES)
PLACES = st.builds(Binding, account=ACCOUNTS, kind=NAMES, row=NAMES, field=NAMES)


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


# --- sealing and opening


@pytest.mark.requirement("S4")
@given(st.text(), PLACES)
def test_what_is_sealed_opens_at_its_place_and_hides_the_plain_value(plain: str, place: Binding) -> None:
    sealed = RING.seal(Secret(plain), place)
    assert RING.open(sealed, place).reveal() == plain
    encoded = plain.encode("utf-8", "surrogatepass")
    assert len(encoded) < 6 or encoded not in sealed


def test_a_key_ring_is_a_sealer_and_opens_what_drivers_hand_out() -> None:
    sealer: Sealer = RING
    assert sealer.key_id_of(ENVELOPE) == sealer.key_id
    for sealed in (ENVELOPE, bytearray(ENVELOPE), memoryview(ENVELOPE)):
        assert sealer.open(sealed, PLACE) == PLAIN  # type: ignore[arg-type]  # what a driver does


@pytest.mark.requirement("S4")
@pytest.mark.requirement("S9")
def test_the_envelope_is_aes_256_gcm_under_a_key_derived_by_hkdf_sha_256() -> None:
    text = texts_of(RING)[0]
    root = base64.urlsafe_b64decode(text.split("_", 2)[2] + "=")
    assert len(root) == 32
    header, salt, nonce, ciphertext = ENVELOPE[:25], ENVELOPE[9:25], ENVELOPE[25:37], ENVELOPE[37:]
    key = HKDF(algorithm=SHA256(), length=32, salt=b"tokenkeep root key 1", info=b"seal\x00" + salt).derive(root)
    parts = ["default", "upstox", "alice", "access", "018f-1", "access_token"]
    bound = header + b"".join(len(part).to_bytes(4) for part in parts) + "".join(parts).encode()
    plain = AESGCM(key).decrypt(nonce, ciphertext, bound)
    assert plain.decode() == PLAIN.reveal()
    assert header[:9] == b"\x01" + bytes.fromhex(RING.key_id)


@pytest.mark.requirement("S9")
def test_each_purpose_has_its_own_key_and_none_is_the_root() -> None:
    key = RootKey.generate()
    root = base64.urlsafe_b64decode(key.text.reveal().split("_", 2)[2] + "=")
    message = b"the same message"
    results = [key.fingerprint(Secret(message.decode())), key.issued_digest(message), key.check_value]
    derived = [
        key._expand(purpose) for purpose in (b"key id", b"seal", b"fingerprint", b"issued token", b"check value")
    ]
    assert len({*results, *derived, root, key._pseudorandom}) == 9
    assert bytes.fromhex(key.id) not in root


@pytest.mark.requirement("S4")
def test_any_changed_byte_makes_it_unopenable() -> None:
    for position in range(len(ENVELOPE)):
        for change in (0x01, 0x80, 0xFF):
            changed = bytearray(ENVELOPE)
            changed[position] ^= change
            with pytest.raises(SealingError) as caught:
                RING.open(bytes(changed), PLACE)
            assert PLAIN.reveal() not in shown_by(caught.value)


@pytest.mark.requirement("S4")
@pytest.mark.parametrize(
    "junk",
    [
        *(b"", b"\x00", b"\x01", b"\x01" * 52, b"\x02" * 60, b"\xff" * 53, bytes(1000), PLAIN.reveal().encode() * 9),
        *(None, "", "text" * 20, 7, 53, [1] * 60, object()),
    ],
    ids=lambda junk: repr(junk)[:12],
)
def test_junk_is_a_sealing_error(junk: Any) -> None:
    for look in (lambda: RING.open(junk, PLACE), lambda: RING.key_id_of(junk)):
        with pytest.raises(SealingError):
            look()


@given(st.binary(max_size=200))
def test_no_bytes_at_all_are_another_error(junk: bytes) -> None:
    for sealed in (junk, b"\x01" + junk, ENVELOPE[:9] + junk):
        with pytest.raises(SealingError):
            RING.open(sealed, PLACE)


def test_a_cut_or_lengthened_envelope_is_a_sealing_error() -> None:
    for length in range(len(ENVELOPE)):
        with pytest.raises(SealingError):
            RING.open(ENVELOPE[:length], PLACE)
    with pytest.raises(SealingError):
        RING.open(ENVELOPE + b"\x00", PLACE)


@pytest.mark.requirement("S8")
def test_a_plain_value_in_the_place_of_a_sealed_one_is_never_handed_out() -> None:
    for planted in (b"eyJ-planted-token", b"eyJ-planted-token" * 10, b"\x01" + b"eyJ-planted-token" * 10):
        with pytest.raises(SealingError):
            RING.open(planted, PLACE)


# --- the binding


@pytest.mark.requirement("S5")
@pytest.mark.parametrize(
    "elsewhere",
    [
        PLACE._replace(account=Account("other", "upstox", "alice")),
        PLACE._replace(account=Account("default", "kite", "alice")),
        PLACE._replace(account=Account("default", "upstox", "bob")),
        PLACE._replace(kind="extended"),
        PLACE._replace(row="018f-2"),
        PLACE._replace(field="refresh_token"),
    ],
    ids=["namespace", "provider", "user", "kind", "row", "field"],
)
def test_a_sealed_value_that_was_moved_does_not_open(elsewhere: Binding) -> None:
    for _ in range(2):  # the second time its cipher is in the cache
        with pytest.raises(SealingError, match="moved"):
            RING.open(ENVELOPE, elsewhere)
        assert RING.open(ENVELOPE, PLACE) == PLAIN


@pytest.mark.requirement("S5")
@given(PLACES, PLACES)
def test_two_places_never_read_alike(one: Binding, other: Binding) -> None:
    assert (associated_data(b"", one) == associated_data(b"", other)) is (one == other)


@pytest.mark.requirement("S5")
@given(st.text("ab:1\x00é", min_size=6, max_size=12), st.data())
def test_places_that_join_to_the_same_text_do_not_collide(joined: str, data: st.DataObject) -> None:
    def cut() -> Binding:
        ends = sorted(data.draw(st.lists(st.integers(0, len(joined)), min_size=5, max_size=5)))
        edges = [0, *ends, len(joined)]
        parts = [joined[start:end] for start, end in pairwise(edges)]
        return Binding(account=Account(*parts[:3]), kind=parts[3], row=parts[4], field=parts[5])

    one, other = cut(), cut()
    assert (associated_data(b"", one) == associated_data(b"", other)) is (one == other)


# --- nonces


FORKED = """
import multiprocessing
from tokenkeep.keyring import KeyRing
from tokenkeep.model import Account
from tokenkeep.ports import Binding
from tokenkeep.secret import Secret
RING = KeyRing.generate()
PLACE = Binding(account=Account("n", "p", "u"), kind="access", row="1", field="access_token")
RING.seal(Secret("x"), PLACE)
def some(_):
    return [RING.seal(Secret("the same"), PLACE)[9:37] for _ in range(2500)]
with multiprocessing.get_context("fork").Pool(8) as pool:
    fresh = [one for batch in pool.map(some, range(16), chunksize=1) for one in batch]
print(len(fresh), len({one[:16] for one in fresh}), len({one[16:] for one in fresh}))
"""


@pytest.mark.requirement("S6")
def test_eight_forked_processes_never_repeat_a_salt_or_a_nonce() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["40000"] * 3


@pytest.mark.requirement("S6")
def test_a_seeded_random_module_changes_no_salt_or_nonce() -> None:
    state = random.getstate()
    try:
        random.seed(4711)
        first = RING.seal(PLAIN, PLACE)
        random.seed(4711)
        assert RING.seal(PLAIN, PLACE)[9:37] != first[9:37]
    finally:
        random.setstate(state)


@pytest.mark.requirement("S6")
def test_a_nonce_that_did_come_twice_would_meet_another_key() -> None:
    key = RootKey.generate()
    nonce, ciphertexts = bytes(12), set()
    for salt in (b"a" * 16, b"b" * 16):
        ciphertexts.add(key._cipher(salt).encrypt(nonce, b"the same", None))
    assert len(ciphertexts) == 2


def test_ciphers_are_kept_but_not_without_end() -> None:
    ring = KeyRing.generate()
    sealed = [ring.seal(PLAIN, PLACE) for _ in range(CIPHERS_KEPT + 100)]
    cache = ring._newest._cipher
    assert cache.cache_info().currsize == CIPHERS_KEPT
    before = cache.cache_info().misses
    assert ring.open(sealed[-1], PLACE) == PLAIN
    assert cache.cache_info().misses == before, "an open soon after the seal derives nothing"
    assert ring.open(sealed[0], PLACE) == PLAIN, "and one that was forgotten is derived anew"


# --- several keys


def test_the_newest_key_seals_and_every_key_opens() -> None:
    ring = KeyRing.generate()
    first = ring.key_id
    old = ring.seal(PLAIN, PLACE)
    second = ring.add()
    new = ring.seal(PLAIN, PLACE)
    assert ring.key_ids == (first, second)
    assert ring.key_id == second
    assert (ring.key_id_of(old), ring.key_id_of(new)) == (first, second)
    assert ring.open(old, PLACE) == ring.open(new, PLACE) == PLAIN


@pytest.mark.requirement("S8")
def test_a_missing_key_is_named_and_nothing_is_opened() -> None:
    ring = KeyRing.generate()
    first = ring.key_id
    sealed = ring.seal(PLAIN, PLACE)
    ring.add()
    ring.drop(first)
    assert first not in ring.key_ids
    with pytest.raises(UnknownKey, match=first) as caught:
        ring.open(sealed, PLACE)
    assert caught.value.key_ids == (first,)
    assert ring.key_id_of(sealed) == first
    for ask in (ring.check_value, ring.drop, lambda key_id: ring.fingerprint(PLAIN, key_id)):
        with pytest.raises(UnknownKey, match=first):
            ask(first)


def test_the_key_that_seals_cannot_be_dropped() -> None:
    ring = KeyRing.generate()
    with pytest.raises(ConfigurationError, match="is the newest and seals"):
        ring.drop(ring.key_id)
    assert ring.open(ring.seal(PLAIN, PLACE), PLACE) == PLAIN


def test_keys_come_and_go_while_other_threads_seal_and_open() -> None:
    ring, stop, failures = KeyRing.generate(), threading.Event(), []
    kept = ring.seal(PLAIN, PLACE)

    def work() -> None:
        try:
            while not stop.is_set():
                sealed = ring.seal(PLAIN, PLACE)
                assert ring.key_id_of(sealed) in ring.key_ids
                assert ring.open(sealed, PLACE) == ring.open(kept, PLACE) == PLAIN
        except BaseException as error:  # noqa: BLE001  # a thread hands its failure over
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    added = [ring.add() for _ in range(200)]
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert ring.key_ids[1:] == tuple(added)


def test_threads_that_add_at_once_lose_no_key() -> None:
    ring = KeyRing.generate()
    threads = [threading.Thread(target=lambda: [ring.add() for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ring.key_ids) == 201
    assert ring.key_id == ring.key_ids[-1]


def test_a_check_value_tells_a_key_from_another_and_is_no_part_of_it() -> None:
    ring, again, other = KeyRing.generate(), KeyRing.generate(), KeyRing.generate()
    assert ring.check_value(ring.key_id) == ring.check_value(ring.key_id)
    values = {each.check_value(each.key_id) for each in (ring, again, other)}
    assert len(values) == 3
    assert all(len(value) == 32 for value in values)


def test_a_fingerprint_recognises_equal_secrets_under_one_key_only() -> None:
    ring = KeyRing.generate()
    first = ring.key_id
    made = ring.fingerprint(PLAIN)
    assert len(made) == 32
    assert made == ring.fingerprint(Secret(PLAIN.reveal()), first)
    assert made != ring.fingerprint(Secret("other"))
    ring.add()
    assert made != ring.fingerprint(PLAIN)
    assert made == ring.fingerprint(PLAIN, first)
