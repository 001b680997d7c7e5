"""Order and execution rows: what each tells the host, once."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from bybit_tools import filled_in, listing, only
from exchange_tools import vectors
from hypothesis import given
from hypothesis import strategies as st

from host.api import (
    AmendOrder,
    Liquidity,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderRejected,
    OrderStatus,
    RejectReason,
    Report,
    Side,
)
from plugins.exchanges.bybit.frames import BadFrame, ExecutionRow, OrderRow
from plugins.exchanges.bybit.order_codec import fill_of, is_live, is_trade, snapshot_of
from plugins.exchanges.bybit.order_tracker import OrderTracker
from plugins.exchanges.bybit.products import Product

TS_NS = 7


def rows_of(vector: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a push or of a REST answer; none for what is neither."""
    message = filled_in(vector["message"])
    if isinstance(message.get("data"), list):
        return list(message["data"])
    result = message.get("result") or {}
    return [{"category": result.get("category", ""), **row} for row in result.get("list") or ()]


def has_fees(vector: dict[str, Any]) -> bool:
    # The fast topic tells no fees, and is not subscribed.
    return bool(rows_of(vector)) and vector["message"].get("topic") != "execution.fast"


def product_of(row: dict[str, Any]) -> Product:
    return Product(row["category"]) if row.get("category") in set(Product) else Product.LINEAR


def order_row(**fields: Any) -> OrderRow:
    usual = {
        "symbol": "BTCUSDT",
        "orderId": "v1",
        "orderLinkId": "c1",
        "side": "Buy",
        "orderType": "Limit",
        "orderStatus": "New",
        "qty": "2",
        "price": "100",
        "cumExecQty": "0",
        "rejectReason": "EC_NoError",
        "cancelType": "UNKNOWN",
        "updatedTime": "1",
    }
    return msgspec.convert(usual | fields, OrderRow, strict=False)


ORDERS = [*vectors("wire/bybit/order.json"), *vectors("wire/bybit/rest_order.json")]


@pytest.mark.parametrize("vector", only(ORDERS, rows_of))
def test_each_recorded_order_decodes(vector: dict[str, Any]) -> None:
    for raw in rows_of(vector):
        row = msgspec.json.decode(json.dumps(raw), type=OrderRow, strict=False)
        order = snapshot_of(listing(product_of(raw), raw["symbol"]), row, TS_NS)
        assert (order.client_id, order.venue_id) == (raw["orderLinkId"], raw["orderId"])
        assert order.side is (Side.BUY if raw["side"] == "Buy" else Side.SELL)
        assert order.price == (None if raw["orderType"] == "Market" else Decimal(raw["price"]))
        assert (order.qty, order.filled) == (Decimal(raw["qty"]), Decimal(raw["cumExecQty"]))
        ended = {
            "Filled": OrderStatus.FILLED,
            "Cancelled": OrderStatus.CANCELLED,
            "Rejected": OrderStatus.CANCELLED,
        }
        resting = OrderStatus.PARTIALLY_FILLED if order.filled else OrderStatus.OPEN
        assert order.status is ended.get(raw["orderStatus"], resting)
        assert is_live(row) is (raw["orderStatus"] in {"New", "Untriggered"})


@pytest.mark.parametrize("vector", only(vectors("wire/bybit/execution.json"), has_fees))
def test_each_recorded_execution_decodes(vector: dict[str, Any]) -> None:
    for raw in rows_of(vector):
        row = msgspec.json.decode(json.dumps(raw), type=ExecutionRow, strict=False)
        at = listing(product_of(raw), raw["symbol"])
        fill = fill_of(at, row, TS_NS)
        assert is_trade(row) is (raw["execType"] in {"Trade", "AdlTrade"})
        assert (fill.price, fill.qty) == (Decimal(raw["execPrice"]), Decimal(raw["execQty"]))
        assert (fill.fee, fill.trade_id) == (Decimal(raw["execFee"]), raw["execId"])
        assert fill.liquidity is (Liquidity.MAKER if raw["isMaker"] else Liquidity.TAKER)
        assert fill.fee_currency == (raw.get("feeCurrency") or usual_currency(raw, at.instrument))


def usual_currency(raw: dict[str, Any], instrument: Any) -> str:
    if raw.get("category") == "spot":
        return str(instrument.base if raw["side"] == "Buy" else instrument.quote)
    return str(instrument.settle)


def kinds(reports: Any) -> list[type[Report]]:
    return [type(report) for report in reports]


def test_an_order_is_accepted_once_however_often_it_is_pushed() -> None:
    tracker = OrderTracker()
    assert tracker.reports(order_row(), TS_NS) == [OrderAccepted("c1", "v1", TS_NS)]
    assert tracker.reports(order_row(), TS_NS) == []
    assert (
        tracker.reports(order_row(orderStatus="PartiallyFilled", cumExecQty="1", updatedTime="2"), TS_NS)
        == []
    )


def test_the_second_filled_that_a_late_cancel_causes_says_nothing_new() -> None:
    tracker = OrderTracker()
    assert kinds(tracker.reports(order_row(orderStatus="Filled", cumExecQty="2"), TS_NS)) == [OrderAccepted]
    second = order_row(
        orderStatus="Filled",
        cumExecQty="2",
        updatedTime="2",
        cancelType="CancelByUser",
        rejectReason="EC_OrigClOrdIDDoesNotExist",
    )
    assert tracker.reports(second, TS_NS) == ()


def test_a_post_only_order_that_would_cross_was_rejected() -> None:
    for status in ("Cancelled", "Rejected"):
        row = order_row(orderStatus=status, rejectReason="EC_PostOnlyWillTakeLiquidity")
        (report,) = OrderTracker().reports(row, TS_NS)
        assert report == OrderRejected("c1", RejectReason.WOULD_TAKE, "EC_PostOnlyWillTakeLiquidity", TS_NS)


def test_a_resting_post_only_order_that_an_amend_makes_cross_was_cancelled() -> None:
    tracker = OrderTracker()
    tracker.reports(order_row(), TS_NS)
    row = order_row(orderStatus="Cancelled", rejectReason="EC_PostOnlyWillTakeLiquidity", updatedTime="2")
    assert tracker.reports(row, TS_NS) == [OrderCancelled("c1", TS_NS, "would_take", Decimal(0))]


def test_an_amend_is_told_when_the_order_has_the_new_terms_and_not_before() -> None:
    tracker = OrderTracker()
    tracker.reports(order_row(), TS_NS)
    tracker.amend_sent(AmendOrder("c1", "BTC-USDT-PERP", Side.BUY, Decimal(101), Decimal(3)))
    # A fill of before the amend shows the old terms.
    assert (
        tracker.reports(order_row(orderStatus="PartiallyFilled", cumExecQty="1", updatedTime="2"), TS_NS)
        == []
    )
    row = order_row(orderStatus="PartiallyFilled", cumExecQty="1", price="101.0", qty="3", updatedTime="3")
    assert tracker.reports(row, TS_NS) == [OrderAmended("c1", Decimal("101.0"), Decimal(3), TS_NS)]
    assert tracker.reports(row, TS_NS) == []


def test_an_amend_of_an_order_from_before_is_recognised() -> None:
    tracker = OrderTracker()
    tracker.amend_sent(AmendOrder("c1", "BTC-USDT-PERP", Side.BUY, Decimal(101), Decimal(3)))
    assert tracker.reports(order_row(), TS_NS) == []
    assert kinds(tracker.reports(order_row(price="101", qty="3", updatedTime="2"), TS_NS)) == [OrderAmended]
    assert tracker.reports(order_row(price="101", qty="3", updatedTime="3"), TS_NS) == []


def test_terms_that_somebody_else_changed_are_told() -> None:
    tracker = OrderTracker()
    tracker.reports(order_row(), TS_NS)
    assert kinds(tracker.reports(order_row(price="99", updatedTime="2"), TS_NS)) == [OrderAmended]


def test_the_rest_of_an_order_that_may_not_rest_expired() -> None:
    row = order_row(orderStatus="Cancelled", rejectReason="EC_NoImmediateQtyToFill", cumExecQty="1")
    assert kinds(OrderTracker().reports(row, TS_NS)) == [OrderAccepted, OrderExpired]


def test_a_cancel_names_who_did_it_unless_we_asked() -> None:
    for kind, reason in (("CancelByUser", ""), ("CancelByDCP", "CancelByDCP")):
        tracker = OrderTracker()
        tracker.reports(order_row(), TS_NS)
        row = order_row(orderStatus="Cancelled", cancelType=kind, cumExecQty="1", updatedTime="2")
        assert tracker.reports(row, TS_NS) == [OrderCancelled("c1", TS_NS, reason, Decimal(1))]


def test_an_order_that_was_refused_after_a_fill_is_not_called_rejected() -> None:
    row = order_row(orderStatus="Rejected", rejectReason="UNKNOWN", cumExecQty="1")
    assert kinds(OrderTracker().reports(row, TS_NS)) == [OrderAccepted, OrderCancelled]


def test_what_comes_late_or_again_after_the_end_is_dropped() -> None:
    tracker = OrderTracker()
    tracker.reports(order_row(updatedTime="5"), TS_NS)
    assert tracker.reports(order_row(price="90", updatedTime="4"), TS_NS) == ()
    tracker.reports(order_row(orderStatus="Cancelled", updatedTime="6"), TS_NS)
    assert tracker.reports(order_row(updatedTime="7"), TS_NS) == ()


def test_orders_without_our_id_are_nobodys() -> None:
    assert OrderTracker().reports(order_row(orderLinkId=""), TS_NS) == ()


def test_a_market_orders_protective_price_is_no_amend() -> None:
    tracker = OrderTracker()
    assert kinds(tracker.reports(order_row(orderType="Market", price="0"), TS_NS)) == [OrderAccepted]
    row = order_row(
        orderType="Market", price="105", orderStatus="PartiallyFilled", cumExecQty="1", updatedTime="2"
    )
    assert tracker.reports(row, TS_NS) == []


def test_ended_orders_are_forgotten_before_live_ones() -> None:
    tracker = OrderTracker()
    tracker.reports(order_row(orderLinkId="live"), TS_NS)
    for number in range(10_050):
        tracker.reports(order_row(orderLinkId=f"d{number}", orderStatus="Cancelled"), TS_NS)
    assert len(tracker._told) <= 10_001
    assert tracker.reports(order_row(orderLinkId="live", updatedTime="2"), TS_NS) == []


@pytest.mark.parametrize(
    "fields", [{"side": "?"}, {"orderStatus": "Strange"}, {"cumExecQty": "x"}, {"price": "nan"}]
)
def test_a_row_that_cannot_be_is_named(fields: dict[str, Any]) -> None:
    with pytest.raises(BadFrame):
        snapshot_of(listing(Product.LINEAR, "BTCUSDT"), order_row(**fields), TS_NS)


ROWS = st.builds(
    order_row,
    orderStatus=st.sampled_from(["New", "PartiallyFilled", "Filled", "Cancelled", "Rejected", "Untriggered"]),
    price=st.sampled_from(["100", "101"]),
    cumExecQty=st.sampled_from(["", "0", "1", "2"]),
    rejectReason=st.sampled_from(
        ["EC_NoError", "EC_PostOnlyWillTakeLiquidity", "EC_NoImmediateQtyToFill", "?"]
    ),
    updatedTime=st.integers(0, 9),
)


@given(st.lists(ROWS, max_size=12))
def test_whatever_is_pushed_an_order_begins_once_and_ends_once(rows: list[OrderRow]) -> None:
    tracker = OrderTracker()
    told = [report for row in rows for report in tracker.reports(row, TS_NS)]
    ends = [kind for kind in kinds(told) if kind in {OrderRejected, OrderCancelled, OrderExpired}]
    begins = [kind for kind in kinds(told) if kind in {OrderRejected, OrderAccepted}]
    assert len(ends) <= 1 and len(begins) <= 1
    assert not told or kinds(told)[0] in {OrderRejected, OrderAccepted}
    assert not ends or kinds(told)[-1] in {OrderRejected, OrderCancelled, OrderExpired}
