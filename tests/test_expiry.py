from __future__ import annotations

import base64
import json
import pickle
import time as stopwatch
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenkeep.expiry import Earliest, FixedTime, JwtExpiry, Lifetime, worth_renewing
from tokenkeep.model import NewToken
from tokenkeep.ports import ExpiryPolicy

INDIA = ZoneInfo("Asia/Kolkata")
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ZONES = (
    "Asia/Kolkata",
    "UTC",
    "America/New_York",
    "America/St_Johns",  # changed at 00:01, over midnight
    "America/Sao_Paulo",  # at 00:00
    "America/Havana",
    "Europe/London",
    "Europe/Dublin",  # negative daylight saving
    "Africa/Casablanca",
    "Africa/Monrovia",  # seconds in the offset until 1972
    "Asia/Tehran",
    "Australia/Lord_Howe",  # half an hour
    "Antarctica/Troll",  # two hours
    "Pacific/Apia",  # skipped 2011-12-30
    "Pacific/Kwajalein",  # skipped 1993-08-21
    "Pacific/Kiritimati",
)

instants = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # Hypothesis adds it
clock_times = st.times().map(lambda time: time.strftime("%H:%M"))
spans = st.timedeltas(timedelta(seconds=1), timedelta(days=400))


def india(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=INDIA)


def jwt(claims: Any) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'HS256'})}.{part(claims)}.c2lnbmF0dXJl"


def wall(at: datetime, zone: str) -> datetime:
    return at.astimezone(ZoneInfo(zone)).replace(tzinfo=None)


# --- a fixed time of day -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "end"),
    [
        ("2026-11-22 02:30:00", "2026-11-22 03:30"),
        ("2026-11-22 03:29:59.999999", "2026-11-22 03:30"),
        ("2026-11-22 03:30:00", "2026-11-23 03:30"),
        ("2026-11-22 03:30:00.000001", "2026-11-23 03:30"),
        ("2026-11-22 23:59:59", "2026-11-23 03:30"),
        ("2026-12-31 09:00:00", "2027-01-01 03:30"),
    ],
)
def test_an_upstox_token_ends_at_the_next_half_past_three_in_india(now: str, end: str) -> None:
    found = FixedTime("03:30", tz="Asia/Kolkata").expires_at(india(now))
    assert found == india(end)
    assert found.tzinfo is UTC


def test_a_time_that_the_clocks_jump_over_is_the_instant_of_the_jump() -> None:
    policy = FixedTime("02:30", tz="America/New_York")
    jump = datetime(2026, 3, 8, 7, tzinfo=UTC)
    assert policy.expires_at(jump - timedelta(hours=2)) == jump
    assert policy.expires_at(jump) == datetime(2026, 3, 9, 6, 30, tzinfo=UTC)


def test_a_time_that_the_clocks_show_twice_is_the_first_of_the_two() -> None:
    policy = FixedTime("01:30", tz="America/New_York")
    first = datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
    assert policy.expires_at(first - timedelta(seconds=1)) == first
    assert policy.expires_at(first) == datetime(2026, 11, 2, 6, 30, tzinfo=UTC)


def test_a_day_that_a_country_skipped_ends_when_it_was_skipped() -> None:
    policy = FixedTime("03:30", tz="Pacific/Apia")
    skip = datetime(2011, 12, 30, 10, tzinfo=UTC)
    assert policy.expires_at(skip - timedelta(hours=1)) == skip
    assert policy.expires_at(skip) == datetime(2011, 12, 30, 13, 30, tzinfo=UTC)


def test_clocks_put_back_over_midnight_do_not_end_a_day_twice() -> None:
    policy = FixedTime("00:00", tz="America/St_Johns")
    midnight = datetime(2010, 11, 7, 2, 30, tzinfo=UTC)  # a minute later it is 23:01 again
    assert policy.expires_at(midnight - timedelta(minutes=1)) == midnight
    assert policy.expires_at(midnight + timedelta(minutes=30)) == datetime(2010, 11, 8, 3, 30, tzinfo=UTC)


@settings(deadline=None, max_examples=400)
@given(instants, clock_times, st.sampled_from(ZONES))
@example(datetime(2011, 12, 30, 9, 59, tzinfo=UTC), "03:30", "Pacific/Apia")
@example(datetime(1993, 8, 21, 11, tzinfo=UTC), "12:00", "Pacific/Kwajalein")
@example(datetime(2018, 11, 4, 2, 30, tzinfo=UTC), "00:30", "America/Sao_Paulo")
@example(datetime(2026, 4, 4, 14, 50, tzinfo=UTC), "01:45", "Australia/Lord_Howe")
def test_at_its_end_the_clock_reaches_the_time_of_some_day_for_the_first_time(
    now: datetime, at: str, zone: str
) -> None:
    end = FixedTime(at, tz=zone).expires_at(now)
    assert now < end <= now + timedelta(days=2, hours=2)
    before, after = wall(end - timedelta(microseconds=1), zone), wall(end, zone)
    days = (after.date() - timedelta(days=ago) for ago in range(3))
    assert any(before < datetime.fromisoformat(f"{day} {at}") <= after for day in days)


@settings(deadline=None, max_examples=200)
@given(instants, clock_times, st.sampled_from(ZONES))
def test_between_now_and_the_end_no_day_reaches_the_time(now: datetime, at: str, zone: str) -> None:
    end = FixedTime(at, tz=zone).expires_at(now)
    highest = wall(now, zone)
    # The highest reading so far, so that a time shown twice counts once.
    for minutes in range(-180, int((end - now).total_seconds() // 60), 10):
        shown = wall(now + timedelta(minutes=minutes), zone)
        passed = (highest.date() + timedelta(days=ahead) for ahead in range(3))
        if minutes > 0:
            assert not any(highest < datetime.fromisoformat(f"{day} {at}") <= shown for day in passed)
        highest = max(highest, shown)


@settings(deadline=None)
@given(instants, spans, clock_times, st.sampled_from(ZONES))
def test_a_later_token_never_ends_earlier(now: datetime, later: timedelta, at: str, zone: str) -> None:
    policy = FixedTime(at, tz=zone)
    assert policy.expires_at(now) <= policy.expires_at(now + later)


@settings(deadline=None)
@given(instants, clock_times, st.sampled_from(ZONES))
def test_the_zone_of_now_makes_no_difference(now: datetime, at: str, zone: str) -> None:
    policy = FixedTime(at, tz="Asia/Kolkata")
    assert policy.expires_at(now) == policy.expires_at(now.astimezone(ZoneInfo(zone)))


@pytest.mark.parametrize(
    "zone", ["IST", "asia/kolkata", "America", "", "../etc/passwd", "/etc/passwd", "\x00", "Mars/X"]
)
def test_an_unknown_time_zone_is_refused_when_the_policy_is_made(zone: str) -> None:
    with pytest.raises(ValueError, match="tz must be an IANA time zone name, for example 'Asia/Kolkata'"):
        FixedTime("03:30", tz=zone)


def test_a_time_zone_in_the_wrong_case_is_corrected_in_the_error() -> None:
    with pytest.raises(ValueError, match="did you mean 'Asia/Kolkata'"):
        FixedTime("03:30", tz="asia/kolkata")


@pytest.mark.parametrize(
    "at", ["", "3:30", "24:00", "03:60", "0330", "03:30Z", "03:30:00.5", "٠٣:٣٠", "noon", "03:30\n"]
)
def test_what_is_no_time_of_day_is_refused_when_the_policy_is_made(at: str) -> None:
    with pytest.raises(ValueError, match="at must be a time of day as HH:MM"):
        FixedTime(at, tz="UTC")


@pytest.mark.parametrize("arguments", [{"at": 330, "tz": "UTC"}, {"at": "03:30", "tz": INDIA}])
def test_arguments_of_another_type_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="must be a str"):
        FixedTime(**arguments)


# --- the other policies ------------------------------------------------------------------------------


@given(instants, spans)
def test_a_lifetime_is_counted_from_now(now: datetime, span: timedelta) -> None:
    assert Lifetime(span).expires_at(now) - now == span


@pytest.mark.parametrize("span", [timedelta(0), timedelta(seconds=-1), timedelta(days=4000)])
def test_a_lifetime_that_is_not_positive_or_absurd_is_refused(span: timedelta) -> None:
    with pytest.raises(ValueError, match="span must be"):
        Lifetime(span)


def test_a_jwt_ends_at_its_exp_claim() -> None:
    end = NOW + timedelta(hours=5)
    for exp in (int(end.timestamp()), end.timestamp() + 0.75):
        assert JwtExpiry().expires_at(NOW, NewToken(jwt({"exp": exp}))) == end


@pytest.mark.parametrize(
    "exp",
    [None, True, "1795000000", [], {}, -1, 0, 10**11, 1_795_000_000_000, 10**400, 1e308, float("nan"), float("inf")],
)
def test_an_absurd_exp_tells_nothing(exp: Any) -> None:
    assert JwtExpiry().expires_at(NOW, NewToken(jwt({"exp": exp}))) is None


def test_an_exp_that_has_come_tells_nothing() -> None:
    token = NewToken(jwt({"exp": int(NOW.timestamp())}))
    assert JwtExpiry().expires_at(NOW, token) is None
    assert JwtExpiry().expires_at(NOW - timedelta(microseconds=1), token) == NOW


@pytest.mark.parametrize(
    "token",
    [
        "opaque",
        "a.b",
        "a.b.c",
        "...",
        "a.b.c.d.e",
        "é.é.é",
        "a." + "W" * 60_000 + ".c",  # [[[[...
        jwt([1]),
        jwt("exp"),
        jwt({}),
        "a." + base64.urlsafe_b64encode(b'{"exp": 1' + b"0" * 5000 + b"}").decode() + ".c",
        "a." + base64.urlsafe_b64encode(b'{"exp": Infinity}').decode() + ".c",
        "a." + base64.urlsafe_b64encode(b"[" * 40_000).decode() + ".c",
        "a." + base64.urlsafe_b64encode(b'{"exp":' * 6_000).decode() + ".c",
        "a." + base64.urlsafe_b64encode(b"\xff\xfe").decode() + ".c",
    ],
)
def test_what_is_no_jwt_tells_nothing(token: str) -> None:
    assert JwtExpiry().expires_at(NOW, NewToken(token)) is None


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.binary().map(lambda junk: f"a.{junk.hex()}.c")
)
def test_junk_never_raises(junk: str) -> None:
    assert JwtExpiry().expires_at(NOW, NewToken(junk)) is None


def test_a_token_of_a_megabyte_is_not_decoded() -> None:
    huge = NewToken(jwt({"exp": int(NOW.timestamp()) + 60, "pad": "x" * 1_000_000}))
    started = stopwatch.perf_counter()
    assert JwtExpiry().expires_at(NOW, huge) is None
    assert stopwatch.perf_counter() - started < 0.1


def test_without_a_token_a_jwt_policy_cannot_tell() -> None:
    assert JwtExpiry().expires_at(NOW) is None


def test_the_earliest_end_wins_and_the_silent_are_passed_over() -> None:
    fixed, hour = FixedTime("03:30", tz="Asia/Kolkata"), Lifetime(timedelta(hours=1))
    soon = NewToken(jwt({"exp": int(NOW.timestamp()) + 60}))
    assert Earliest(fixed, JwtExpiry()).expires_at(NOW, NewToken("opaque")) == fixed.expires_at(NOW)
    assert Earliest(fixed, hour, JwtExpiry()).expires_at(NOW) == NOW + timedelta(hours=1)
    assert Earliest(fixed, hour, JwtExpiry()).expires_at(NOW, soon) == NOW + timedelta(seconds=60)
    assert Earliest(JwtExpiry(), Earliest(JwtExpiry())).expires_at(NOW) is None


def test_the_earliest_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one policy"):
        Earliest()


def test_what_is_no_policy_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a policy must be an expiry policy such as .*, not timedelta"):
        Earliest(timedelta(hours=1))  # type: ignore[arg-type]


POLICIES: list[ExpiryPolicy] = [
    FixedTime("03:30", tz="Asia/Kolkata"),
    Lifetime(timedelta(hours=1)),
    JwtExpiry(),
    Earliest(FixedTime("06:00", tz="Asia/Kolkata"), JwtExpiry()),
]


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_a_naive_now_is_refused_by_every_policy(policy: ExpiryPolicy) -> None:
    with pytest.raises(ValueError, match="now must be aware"):
        policy.expires_at(NOW.replace(tzinfo=None))


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_a_policy_is_a_value(policy: ExpiryPolicy) -> None:
    copy = pickle.loads(pickle.dumps(policy))  # noqa: S301  # our own bytes
    assert copy == policy
    assert hash(copy) == hash(policy)
    with pytest.raises((AttributeError, TypeError)):  # which of the two is CPython's affair
        policy.tz = "UTC"  # type: ignore[attr-defined]


def test_a_policy_shows_how_it_was_made() -> None:
    policy = Earliest(FixedTime("06:00", tz="Asia/Kolkata"), JwtExpiry())
    assert repr(policy) == "Earliest(FixedTime(at='06:00', tz='Asia/Kolkata'), JwtExpiry())"


def test_policies_that_differ_are_unequal() -> None:
    assert FixedTime("03:30", tz="Asia/Kolkata") == FixedTime("03:30:00", tz="Asia/Kolkata")
    assert FixedTime("03:30", tz="Asia/Kolkata") != FixedTime("03:31", tz="Asia/Kolkata")
    assert FixedTime("03:30", tz="Asia/Kolkata") != FixedTime("03:30", tz="Asia/Dhaka")
    assert Earliest(JwtExpiry()) != Earliest(JwtExpiry(), JwtExpiry())


# --- renewing early must gain something --------------------------------------------------------------

MINUTE = timedelta(minutes=1)


def test_at_a_quarter_to_three_a_token_that_ends_at_half_past_is_not_replaced_by_another_such() -> None:
    now, end = india("2026-11-22 02:45"), india("2026-11-22 03:30")
    expected = FixedTime("03:30", tz="Asia/Kolkata").expires_at(now)
    assert not worth_renewing(now, ends=end, expected=expected, needed=timedelta(hours=1))


@pytest.mark.parametrize(
    ("ends", "expected", "needed", "worth"),
    [
        (10, None, 60, True),  # nobody knows: try
        (10, 60, 60, True),  # the new one is good for as long as is needed
        (50, 59, 60, False),  # it is not, and would live little longer
        (10, 20, 60, True),  # it is not, but would live twice as long
        (10, 19, 60, False),
        (10, 10, 5, False),  # no gain at all, whatever is needed
        (10, 9, 5, False),
        (10, 11, 11, True),
        (None, 60, 60, False),  # the one in place never ends
        (None, None, 60, False),
        (-1, 1, 60, True),  # the one in place has ended
    ],
)
def test_renewing_early_must_gain_something(
    ends: int | None, expected: int | None, needed: int, *, worth: bool
) -> None:
    def at(minutes: int | None) -> datetime | None:
        return None if minutes is None else NOW + minutes * MINUTE

    assert worth_renewing(NOW, ends=at(ends), expected=at(expected), needed=needed * MINUTE) is worth


@settings(deadline=None)
@given(instants, st.timedeltas(timedelta(0), timedelta(days=2)), clock_times, st.sampled_from(ZONES))
def test_a_fixed_end_never_makes_a_storm(now: datetime, needed: timedelta, at: str, zone: str) -> None:
    policy = FixedTime(at, tz=zone)
    end = policy.expires_at(now)
    moments = (now + (end - now) * share / 7 for share in range(7))
    assert not any(
        worth_renewing(moment, ends=end, expected=policy.expires_at(moment), needed=needed) for moment in moments
    )
