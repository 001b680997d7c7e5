"""Rate limits are kept before the venue enforces them, and pulling quotes comes first."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.exchanges._shared.rate_limit import Limit, OverLimit, RateLimits

S = 1_000_000_000


def limits(kept: dict[str, Any] | None = None) -> RateLimits:
    out = RateLimits("test", {} if kept is None else kept)
    out.add("orders", 10, 10 * S)
    out.add("weight", 100, 60 * S)
    return out


@given(st.lists(st.tuples(st.integers(0, 3 * S), st.integers(1, 4)), max_size=60), st.integers(0, 10 * S))
def test_no_window_of_the_venue_ever_holds_more_than_its_limit(
    requests: list[tuple[int, int]], window_begins_ns: int
) -> None:
    limit = Limit("orders", 10, 10 * S)
    now_ns, sent = 0, []
    for pause_ns, weight in requests:
        now_ns += pause_ns
        if limit.wait_ns(weight, now_ns, is_urgent=True) == 0:
            limit.spend(weight, now_ns)
            sent.append((now_ns, weight))
    begin_ns = window_begins_ns
    while begin_ns <= now_ns:
        assert sum(w for t, w in sent if begin_ns <= t < begin_ns + 10 * S) <= 10
        begin_ns += 10 * S


def test_the_wait_that_is_told_is_enough_and_no_more() -> None:
    limit = Limit("orders", 10, 10 * S)
    for second in range(10):
        limit.spend(1, second * S)
    wait_ns = limit.wait_ns(2, 9 * S, is_urgent=True)
    assert wait_ns == 2 * S
    assert limit.wait_ns(2, 9 * S + wait_ns - 1, is_urgent=True) == 1
    assert limit.wait_ns(2, 9 * S + wait_ns, is_urgent=True) == 0


def test_cancels_go_on_when_orders_are_refused() -> None:
    limits_ = limits()
    for _ in range(9):
        limits_.take([("orders", 1)], 0)
    with pytest.raises(OverLimit, match="9 of 10 orders are used") as refused:
        limits_.take([("orders", 1)], 0)
    assert refused.value.wait_ns == 10 * S
    limits_.take([("orders", 1)], 0, is_urgent=True)
    with pytest.raises(OverLimit):
        limits_.take([("orders", 1)], 0, is_urgent=True)


def test_a_request_over_one_of_its_limits_spends_from_none() -> None:
    limits_ = limits()
    with pytest.raises(OverLimit):
        limits_.take([("weight", 5), ("orders", 11)], 0)
    assert limits_["weight"].used(0) == 0


def test_what_the_venue_counted_beyond_ours_is_believed() -> None:
    limits_ = limits()
    limits_.take([("orders", 2)], 0)
    limits_["orders"].told(8, S)
    assert limits_["orders"].used(S) == 8
    limits_["orders"].told(3, S)
    assert limits_["orders"].used(S) == 8


def test_a_pause_that_the_venue_ordered_holds_for_cancels_too() -> None:
    limits_ = limits()
    limits_.pause(5 * S)
    limits_.pause(3 * S)  # a shorter one does not end it
    with pytest.raises(OverLimit, match=r"stop for another 1\.0 s"):
        limits_.take([("orders", 1)], 4 * S, is_urgent=True)
    limits_.take([("orders", 1)], 5 * S)


def test_the_next_version_counts_on_with_plain_data() -> None:
    kept: dict[str, Any] = {}
    first, second = limits(kept), limits(kept)
    first.take([("orders", 4)], 0)
    second.take([("orders", 3)], 0)
    assert first["orders"].used(0) == 7
    assert second["orders"].used(10 * S) == first["orders"].used(10 * S) == 0
    assert {type(item).__module__ for value in kept.values() for item in value.values()} <= {
        "builtins",
        "collections",
    }
