"""Requests: each one that a real client makes for what the host can ask is made the same way."""

import json
from decimal import Decimal
from typing import Any

import pytest
from exchange_tools import vectors
from hypothesis import given
from hypothesis import strategies as st
from okx_tools import listing

from host.api import AmendOrder, CancelOrder, OrderType, PlaceOrder, Side, TimeInForce
from plugins.exchanges.okx.products import Listing
from plugins.exchanges.okx.requests import (
    amend_fields,
    cancel_fields,
    leverage_fields,
    named,
    place_fields,
    ws_request,
)

OURS_ALONE = {"clOrdId", "tag"}
"""Which ids a client makes up, and which broker it is, is its own affair."""
BEYOND_THE_HOST = ("posSide", "attachAlgoOrds", "ccy", "newTpTriggerPx", "newSlTriggerPx")
"""Hedge mode, conditional orders and spot margin are not things that the host can ask for."""


def venue_listing(symbol: str) -> Listing:
    pair, _, settle = symbol.partition(":")
    return listing(pair.replace("/", "-") + ("-SWAP" if settle else ""))


def place_of(
    symbol: str, kind: str, side: str, amount: float, price: float | None = None, **params: Any
) -> Any:
    """Return the command that says what a call of ccxt's `createOrder` does; it counts contracts."""
    where = venue_listing(symbol)
    time_in_force = TimeInForce(params.get("timeInForce", "gtc").lower())
    place = PlaceOrder(
        params.get("clientOrderId", "c1"),
        where.symbol,
        Side(side),
        OrderType(kind),
        time_in_force,
        None if price is None else Decimal(str(price)),
        Decimal(str(amount)) * where.unit,
        bool(params.get("postOnly")),
        bool(params.get("reduceOnly")),
    )
    return named(where, place_fields(where, place, "cross"), by_code=False)


def made_for(vector: dict[str, Any]) -> Any:
    method, given_ = vector["method"], vector["input"]
    params = given_[-1] if isinstance(given_[-1], dict) else {}
    arguments = [item for item in given_ if not isinstance(item, dict)]
    match method:
        case "createOrder":
            return [place_of(*arguments, **params)]
        case "createOrders":
            return [place_of(o["symbol"], o["type"], o["side"], o["amount"], o["price"]) for o in given_[0]]
        case "editOrder":
            order_id, symbol, _, side, amount, price = arguments
            where = venue_listing(symbol)
            qty = Decimal(str(amount)) * where.unit
            amend = AmendOrder(order_id, where.symbol, Side(side), Decimal(str(price)), qty)
            return named(where, amend_fields(where, amend), by_code=False)
        case "cancelOrder":
            where = venue_listing(arguments[1])
            return named(where, cancel_fields(CancelOrder(arguments[0], where.symbol)), by_code=False)
        case "cancelOrdersForSymbols":
            return [
                named(at, cancel_fields(CancelOrder(each["id"], at.symbol)), by_code=False)
                for each in given_[0]
                for at in [venue_listing(each["symbol"])]
            ]
        case "setLeverage":
            return leverage_fields(venue_listing(arguments[1]), Decimal(arguments[0]), "cross")
        case "setMarginMode":
            return leverage_fields(venue_listing(arguments[1]), Decimal(params["leverage"]), arguments[0])
    return None


def comparable(body: Any) -> Any:
    """Leave out what is a client's own; ids of either kind, and numbers as text or not, count as equal."""
    if isinstance(body, list):
        return [comparable(item) for item in body]
    return {
        key: value if isinstance(value, bool) else str(value)
        for key, value in body.items()
        if key not in OURS_ALONE | {"ordId"}
    }


@pytest.mark.parametrize("vector", vectors("ccxt/okx/requests.json"))
def test_each_ccxt_request_that_the_host_can_make_is_made_the_same(vector: dict[str, Any]) -> None:
    body = vector["expect"]["body"]
    if body is None or "algo" in vector["expect"]["path"]:
        pytest.skip("a query, or a conditional order")
    if any(key in json.dumps(body) for key in BEYOND_THE_HOST) or "quote_ccy" in json.dumps(body):
        pytest.skip("hedge mode, conditional orders, spot margin and sizes in money are beyond the host")
    made = made_for(vector)
    if made is None:
        pytest.skip(f"the host has no {vector['method']}")
    assert comparable(made) == comparable(body)


CLIENT_CALLS = {
    "spot createOrder market": lambda: [place_of("LTC/USDT", "market", "sell", 1)],
    "spot createOrder IOC": lambda: [place_of("LTC/USDT", "limit", "buy", 1, 50, timeInForce="IOC")],
    "spot createOrder FOK": lambda: [place_of("LTC/USDT", "limit", "buy", 1, 50, timeInForce="FOK")],
    "spot createOrder small decimal": lambda: [place_of("DOGE/USDT", "limit", "buy", 100, 0.08765)],
    "swap createOrder limit": lambda: [place_of("LTC/USDT:USDT", "limit", "buy", 1, 50)],
    "swap createOrder postOnly": lambda: [place_of("LTC/USDT:USDT", "limit", "buy", 1, 50, postOnly=True)],
    "swap createOrder FOK": lambda: [place_of("LTC/USDT:USDT", "limit", "buy", 1, 50, timeInForce="FOK")],
    "swap createOrder clientOrderId": lambda: [place_of("LTC/USDT:USDT", "limit", "sell", 1, 90.12)],
    "swap createOrder reduceOnly": lambda: [
        place_of("LTC/USDT:USDT", "limit", "sell", 1, 90, reduceOnly=True)
    ],
    "swap createOrders": lambda: [
        place_of("LTC/USDT:USDT", "limit", "buy", 1, 50),
        place_of("LTC/USDT:USDT", "limit", "sell", 1, 90),
    ],
}


@pytest.mark.parametrize("vector", vectors("client_vectors/ccxt_okx.json"))
def test_each_order_of_a_real_client_is_made_the_same(vector: dict[str, Any]) -> None:
    make = CLIENT_CALLS.get(f"{vector['product']} {vector['call']}")
    if make is None:
        pytest.skip("no order")
    (step,) = vector["steps"]
    assert comparable(make()) == comparable(json.loads(step["body"]))


def test_a_cancel_is_by_the_id_that_we_gave() -> None:
    where = listing("LTC-USDT")
    made = named(where, cancel_fields(CancelOrder("mm0001abcXYZ", where.symbol)), by_code=False)
    assert made == {"instId": "LTC-USDT", "clOrdId": "mm0001abcXYZ"}  # as ccxt and python-okx send it


def test_the_websocket_names_an_instrument_by_its_number_where_there_is_one() -> None:
    assert named(listing("LTC-USDT", code=7), {}, by_code=True) == {"instIdCode": 7}
    assert named(listing("LTC-USDT", code=None), {}, by_code=True) == {"instId": "LTC-USDT"}


def test_an_operation_carries_its_id_and_until_when_it_is_good() -> None:
    request = json.loads(ws_request("5", "order", [{"sz": "1"}], 1_700_000_000_123))
    assert request == {"id": "5", "op": "order", "args": [{"sz": "1"}], "expTime": "1700000000123"}


@given(st.decimals("0.00000001", "1000000000", places=8), st.sampled_from(["1", "0.01", "100"]))
def test_a_size_survives_the_way_there_and_back(size: Decimal, unit: str) -> None:
    where = listing("BTC-USDT-SWAP", unit=unit)
    qty = where.qty(f"{size:f}")
    text = where.size_text(qty)
    assert "E" not in text and where.qty(text) == qty
