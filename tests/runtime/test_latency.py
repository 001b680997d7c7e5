"""Quantiles out of a histogram of constant size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.runtime.latency import Histogram


def filled(durations: list[int]) -> Histogram:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    return histogram


def test_empty_histogram_has_quantiles_of_nothing() -> None:
    assert Histogram().quantile_us(0.99) == 0.0


@pytest.mark.parametrize("duration", [0, 1, 31, 32, 33, 1_000, 12_345, 10**9, 2**62])
def test_single_duration_is_every_quantile(duration: int) -> None:
    histogram = filled([duration])

    assert histogram.quantile_us(0.5) == histogram.quantile_us(1.0) == duration / 1e3
    assert (histogram.count, histogram.max_ns) == (1, duration)


@given(
    st.lists(st.integers(0, 10**12), min_size=1, max_size=300),
    st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]),
)
def test_quantile_is_at_most_three_percent_above_the_true_one(durations: list[int], fraction: float) -> None:
    rank = next(i for i in range(1, len(durations) + 1) if i >= fraction * len(durations))
    true_us = sorted(durations)[rank - 1] / 1e3
    told_us = filled(durations).quantile_us(fraction)

    assert true_us <= told_us <= true_us * (1 + 1 / 32) + 1e-9
