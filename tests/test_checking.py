from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenkeep import _checking

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Nowhere(tzinfo):
    """A time zone that does not know its offset: such a time is naive after all."""

    def utcoffset(self, when: datetime | None) -> timedelta | None:  # noqa: ARG002  # the signature of tzinfo
        return None

    dst = utcoffset

    def tzname(self, when: datetime | None) -> str:  # noqa: ARG002  # the signature of tzinfo
        return "nowhere"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=255))
def test_a_name_is_any_unicode_text_of_1_to_255_characters(value: str) -> None:
    assert _checking.name(value, "user_id") is value


@pytest.mark.parametrize(
    "value", ["o'neil", '"; drop table x; --', "100%s", "alice\n", "名前", "👩‍👩‍👧", "x" * 255, "🙂" * 255]
)
def test_quotes_percent_signs_and_emoji_are_ordinary(value: str) -> None:
    assert _checking.name(value, "user_id") == value


@pytest.mark.requirement("V7")
@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "1 to 255 characters, not 0"),
        ("x" * 256, "1 to 255 characters, not 256"),
        ("x" * 10_000_000, "not 10000000"),
        ("a\x00b", "NUL"),
        ("\x00", "NUL"),
        ("a\ud800", "lone surrogates"),
        ("\udfff", "lone surrogates"),
    ],
)
def test_a_name_that_no_database_keeps_is_refused_by_the_name_of_its_argument(value: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"^user_id must.*{says}") as caught:
        _checking.name(value, "user_id")
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("value", [None, 7, b"alice", ["alice"], True])
def test_a_name_of_another_type_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match="user_id must be a str"):
        _checking.name(value, "user_id")


@given(st.datetimes(timezones=st.timezones(), min_value=datetime(1980, 1, 1), max_value=datetime(2200, 1, 1)))  # noqa: DTZ001  # the strategy adds the zone
def test_an_instant_is_returned_in_utc_unmoved(value: datetime) -> None:
    checked = _checking.instant(value, "expires_at")
    assert checked.tzinfo is UTC
    assert checked == value.astimezone(UTC)


@pytest.mark.parametrize("zone", [None, Nowhere()])
def test_an_instant_without_an_offset_is_refused(zone: tzinfo | None) -> None:
    with pytest.raises(ValueError, match="expires_at must be aware"):
        _checking.instant(NOON.replace(tzinfo=zone), "expires_at")


@pytest.mark.parametrize("value", [None, 1_700_000_000, "2026-03-01T12:00:00Z", NOON.date()])
def test_an_instant_of_another_type_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match="expires_at must be a datetime"):
        _checking.instant(value, "expires_at")


def test_an_instant_of_another_zone_is_the_same_moment() -> None:
    kolkata = timezone(timedelta(hours=5, minutes=30))
    assert _checking.instant(datetime(2026, 3, 1, 3, 30, tzinfo=kolkata), "at") == datetime(2026, 2, 28, 22, tzinfo=UTC)


@given(st.timedeltas(min_value=timedelta(microseconds=1), max_value=_checking.MAX_SPAN))
def test_a_span_is_positive_and_at_most_ten_years(value: timedelta) -> None:
    assert _checking.span(value, "lifetime") == value


@pytest.mark.parametrize(
    "value", [timedelta(0), timedelta(microseconds=-1), timedelta.min, timedelta.max, timedelta(days=3661)]
)
def test_a_span_that_ends_nothing_or_never_is_refused(value: timedelta) -> None:
    with pytest.raises(ValueError, match="lifetime must be more than 0"):
        _checking.span(value, "lifetime")


def test_zero_is_a_span_only_where_it_means_something() -> None:
    assert _checking.span(timedelta(0), "max_staleness", zero=True) == timedelta(0)
    with pytest.raises(ValueError, match="max_staleness must be from 0"):
        _checking.span(timedelta(seconds=-1), "max_staleness", zero=True)


@pytest.mark.parametrize("value", [None, 3600, 1.5, "1h"])
def test_a_span_of_another_type_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match="lifetime must be a timedelta"):
        _checking.span(value, "lifetime")


def test_a_count_is_a_whole_number_of_at_least_one() -> None:
    assert _checking.count(1, "limit") == 1
    assert _checking.count(10**12, "limit") == 10**12


@pytest.mark.parametrize("value", [0, -1])
def test_a_count_below_one_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="limit must be at least 1"):
        _checking.count(value, "limit")


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_a_count_of_another_type_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match="limit must be an int"):
        _checking.count(value, "limit")


ALLOWED_IN_SCOPE = "!" + "".join(map(chr, range(0x23, 0x5C))) + "".join(map(chr, range(0x5D, 0x7F)))
"""RFC 6749 section 3.3, written out a second time."""


@given(st.lists(st.text(ALLOWED_IN_SCOPE, min_size=1)))
def test_scopes_are_what_rfc_6749_allows(value: list[str]) -> None:
    assert _checking.scopes(value, "scopes") is value


@given(st.text(), st.characters().filter(lambda character: character not in ALLOWED_IN_SCOPE), st.text())
def test_any_other_character_in_a_scope_is_refused(before: str, wrong: str, after: str) -> None:
    with pytest.raises(ValueError, match="scopes must hold RFC 6749"):
        _checking.scopes(["orders:read", before + wrong + after], "scopes")


@pytest.mark.parametrize("value", [[""], ["a b"], ["a\n"], [7], [None]])
def test_an_empty_or_foreign_scope_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="scopes must hold RFC 6749"):
        _checking.scopes(value, "scopes")


def test_a_bare_string_is_not_read_letter_by_letter() -> None:
    with pytest.raises(TypeError, match="scopes must be a collection"):
        _checking.scopes("read", "scopes")


def test_a_mapping_has_text_keys_and_none_is_the_empty_one() -> None:
    given = {"a": 1, "b": [2]}
    assert _checking.mapping(given, "metadata") is given
    assert _checking.mapping(None, "metadata") == {}


@pytest.mark.parametrize("value", [{1: "a"}, {None: 1}, [("a", 1)], "a", 7])
def test_anything_else_is_no_mapping(value: Any) -> None:
    with pytest.raises(TypeError, match="metadata must be a mapping"):
        _checking.mapping(value, "metadata")
