"""The venue's clock: what is known of it, and the windows that follow from that."""

import asyncio

import pytest
from exchange_tools import eventually, story
from hypothesis import given
from hypothesis import strategies as st

from plugins.exchanges._shared.rest import RestUnanswered
from plugins.exchanges._shared.venue_clock import ClockUnsure, VenueClock

MS = 1_000_000
START_NS = 1_700_000_000_000 * MS


class Time:
    def __init__(self) -> None:
        self.ns = START_NS

    def now_ns(self) -> int:
        return self.ns


def clock_at(time: Time, most_error_ms: int = 100) -> VenueClock:
    return VenueClock("test", time.now_ns, most_error_ms * MS)


@given(
    skew_ns=st.integers(-(10**12), 10**12),
    there_ns=st.integers(0, 80 * MS),
    back_ns=st.integers(0, 80 * MS),
    window_ms=st.integers(300, 60_000),
    waited_ns=st.integers(0, 200 * MS),
)
def test_a_window_never_ends_after_the_deadline(
    skew_ns: int, there_ns: int, back_ns: int, window_ms: int, waited_ns: int
) -> None:
    """Whatever the way there and back took, and however far the clocks are apart."""
    time = Time()
    clock = clock_at(time)
    sent_ns = time.ns
    asked_ns = sent_ns + there_ns
    venue_ms = (asked_ns + skew_ns) // MS
    time.ns = asked_ns + back_ns
    clock.measured(sent_ns, time.ns, venue_ms * MS)
    time.ns += waited_ns
    deadline_ns = time.ns + window_ms * MS
    window = clock.window(deadline_ns)
    # Accepted while the venue's clock, in whole milliseconds or not, has not passed `last_ms`.
    latest_host_ns = window.last_ms * MS - skew_ns
    assert latest_host_ns <= deadline_ns
    assert window.width_ms > 0
    assert abs(window.sent_ms * MS - (time.ns + skew_ns)) <= (there_ns + back_ns) // 2 + 2 * MS


def test_nothing_is_given_a_window_before_the_first_measurement() -> None:
    with pytest.raises(ClockUnsure, match="is not known"):
        clock_at(Time()).window(START_NS + 1000 * MS)


def test_an_error_that_is_too_large_refuses_and_says_by_how_much() -> None:
    time = Time()
    clock = clock_at(time, most_error_ms=50)
    time.ns += 150 * MS
    clock.measured(START_NS, time.ns, START_NS)
    with pytest.raises(ClockUnsure, match="may be off by 76 ms, at most 50 ms"):
        clock.window(time.ns + 1000 * MS)


def test_an_error_grows_with_age_until_it_refuses() -> None:
    time = Time()
    clock = clock_at(time, most_error_ms=20)
    time.ns += 10 * MS
    clock.measured(START_NS, time.ns, START_NS + 5 * MS)
    clock.window(time.ns + 1000 * MS)
    time.ns += 200_000 * MS
    with pytest.raises(ClockUnsure, match="may be off by"):
        clock.window(time.ns + 1000 * MS)


def test_a_worse_measurement_does_not_replace_a_better_one() -> None:
    time = Time()
    clock = clock_at(time)
    clock.measured(START_NS, START_NS + 2 * MS, START_NS + 1 * MS)
    clock.measured(START_NS, START_NS + 90 * MS, START_NS + 20 * MS)
    assert clock.error_ns(START_NS + 2 * MS) < 3 * MS
    assert abs(clock.time_ns(START_NS) - START_NS) <= MS


def test_a_measurement_that_contradicts_what_was_known_holds_for_the_clock_was_set() -> None:
    time = Time()
    clock = clock_at(time)
    clock.measured(START_NS, START_NS + 2 * MS, START_NS + 1 * MS)
    clock.measured(START_NS, START_NS + 90 * MS, START_NS + 545 * MS)
    assert abs(clock.time_ns(START_NS) - (START_NS + 500 * MS)) <= MS
    assert clock.error_ns(START_NS + 90 * MS) >= 45 * MS


def test_a_deadline_that_is_too_near_refuses() -> None:
    time = Time()
    clock = clock_at(time)
    clock.measured(START_NS, START_NS + 20 * MS, START_NS + 10 * MS)
    with pytest.raises(ClockUnsure, match="5 ms are left to the deadline"):
        clock.window(START_NS + 5 * MS)


@story
async def test_doubt_has_the_clock_measured_again_at_once() -> None:
    time = Time()
    clock = clock_at(time)
    answers: list[int] = []

    async def ask() -> int:
        answers.append(time.ns)
        if len(answers) == 2:
            raise RestUnanswered("no answer", is_unsent=False)
        return time.ns

    keeping = asyncio.create_task(clock.keep(ask, every_s=3600.0, again_s=0.001))
    await eventually(lambda: len(answers) == 1)
    clock.doubt()
    with pytest.raises(ClockUnsure):
        clock.window(time.ns + 1000 * MS)
    await eventually(lambda: len(answers) >= 3)
    clock.window(time.ns + 1000 * MS)
    keeping.cancel()
