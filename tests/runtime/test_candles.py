"""Trades in, candles out."""

from hypothesis import given
from hypothesis import strategies as st

from host.api import Candle, Trade
from host.runtime.candles import CandleMaker

SECOND = 1_000_000_000
START_NS = 1_754_650_020 * SECOND
"""On a full minute."""


def make(seconds: int = 60) -> tuple[CandleMaker, list[Candle]]:
    candles: list[Candle] = []
    return CandleMaker("BTC-USDT", seconds, candles.append), candles


def trade(price: float, qty: float = 1.0) -> Trade:
    return Trade("BTC-USDT", price, qty, True)


def test_candle_holds_the_trades_of_its_minute() -> None:
    maker, candles = make()
    for second, price in ((0, 100.0), (20, 104.0), (40, 97.0), (59.999, 101.0)):
        maker.on_trade(trade(price, 0.5), START_NS + round(second * SECOND))
    assert candles == []
    maker.on_trade(trade(300.0), START_NS + 60 * SECOND)

    assert candles == [
        Candle("BTC-USDT", START_NS, 60 * SECOND, 100.0, 104.0, 97.0, 101.0, 2.0, 4),
    ]


def test_candle_is_handed_over_when_its_time_is_past_though_no_trade_follows() -> None:
    maker, candles = make()
    maker.on_trade(trade(100.0), START_NS + SECOND)
    maker.on_time(START_NS + 60 * SECOND - 1)
    assert candles == []
    maker.on_time(START_NS + 60 * SECOND)
    maker.on_time(START_NS + 61 * SECOND)
    assert len(candles) == 1


def test_time_without_a_trade_has_no_candle() -> None:
    maker, candles = make()
    maker.on_trade(trade(100.0), START_NS)
    maker.on_trade(trade(100.0), START_NS + 300 * SECOND)
    maker.on_time(START_NS + 900 * SECOND)

    assert [candle.start_ns for candle in candles] == [START_NS, START_NS + 300 * SECOND]


@given(
    st.lists(st.tuples(st.integers(0, 90), st.floats(1, 1000)), min_size=1, max_size=60),
    st.sampled_from([1, 7, 60]),
)
def test_no_trade_is_lost_or_counted_twice(steps: list[tuple[int, float]], seconds: int) -> None:
    maker, candles = make(seconds)
    now_ns = START_NS
    for wait, price in steps:
        now_ns += wait * SECOND
        maker.on_trade(trade(price), now_ns)
    maker.on_time(now_ns + 1_000 * SECOND)

    assert sum(candle.trades for candle in candles) == len(steps)
    assert max(candle.high for candle in candles) == max(price for _, price in steps)
    assert min(candle.low for candle in candles) == min(price for _, price in steps)
    starts = [candle.start_ns for candle in candles]
    assert starts == sorted(set(starts))
    assert all(start % (seconds * SECOND) == 0 for start in starts)
