from __future__ import annotations

import hashlib
import hmac
import random
import re
import string
import subprocess
import sys
import sysconfig
from binascii import crc32
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count
from math import sqrt
from pathlib import Path
from typing import Any, Never

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tokenkeep import digest
from tokenkeep.buckets import LAST_DAY, day_of, first_id, start_of
from tokenkeep.digest import SCANNER_PATTERN, TokenForm, parse_public_id, public_id, token_id
from tokenkeep.errors import UnknownKey
from tokenkeep.keyring import KeyRing

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
B64TOKEN = string.ascii_letters + string.digits + "-._~+/="
PREFIXES = st.from_regex(r"[a-z](?:[a-z0-9_]{0,18}[a-z0-9])?", fullmatch=True)
ENDS = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
DAY = 20_513
FORM = TokenForm()
TOKEN = FORM.new(ENDS).reveal()
REFRESH = TokenForm(refresh=True).new(ENDS).reveal()


def named(junk: object) -> str:
    """The same in every process of a run, though the token is not."""
    shown = repr(junk).replace(TOKEN, "TOKEN").replace(TOKEN.upper(), "UPPER")
    return shown[:20].encode("ascii", "backslashreplace").decode()


def number_in(text: str) -> int:
    value = 0
    for character in text:
        value = value * 62 + BASE62.index(character)
    return value


def check(text: str) -> str:
    """The checksum, by the book."""
    number, digits = crc32(text.encode("utf-8", "surrogatepass")), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return digits


# --- the form


def test_a_token_is_prefix_random_part_day_and_checksum() -> None:
    head, body, day, checksum = TOKEN[:3], TOKEN[3:46], TOKEN[46:49], TOKEN[49:]
    assert head == "tk_"
    assert set(body) <= set(BASE62)
    assert len(body) == 43
    assert number_in(day) == DAY
    assert checksum == check(head + body + day)
    assert len(checksum) == 6
    assert REFRESH.startswith("tk-r_")


@given(PREFIXES, st.booleans())
def test_what_it_makes_is_well_formed_whatever_the_prefix(prefix: str, refresh: bool) -> None:
    form = TokenForm(prefix, refresh=refresh)
    token = form.new(ENDS).reveal()
    assert form.well_formed(token)
    assert token.startswith(prefix)


@pytest.mark.parametrize(
    "prefix", ["", "T", "Tk", "1k", "_tk", "t-k", "t k", "tk\n", "é", "t²", "a" * 21, None, 7, b"tk"]
)
def test_a_bad_prefix_is_a_value_error_that_names_it(prefix: Any) -> None:
    with pytest.raises(ValueError, match=r"^prefix must"):
        TokenForm(prefix)


@pytest.mark.requirement("T1")
def test_a_hundred_thousand_tokens_are_unique_and_their_bits_even() -> None:
    tokens = [FORM.new(ENDS).reveal() for _ in range(100_000)]
    assert len(set(tokens)) == len(tokens)
    numbers = [number_in(token[3:46]) for token in tokens[:10_000]]
    assert 2**255 < max(numbers) < 2**256
    bits = 256 * len(numbers)
    ones = sum(number.bit_count() for number in numbers)
    assert abs(ones - bits / 2) < 6 * sqrt(bits / 4), "monobit test, six standard deviations"
    counts = Counter("".join(token[4:46] for token in tokens))
    expected = 42 * len(tokens) / 62
    chi_squared = sum((counts[character] - expected) ** 2 / expected for character in BASE62)
    assert chi_squared < 61 + 7 * sqrt(2 * 61), "61 degrees of freedom"


@pytest.mark.requirement("T1")
def test_a_seeded_random_module_changes_nothing() -> None:
    state = random.getstate()
    try:
        random.seed(4711)
        first = FORM.new(ENDS)
        random.seed(4711)
        assert FORM.new(ENDS) != first
    finally:
        random.setstate(state)


FORKED = """
import multiprocessing
from datetime import UTC, datetime
from tokenkeep.digest import TokenForm
ENDS = datetime(2026, 3, 1, tzinfo=UTC)
FORM = TokenForm()
FORM.new(ENDS)
def some(_):
    return [FORM.new(ENDS).reveal() for _ in range(500)]
with multiprocessing.get_context("fork").Pool(8) as pool:
    tokens = [token for batch in pool.map(some, range(16), chunksize=1) for token in batch]
print(len(tokens), len(set(tokens)))
"""


@pytest.mark.requirement("T1")
def test_forked_processes_make_different_tokens() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["8000", "8000"]


@pytest.mark.requirement("T2")
def test_only_b64token_characters_occur() -> None:
    made = {
        token for form in (FORM, TokenForm("a_b9", refresh=True)) for token in (form.new(ENDS) for _ in range(5_000))
    }
    assert {character for token in made for character in token.reveal()} <= set(B64TOKEN)


# --- telling ours from anything else


@pytest.mark.requirement("T3")
@pytest.mark.parametrize("token", [TOKEN, REFRESH], ids=["access", "refresh"])
def test_a_change_of_any_one_character_is_caught(token: str) -> None:
    form = TokenForm(refresh=token is REFRESH)
    assert form.well_formed(token)
    for position, right in enumerate(token):
        for wrong in set(B64TOKEN + " \x00é²٣\ud800") - {right}:
            assert not form.well_formed(token[:position] + wrong + token[position + 1 :]), (position, wrong)


@pytest.mark.requirement("T3")
def test_a_missing_doubled_or_swapped_character_is_caught() -> None:
    for position in range(len(TOKEN)):
        assert not FORM.well_formed(TOKEN[:position] + TOKEN[position + 1 :])
        assert not FORM.well_formed(TOKEN[:position] + TOKEN[position] + TOKEN[position:])
        swapped = TOKEN[:position] + TOKEN[position : position + 2][::-1] + TOKEN[position + 2 :]
        assert swapped == TOKEN or not FORM.well_formed(swapped)


def resembling(form: TokenForm, body: str, day: str = "5Kr") -> str:
    """A string with a right prefix, length and checksum, whatever its middle is."""
    unchecked = form._head + body + day
    return unchecked + check(unchecked)


@pytest.mark.requirement("V7")
@pytest.mark.parametrize(
    "wrong", ["_", "-", ".", "+", " ", "\n", "\x00", "é", "²", "٣", "\U0001d7d8", "\ud800", "\uff3f"]
)
@pytest.mark.parametrize("position", [0, 21, 42])
def test_a_right_checksum_does_not_excuse_a_foreign_character(wrong: str, position: int) -> None:
    body = "A" * position + wrong + "A" * (42 - position)
    assert FORM.well_formed(resembling(FORM, "A" * 43))
    assert not FORM.well_formed(resembling(FORM, body))


@pytest.mark.requirement("V7")
@pytest.mark.parametrize("day", ["-00", "0_0", "é00", "   ", "H32", "zzz", "a00"])
def test_a_right_checksum_does_not_excuse_a_day_that_is_none(day: str) -> None:
    assert FORM.well_formed(resembling(FORM, "A" * 43, "H31")), "the last one"
    assert not FORM.well_formed(resembling(FORM, "A" * 43, day))


@pytest.mark.requirement("V7")
def test_the_checksum_is_written_in_one_way_only() -> None:
    token = next(text for text in (resembling(FORM, f"{number:043}") for number in count()) if text[-6] == "0")
    assert FORM.well_formed(token)
    more = crc32(token[:-6].encode()) + 2**32  # it would fit into six characters too
    digits = "".join(BASE62[more // 62**power % 62] for power in reversed(range(6)))
    assert number_in(digits) == more
    assert not FORM.well_formed(token[:-6] + digits)


@pytest.mark.requirement("V7")
@pytest.mark.parametrize(
    "junk",
    [
        *(None, 7, True, b"", TOKEN.encode(), bytearray(b"x"), [TOKEN], (TOKEN,), {}, object(), 1.5, "", " ", "\x00"),
        *(TOKEN + "\n", TOKEN + " ", " " + TOKEN, TOKEN + "\x00", TOKEN.upper(), TOKEN * 2, f"Bearer {TOKEN}", "tk_"),
        *("\ud800" * 55, "٣" * 55, "²" * 55, "tk_" + "٣" * 52, "tk_" + "\x00" * 52, "tk_" + "0" * 52, "tk_" * 18),
    ],
    ids=named,
)
def test_junk_is_not_well_formed_and_never_an_error(junk: Any) -> None:
    assert FORM.well_formed(junk) is False


@pytest.mark.requirement("V7")
@given(
    st.one_of(
        st.text(), st.text(min_size=55, max_size=55), st.text(BASE62, min_size=52, max_size=52).map("tk_".__add__)
    )
)
@example("a" * 1_000_000)
def test_no_text_is_an_error(text: str) -> None:
    assert FORM.well_formed(text) is False


class Untouchable(str):
    """Text whose length may be asked, and nothing else."""

    __slots__ = ()

    def _touched(self, *_: object) -> Never:
        msg = "work was done before the length was looked at"
        raise AssertionError(msg)

    encode = startswith = isascii = __getitem__ = __iter__ = __hash__ = __eq__ = _touched  # type: ignore[assignment]


@pytest.mark.requirement("V7")
@pytest.mark.parametrize("length", [0, 54, 56, 1_000_000])
def test_nothing_is_looked_at_but_the_length_when_it_is_wrong(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    form = TokenForm()
    monkeypatch.setattr(form, "_shape", Untouchable._touched)
    assert form.well_formed(Untouchable("a" * length)) is False


@pytest.mark.requirement("V5")
@given(PREFIXES, PREFIXES)
@example("tk", "tk")
@example("tk", "tk_r")
@example("tk", "tkr")
def test_a_refresh_token_is_never_an_access_token_nor_the_other_way_round(one: str, other: str) -> None:
    access, refresh = TokenForm(one), TokenForm(other, refresh=True)
    assert not access.well_formed(refresh.new(ENDS).reveal())
    assert not refresh.well_formed(access.new(ENDS).reveal())


@pytest.mark.requirement("V5")
@given(PREFIXES, PREFIXES)
def test_a_token_of_another_prefix_is_not_ours(one: str, other: str) -> None:
    if one != other:
        assert not TokenForm(one).well_formed(TokenForm(other).new(ENDS).reveal())


@pytest.mark.requirement("T3")
def test_the_published_pattern_finds_tokens_in_text_and_nothing_in_source_code() -> None:
    pattern = re.compile(SCANNER_PATTERN)
    planted = [
        TOKEN,
        REFRESH,
        TokenForm("acme_live").new(ENDS).reveal(),
        TokenForm("x" * 20, refresh=True).new(ENDS).reveal(),
    ]
    text = f"A='{planted[0]}'\ncurl -H 'Authorization: Bearer {planted[1]}' x?t={planted[2]}&u=1 <{planted[3]}>"
    assert pattern.findall(text) == planted
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = [path.read_text("utf-8", "replace") for path in sorted(library.glob("*.py"))]
    assert sum(map(len, sources)) > 3_000_000
    assert [found for source in sources for found in pattern.findall(source)] == []


# --- ids


def test_an_id_is_the_day_and_14_bytes_of_a_domain_separated_sha_256() -> None:
    derived = hashlib.sha256(b"tokenkeep issued token id\x00" + TOKEN.encode()).digest()[:14]
    assert token_id(TOKEN) == DAY.to_bytes(2) + derived
    assert derived not in FORM.digest(TOKEN, None)
    assert token_id(TOKEN) != token_id(REFRESH)


@pytest.mark.parametrize("junk", ["", "x", "tk_" + "-" * 52, "tk_" + "z" * 52, "~" * 128, "\x00" * 55])
def test_an_id_of_junk_is_no_error(junk: str) -> None:
    assert len(token_id(junk)) == 16


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2149, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  # the zone follows
    st.timedeltas(timedelta(0), timedelta(days=400)),
)
def test_ids_are_ordered_as_the_days_in_which_their_tokens_end(ends: datetime, later: timedelta) -> None:
    day, after = day_of(ends), day_of(ends + later)
    assert start_of(day) <= ends < start_of(day + 1)
    early, late = (token_id(FORM.new(moment).reveal()) for moment in (ends, ends + later))
    assert first_id(day) <= early < first_id(day + 1)
    assert first_id(after) <= late < first_id(after + 1)
    assert early < first_id(after) or day == after


def test_what_ends_before_the_first_day_or_after_the_last_is_put_there() -> None:
    assert day_of(datetime(1960, 1, 1, tzinfo=UTC)) == 0
    assert day_of(datetime(2200, 1, 1, tzinfo=UTC)) == LAST_DAY
    assert token_id(FORM.new(datetime(2200, 1, 1, tzinfo=UTC)).reveal()) < first_id(LAST_DAY + 1)


@given(st.binary(min_size=16, max_size=16))
def test_a_public_id_is_32_hexadecimal_characters_and_reads_back(raw: bytes) -> None:
    text = public_id(raw)
    assert re.fullmatch("[0-9a-f]{32}", text)
    assert parse_public_id(text) == raw


@pytest.mark.parametrize(
    "junk",
    [
        *("", "0" * 31, "0" * 33, "0" * 32 + "\n", " " + "0" * 31, "A" * 32, "g" * 32, "0 " * 16, "٣" * 32),
        *("\ud800" * 32, None, 7, b"0" * 32, "0" * 1_000_000, TOKEN),
    ],
    ids=named,
)
def test_nothing_else_reads_as_a_public_id(junk: Any) -> None:
    assert parse_public_id(junk) is None


# --- digests


def test_without_keys_the_digest_is_a_domain_separated_sha_256() -> None:
    made = FORM.digest(TOKEN, None)
    assert made == hashlib.sha256(b"tokenkeep issued token digest\x00" + TOKEN.encode()).digest()
    assert FORM.key_id is None
    assert FORM.matches(TOKEN, made, None)
    assert not FORM.matches(FORM.new(ENDS).reveal(), made, None)


def test_with_keys_the_digest_is_an_hmac_that_needs_the_key() -> None:
    ring, other = KeyRing.generate(), KeyRing.generate()
    form = TokenForm(keys=ring)
    made = form.digest(TOKEN, ring.key_id)
    assert form.key_id == ring.key_id
    subkey = ring._newest._expand(b"issued token")
    assert made == hmac.digest(subkey, TOKEN.encode(), "sha256")
    assert made != TokenForm(keys=other).digest(TOKEN, other.key_id)
    assert made == form.digest(TOKEN, ring.key_id), "the kept state is copied, not used up"


def test_two_keys_live_side_by_side_and_a_retired_one_matches_nothing() -> None:
    ring = KeyRing.generate()
    form = TokenForm(keys=ring)
    first = ring.key_id
    old = form.digest(TOKEN, first)
    second = ring.add()
    new = form.digest(TOKEN, form.key_id)
    assert form.key_id == second
    assert form.matches(TOKEN, old, first)
    assert form.matches(TOKEN, new, second)
    assert not form.matches(TOKEN, old, second)
    ring.drop(first)
    assert not form.matches(TOKEN, old, first)
    assert form.matches(TOKEN, new, second)


def test_with_keys_a_plain_digest_that_somebody_wrote_into_the_table_matches_nothing() -> None:
    form = TokenForm(keys=KeyRing.generate())
    assert not form.matches(TOKEN, FORM.digest(TOKEN, None), None)


def test_without_keys_a_keyed_row_matches_nothing_and_its_digest_cannot_be_made() -> None:
    ring = KeyRing.generate()
    made = TokenForm(keys=ring).digest(TOKEN, ring.key_id)
    assert not FORM.matches(TOKEN, made, ring.key_id)
    with pytest.raises(UnknownKey, match=f"no key {ring.key_id}"):
        FORM.digest(TOKEN, ring.key_id)


@pytest.mark.requirement("S2")
@pytest.mark.parametrize("keys", [None, KeyRing.generate()], ids=["plain", "keyed"])
def test_nothing_that_the_row_holds_is_a_token(keys: KeyRing | None) -> None:
    form = TokenForm(keys=keys)
    for column in (token_id(TOKEN), form.digest(TOKEN, form.key_id)):
        assert not form.well_formed(column)
        assert not form.well_formed(column.hex())
        assert not form.well_formed("tk_" + column.hex())


@pytest.mark.requirement("V2")
@pytest.mark.parametrize("keys", [None, KeyRing.generate()], ids=["plain", "keyed"])
def test_digests_are_compared_by_compare_digest_only(keys: KeyRing | None, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def recording(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(digest, "compare_digest", recording)
    form = TokenForm(keys=keys)
    made = form.digest(TOKEN, form.key_id)
    wrong = bytes([made[0] ^ 1]) + made[1:]
    assert form.matches(TOKEN, made, form.key_id)
    assert not form.matches(TOKEN, wrong, form.key_id)
    assert compared == [(made, made), (made, wrong)]
