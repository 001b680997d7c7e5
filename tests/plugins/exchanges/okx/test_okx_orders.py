"""Order pushes and lists: each vector decodes, and each push is told to the host once."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from exchange_tools import vectors
from hypothesis import given
from hypothesis import strategies as st
from okx_tools import filled_in, frame_of, listing

from host.api import (
    AmendOrder,
    AmendRejected,
    Liquidity,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    OrderSnapshot,
    OrderStatus,
    RejectReason,
    Report,
    Side,
)
from plugins.exchanges.okx.answers import read_executions, read_orders
from plugins.exchanges.okx.frames import BadFrame, ExecutionRow, OrderRow, read_private_frame
from plugins.exchanges.okx.order_codec import execution_of, fill_of, is_trade, snapshot_of
from plugins.exchanges.okx.order_tracker import OrderTracker

NOW_NS = 1_700_000_000_000_000_000
MS = 1_000_000
SPOT = listing("BTC-USDT")
SWAP = listing("BTC-USDT-SWAP")


def row(state: str, at_ms: int = 1, **fields: str) -> OrderRow:
    known = {"instId": "BTC-USDT", "ordId": "9", "clOrdId": "c1", "side": "buy", "ordType": "limit"}
    text = known | {"sz": "2", "px": "10", "accFillSz": "0", "state": state, "uTime": str(at_ms)} | fields
    return msgspec.convert(text, OrderRow)


def trade(state: str, at_ms: int, trade_id: str, size: str, total: str, **fields: str) -> OrderRow:
    fill = {"tradeId": trade_id, "fillSz": size, "fillPx": "10", "accFillSz": total, "fillFee": "-0.02"}
    return row(state, at_ms, **(fill | {"fillFeeCcy": "USDT", "execType": "M"} | fields))


def told(*rows: OrderRow) -> list[Report]:
    tracker = OrderTracker()
    return [report for each in rows for report in tracker.reports(SPOT, each, NOW_NS)]


@pytest.mark.parametrize("vector", vectors("wire/okx/orders.json"))
def test_each_order_push_of_the_vectors_is_read(vector: dict[str, Any]) -> None:
    message = filled_in(vector["message"])
    frame = read_private_frame(frame_of(message))
    assert frame.arg.channel == "orders"
    for raw, order in zip(message["data"], read_orders(frame.data), strict=True):
        where = listing(order.inst_id)
        seen = snapshot_of(where, order, NOW_NS)
        assert (seen.client_id, seen.venue_id) == (raw["clOrdId"], raw["ordId"])
        assert seen.filled == Decimal(raw["accFillSz"]) * where.unit
        assert seen.status.is_terminal == (raw["state"] in ("filled", "canceled"))
        if is_trade(order):
            fill = fill_of(where, order, NOW_NS)
            assert (fill.trade_id, fill.price) == (raw["tradeId"], Decimal(raw["fillPx"]))
            assert fill.qty == Decimal(raw["fillSz"]) * where.unit
            assert fill.fee == -Decimal(raw.get("fillFee") or raw["fee"])


@pytest.mark.parametrize("vector", vectors("wire/okx/rest_order.json"))
def test_each_order_list_of_the_vectors_is_read(vector: dict[str, Any]) -> None:
    data = filled_in(vector["message"])["data"]
    orders = [item for item in data if "state" in item]
    if not orders:
        pytest.skip("the answer to a request, not a list")
    for raw, order in zip(orders, read_orders([msgspec.Raw(frame_of(item)) for item in orders]), strict=True):
        seen = snapshot_of(listing(order.inst_id), order, NOW_NS)
        assert seen.side is Side(raw["side"])
        if raw["ordType"] == "market":
            assert seen.price is None
        if raw["tgtCcy"] == "quote_ccy":
            assert seen.qty == Decimal(raw["accFillSz"])  # 100 USDT were asked for, not 100 BTC


@pytest.mark.parametrize("vector", vectors("wire/okx/fills.json"))
def test_each_listed_fill_of_the_vectors_is_read(vector: dict[str, Any]) -> None:
    if vector["kind"] != "rest":
        pytest.skip("a channel that is not subscribed: most accounts may not")
    (execution,) = read_executions([msgspec.Raw(frame_of(vector["message"]))])
    fill = execution_of(listing(execution.inst_id), execution, NOW_NS)
    raw = vector["message"]
    assert (fill.client_id, fill.trade_id, fill.venue_id) == (raw["clOrdId"], raw["tradeId"], raw["ordId"])
    assert (fill.price, fill.qty, fill.fee) == (
        Decimal(raw["fillPx"]),
        Decimal(raw["fillSz"]),
        -Decimal(raw["fee"]),
    )
    assert fill.liquidity is Liquidity.TAKER


def test_a_resting_order_is_told_as_accepted_once() -> None:
    assert told(row("live"), row("live"), row("live", 2)) == [OrderAccepted("c1", "9", NOW_NS)]


def test_an_order_that_trades_at_once_is_accepted_first() -> None:
    accepted, fill = told(trade("filled", 1, "t1", "2", "2", execType="T"))
    assert accepted == OrderAccepted("c1", "9", NOW_NS)
    assert isinstance(fill, OrderFilled)
    assert (fill.qty, fill.fee, fill.fee_currency) == (Decimal(2), Decimal("0.02"), "USDT")
    assert fill.liquidity is Liquidity.TAKER


def test_a_trade_told_twice_is_one_fill() -> None:
    part = trade("partially_filled", 2, "t1", "1", "1")
    whole = trade("filled", 3, "t2", "1", "2")
    fills = [each for each in told(row("live"), part, part, whole, whole) if isinstance(each, OrderFilled)]
    assert [fill.trade_id for fill in fills] == ["t1", "t2"]


def test_a_late_push_tells_its_trade_and_nothing_else() -> None:
    late = trade("partially_filled", 2, "t1", "1", "1")
    tracker = OrderTracker()
    first = tracker.reports(SPOT, row("canceled", 3, accFillSz="1", cancelSource="1"), NOW_NS)
    assert first == [OrderAccepted("c1", "9", NOW_NS), OrderCancelled("c1", NOW_NS, "", Decimal(1))]
    (fill,) = tracker.reports(SPOT, late, NOW_NS)
    assert isinstance(fill, OrderFilled)
    assert tracker.reports(SPOT, row("live", 1), NOW_NS) == []


def test_a_filled_order_with_trades_that_were_missed_shows_its_total() -> None:
    *_, seen = told(row("live"), trade("filled", 3, "t2", "1", "2"))
    assert isinstance(seen, OrderSnapshot)
    assert (seen.status, seen.filled) == (OrderStatus.FILLED, Decimal(2))


def test_a_post_only_order_that_would_cross_was_rejected() -> None:
    taken_in = row("canceled", ordType="post_only", cancelSource="31")
    (rejected,) = told(taken_in, taken_in)
    assert isinstance(rejected, OrderRejected)
    assert rejected.reason is RejectReason.WOULD_TAKE


def test_a_post_only_order_that_was_shown_first_was_cancelled() -> None:
    assert told(row("live"), row("canceled", 2, ordType="post_only", cancelSource="31"))[1:] == [
        OrderCancelled("c1", NOW_NS, "would_take", Decimal(0))
    ]


@pytest.mark.parametrize("order_type", ["ioc", "fok", "market"])
def test_what_never_rests_expires_with_what_it_filled(order_type: str) -> None:
    assert told(row("canceled", ordType=order_type, cancelSource="14", accFillSz="0.5"))[1:] == [
        OrderExpired("c1", NOW_NS, "not_fillable", Decimal("0.5"))
    ]


def test_an_amend_is_told_when_the_venue_says_so() -> None:
    tracker = OrderTracker()
    tracker.reports(SPOT, row("live"), NOW_NS)
    done = row("live", 2, px="11", sz="3", amendResult="0")
    assert tracker.reports(SPOT, done, NOW_NS) == [OrderAmended("c1", Decimal(11), Decimal(3), NOW_NS)]
    assert tracker.reports(SPOT, done, NOW_NS) == []


def test_a_push_from_before_an_amend_does_not_undo_it() -> None:
    tracker = OrderTracker()
    tracker.reports(SPOT, row("live"), NOW_NS)
    tracker.reports(SPOT, row("live", 2, px="11", sz="3", amendResult="0"), NOW_NS)
    assert tracker.reports(SPOT, row("live"), NOW_NS) == []


def test_an_amend_of_an_order_from_before_this_adapter_is_told() -> None:
    tracker = OrderTracker()
    tracker.amend_sent(AmendOrder("c1", "BTC-USDT", Side.BUY, Decimal(11), Decimal(3)))
    assert tracker.reports(SPOT, row("live"), NOW_NS) == []
    done = row("live", 2, px="11", sz="3", amendResult="0")
    assert tracker.reports(SPOT, done, NOW_NS) == [OrderAmended("c1", Decimal(11), Decimal(3), NOW_NS)]


def test_a_refused_amend_is_told_once_with_its_reason() -> None:
    no = row("live", 2, amendResult="-1", code="51008", msg="no money")
    assert told(row("live"), no, no)[1:] == [
        AmendRejected("c1", RejectReason.INSUFFICIENT_FUNDS, "no money", NOW_NS)
    ]


def test_an_order_of_somebody_else_is_not_told() -> None:
    assert told(row("live", clOrdId="")) == []


def test_a_linear_swap_counts_in_base_currency() -> None:
    order = row("partially_filled", instId="BTC-USDT-SWAP", sz="150", accFillSz="3")
    seen = snapshot_of(SWAP, order, NOW_NS)
    assert (seen.qty, seen.filled) == (Decimal("1.50"), Decimal("0.03"))
    assert SWAP.size_text(Decimal("1.5")) == "150"


def test_a_state_that_is_not_known_is_refused() -> None:
    with pytest.raises(BadFrame, match="state"):
        told(row("resting"))


TEXT = st.sampled_from(["", "0", "1", "-1", "abc", "nan", "9" * 400, "1e999999"]) | st.text(max_size=5)


@given(st.fixed_dictionaries(dict.fromkeys(OrderRow.__struct_encode_fields__, TEXT)))
def test_an_order_row_of_anything_is_read_or_refused(fields: dict[str, str]) -> None:
    try:
        OrderTracker().reports(SPOT, msgspec.convert(fields, OrderRow), NOW_NS)
    except BadFrame:
        return


@given(st.fixed_dictionaries(dict.fromkeys(ExecutionRow.__struct_encode_fields__, TEXT)))
def test_an_execution_row_of_anything_is_read_or_refused(fields: dict[str, str]) -> None:
    try:
        execution_of(SPOT, msgspec.convert(fields, ExecutionRow), NOW_NS)
    except BadFrame:
        return


@given(st.binary())
def test_a_private_message_of_anything_is_read_or_refused(frame: bytes) -> None:
    try:
        read_private_frame(frame)
    except BadFrame:
        return
