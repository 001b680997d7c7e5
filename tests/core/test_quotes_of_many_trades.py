"""A quote that is filled in small parts and topped up all day."""

from decimal import Decimal
from pathlib import Path

import pytest
from desk_tools import BTC, Desk, Quoter

from host.api import OrderSnapshot, Side
from host.core.quoter import MOST_TRADES

PART = Decimal("0.4")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path / "journal")
    desk.run("q", Quoter())
    return desk


def bid_of(desk: Desk) -> OrderSnapshot:
    (bid,) = (order for order in desk.venue.open() if order.side is Side.BUY)
    return bid


def test_an_order_that_is_topped_up_again_and_again_is_replaced_before_it_has_traded_too_often(
    desk: Desk,
) -> None:
    ids = []
    for number in range(3 * MOST_TRADES):
        bid = 60_000.0 + number % 50
        desk.top(bid, bid + 0.1)
        desk.settle()
        order = bid_of(desk)
        ids.append(order.client_id)
        desk.venue.trade(order, str(PART))
        desk.settle()
        desk.advance(0.3)
        assert max(len(order.trade_ids) for order in desk.engine.state.orders.values()) <= MOST_TRADES + 1

    assert 3 <= len(set(ids)) <= 4
    assert [ids.count(one) for one in dict.fromkeys(ids)][:2] == [MOST_TRADES, MOST_TRADES]
    desk.top(60_100.0, 60_100.1)
    desk.settle()
    order = bid_of(desk)
    assert order.qty - order.filled == 1
    assert desk.engine.state.position("q", BTC).qty == PART * len(ids)
    assert desk.engine.state.anomalies == {}
