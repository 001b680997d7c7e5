"""Trading windows and triggers, over midnight and where clocks are put forward and back."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host.core.trading_hours import DAYS, TradingHours
from host.core.triggers import parse_trigger
from host.core.wall_time import ScheduleError, first_moment_ns, local_time, time_zone

ZURICH, NEW_YORK = "Europe/Zurich", "America/New_York"
ZONES = ("UTC", ZURICH, NEW_YORK, "Australia/Lord_Howe", "Asia/Kathmandu", "America/Havana", "Pacific/Apia")
"""Clocks that change by an hour, by half of one, at midnight, never, and by a whole day."""


def ns(text: str, zone: str = ZURICH, fold: int = 0) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return int(moment.timestamp()) * 1_000_000_000


def until(hours: TradingHours, now_ns: int, zone: str = ZURICH) -> str:
    """Say whether it is open, and until when."""
    phase = hours.at(now_ns)
    assert phase.until_ns is not None
    return f"{'open' if phase.is_open else 'closed'} until {local_time(phase.until_ns, time_zone(zone)):%a %H:%M %z}"


def test_window_holds_from_its_beginning_up_to_its_end() -> None:
    hours = TradingHours(["mon-fri 09:00-17:30"], ZURICH)
    assert until(hours, ns("2026-11-20T09:00") - 1) == "closed until Fri 09:00 +0100"
    assert until(hours, ns("2026-11-20T09:00")) == "open until Fri 17:30 +0100"
    assert until(hours, ns("2026-11-20T17:30") - 1) == "open until Fri 17:30 +0100"
    assert until(hours, ns("2026-11-20T17:30")) == "closed until Mon 09:00 +0100"


def test_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    hours = TradingHours(["sun 22:00-02:00"], ZURICH)
    assert until(hours, ns("2026-11-23T01:59")) == "open until Mon 02:00 +0100"
    assert until(hours, ns("2026-11-22T01:59")) == "closed until Sun 22:00 +0100"


def test_windows_that_meet_or_overlap_are_one() -> None:
    week = TradingHours(
        ["sun 18:00-24:00", "mon-thu 00:00-24:00", "fri 00:00-17:00", "mon 03:00-05:00"], NEW_YORK
    )
    assert until(week, ns("2026-11-22T20:00", NEW_YORK), NEW_YORK) == "open until Fri 17:00 -0500"
    assert until(week, ns("2026-11-20T17:00", NEW_YORK), NEW_YORK) == "closed until Sun 18:00 -0500"


def test_open_all_day_never_changes() -> None:
    phase = TradingHours(["00:00-24:00"], ZURICH).at(ns("2026-03-28T12:00"))
    assert (phase.is_open, phase.until_ns) == (True, None)


def test_window_that_begins_at_a_skipped_time_begins_when_the_clock_is_put_forward() -> None:
    hours = TradingHours(["02:30-05:00"], ZURICH)
    assert until(hours, ns("2026-03-29T01:59")) == "closed until Sun 03:00 +0200"
    assert until(hours, ns("2026-03-29T03:00")) == "open until Sun 05:00 +0200"


def test_window_that_is_skipped_whole_is_left_out() -> None:
    assert (
        until(TradingHours(["sun 02:10-02:20"], ZURICH), ns("2026-03-28T12:00"))
        == "closed until Sun 02:10 +0200"
    )
    sunday = TradingHours(["sun 02:10-02:20"], ZURICH).at(ns("2026-03-28T12:00")).until_ns
    assert sunday == ns("2026-04-05T02:10")


def test_window_in_the_hour_that_comes_twice_is_in_the_first() -> None:
    hours = TradingHours(["02:10-02:50"], ZURICH)
    assert until(hours, ns("2026-10-25T02:10")) == "open until Sun 02:50 +0200"
    assert until(hours, ns("2026-10-25T02:10", fold=1)) == "closed until Mon 02:10 +0100"


def test_window_across_the_repeated_hour_is_an_hour_longer() -> None:
    hours = TradingHours(["sun 01:00-04:00"], ZURICH)
    begins, ends = ns("2026-10-25T01:00"), ns("2026-10-25T04:00")
    assert ends - begins == 4 * 3600 * 1_000_000_000
    assert hours.at(begins).until_ns == ends


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("9-17", "expected a window such as"),
        ("mon-fri", "expected a window such as"),
        ("mon-fri 09:00-25:00", "from 00:00 to 24:00"),
        ("09:60-10:00", "from 00:00 to 24:00"),
        ("24:00-02:00", "begins at 00:00"),
        ("09:00-09:00", "all day is 00:00-24:00"),
        ("mo-fr 09:00-10:00", 'expected days such as "mon"'),
        ("mon- 09:00-10:00", 'expected days such as "mon"'),
        ("mon,,tue 09:00-10:00", 'expected days such as "mon"'),
    ],
)
def test_window_that_says_nothing_is_refused(text: str, says: str) -> None:
    with pytest.raises(ScheduleError, match=says) as refusal:
        TradingHours([text], "UTC")
    assert text in str(refusal.value)


@pytest.mark.parametrize("name", ["Europe/Zurch", "", "../etc/passwd", "Europe", "/etc/localtime"])
def test_time_zone_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ScheduleError, match="name of a time zone"):
        TradingHours(["09:00-17:00"], name)


clocks = st.integers(0, 24 * 60).map(lambda m: f"{m // 60:02}:{m % 60:02}")
windows = st.tuples(
    st.sampled_from(["daily", *DAYS, "mon-fri", "sat-mon", "tue,thu"]), clocks, clocks
).filter(lambda w: w[1] not in (w[2], "24:00"))
moments = st.datetimes(datetime(2011, 12, 25), datetime(2026, 12, 31)).map(
    lambda d: int(d.replace(tzinfo=UTC).timestamp()) * 1_000_000_000
)


def _is_open(window: tuple[str, str, str], zone: ZoneInfo, now_ns: int) -> bool:
    """Say the same thing once more, by the definition: some window has begun and not ended."""
    days, begins, ends = window
    names = {"daily": DAYS, "mon-fri": DAYS[:5], "sat-mon": ("sat", "sun", "mon"), "tue,thu": ("tue", "thu")}
    today = local_time(now_ns, zone).date()
    minutes = [int(clock[:2]) * 60 + int(clock[3:]) for clock in (begins, ends)]
    if minutes[1] < minutes[0]:
        minutes[1] += 24 * 60
    for back in range(4):
        day = today - timedelta(days=back)
        if DAYS[day.weekday()] in names.get(days, (days,)):
            first, last = (first_moment_ns(day, 60 * minute, zone) for minute in minutes)
            if first <= now_ns < last:
                return True
    return False


@settings(max_examples=150, deadline=None)
@given(st.lists(windows, min_size=1, max_size=3), st.sampled_from(ZONES), moments)
def test_phase_is_what_the_definition_says_and_changes_when_it_says(
    chosen: list[tuple[str, str, str]], zone: str, now_ns: int
) -> None:
    hours = TradingHours([f"{days} {begins}-{ends}" for days, begins, ends in chosen], zone)
    for _ in range(4):
        phase = hours.at(now_ns)
        assert phase.is_open == any(_is_open(window, time_zone(zone), now_ns) for window in chosen)
        if phase.until_ns is None:
            return
        assert phase.until_ns > now_ns
        assert hours.at(phase.until_ns - 1).is_open == phase.is_open
        assert hours.at(phase.until_ns).is_open != phase.is_open
        now_ns = phase.until_ns


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(ZONES), st.dates(date(2011, 12, 25), date(2026, 12, 31)))
def test_moments_of_a_day_come_in_the_order_of_its_clock(zone: str, day: date) -> None:
    moments = [first_moment_ns(day, minute * 60, time_zone(zone)) for minute in range(0, 24 * 60 + 1, 30)]
    assert all(a <= b for a, b in pairwise(moments))
    assert moments[-1] == first_moment_ns(day + timedelta(days=1), 0, time_zone(zone))


@pytest.mark.parametrize(
    "text", ["30 2 * * *", "15,45 1-3 * * *", "*/20 * * * *", "0 3 * * *", "30 2 * 10 sun"]
)
def test_cron_trigger_is_due_at_the_same_times_whenever_it_is_asked_in_an_hour_that_comes_twice(
    text: str,
) -> None:
    trigger = parse_trigger(text, "Europe/Zurich")
    begins = ns("2026-10-25T00:00", "UTC")  # an hour before the clock is put back
    moments = [begins + minutes * 60_000_000_000 for minutes in range(0, 180, 5)]
    due = trigger.after_ns(moments[0])
    for now_ns in moments:
        if now_ns >= due:
            due = trigger.after_ns(due)
        assert trigger.after_ns(now_ns) == due > now_ns


def test_cron_trigger_is_due_by_the_clock_of_its_zone() -> None:
    trigger = parse_trigger("0 16 * * mon-fri", NEW_YORK)
    friday = ns("2026-11-20T16:00", NEW_YORK)
    assert trigger.after_ns(friday - 1) == friday
    assert trigger.after_ns(friday) == ns("2026-11-23T16:00", NEW_YORK)


def test_cron_trigger_at_a_skipped_time_is_due_right_after_and_at_a_repeated_one_once() -> None:
    trigger = parse_trigger("30 2 * * *", ZURICH)
    assert trigger.after_ns(ns("2026-03-29T01:00")) == ns("2026-03-29T03:00")
    first = ns("2026-10-25T02:30")
    assert trigger.after_ns(ns("2026-10-25T01:00")) == first
    assert trigger.after_ns(first) == ns("2026-10-26T02:30")


@given(st.sampled_from(["every 100ms", "every 7s", "every 3min", "every 1h"]), moments)
def test_paced_trigger_is_due_at_the_same_times_whenever_it_is_asked(text: str, now_ns: int) -> None:
    trigger = parse_trigger(text, "UTC")
    due_ns = trigger.after_ns(now_ns)
    assert due_ns > now_ns
    assert trigger.after_ns(due_ns - 1) == due_ns
    assert trigger.after_ns(trigger.after_ns(due_ns) - 1) == trigger.after_ns(due_ns)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("every 50ms", "at least"),
        ("every 5 days", 'a whole number of ms, s, min, h, such as "every 5min", was "every 5 days"'),
        ("every 1m", "a whole number of ms, s, min, h"),
        ("every 0.5s", "a whole number of ms, s, min, h"),
        ("every", "a whole number of ms, s, min, h"),
        ("61 * * * *", "minute"),
        ("* * *", "fields"),
        ("0 0 30 2 *", "day-of-month"),
    ],
)
def test_trigger_that_says_nothing_is_refused(text: str, says: str) -> None:
    with pytest.raises(ScheduleError, match=says) as refusal:
        parse_trigger(text, "UTC")
    assert text in str(refusal.value)
