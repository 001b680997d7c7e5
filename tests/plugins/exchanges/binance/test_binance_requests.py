"""Our requests are those that the venue expects: the real clients' cases, and the official signatures."""

import json
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import pytest
from exchange_tools import vectors
from hypothesis import given
from hypothesis import strategies as st

from host.api import AmendOrder, CancelOrder, OrderType, PlaceOrder, Secret, Side, TimeInForce
from plugins.exchanges._shared.venue_clock import Window
from plugins.exchanges.binance.commands import amend_params, cancel_params, place_params, window_params
from plugins.exchanges.binance.products import SPOT, USDM, Product
from plugins.exchanges.binance.signed import RequestSigner, query, ws_text

Vector = dict[str, Any]
KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
SIGNER = RequestSigner(Secret(KEY), Secret(SECRET))
WINDOW = Window(1_699_384_119_652, 1_699_384_124_652)

VARYING = {"newClientOrderId", "newOrderRespType", "recvWindow", "signature", "timestamp"}
"""ccxt's own ids and wishes, and what depends on the time: named by the vectors' meta.json, but for the
kind of answer, which every client chooses for itself."""


def product_of(vector: Vector) -> Product:
    return SPOT if vector["product"] == "spot" else USDM


def wire_of(symbol: str) -> str:
    return symbol.partition(":")[0].replace("/", "")


def our_request(vector: Vector) -> tuple[str, str, dict[str, str]] | None:
    """Return what we send in a case (method, path, parameters); None where the host has no such command."""
    product, method, given = product_of(vector), vector["method"], vector["input"]
    extra = given[-1] if given and isinstance(given[-1], dict) else {}
    if method == "createOrder" and not vector["tags"].count("conditional"):
        symbol, kind, side, qty, *rest = given
        price = rest[0] if rest and not isinstance(rest[0], dict) else None
        if set(extra) - {"postOnly", "reduceOnly", "timeInForce", "clientOrderId"}:
            return None
        if kind == "market" and price is not None:
            return None  # a market order by its value in quote currency
        body = vector["expect"]["body"]
        order = PlaceOrder(
            "c1",
            symbol,
            Side(side),
            OrderType(kind),
            TimeInForce.IOC if kind == "market" else TimeInForce(extra.get("timeInForce", "GTC").lower()),
            # ccxt rounds to the instrument's grid; the host has done that before.
            None if kind == "market" else Decimal(body["price"]),
            Decimal(body["quantity"]),
            bool(extra.get("postOnly")),
            bool(extra.get("reduceOnly")),
        )
        params = place_params(order, wire_of(symbol), WINDOW, is_spot=product.is_spot)
        return product.place.method, product.place.path, _text(params)
    if method == "cancelOrder" and "clientOrderId" in extra:
        cancel = CancelOrder(extra["clientOrderId"], given[1])
        return (
            product.cancel.method,
            product.cancel.path,
            _text(cancel_params(cancel, wire_of(given[1]), WINDOW)),
        )
    if method == "cancelOrderWithClientOrderId":
        cancel = CancelOrder(given[0], given[1])
        return (
            product.cancel.method,
            product.cancel.path,
            _text(cancel_params(cancel, wire_of(given[1]), WINDOW)),
        )
    if method == "editOrder" and product is USDM:
        order_id, symbol, _, side, qty, price = given
        amend = AmendOrder(str(order_id), symbol, Side(side), Decimal(str(price)), Decimal(str(qty)))
        params = amend_params(amend, wire_of(symbol), WINDOW)
        params["orderId"] = params.pop("origClientOrderId")  # the case names the order by the venue's id
        assert product.amend is not None
        return product.amend.method, product.amend.path, _text(params)
    if method == "fetchOrderWithClientOrderId":
        params = {"origClientOrderId": given[0], "symbol": wire_of(given[1]), **window_params(WINDOW)}
        return product.order.method, product.order.path, _text(params)
    if method == "fetchMyTrades":
        params = {"symbol": wire_of(given[0]), **window_params(WINDOW)}
        return product.my_trades.method, product.my_trades.path, _text(params)
    if method == "fetchBalance":
        return product.account.method, product.account.path, _text(window_params(WINDOW))
    if method == "fetchOpenOrders" and "trigger" not in extra:
        params = {"symbol": wire_of(given[0]), **window_params(WINDOW)}
        return product.open_orders.method, product.open_orders.path, _text(params)
    if method == "fetchOrderBook" and "rpi" not in extra:
        params = {"symbol": wire_of(given[0])}
        if len(given) > 1:
            params["limit"] = str(given[1])
        return product.depth.method, product.depth.path, _text(params)
    return None


def _text(params: Any) -> dict[str, str]:
    return {name: str(value) for name, value in params.items()}


def same(ours: dict[str, str], theirs: dict[str, str]) -> None:
    left = {name: value for name, value in ours.items() if name not in VARYING}
    right = {name: value for name, value in theirs.items() if name not in VARYING}
    assert left.keys() == right.keys()
    for name, value in left.items():
        if name in ("price", "quantity"):
            assert Decimal(value) == Decimal(right[name]), name
        else:
            assert value == right[name], name


@pytest.mark.parametrize("vector", vectors("ccxt/binance/requests.json"))
def test_our_request_for_a_case_of_ccxt_is_the_expected_one(vector: Vector) -> None:
    ours = our_request(vector)
    if ours is None:
        pytest.skip(f"the host has no command for {vector['method']} as this case has it")
    expected = vector["expect"]
    method, path, params = ours
    assert (method, path) == (expected["verb"], expected["path"])
    same(params, {**(expected["query"] or {}), **(expected["body"] or {})})


@pytest.mark.parametrize(
    "vector",
    [
        *vectors("client_vectors/ccxt_binance.json"),
        *vectors("client_vectors/python-binance_binance.json"),
        *vectors("client_vectors/ccxt_pro_binance.json"),
    ],
)
def test_the_text_that_real_clients_signed_is_the_text_that_we_sign(vector: Vector) -> None:
    """Their secret is not among the vectors, so what is compared is what the signature is made of."""
    signed = [step for step in vector["steps"] if "signature" in step]
    if not signed:
        pytest.skip("nothing is signed in it")
    for step in signed:
        text = step["signature"]["payload"]
        if "ws_send" in step:
            sent = json.loads(step["ws_send"])["params"]
            params = {
                name: str(value).lower() if isinstance(value, bool) else value
                for name, value in sorted(sent.items())
                if name != "signature"
            }
            assert ws_text(params) == text
        else:
            fields = parse_qsl(text, strict_parsing=True)
            if "[" in text:
                pytest.skip("a list that ccxt signs without escaping it")
            assert query(dict(fields)) == text


def test_the_official_rest_example_is_reproduced() -> None:
    params: dict[str, str | int] = {
        "symbol": "LTCBTC",
        "side": "BUY",
        "type": "LIMIT",
        "timeInForce": "GTC",
        "quantity": "1",
        "price": "0.1",
        "recvWindow": 5000,
        "timestamp": 1499827319559,
    }
    assert SIGNER.rest_query(params).endswith(
        "&signature=c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"
    )


def test_the_official_websocket_example_is_reproduced() -> None:
    params: dict[str, str | int] = {
        "price": "52000.00",
        "quantity": "0.01000000",
        "recvWindow": 100,
        "side": "SELL",
        "symbol": "BTCUSDT",
        "timeInForce": "GTC",
        "timestamp": 1645423376532,
        "type": "LIMIT",
    }
    request = json.loads(SIGNER.ws_request("1", "order.place", params))
    assert (
        request["params"]["signature"] == "aa1b5712c094bc4e57c05a1a5c1fd8d88dcd628338ea863fec7b88e59fe2db24"
    )
    assert request["params"]["apiKey"] == KEY


prices = st.decimals(min_value=Decimal("0.00000001"), max_value=Decimal(10**9), places=8)
orders = st.builds(
    PlaceOrder,
    client_id=st.from_regex(r"[a-z0-9]{1,32}", fullmatch=True),
    symbol=st.just("BTC-USDT"),
    side=st.sampled_from(Side),
    type=st.just(OrderType.LIMIT),
    time_in_force=st.sampled_from(TimeInForce),
    price=prices,
    qty=prices,
    post_only=st.booleans(),
    reduce_only=st.booleans(),
)


@given(orders, st.booleans())
def test_parameters_are_always_in_the_order_that_is_signed(order: PlaceOrder, is_spot: bool) -> None:
    params = place_params(order, "BTCUSDT", WINDOW, is_spot=is_spot)
    assert list(params) == sorted(params)
    assert min(params) > "apiKey"
    assert Decimal(str(params["price"])) == order.price
    assert Decimal(str(params["quantity"])) == order.qty
    assert "E" not in f"{params['price']}{params['quantity']}"
    assert dict(parse_qsl(query(params))) == _text(params)
    amend = AmendOrder(order.client_id, order.symbol, order.side, order.qty, order.qty)
    assert list(amend_params(amend, "X", WINDOW)) == sorted(amend_params(amend, "X", WINDOW))
    cancel = cancel_params(CancelOrder(order.client_id, order.symbol), "X", WINDOW)
    assert list(cancel) == sorted(cancel)


def test_the_window_ends_where_the_clock_said_and_is_never_wider_than_allowed() -> None:
    assert window_params(Window(1000, 1700)) == {"recvWindow": 700, "timestamp": 1000}
    assert window_params(Window(1000, 10_000_000)) == {"recvWindow": 60_000, "timestamp": 1000}


def test_a_signer_and_its_requests_do_not_show_the_secret() -> None:
    shown = (
        repr(SIGNER)
        + repr(vars(SIGNER))
        + SIGNER.rest_query({"a": 1})
        + repr(SIGNER.ws_request("1", "x", {}))
    )
    assert SECRET not in shown
