"""Two nodes compare what they see of one market."""

from pathlib import Path

import pytest
from desk_tools import ACCOUNT, BTC, ETH, Desk

from failover.replication.events import MarketSeen, SeenTop
from host.comparing import SAMPLES_IN_A_ROW, MarketComparison, seen_by


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    desk.top(60_000.0, 60_000.1)
    return desk


def seen(bid: float, ask: float, symbol: str = BTC) -> MarketSeen:
    return MarketSeen((SeenTop(ACCOUNT, symbol, bid, ask),))


def test_every_trusted_book_is_shown(desk: Desk) -> None:
    assert list(seen_by(desk.engine)) == [SeenTop(ACCOUNT, BTC, 60_000.0, 60_000.1)]
    desk.feed.symbols[BTC].book.invalidate("line lost: test")
    assert list(seen_by(desk.engine)) == []


def test_same_prices_are_no_news(desk: Desk) -> None:
    comparison = MarketComparison(desk.engine)
    for _ in range(2 * SAMPLES_IN_A_ROW):
        assert comparison.take(seen(60_000.0, 60_000.1)) == []
    assert comparison.ailments == frozenset()


def test_prices_that_this_node_had_lately_are_the_same_prices(desk: Desk) -> None:
    comparison = MarketComparison(desk.engine)
    desk.top(61_000.0, 61_000.1)
    for _ in range(2 * SAMPLES_IN_A_ROW):
        assert comparison.take(seen(60_000.0, 60_000.1)) == []


@pytest.mark.parametrize(("bid", "ask", "what"), [(59_000.0, 60_000.1, "bid"), (60_000.0, 61_000.0, "ask")])
def test_difference_that_stays_is_said_once_and_so_is_its_end(
    desk: Desk, bid: float, ask: float, what: str
) -> None:
    comparison = MarketComparison(desk.engine)
    told = [comparison.take(seen(bid, ask)) for _ in range(2 * SAMPLES_IN_A_ROW)]
    [[text]] = [news for news in told if news]
    assert told[SAMPLES_IN_A_ROW - 1] == [text]
    assert f"best {what}" in text
    assert comparison.ailments == {f"market_differs:{ACCOUNT}"}

    [text] = comparison.take(seen(60_000.0, 60_000.1))
    assert "same prices again" in text
    assert comparison.ailments == frozenset()


@pytest.mark.parametrize("whose", ["the primary's", "this node's"])
def test_difference_is_forgotten_where_a_book_is_not_trusted_any_more(desk: Desk, whose: str) -> None:
    comparison = MarketComparison(desk.engine)
    for _ in range(SAMPLES_IN_A_ROW):
        comparison.take(seen(1.0, 2.0))
    assert comparison.ailments
    if whose == "this node's":
        desk.feed.symbols[BTC].book.invalidate("line lost: test")
    told = comparison.take(seen(1.0, 2.0) if whose == "this node's" else MarketSeen(()))
    assert told == [] and comparison.ailments == frozenset()


def test_differences_that_come_and_go_are_not_told(desk: Desk) -> None:
    comparison = MarketComparison(desk.engine)
    for _ in range(10):
        for _ in range(SAMPLES_IN_A_ROW - 1):
            assert comparison.take(seen(1.0, 2.0)) == []
        assert comparison.take(seen(60_000.0, 60_000.1)) == []


def test_book_that_this_node_does_not_have_is_another_ailment(desk: Desk) -> None:
    comparison = MarketComparison(desk.engine)
    for _ in range(2 * SAMPLES_IN_A_ROW):
        assert comparison.take(seen(1.0, 2.0, ETH)) == []
        assert comparison.take(MarketSeen((SeenTop("elsewhere", BTC, 1.0, 2.0),))) == []
