"""Our requests, against what the venue expects in each recorded case of ccxt."""

import json
from decimal import ROUND_FLOOR, Decimal
from typing import Any

import msgspec
import pytest
from bybit_tools import listing, only
from exchange_tools import FIXTURES, vectors

from host.api import AmendOrder, CancelOrder, OrderType, PlaceOrder, Side, TimeInForce
from plugins.exchanges.bybit import queries, requests
from plugins.exchanges.bybit.products import InstrumentRow, Listing, Product, listing_of

NEVER_OURS = {"conditional"}
"""Stop orders, and what is attached to an order, are no commands of the host."""


def ignored() -> set[str]:
    meta = FIXTURES / "ccxt/bybit/meta.json"
    keys = next(iter(json.loads(meta.read_text()).values())) if meta.exists() else []
    return {*keys, "orderLinkId"}


def same(ours: dict[str, Any], expected: dict[str, Any]) -> bool:
    def stripped(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: stripped(inner) for key, inner in value.items() if key not in ignored()}
        return [stripped(inner) for inner in value] if isinstance(value, list) else value

    return bool(stripped(ours) == stripped(expected))


def venue_symbol(unified: str) -> tuple[Product, str]:
    pair, _, settle = unified.partition(":")
    base, quote = pair.split("/")
    if not settle:
        return Product.SPOT, base + quote
    return (Product.INVERSE if settle == base else Product.LINEAR), base + quote


def listed(unified: str) -> Listing:
    """Return the recorded listing of a symbol, or one with a grid that suits the cases."""
    product, symbol = venue_symbol(unified)
    for market in json.loads((FIXTURES / "ccxt/bybit/markets.json").read_text()):
        if market["symbol"] == unified:
            found = listing_of(msgspec.convert(market["raw"], InstrumentRow, strict=False))
            assert found is not None
            return found
    return listing(product, symbol, tick="0.01", lot="0.00001")


def on_grid(value: float, step: Decimal) -> Decimal:
    exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return ((exact / step).to_integral_value(ROUND_FLOOR) * step).normalize()


def place_of(
    symbol: str, kind: str, side: str, qty: float, price: float | None, terms: dict[str, Any]
) -> dict[str, Any]:
    at = listed(symbol)
    command = PlaceOrder(
        "c1",
        at.symbol,
        Side(side),
        OrderType(kind),
        TimeInForce.GTC if kind == "limit" else TimeInForce.IOC,
        None if kind == "market" else on_grid(price or 0, at.instrument.tick_size),
        on_grid(qty, at.instrument.lot_size),
        bool(terms.get("postOnly")),
        bool(terms.get("reduceOnly")),
    )
    return requests.place_fields(at, command)


def amend_of(symbol: str, qty: float, price: float) -> dict[str, Any]:
    at = listed(symbol)
    tick, lot = at.instrument.tick_size, at.instrument.lot_size
    return requests.amend_fields(
        at, AmendOrder("c1", at.symbol, Side.BUY, on_grid(price, tick), on_grid(qty, lot))
    )


def ours_for(case: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return our path and fields for a recorded call; None where the host has no such command."""
    method, given, body = case["method"], case["input"], case["expect"]["body"] or {}
    last = given[-1] if given and isinstance(given[-1], dict) else {}
    if NEVER_OURS & set(case["tags"]) or last.get("stop") or "hedged" in last or "cost" in last:
        return None
    if method == "createOrder":
        padded: list[Any] = [*given, *[None] * (6 - len(given))]
        symbol, kind, side, qty, price, terms = padded
        if kind == "market" and (price is not None or body.get("marketUnit") == "quoteCoin"):
            return None  # sized in quote currency
        return "/v5/order/create", place_of(symbol, kind, side, qty, price, terms or {})
    if method == "createOrders":
        placed = [
            place_of(one["symbol"], one["type"], one["side"], one["amount"], one.get("price"), {})
            for one in given[0]
        ]
        return "/v5/order/create-batch", requests.batch_of(placed)
    if method == "editOrder":
        return "/v5/order/amend", amend_of(given[1], given[4], given[5])
    if method == "editOrders":
        changed = [amend_of(one["symbol"], one["amount"], one["price"]) for one in given[0]]
        return "/v5/order/amend-batch", requests.batch_of(changed)
    if method == "cancelOrder":
        at = listed(given[1])
        return "/v5/order/cancel", requests.cancel_fields(at, CancelOrder("c1", at.symbol))
    if method == "cancelOrders":
        at = listed(given[1])
        one = requests.cancel_fields(at, CancelOrder("c1", at.symbol))
        return "/v5/order/cancel-batch", requests.batch_of([one])
    if method == "cancelOrdersForSymbols":
        many = [listed(one["symbol"]) for one in given[0]]
        cancels = [requests.cancel_fields(at, CancelOrder("c1", at.symbol)) for at in many]
        return "/v5/order/cancel-batch", requests.batch_of(cancels)
    if method == "cancelAllOrders":
        product, symbol = venue_symbol(given[0])
        return "/v5/order/cancel-all", requests.cancel_all_fields(product, symbol)
    if method == "setLeverage":
        return "/v5/position/set-leverage", requests.leverage_fields(listed(given[1]), Decimal(given[0]))
    if method == "setMarginMode":
        return "/v5/account/set-margin-mode", requests.margin_mode_fields(is_isolated=given[0] == "isolated")
    if method == "setPositionMode":
        return "/v5/position/switch-mode", requests.one_way_fields(listed(given[1]))
    return None


@pytest.mark.parametrize("case", only(vectors("ccxt/bybit/requests.json"), ours_for))
def test_a_command_has_the_fields_that_the_venue_expects(case: dict[str, Any]) -> None:
    ours = ours_for(case)
    assert ours is not None
    path, fields = ours
    expected = case["expect"]["body"]
    # The host names orders by its own ids; ccxt by the venue's, where the case has one.
    for one in (expected, *expected.get("request", ())):
        one.pop("orderId", None)
        one.pop("clientOrderId", None)
    assert path == case["expect"]["path"]
    assert same(fields, expected), (fields, expected)


def query_for(case: dict[str, Any]) -> queries.Query | None:
    method, given = case["method"], case["input"]
    product = Product(case["product"]) if case["product"] in set(Product) else Product.LINEAR
    if method == "fetchPositions":
        return queries.positions(product, "USDT")
    if method == "fetchBalance" and case["expect"]["query"] == {"accountType": "UNIFIED"}:
        return queries.wallet()
    if method in {"fetchOrder", "fetchOpenOrder"} and len(given) > 1:
        return queries.order_by_link_id(queries.ORDER_NOW, listed(given[1]), "c1")
    return None


@pytest.mark.parametrize("case", only(vectors("ccxt/bybit/requests.json"), query_for))
def test_a_query_has_the_parameters_that_the_venue_expects(case: dict[str, Any]) -> None:
    ours = query_for(case)
    assert ours is not None
    path, parameters = ours
    expected = case["expect"]["query"]
    expected.pop("orderId", None)  # asked for by our own id instead
    assert path == case["expect"]["path"]
    assert {key: value for key, value in parameters.items() if key != "orderLinkId"} == expected


def test_terms_are_written_as_the_venue_has_them() -> None:
    at = listing(Product.LINEAR, "BTCUSDT")
    place = PlaceOrder(
        "c1",
        at.symbol,
        Side.SELL,
        OrderType.LIMIT,
        TimeInForce.IOC,
        Decimal("1E+4"),
        Decimal("0.10"),
        False,
        True,
    )
    assert requests.place_fields(at, place) == {
        "category": "linear",
        "symbol": "BTCUSDT",
        "side": "Sell",
        "orderType": "Limit",
        "qty": "0.10",
        "price": "10000",
        "timeInForce": "IOC",
        "reduceOnly": True,
        "orderLinkId": "c1",
    }
    fok = msgspec.structs.replace(place, time_in_force=TimeInForce.FOK, reduce_only=False)
    assert requests.place_fields(at, fok)["timeInForce"] == "FOK"
    maker = msgspec.structs.replace(place, time_in_force=TimeInForce.GTC, post_only=True)
    assert requests.place_fields(at, maker)["timeInForce"] == "PostOnly"


def test_a_spot_market_buy_counts_the_base_currency() -> None:
    at = listing(Product.SPOT, "BTCUSDT")
    buy = PlaceOrder(
        "c1", at.symbol, Side.BUY, OrderType.MARKET, TimeInForce.IOC, None, Decimal(2), False, False
    )
    assert requests.place_fields(at, buy)["marketUnit"] == "baseCoin"
    sell = msgspec.structs.replace(buy, side=Side.SELL)
    assert "marketUnit" not in requests.place_fields(at, sell)


def test_a_page_is_asked_for_with_the_cursor_as_it_came() -> None:
    target, signed = queries.target_of(queries.executions(Product.SPOT, 1, 2, "132766%3A2%2C132766%3A2"))
    assert signed == "category=spot&startTime=1&endTime=2&limit=100&cursor=132766%3A2%2C132766%3A2"
    assert target == f"/v5/execution/list?{signed}"
