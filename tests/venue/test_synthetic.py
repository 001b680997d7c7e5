"""The synthetic market looks like a market: stylised facts, measured with fixed seeds."""

import math
import statistics
from collections import Counter
from functools import cache
from itertools import accumulate, islice, pairwise
from random import Random

import pytest
from msgspec import Struct

from host.api import BookTop, Depth, OrderType, Side, TimeInForce, Trade
from venue.arrivals import HawkesArrivals
from venue.fair_value import FairValue, FairValueParams
from venue.live_market import LiveMarket
from venue.market import MarketOutput, VenueOrder
from venue.synthetic import PRESETS, SyntheticCrowd

SECOND = 10**9
SECONDS = 400


class Observed(Struct):
    """One simulated market, watched from outside."""

    tick: float
    events: int
    trades_per_second: list[int]
    trade_sides: list[bool]
    mids: list[float]
    fair_gaps_bps: list[float]
    time_at_spread: Counter[int]
    two_sided_ns: int
    resting: int


@cache
def observe(symbol: str, seed: int) -> Observed:
    instrument, params = PRESETS[symbol]
    crowd = SyntheticCrowd(instrument, params, seed)
    market = LiveMarket(instrument, crowd)
    seen = Observed(float(instrument.tick_size), 0, [0] * SECONDS, [], [], [], Counter(), 0, 0)
    last: BookTop | None = None
    before_ns, is_two_sided = 0, False
    while (now_ns := market.next_time_ns() or 0) < SECONDS * SECOND:
        if is_two_sided:
            seen.two_sided_ns += now_ns - before_ns
        if last is not None:
            seen.time_at_spread[round(last.spread / seen.tick)] += now_ns - before_ns
            while len(seen.mids) * SECOND <= now_ns:
                seen.mids.append(last.mid)
                seen.fair_gaps_bps.append((last.mid / crowd.fair_value - 1.0) * 1e4)
        before_ns = now_ns
        for event in market.step(now_ns):
            seen.events += 1
            if isinstance(event, BookTop):
                last = event
            elif isinstance(event, Trade):
                seen.trades_per_second[now_ns // SECOND] += 1
                seen.trade_sides.append(event.taker_is_buyer)
        is_two_sided = None not in market.best()
    snapshot = market.snapshot(now_ns)
    seen.resting = min(len(snapshot.bids), len(snapshot.asks))
    return seen


def returns_bps(mids: list[float]) -> list[float]:
    return [math.log(b / a) * 1e4 for a, b in pairwise(mids)]


def autocorrelation(values: list[float], lag: int) -> float:
    mean = statistics.fmean(values)
    total = sum((value - mean) ** 2 for value in values)
    return sum((a - mean) * (b - mean) for a, b in zip(values, values[lag:], strict=False)) / total


MARKETS = pytest.mark.parametrize(("symbol", "seed"), [("BTC-USDT", 3), ("ETH-USDT", 1)])


@MARKETS
def test_the_event_rate_is_that_of_a_busy_symbol(symbol: str, seed: int) -> None:
    assert 100 < observe(symbol, seed).events / SECONDS < 220


@MARKETS
def test_the_spread_is_positive_and_mostly_a_few_ticks(symbol: str, seed: int) -> None:
    spreads = observe(symbol, seed).time_at_spread
    assert min(spreads) >= 1
    assert sum(time for ticks, time in spreads.items() if ticks <= 10) > 0.9 * spreads.total()
    assert max(spreads) > 20, "shocks must show"


@MARKETS
def test_the_book_is_almost_never_one_sided(symbol: str, seed: int) -> None:
    seen = observe(symbol, seed)
    assert seen.two_sided_ns > 0.999 * SECONDS * SECOND
    assert seen.resting >= 15


@MARKETS
def test_trades_come_in_bursts(symbol: str, seed: int) -> None:
    counts = observe(symbol, seed).trades_per_second
    assert statistics.fmean(counts) > 5
    assert statistics.variance(counts) > 2 * statistics.fmean(counts), "a Poisson process has a ratio of 1"


@MARKETS
def test_takers_trade_in_runs_of_one_side_and_on_both_sides(symbol: str, seed: int) -> None:
    sides = [1.0 if is_buy else -1.0 for is_buy in observe(symbol, seed).trade_sides]
    assert autocorrelation(sides, 1) > 0.2
    assert abs(statistics.fmean(sides)) < 0.3


@MARKETS
def test_volatility_clusters_where_returns_do_not(symbol: str, seed: int) -> None:
    returns = returns_bps(observe(symbol, seed).mids)
    lags = range(1, 11)
    of_returns = statistics.fmean(autocorrelation(returns, lag) for lag in lags)
    of_sizes = statistics.fmean(autocorrelation([abs(value) for value in returns], lag) for lag in lags)
    assert of_sizes > 0.05
    assert of_sizes > of_returns


@MARKETS
def test_extreme_returns_are_more_common_than_in_a_normal_distribution(symbol: str, seed: int) -> None:
    returns = returns_bps(observe(symbol, seed).mids)
    variance = statistics.pvariance(returns)
    assert statistics.fmean(value**4 for value in returns) / variance**2 > 5, "a normal distribution has 3"


@MARKETS
def test_there_are_trends(symbol: str, seed: int) -> None:
    """Moves over 20 s are larger than those of a random walk with the same one-second moves."""
    returns = returns_bps(observe(symbol, seed).mids)
    long = [sum(returns[start : start + 20]) for start in range(len(returns) - 20)]
    assert statistics.pvariance(long) > 1.3 * 20 * statistics.pvariance(returns)


@MARKETS
def test_the_market_finds_the_fair_value(symbol: str, seed: int) -> None:
    gaps = observe(symbol, seed).fair_gaps_bps
    assert statistics.quantiles([abs(gap) for gap in gaps], n=20)[-1] < 0.5


def first_events(seed: int) -> list[MarketOutput]:
    instrument, params = PRESETS["ETH-USDT"]
    market = LiveMarket(instrument, SyntheticCrowd(instrument, params, seed, start_ns=5 * SECOND))
    out: list[MarketOutput] = []
    while len(out) < 3000:
        out.extend(market.step(market.next_time_ns() or 0))
    return out


def test_the_same_seed_gives_the_same_market_and_another_seed_another() -> None:
    assert first_events(7) == first_events(7)
    assert first_events(7) != first_events(8)


def test_everything_the_crowd_sends_is_on_the_grid_and_times_rise() -> None:
    instrument, params = PRESETS["BTC-USDT"]
    crowd = SyntheticCrowd(instrument, params, 11)
    market = LiveMarket(instrument, crowd)
    before_ns = 0
    for _ in range(3000):
        now_ns = crowd.next_time_ns()
        assert now_ns > before_ns
        before_ns = now_ns
        for event in market.step(now_ns):
            if isinstance(event, Depth):
                for price, size in (*event.bids, *event.asks):
                    assert price == float(instrument.price_floor(price))
                    assert size == float(instrument.qty_floor(size)) >= 0.0


def test_the_book_is_refilled_after_someone_takes_all_of_it() -> None:
    instrument, params = PRESETS["ETH-USDT"]
    market = LiveMarket(instrument, SyntheticCrowd(instrument, params, 5))
    while (now_ns := market.next_time_ns() or 0) < SECOND:
        market.step(now_ns)
    sweep = VenueOrder(
        1,
        "ours",
        "c1",
        instrument.symbol,
        Side.BUY,
        OrderType.LIMIT,
        TimeInForce.IOC,
        instrument.price_floor(9999.0),
        instrument.qty_floor(1e6),
    )
    market.submit(sweep, now_ns)
    assert market.best()[1] is None
    end_ns = now_ns + SECOND
    while (now_ns := market.next_time_ns() or 0) < end_ns:
        market.step(now_ns)
    bid, ask = market.best()
    assert bid is not None
    assert ask is not None
    assert 0 < ask - bid < 20 * instrument.tick_size


def test_a_hawkes_process_has_its_mean_rate_and_its_excess_variance() -> None:
    process = HawkesArrivals(Random(1), 20.0, 0.6, 10.0)
    times = list(accumulate(process.next_gap_s() for _ in range(60_000)))
    assert 60_000 / times[-1] == pytest.approx(20.0, rel=0.05)
    per_window = Counter(int(time / 5.0) for time in times)
    counts = [per_window[window] for window in range(int(times[-1] / 5.0))]
    ratio = statistics.variance(counts) / statistics.fmean(counts)
    assert ratio == pytest.approx(1 / (1 - 0.6) ** 2, rel=0.2)


def test_without_excitement_arrivals_are_poisson() -> None:
    process = HawkesArrivals(Random(1), 20.0, 0.0, 10.0)
    gaps = list(islice(iter(process.next_gap_s, None), 20_000))
    assert statistics.pstdev(gaps) / statistics.fmean(gaps) == pytest.approx(1.0, rel=0.03)


def test_fair_value_without_trend_storm_or_jump_is_a_random_walk_of_the_stated_volatility() -> None:
    params = FairValueParams(
        start=100.0, calm_vol_bps=2.0, stormy_vol_bps=2.0, trend_bps=0.0, jump_every_s=0.0, reversion_s=1e12
    )
    fair = FairValue(params, Random(4))
    logs = [math.log(fair.value)]
    for _ in range(20_000):
        assert fair.advance(0.25) == 0.0
        logs.append(math.log(fair.value))
    moves = [(b - a) * 1e4 for a, b in pairwise(logs)]
    assert statistics.pstdev(moves) == pytest.approx(1.0, rel=0.03)


def test_jumps_come_at_their_rate_and_size_and_bring_a_storm() -> None:
    params = FairValueParams(start=100.0, jump_every_s=10.0, jump_bps=5.0)
    fair = FairValue(params, Random(4))
    jumps = []
    for _ in range(50_000):
        if jump := fair.advance(0.5):
            assert fair.is_stormy
            jumps.append(abs(jump))
    assert len(jumps) == pytest.approx(2500, rel=0.1)
    assert statistics.fmean(jumps) == pytest.approx(5.0, rel=0.05)
