"""The features against their formulas written out as plain sums."""

from itertools import pairwise
from math import isfinite, log, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.api import BookTop, Features, Trade
from host.core.features import (
    FLOW_HALF_LIFE_S,
    MOMENTUM_HALF_LIFE_S,
    VOLATILITY_HALF_LIFE_S,
    FeatureMaker,
)

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def top(
    mid: float, at_s: float = 0.0, *, spread: float = 2.0, bid_size: float = 1.0, ask_size: float = 1.0
) -> BookTop:
    half = spread / 2
    return BookTop("X", mid - half, bid_size, mid + half, ask_size, ts_recv=START + round(at_s * 1e9))


def trade(qty: float, at_s: float = 0.0, *, buyer: bool = True) -> Trade:
    return Trade("X", 100.0, qty, buyer, ts_recv=START + round(at_s * 1e9))


def weight(age_s: float, half_life_s: float) -> float:
    return float(0.5 ** (age_s / half_life_s))


def test_nothing_seen_is_all_zeros_but_the_inventory() -> None:
    assert FeatureMaker().features(0.25) == Features(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.25)


def test_the_first_top_gives_spread_imbalance_and_microprice() -> None:
    maker, book = FeatureMaker(), top(100.0, spread=0.5, bid_size=3.0, ask_size=1.0)
    maker.on_book(book)
    features = maker.features(0.0)
    assert features.spread_bps == pytest.approx(50.0)
    assert features.imbalance == pytest.approx(0.5)
    assert features.microprice_bps == pytest.approx((book.microprice - book.mid) / book.mid * 1e4)
    assert (features.volatility_bps, features.trade_flow, features.momentum_bps) == (0.0, 0.0, 0.0)


def test_a_top_without_sizes_is_balanced() -> None:
    maker = FeatureMaker()
    maker.on_book(top(100.0, bid_size=0.0, ask_size=0.0))
    assert maker.features(0.0).imbalance == 0.0
    assert maker.features(0.0).microprice_bps == 0.0


def test_trade_flow_decays_over_event_time() -> None:
    maker = FeatureMaker()
    maker.on_trade(trade(4.0, 0.0, buyer=True))
    assert maker.features(0.0).trade_flow == 1.0
    maker.on_trade(trade(1.0, FLOW_HALF_LIFE_S, buyer=False))
    assert maker.features(0.0).trade_flow == pytest.approx((2.0 - 1.0) / (2.0 + 1.0))


def test_a_jump_of_the_mid_shows_in_full_and_fades_by_half_each_half_life() -> None:
    maker = FeatureMaker()
    maker.on_book(top(100.0))
    maker.on_book(top(101.0, 1.0))
    assert maker.features(0.0).momentum_bps == pytest.approx(1 / 101 * 1e4)
    maker.on_book(top(101.0, 1.0 + MOMENTUM_HALF_LIFE_S))
    assert maker.features(0.0).momentum_bps == pytest.approx(0.5 / 101 * 1e4)


def test_volatility_is_scaled_to_one_second() -> None:
    """Moves of 1 bps every quarter of a second are 2 bps per root second."""
    maker, mid = FeatureMaker(), 100.0
    for tick in range(2000):
        mid *= 1.0001 if tick % 2 else 1 / 1.0001
        maker.on_book(top(mid, tick * 0.25))
    assert maker.features(0.0).volatility_bps == pytest.approx(2.0, rel=0.01)


def test_volatility_ignores_the_bounce_between_samples() -> None:
    maker = FeatureMaker()
    for tick in range(5000):
        bounce = 101.0 if tick % 50 else 100.0
        maker.on_book(top(bounce, tick * 0.002))
    assert maker.features(0.0).volatility_bps == 0.0


def test_the_first_moves_after_a_start_are_not_a_storm() -> None:
    maker = FeatureMaker()
    maker.on_book(top(100.0, 0.0))
    maker.on_book(top(100.01, 0.1))
    assert maker.features(0.0).volatility_bps == pytest.approx(1.0, rel=0.01)


def test_time_that_runs_back_counts_as_standing_still() -> None:
    maker = FeatureMaker()
    maker.on_book(top(100.0, 10.0))
    maker.on_trade(trade(1.0, 10.0))
    maker.on_book(top(110.0, 5.0))
    maker.on_trade(trade(1.0, 5.0, buyer=False))
    features = maker.features(0.0)
    assert (features.volatility_bps, features.trade_flow) == (0.0, 0.0)
    assert features.momentum_bps == pytest.approx(10 / 110 * 1e4)


_gaps = st.floats(0.0, 30.0)
_ticks = st.lists(
    st.tuples(_gaps, st.floats(1.0, 1e5), st.floats(0.0, 1e3), st.floats(0.0, 1e3)), min_size=1, max_size=30
)
_trades = st.lists(st.tuples(_gaps, st.floats(1e-6, 1e3), st.booleans()), max_size=30)


@given(_ticks, _trades)
def test_the_recursions_equal_the_sums_they_stand_for(
    ticks: list[tuple[float, float, float, float]], trades: list[tuple[float, float, bool]]
) -> None:
    maker, at_s = FeatureMaker(), 0.0
    seen: list[tuple[float, float]] = []
    for gap, mid, bid_size, ask_size in ticks:
        at_s += gap
        maker.on_book(top(mid, at_s, spread=mid * 1e-3, bid_size=bid_size, ask_size=ask_size))
        seen.append((at_s, mid))
    now = 0.0
    prints: list[tuple[float, float, bool]] = []
    for gap, qty, is_buy in trades:
        now += gap
        maker.on_trade(trade(qty, now, buyer=is_buy))
        prints.append((now, qty, is_buy))
    features = maker.features(0.0)
    assert all(isfinite(value) for value in features.vector())
    assert -1.0 <= features.imbalance <= 1.0

    signed = sum((q if b else -q) * weight(now - t, FLOW_HALF_LIFE_S) for t, q, b in prints)
    total = sum(q * weight(now - t, FLOW_HALF_LIFE_S) for t, q, _ in prints)
    assert features.trade_flow == pytest.approx(signed / total if total else 0.0, abs=1e-6)

    # The mean weighs each mid by the time it stood; the first also by all the time before.
    ends = [t for t, _ in seen[1:]] + [at_s]
    parts = [
        weight(at_s - e, MOMENTUM_HALF_LIFE_S) - weight(at_s - t, MOMENTUM_HALF_LIFE_S)
        for (t, _), e in zip(seen, ends, strict=True)
    ]
    parts[0] += weight(at_s - seen[0][0], MOMENTUM_HALF_LIFE_S)
    mean = sum(w * mid for w, (_, mid) in zip(parts, seen, strict=True))
    assert features.momentum_bps == pytest.approx((seen[-1][1] - mean) / seen[-1][1] * 1e4, rel=1e-5, abs=0.1)

    samples = [seen[0]]
    for moment, mid in seen[1:]:
        if round(moment * 1e9) - round(samples[-1][0] * 1e9) >= SECOND // 10:
            samples.append((moment, mid))
    last = samples[-1][0]
    squares = span = 0.0
    for (t0, m0), (t1, m1) in pairwise(samples):
        w = weight(last - t1, VOLATILITY_HALF_LIFE_S)
        squares, span = squares + w * log(m1 / m0) ** 2, span + w * (t1 - t0)
    assert features.volatility_bps == pytest.approx(sqrt(squares / max(span, 1.0)) * 1e4, rel=1e-5, abs=1e-3)


def test_the_same_events_give_the_same_vector() -> None:
    def run() -> tuple[float, ...]:
        maker = FeatureMaker()
        for tick in range(300):
            maker.on_book(top(100.0 + tick % 7, tick * 0.033, bid_size=1.0 + tick % 3))
            maker.on_trade(trade(1.0 + tick % 5, tick * 0.033, buyer=tick % 3 == 0))
        return maker.features(0.5).vector()

    assert run() == run()
