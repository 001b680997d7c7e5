"""Each risk check just inside and just outside its limit, in every scope, and rebuilt from state."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host.api import (
    BookTop,
    Instrument,
    InstrumentKind,
    Order,
    OrderStatus,
    OrderType,
    Side,
    TimeInForce,
)
from host.core.accounting import Holding, apply_fill, start_day, total
from host.core.risk import Lane, RiskEngine
from host.core.risk_limits import Action, Limits, Refusal, RiskConfig, RiskReason

NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
MS = 1_000_000
BUY, SELL = Side.BUY, Side.SELL
SCOPES = {
    "node": ("node", None),
    "account:paper": ("accounts", "paper"),
    "instance:mm": ("instances", "mm"),
    "symbol:BTC-USDT": ("symbols", "BTC-USDT"),
}
TITLES = {"node": "the node"}


def make_instrument(
    symbol: str = "BTC-USDT", kind: InstrumentKind = InstrumentKind.SPOT, size: str = "1"
) -> Instrument:
    base, quote = symbol.split("-")[:2]
    return Instrument(
        symbol=symbol,
        kind=kind,
        base=base,
        quote=quote,
        tick_size=Decimal("0.01"),
        lot_size=Decimal("0.001"),
        contract_size=Decimal(size),
    )


class Desk:
    """An engine with its holdings, orders and market, driven the way the order manager does."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.config = msgspec.convert(table, RiskConfig)
        self.holdings: dict[tuple[str, str], Holding] = {}
        self.orders: dict[str, Order] = {}
        self.tops: dict[str, BookTop] = {}
        self.now = NOW
        self.engine = RiskEngine(self.config, self.holding)
        self.set_top("BTC-USDT", 99.0, 101.0)

    def holding(self, instance: str, symbol: str) -> Holding:
        return self.holdings.setdefault((instance, symbol), Holding())

    def set_top(self, symbol: str, bid: float, ask: float, size: float = 10.0) -> None:
        self.tops[symbol] = BookTop(symbol, bid, size, ask, size, self.now, self.now)

    def lane(self, instance: str = "mm", symbol: str = "BTC-USDT", account: str = "paper") -> Lane:
        return self.engine.lane(instance, account, make_instrument(symbol))

    def check(
        self,
        side: Side = BUY,
        price: str | None = "100",
        qty: str = "1",
        *,
        instance: str = "mm",
        symbol: str = "BTC-USDT",
        replaces: Order | None = None,
        is_closing: bool = False,
    ) -> Refusal | None:
        limit = None if price is None else Decimal(price)
        top = self.tops.get(symbol)
        lane = self.lane(instance, symbol)
        return lane.check(side, limit, Decimal(qty), top, self.now, replaces, is_closing)

    def rest(
        self,
        side: Side = BUY,
        price: str = "100",
        qty: str = "1",
        instance: str = "mm",
        symbol: str = "BTC-USDT",
        account: str = "paper",
    ) -> Order:
        client_id = f"o{len(self.orders)}"
        order = Order(
            client_id,
            instance,
            account,
            symbol,
            side,
            OrderType.LIMIT,
            TimeInForce.GTC,
            Decimal(price),
            Decimal(qty),
            OrderStatus.OPEN,
        )
        self.orders[client_id] = order
        self.engine.order_changed(order)
        return order

    def end(self, order: Order, status: OrderStatus = OrderStatus.CANCELLED) -> None:
        order.status = status
        self.engine.order_changed(order)

    def fill(self, side: Side, price: str, qty: str, instance: str = "mm", symbol: str = "BTC-USDT") -> None:
        holding = self.holding(instance, symbol)
        apply_fill(holding, make_instrument(symbol), side, Decimal(price), Decimal(qty))
        self.engine.position_changed(instance, "paper", symbol)

    def monitor(self) -> list[Refusal]:
        return self.engine.monitor(self.now, lambda _, symbol: self.tops.get(symbol))

    def rebuilt(self) -> "Desk":
        """Return a desk whose engine was made from this one's orders and holdings alone."""
        other = Desk({})
        other.config, other.holdings, other.tops, other.now = self.config, self.holdings, self.tops, self.now
        other.engine = RiskEngine(self.config, other.holding)
        for order in self.orders.values():
            other.engine.order_changed(order)
        for instance, symbol in self.holdings:
            other.engine.position_changed(instance, "paper", symbol)
        return other


def limited(scope: str, **limits: Any) -> Desk:
    group, name = SCOPES[scope]
    return Desk({group: limits if name is None else {name: limits}})


def title(scope: str) -> str:
    return TITLES.get(scope, scope.replace(":", " "))


def assert_refused(
    refusal: Refusal | None,
    reason: RiskReason,
    scope: str,
    detail: str,
    action: Action = Action.REFUSE,
) -> None:
    assert refusal is not None
    assert refusal == Refusal(reason, scope, detail, action, "mm", "BTC-USDT")


each_scope = pytest.mark.parametrize("scope", SCOPES)


def test_without_limits_an_order_passes() -> None:
    assert Desk({}).check(qty="1000000") is None


# -- each check, in each scope -------------------------------------------------------------------


@each_scope
def test_order_qty(scope: str) -> None:
    desk = limited(scope, max_order_qty="2")
    assert desk.check(qty="2") is None
    assert_refused(
        desk.check(qty="2.001"),
        RiskReason.ORDER_QTY,
        scope,
        f"order qty 2.001 exceeds max_order_qty 2 of {title(scope)}",
    )


@pytest.mark.parametrize("qty", ["0", "-1"])
def test_an_order_without_quantity_is_refused(qty: str) -> None:
    refusal = Desk({}).check(qty=qty)
    assert refusal is not None
    assert (refusal.reason, refusal.detail) == ("order_qty", f"order qty must be above 0, was {qty}")


@each_scope
def test_order_notional(scope: str) -> None:
    desk = limited(scope, max_order_notional="500")
    assert desk.check(price="100", qty="5") is None
    assert_refused(
        desk.check(price="100", qty="6.123"),
        RiskReason.ORDER_NOTIONAL,
        scope,
        f"order notional 612.30 USDT exceeds max_order_notional 500 USDT of {title(scope)}",
    )


def test_a_market_order_is_valued_at_the_price_it_would_take() -> None:
    desk = limited("node", max_order_notional="500")
    assert desk.check(BUY, None, "4.95") is None
    refusal = desk.check(BUY, None, "4.951")
    assert refusal is not None
    assert refusal.reason is RiskReason.ORDER_NOTIONAL
    assert desk.check(SELL, None, "4.951") is None


def test_inverse_notional_is_contracts_times_their_size() -> None:
    desk = limited("node", max_order_notional="500")
    lane = desk.engine.lane("mm", "paper", make_instrument("BTC-USD-PERP", InstrumentKind.INVERSE, "100"))
    assert lane.check(BUY, Decimal(60000), Decimal(5), None, NOW) is None
    assert lane.check(BUY, Decimal(60000), Decimal(6), None, NOW) is not None


@each_scope
def test_position_counts_resting_orders_of_the_same_side(scope: str) -> None:
    desk = limited(scope, max_position="5")
    desk.fill(BUY, "100", "2")
    desk.rest(BUY, "90", "1")
    desk.rest(SELL, "110", "1")
    assert desk.check(BUY, qty="2") is None
    assert_refused(
        desk.check(BUY, qty="2.001"),
        RiskReason.POSITION,
        scope,
        f"position in BTC-USDT could become 5.001, beyond max_position 5 of {title(scope)}",
    )
    assert desk.check(SELL, "111", "6") is None
    assert_refused(
        desk.check(SELL, "111", "6.001"),
        RiskReason.POSITION,
        scope,
        f"position in BTC-USDT could become -5.001, beyond max_position 5 of {title(scope)}",
    )


def test_position_beyond_the_limit_may_still_be_reduced() -> None:
    desk = limited("node", max_position="5")
    desk.fill(SELL, "100", "9")
    assert desk.check(BUY, qty="3") is None
    assert desk.check(BUY, qty="14") is None
    assert desk.check(BUY, qty="14.001") is not None
    assert desk.check(SELL, "101", "0.001") is not None


def test_position_limits_are_exact_under_any_decimal_context() -> None:
    desk = limited("node", max_position="1.00000000000000000000000000000001")
    assert desk.check(qty="1.00000000000000000000000000000001") is None
    assert desk.check(qty="1.00000000000000000000000000000002") is not None


@pytest.mark.parametrize("scope", ["node", "account:paper", "symbol:BTC-USDT"])
def test_position_of_wider_scopes_sums_over_instances(scope: str) -> None:
    desk = limited(scope, max_position="5")
    desk.fill(BUY, "100", "4", instance="other")
    assert desk.check(BUY, qty="1") is None
    assert desk.check(BUY, qty="1.001") is not None


def test_position_of_an_instance_is_its_own() -> None:
    desk = limited("instance:mm", max_position="5")
    desk.fill(BUY, "100", "4", instance="other")
    assert desk.check(BUY, qty="5") is None


@pytest.mark.parametrize("scope", ["node", "account:paper", "instance:mm"])
def test_inventory_notional_sums_over_symbols(scope: str) -> None:
    desk = limited(scope, max_inventory_notional="1000")
    desk.set_top("ETH-USDT", 9.0, 11.0)
    desk.lane(symbol="ETH-USDT")
    desk.fill(SELL, "10", "30", symbol="ETH-USDT")
    desk.rest(BUY, "90", "1")
    assert desk.monitor() == []
    assert desk.check(BUY, qty="6") is None
    assert_refused(
        desk.check(BUY, qty="6.01"),
        RiskReason.INVENTORY_NOTIONAL,
        scope,
        "inventory notional could become 1001.00 USDT, beyond max_inventory_notional 1000 USDT of "
        + title(scope),
    )


def test_inventory_counts_orders_sent_since_the_last_look() -> None:
    desk = limited("node", max_inventory_notional="1000")
    desk.set_top("ETH-USDT", 9.0, 11.0)
    assert desk.check(BUY, "10", "40", symbol="ETH-USDT") is None
    order = desk.rest(BUY, "10", "40", symbol="ETH-USDT")
    assert desk.check(BUY, qty="6") is None
    assert desk.check(BUY, qty="6.01") is not None
    desk.end(order)
    assert desk.check(BUY, qty="10") is None


def test_inventory_counts_each_quote_currency_by_itself() -> None:
    desk = limited("node", max_inventory_notional="1000")
    desk.set_top("ETH-BTC", 90.0, 110.0)
    desk.lane(symbol="ETH-BTC")
    desk.fill(BUY, "100", "9", symbol="ETH-BTC")
    desk.monitor()
    assert desk.check(BUY, qty="10") is None


def test_inventory_beyond_the_limit_may_still_be_reduced() -> None:
    desk = limited("node", max_inventory_notional="1000")
    desk.fill(BUY, "100", "20")
    desk.monitor()
    assert desk.check(SELL, qty="40") is None
    assert desk.check(SELL, qty="40.01") is not None
    assert desk.check(BUY, qty="0.01") is not None


def test_inventory_that_cannot_be_valued_refuses_to_grow() -> None:
    desk = limited("node", max_inventory_notional="1000")
    desk.lane(symbol="ETH-USDT")
    desk.fill(BUY, "10", "1", symbol="ETH-USDT")
    assert_refused(
        desk.check(),
        RiskReason.NO_REFERENCE,
        "node",
        "the inventory of the node cannot be valued: no price yet of ETH-USDT",
    )
    desk.set_top("ETH-USDT", 9.0, 11.0)
    desk.monitor()
    assert desk.check() is None


@pytest.mark.parametrize("scope", ["node", "account:paper", "instance:mm"])
def test_concentration(scope: str) -> None:
    desk = limited(scope, max_concentration=0.6, concentration_floor="500")
    desk.set_top("ETH-USDT", 9.0, 11.0)
    desk.lane(symbol="ETH-USDT")
    desk.fill(BUY, "10", "40", symbol="ETH-USDT")
    desk.monitor()
    assert desk.check(BUY, qty="5.99") is None
    assert_refused(
        desk.check(BUY, qty="6.1"),
        RiskReason.CONCENTRATION,
        scope,
        f"BTC-USDT could become 0.604 of the inventory, beyond max_concentration 0.6 of {title(scope)}",
    )


def test_concentration_is_ignored_up_to_the_floor() -> None:
    desk = limited("node", max_concentration=0.6, concentration_floor="500")
    assert desk.check(BUY, qty="5") is None
    assert desk.check(BUY, qty="5.01") is not None


@each_scope
def test_open_orders(scope: str) -> None:
    desk = limited(scope, max_open_orders=2)
    desk.rest(BUY, "90")
    assert desk.check() is None
    second = desk.rest(BUY, "91")
    assert_refused(
        desk.check(),
        RiskReason.OPEN_ORDERS,
        scope,
        f"2 orders are open, max_open_orders is 2 for {title(scope)}",
    )
    assert desk.check(replaces=second) is None
    desk.end(second)
    assert desk.check() is None


@each_scope
def test_order_rate_holds_in_every_window_of_one_second(scope: str) -> None:
    desk = limited(scope, max_orders_per_second=3)
    order = desk.rest(BUY, "90")
    for _ in range(3):
        assert desk.check(replaces=order) is None
        desk.now += 100 * MS
    text = "3 orders were sent within the last second, max_orders_per_second is 3 for " + title(scope)
    assert_refused(desk.check(), RiskReason.ORDER_RATE, scope, text)
    desk.now = NOW + SECOND - 1
    assert desk.check() is not None
    desk.now = NOW + SECOND
    assert desk.check() is None
    assert desk.check() is not None


def test_a_refused_order_does_not_count_against_the_rate_of_any_scope() -> None:
    desk = Desk({"node": {"max_orders_per_second": 2}, "instances": {"mm": {"max_orders_per_second": 1}}})
    assert desk.check() is None
    for _ in range(5):
        assert desk.check() is not None
    assert desk.check(instance="other") is None


@each_scope
def test_price_collar(scope: str) -> None:
    desk = limited(scope, price_collar_bps=50)
    assert desk.check(BUY, "100.49") is None
    assert desk.check(SELL, "99.51") is None
    assert_refused(
        desk.check(BUY, "100.51"),
        RiskReason.PRICE_COLLAR,
        scope,
        f"buy price 100.51 is 51.0 bps above the mid 100, price_collar_bps is 50 for {title(scope)}",
    )
    assert_refused(
        desk.check(SELL, "99.49"),
        RiskReason.PRICE_COLLAR,
        scope,
        f"sell price 99.49 is 51.0 bps below the mid 100, price_collar_bps is 50 for {title(scope)}",
    )


def test_the_collar_lets_passive_prices_rest_anywhere_and_holds_market_orders() -> None:
    desk = limited("node", price_collar_bps=50)
    assert desk.check(BUY, "1") is None
    assert desk.check(SELL, "10000") is None
    refusal = desk.check(BUY, None)  # the ask is 100 bps above the mid
    assert refusal is not None
    assert refusal.reason is RiskReason.PRICE_COLLAR


@each_scope
def test_stale_data(scope: str) -> None:
    desk = limited(scope, max_data_age_ms=250)
    desk.now += 250 * MS
    assert desk.check() is None
    desk.now += MS // 10
    assert_refused(
        desk.check(),
        RiskReason.STALE_DATA,
        scope,
        f"top of book of BTC-USDT is 250.1 ms old, max_data_age_ms is 250 for {title(scope)}",
        Action.PULL,
    )


@pytest.mark.parametrize(("bid", "ask"), [(0.0, 101.0), (99.0, float("inf")), (float("nan"), 101.0)])
def test_half_a_book_is_no_reference(bid: float, ask: float) -> None:
    desk = limited("node", price_collar_bps=50)
    desk.set_top("BTC-USDT", bid, ask)
    refusal = desk.check()
    assert refusal is not None
    assert refusal.reason is RiskReason.NO_REFERENCE
    del desk.tops["BTC-USDT"]
    assert_refused(
        desk.check(),
        RiskReason.NO_REFERENCE,
        "node",
        "the checks of BTC-USDT need a bid and an ask, was none yet; wait for market data",
    )


def test_a_market_order_needs_a_reference_even_without_limits() -> None:
    desk = Desk({})
    desk.tops.clear()
    assert desk.check(BUY, "100") is None
    refusal = desk.check(BUY, None)
    assert refusal is not None
    assert refusal.reason is RiskReason.NO_REFERENCE


# -- self-trade ----------------------------------------------------------------------------------


def test_an_order_that_would_cross_our_own_is_refused_by_default() -> None:
    desk = Desk({})
    ask = desk.rest(SELL, "102", instance="other")
    assert desk.check(BUY, "101.99") is None
    assert_refused(
        desk.check(BUY, "102"),
        RiskReason.SELF_TRADE,
        "instance:mm",
        "buy at 102 may cross our own sell resting at 102 in BTC-USDT on account paper",
    )
    desk.end(ask)
    assert desk.check(BUY, "102") is None
    desk.rest(BUY, "98", instance="other")
    assert desk.check(SELL, "98.01") is None
    assert desk.check(SELL, "98") is not None


def test_self_trade_looks_at_one_account_alone() -> None:
    desk = Desk({})
    desk.lane("other", account="second")
    desk.rest(SELL, "102", instance="other", account="second")
    assert desk.check(BUY, "103") is None


def test_self_trade_reckons_with_both_prices_of_a_pending_amend() -> None:
    desk = Desk({})
    ask = desk.rest(SELL, "102")
    ask.pending_price = Decimal("104")
    desk.engine.order_changed(ask)
    assert desk.check(BUY, "102") is not None
    ask.price, ask.pending_price = Decimal("104"), None
    desk.engine.order_changed(ask)
    assert desk.check(BUY, "102") is None
    ask.pending_price = Decimal("101")
    desk.engine.order_changed(ask)
    assert desk.check(BUY, "102") is not None


def test_a_market_order_may_not_walk_through_the_best_level_into_our_own() -> None:
    desk = Desk({})
    desk.set_top("BTC-USDT", 99.0, 101.0, size=10.0)
    desk.rest(SELL, "105", "1")
    assert desk.check(BUY, None, "10") is None
    assert desk.check(BUY, None, "10.001") is not None


@pytest.mark.parametrize(
    ("node", "instance", "is_refused"),
    [("allow", None, False), ("refuse", "allow", True), ("allow", "refuse", True), ("allow", "allow", False)],
)
def test_one_scope_is_enough_to_refuse_self_trades(node: str, instance: str | None, is_refused: bool) -> None:
    own = {} if instance is None else {"self_trade": instance}
    desk = Desk({"node": {"self_trade": node}, "instances": {"mm": own}})
    desk.rest(SELL, "100")
    assert (desk.check(BUY, "100") is not None) is is_refused


# -- amends --------------------------------------------------------------------------------------


def test_an_amended_order_is_not_counted_twice() -> None:
    desk = Desk({"node": {"max_position": "5", "max_open_orders": 1, "max_inventory_notional": "500"}})
    order = desk.rest(BUY, "100", "4")
    assert desk.check(BUY, "99", "5", replaces=order) is None
    refusal = desk.check(BUY, "99", "5.001", replaces=order)
    assert refusal is not None
    assert refusal.reason is RiskReason.POSITION


def test_a_partly_filled_order_counts_what_remains() -> None:
    desk = limited("node", max_position="5")
    order = desk.rest(BUY, "100", "4")
    order.filled = Decimal(3)
    desk.fill(BUY, "100", "3")
    desk.engine.order_changed(order)
    assert desk.check(BUY, "99", "2", replaces=order) is None
    assert desk.check(BUY, "99", "2.001", replaces=order) is not None
    assert desk.check(BUY, "99", "1") is None
    assert desk.check(BUY, "99", "1.001") is not None


def test_a_pending_amend_counts_the_larger_quantity() -> None:
    desk = limited("node", max_position="5")
    order = desk.rest(BUY, "100", "2")
    order.pending_qty = Decimal(4)
    desk.engine.order_changed(order)
    assert desk.check(BUY, "99", "1.001") is not None
    order.pending_qty = Decimal(1)
    desk.engine.order_changed(order)
    assert desk.check(BUY, "99", "3") is None
    assert desk.check(BUY, "99", "3.001") is not None


def test_an_unknown_order_counts_until_it_is_proved_dead() -> None:
    desk = limited("node", max_position="5")
    order = desk.rest(BUY, "100", "5")
    order.status = OrderStatus.UNKNOWN
    desk.engine.order_changed(order)
    assert desk.check(BUY, qty="1") is not None
    desk.end(order, OrderStatus.REJECTED)
    assert desk.check(BUY, qty="5") is None


# -- daily loss ----------------------------------------------------------------------------------


@each_scope
def test_daily_loss(scope: str) -> None:
    desk = limited(scope, max_daily_loss="50 USDT")
    desk.lane()
    desk.fill(BUY, "100", "10")
    desk.set_top("BTC-USDT", 94.0, 96.0)
    assert desk.monitor() == []
    assert desk.check() is None
    desk.set_top("BTC-USDT", 93.9, 96.0)
    text = f"daily loss 50.50 USDT exceeds max_daily_loss 50 USDT of {title(scope)}"
    assert desk.monitor() == [Refusal(RiskReason.DAILY_LOSS, scope, text, Action.KILL)]
    assert_refused(desk.check(BUY), RiskReason.DAILY_LOSS, scope, text, Action.KILL)
    assert desk.check(SELL, qty="10") is None
    assert desk.check(SELL, qty="10.001") is not None


def test_daily_loss_counts_fees_and_starts_at_the_days_first_mark() -> None:
    desk = limited("node", max_daily_loss="50 USDT")
    instrument, holding = make_instrument(), desk.holding("mm", "BTC-USDT")
    apply_fill(holding, instrument, BUY, Decimal(100), Decimal(10), Decimal(51), "USDT")
    desk.engine.position_changed("mm", "paper", "BTC-USDT")
    desk.lane()
    assert [breach.reason for breach in desk.monitor()] == [RiskReason.DAILY_LOSS]
    start_day(holding, NOW, total(holding, instrument, Decimal(100)))
    assert desk.monitor() == []
    assert desk.check() is None


def test_a_breach_is_reported_when_it_begins_and_again_after_it_ended() -> None:
    desk = limited("node", max_daily_loss="50 USDT")
    desk.lane()
    desk.fill(BUY, "100", "10")
    reports = []
    for mid in (90.0, 89.0, 100.0, 90.0):
        desk.set_top("BTC-USDT", mid, mid)
        reports.append(len(desk.monitor()))
    assert reports == [1, 0, 0, 1]


def test_a_loss_in_another_currency_is_converted_or_refused() -> None:
    desk = limited("node", max_daily_loss="50 USDT")
    desk.set_top("ETH-BTC", 0.05, 0.05)
    desk.lane(symbol="ETH-BTC")
    desk.fill(BUY, "0.1", "11", symbol="ETH-BTC")  # 0.55 BTC lost
    [breach] = desk.monitor()
    assert (breach.reason, breach.action) == (RiskReason.NO_REFERENCE, Action.REFUSE)
    assert breach.detail.endswith("cannot be told in USDT: there is no rate of BTC in USDT")
    assert desk.check(BUY, "0.05", symbol="ETH-BTC") == Refusal(
        RiskReason.NO_REFERENCE, "node", breach.detail, Action.REFUSE, "mm", "ETH-BTC"
    )
    desk.lane()
    [breach] = desk.monitor()
    assert breach.detail == "daily loss 55.00 USDT exceeds max_daily_loss 50 USDT of the node"


def test_a_loss_already_too_large_is_told_whatever_else_cannot_be() -> None:
    for symbols in (("ETH-BTC", "BTC-USDT"), ("BTC-USDT", "ETH-BTC")):
        desk = limited("node", max_daily_loss="5 USDT")
        for symbol in symbols:
            desk.lane(symbol=symbol)
            desk.fill(BUY, "110", "1", symbol=symbol)
        assert [breach.reason for breach in desk.monitor()] == [RiskReason.DAILY_LOSS]


def test_a_position_without_a_price_has_no_known_loss() -> None:
    desk = limited("node", max_daily_loss="50 USDT")
    desk.lane()
    desk.fill(BUY, "100", "10")
    desk.tops.clear()
    assert [breach.reason for breach in desk.monitor()] == [RiskReason.NO_REFERENCE]
    desk.set_top("BTC-USDT", 99.0, 101.0)
    assert desk.monitor() == []
    assert desk.check() is None


# -- the watch and the kill switch ---------------------------------------------------------------


def test_resting_orders_on_stale_data_are_reported_for_pulling() -> None:
    desk = limited("instance:mm", max_data_age_ms=250)
    desk.lane()
    desk.now += SECOND
    assert desk.monitor() == []
    order = desk.rest(BUY, "90")
    [breach] = desk.monitor()
    assert_refused(
        breach,
        RiskReason.STALE_DATA,
        "instance:mm",
        "top of book of BTC-USDT is 1000.0 ms old, max_data_age_ms is 250 for instance mm",
        Action.PULL,
    )
    desk.end(order)
    assert desk.monitor() == []


@each_scope
def test_a_kill_switch_refuses_everything_in_its_scope(scope: str) -> None:
    desk = Desk({})
    desk.engine.set_kill(scope, True, "operator")
    text = f"the kill switch of {title(scope)} is on: operator"
    assert_refused(desk.check(), RiskReason.KILL_SWITCH, scope, text)
    is_outside = desk.engine.lane("x", "y", make_instrument("ETH-USDT")).killed is None
    assert is_outside is (scope != "node")
    assert desk.engine.kill_reason(scope) == "operator"
    desk.engine.set_kill(scope, False, "operator")
    assert desk.check() is None
    assert desk.engine.kill_reason(scope) is None


def test_closing_orders_pass_everything_as_long_as_they_reduce() -> None:
    desk = limited("node", max_order_qty="1", max_order_notional="1", max_open_orders=1)
    desk.fill(BUY, "100", "10")
    desk.engine.set_kill("node", True, "loss")
    assert desk.check(SELL, None, "10", is_closing=True) is None
    assert desk.check(BUY, None, "1", is_closing=True) is not None
    desk.rest(SELL, "110", "4")
    assert desk.lane().closable(SELL) == 6
    assert desk.lane().closable(BUY) == 0
    assert_refused(
        desk.check(SELL, None, "6.001", is_closing=True),
        RiskReason.POSITION,
        "instance:mm",
        "closing qty 6.001 is more than the 6 that position 10 and its open orders leave to close in "
        "BTC-USDT; cancel those orders first",
    )


def test_lanes_of_a_scope() -> None:
    desk = Desk({})
    first, second = desk.lane("mm"), desk.lane("other", "ETH-USDT")
    assert desk.engine.lanes() == [first, second]
    assert desk.engine.lanes("account:paper") == [first, second]
    assert desk.engine.lanes("symbol:ETH-USDT") == [second]
    assert desk.engine.lanes("instance:mm") == [first]


def test_the_strictest_scope_decides_and_is_named() -> None:
    desk = Desk({"node": {"max_order_qty": 5}, "accounts": {"paper": {"max_order_qty": 3}}})
    refusal = desk.check(qty="4")
    assert refusal is not None
    assert refusal.scope == "account:paper"


@pytest.mark.parametrize(
    ("on_breach", "action"),
    [
        ("flatten", Action.FLATTEN),
        ({"order_qty": "kill"}, Action.KILL),
        ({"daily_loss": "refuse"}, Action.REFUSE),
    ],
)
def test_a_breach_leads_to_the_configured_action(on_breach: Any, action: Action) -> None:
    refusal = limited("node", max_order_qty=1, on_breach=on_breach).check(qty="2")
    assert refusal is not None
    assert refusal.action is action


# -- rebuilding ----------------------------------------------------------------------------------


def test_orders_and_fills_that_come_before_their_instrument_are_counted() -> None:
    desk = limited("account:paper", max_position="5")
    desk.rest(BUY, "90", "2", instance="gone")
    desk.fill(BUY, "90", "2", instance="gone2")
    assert desk.check(BUY, qty="1") is None
    assert desk.check(BUY, qty="1.001") is not None


INSTANCES, SYMBOLS = ("mm", "other"), ("BTC-USDT", "ETH-USDT", "ETH-BTC")
ALL_LIMITS = {
    "max_position": 50,
    "max_inventory_notional": 5000,
    "max_open_orders": 8,
    "max_concentration": 0.9,
}
steps = st.lists(
    st.tuples(
        st.sampled_from(["place", "place", "fill", "amend", "amended", "end", "unknown", "tick"]),
        st.integers(0, 99),
        st.integers(1, 20),
        st.sampled_from(Side),
    ),
    max_size=40,
)


def run(desk: Desk, number: int, kind: str, pick: int, amount: int, side: Side) -> None:
    """Take one step of a random life: orders are placed, filled, amended, ended; the market moves."""
    live = [order for order in desk.orders.values() if not order.status.is_terminal]
    if kind == "place":
        instance, symbol = INSTANCES[pick % 2], SYMBOLS[pick % 3]
        desk.rest(side, str(100 + pick), str(amount), instance, symbol)
    elif kind == "tick":
        desk.set_top(SYMBOLS[pick % 3], 50.0 + amount + number, 52.0 + amount + number)
    elif live:
        order = live[pick % len(live)]
        if kind == "fill":
            qty = min(order.remaining, Decimal(amount) / 4)
            order.filled += qty
            order.status = OrderStatus.PARTIALLY_FILLED if order.remaining else OrderStatus.FILLED
            desk.fill(order.side, "100", str(qty), order.instance, order.symbol)
        elif kind == "amend":
            order.pending_price, order.pending_qty = Decimal(100 + amount), order.filled + amount
        elif kind == "amended" and order.pending_qty is not None:
            order.price, order.qty = order.pending_price, order.pending_qty
            order.pending_price = order.pending_qty = None
            if order.remaining <= 0:  # the part that was to stay filled meanwhile
                order.status = OrderStatus.FILLED
        elif kind == "end":
            order.status = OrderStatus.CANCELLED
        elif kind == "unknown":
            order.status = OrderStatus.UNKNOWN
        desk.engine.order_changed(order)


def exposure_of(desk: Desk) -> dict[str, Any]:
    """Return everything that the answers of an engine depend on."""
    facts: dict[str, Any] = {}
    for lane in desk.engine.lanes():
        facts[f"{lane.instance} {lane.symbol}"] = (lane.position, lane.closable(BUY), lane.closable(SELL))
        own = lane._own_orders
        facts[f"own {lane.symbol}"] = (own.best_bid, own.best_ask)
        for scope in lane.scopes:
            facts[scope.key] = scope.open_orders
            for symbol, exposure in scope.exposures.items():
                facts[f"{scope.key} {symbol}"] = (exposure.longest, exposure.shortest, exposure.notional)
            for quote, inventory in scope.inventories.items():
                facts[f"{scope.key} {quote}"] = (inventory.total, inventory.unpriced)
    return facts


@settings(max_examples=150)
@given(steps)
def test_an_engine_rebuilt_from_orders_and_holdings_equals_the_one_fed_step_by_step(sequence: Any) -> None:
    groups = {"accounts": {"paper": ALL_LIMITS}, "instances": {"mm": ALL_LIMITS}}
    desk = Desk({"node": ALL_LIMITS, **groups, "symbols": {"BTC-USDT": ALL_LIMITS}})
    for instance in INSTANCES:
        for symbol in SYMBOLS:
            desk.lane(instance, symbol)
    for number, step in enumerate(sequence):
        run(desk, number, *step)
    rebuilt = desk.rebuilt()
    for instance in reversed(INSTANCES):  # in another order than before
        for symbol in reversed(SYMBOLS):
            rebuilt.lane(instance, symbol)
    assert desk.monitor() == rebuilt.monitor()
    assert exposure_of(desk) == exposure_of(rebuilt)

    # And both equal the plain sum over orders and holdings.
    for symbol in SYMBOLS:
        position = sum((h.qty for (_, s), h in desk.holdings.items() if s == symbol), Decimal(0))
        worst = {BUY: Decimal(0), SELL: Decimal(0)}
        for order in desk.orders.values():
            if order.symbol == symbol and not order.status.is_terminal:
                asked = order.qty if order.pending_qty is None else max(order.qty, order.pending_qty)
                worst[order.side] += max(Decimal(0), asked - order.filled)
        node = desk.engine.lanes()[0].scopes[-1]
        assert node.exposures[symbol].longest == position + worst[BUY]
        assert node.exposures[symbol].shortest == position - worst[SELL]


# -- other limits while orders are live ----------------------------------------------------------

limit_tables = st.fixed_dictionaries(
    {},
    optional={
        "max_position": st.sampled_from([20, 50]),
        "max_inventory_notional": st.sampled_from([500, 5000]),
        "max_open_orders": st.sampled_from([2, 8]),
        "max_concentration": st.just(0.9),
        "max_daily_loss": st.just("1 USDT"),
    },
)
configs = st.fixed_dictionaries(
    {
        "node": limit_tables,
        "accounts": st.fixed_dictionaries({"paper": limit_tables}),
        "instances": st.fixed_dictionaries({"mm": limit_tables}),
        "symbols": st.fixed_dictionaries({"BTC-USDT": limit_tables}),
    }
)


def live_orders(desk: Desk) -> list[Order]:
    return [order for order in desk.orders.values() if not order.status.is_terminal]


@settings(max_examples=150)
@given(configs, steps, configs, steps)
def test_an_engine_given_other_limits_equals_one_that_was_made_with_them(
    first: Any, before: Any, second: Any, after: Any
) -> None:
    desk = Desk(first)
    for instance in INSTANCES:
        for symbol in SYMBOLS:
            desk.lane(instance, symbol)
    for number, step in enumerate(before):
        run(desk, number, *step)
    desk.monitor()
    desk.config = msgspec.convert(second, RiskConfig)
    desk.engine.set_config(desk.config, live_orders(desk))
    for number, step in enumerate(after):
        run(desk, number, *step)
    rebuilt = desk.rebuilt()
    for instance in INSTANCES:
        for symbol in SYMBOLS:
            rebuilt.lane(instance, symbol)
    desk.monitor()
    rebuilt.monitor()
    assert exposure_of(desk) == exposure_of(rebuilt)
    for lane in desk.engine.lanes():
        fresh = rebuilt.lane(lane.instance, lane.symbol)
        assert lane.inventory_ratio == fresh.inventory_ratio
        faults = [[s.loss_fault and s.loss_fault[0] for s in one.scopes] for one in (lane, fresh)]
        assert faults[0] == faults[1]
    for side, qty in ((BUY, "1"), (SELL, "1"), (BUY, "30"), (SELL, "30")):
        for instance in INSTANCES:
            wanted = {"side": side, "qty": qty, "instance": instance}
            assert reason(desk.check(**wanted)) == reason(rebuilt.check(**wanted))


def reason(refusal: Refusal | None) -> tuple[RiskReason, str] | None:
    return None if refusal is None else (refusal.reason, refusal.scope)


@each_scope
def test_other_limits_hold_for_the_next_order_and_count_what_is_there(scope: str) -> None:
    desk = limited(scope)
    desk.fill(BUY, "100", "2")
    desk.rest(BUY, "99", "3")
    group, name = SCOPES[scope]
    table = {"max_position": "6", "max_order_qty": "2", "max_open_orders": 1, "price_collar_bps": 100}
    config = msgspec.convert({group: table if name is None else {name: table}}, RiskConfig)
    assert desk.check(qty="50") is None

    desk.engine.set_config(config, live_orders(desk))

    assert reason(desk.check(qty="3")) == (RiskReason.ORDER_QTY, scope)
    assert reason(desk.check(qty="1.5")) == (RiskReason.POSITION, scope)
    assert reason(desk.check(qty="1")) == (RiskReason.OPEN_ORDERS, scope)
    assert reason(desk.check(price="102", qty="1")) == (RiskReason.PRICE_COLLAR, scope)
    assert desk.lane().inventory_ratio == pytest.approx(1 / 3)
    desk.engine.set_config(RiskConfig(), live_orders(desk))
    assert desk.check(price="102", qty="50") is None
    assert desk.lane().inventory_ratio == 0.0


@pytest.mark.parametrize(("limit", "more"), [(2, 0), (3, 0), (5, 2)])
def test_another_order_rate_counts_the_orders_of_the_last_second(limit: int, more: int) -> None:
    desk = limited("node", max_orders_per_second=3)
    for _ in range(3):
        assert desk.check() is None
        desk.now += 100 * MS
    assert desk.check() is not None

    config = msgspec.convert({"node": {"max_orders_per_second": limit}}, RiskConfig)
    desk.engine.set_config(config, [])

    assert [desk.check() is None for _ in range(more + 1)] == [True] * more + [False]
    desk.now += SECOND
    assert [desk.check() is None for _ in range(limit + 1)] == [True] * limit + [False]


def test_a_lasting_breach_is_reported_once_more_for_a_changed_scope_alone() -> None:
    desk = Desk({"node": {"max_daily_loss": "5 USDT"}, "instances": {"mm": {"max_daily_loss": "5 USDT"}}})
    desk.lane()
    desk.fill(BUY, "110", "1")
    assert {b.scope for b in desk.monitor()} == {"node", "instance:mm"}
    table = {"node": {"max_daily_loss": "5 USDT"}, "instances": {"mm": {"max_daily_loss": "6 USDT"}}}

    desk.engine.set_config(msgspec.convert(table, RiskConfig), [])

    assert [b.scope for b in desk.monitor()] == ["instance:mm"]
    desk.engine.set_config(RiskConfig(), [])
    assert desk.check() is None


# -- configuration -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"max_order_qty": -1}, "max_order_qty: expected a number above 0, was -1"),
        ({"max_position": "NaN"}, "max_position: expected a number above 0, was NaN"),
        ({"max_order_notional": "Infinity"}, "max_order_notional: expected a number above 0, was Infinity"),
        ({"price_collar_bps": float("inf")}, "price_collar_bps: expected a number above 0, was inf"),
        ({"max_open_orders": 0}, "max_open_orders: expected a number above 0, was 0"),
        ({"max_concentration": 1.5}, "max_concentration: expected a share above 0 and at most 1, was 1.5"),
        ({"concentration_floor": -1}, "concentration_floor: expected a number of at least 0, was -1"),
        (
            {"max_daily_loss": "500"},
            "max_daily_loss: expected an amount and a currency like '500 USDT', was '500'",
        ),
        (
            {"max_daily_loss": "much USDT"},
            "max_daily_loss: expected an amount and a currency like '500 USDT', was 'much USDT'",
        ),
        ({"max_daily_loss": "-5 USDT"}, "max_daily_loss: expected an amount above 0, was '-5 USDT'"),
        ({"max_ordr_qty": 1}, "Object contains unknown field `max_ordr_qty`"),
    ],
)
def test_a_bad_limit_is_named_with_what_was_expected_and_found(table: Any, message: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(table, Limits)
    assert str(caught.value).partition(" - at ")[0] == message


def test_limits_read_numbers_and_strings_alike() -> None:
    limits = msgspec.convert({"max_order_qty": 0.1, "max_position": "0.1", "max_order_notional": 5}, Limits)
    assert limits.max_order_qty == limits.max_position == Decimal("0.1")
    assert limits.max_order_notional == 5
