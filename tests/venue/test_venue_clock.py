"""Market time and wall time, and what speed does to them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venue.clock import VenueClock

SECOND_NS = 1_000_000_000


@given(
    start_ns=st.integers(0, 1 << 61),
    speed=st.sampled_from([0.5, 1.0, 10.0]),
    passed_ns=st.integers(0, 10**15),
)
def test_wall_and_market_time_are_each_others_inverse(start_ns: int, speed: float, passed_ns: int) -> None:
    clock = VenueClock(start_ns, speed)
    wall_ns = clock.to_wall_ns(start_ns) + passed_ns

    assert abs(clock.to_wall_ns(clock.to_market_ns(wall_ns)) - wall_ns) <= 2


def test_ten_seconds_of_a_fast_recording_are_one_on_the_wall() -> None:
    clock = VenueClock(5 * SECOND_NS, 10.0)

    assert clock.to_wall_ns(15 * SECOND_NS) - clock.to_wall_ns(5 * SECOND_NS) == SECOND_NS
    before, now, after = clock.now_ns(), clock.to_market_ns(clock.wall_now_ns()), clock.now_ns()
    assert before - 20 <= now <= after + 20


def test_clock_without_a_recording_shows_the_wall() -> None:
    clock = VenueClock()

    assert clock.to_market_ns(123_456_789) == 123_456_789
    assert abs(clock.lag_ns) < SECOND_NS
    assert clock.wait_s(clock.now_ns() + 10 * SECOND_NS) == pytest.approx(10, abs=5)
