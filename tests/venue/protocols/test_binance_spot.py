"""Binance spot: orders, refusals with the venue's own codes, queries, limits."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from protocol_tools import PERPETUAL, SPOT, Binance, connected, open_protocols

from venue.protocols.accounts import KeyedAccount

ORDER = {
    "symbol": "BTCUSDT",
    "side": "BUY",
    "type": "LIMIT",
    "timeInForce": "GTC",
    "price": "100",
    "quantity": "1",
}


def changed(**fields: Any) -> dict[str, Any]:
    """Return an order's parameters with these instead; None leaves one out."""
    return {name: value for name, value in {**ORDER, **fields}.items() if value is not None}


@pytest.mark.parametrize(
    ("params", "code", "text"),
    [
        (changed(symbol="NONEUSDT"), -1121, "Invalid symbol."),
        (changed(symbol=None), -1102, "'symbol' was not sent"),
        (changed(side="HOLD"), -1117, "Invalid side."),
        (changed(type="GUESS"), -1116, "Invalid orderType."),
        (changed(timeInForce="GTX"), -1115, "Invalid timeInForce."),
        (changed(timeInForce=None), -1102, "'timeInForce'"),
        (changed(price=None), -1102, "'price'"),
        (changed(quantity=None), -1102, "'quantity'"),
        (changed(price="-5"), -1100, "Illegal characters found in parameter 'price'"),
        (changed(price="1e2"), -1100, "Illegal characters"),
        (changed(price="100.05"), -1013, "Filter failure: PRICE_FILTER"),
        (changed(price="100.000000001"), -1111, "too much precision"),
        (changed(quantity="0.0005"), -1013, "Filter failure: LOT_SIZE"),
        (changed(quantity="0"), -1013, "Invalid quantity."),
        (changed(quantity="0.01"), -1013, "Filter failure: NOTIONAL"),
        (changed(quantity="100000"), -2010, "Account has insufficient balance for requested action."),
        (changed(newClientOrderId="no spaces"), -1100, "'newClientOrderId'"),
        (changed(type="LIMIT_MAKER"), -1106, "'timeInForce' sent when not required"),
        (
            changed(type="LIMIT_MAKER", timeInForce=None, price="200"),
            -2010,
            "Order would immediately match and take.",
        ),
        (changed(type="STOP_LOSS", timeInForce=None), -2010, "Stop loss orders are not supported"),
        (changed(type="MARKET", timeInForce=None), -1106, "'price' sent when not required"),
        (changed(price="450"), -1013, "Filter failure: PERCENT_PRICE_BY_SIDE"),
    ],
)
async def test_bad_order_is_refused_with_binances_code(params: dict[str, Any], code: int, text: str) -> None:
    async with open_protocols() as venue:
        other = Binance(venue, "other")
        await other.place("SELL", "200", "1")
        await other.place("BUY", "90", "1")
        answer = await Binance(venue).signed("POST", "/api/v3/order", **params)

        assert (answer.status, answer.code) == (400, code) and text in answer.body["msg"]
        [line] = venue.lines(account="demo")
        assert line.verdict == "refused" and line.reason.startswith(str(code))


async def test_keys_signatures_and_windows_are_checked_with_binances_codes() -> None:
    async with open_protocols() as venue:
        client, stranger, thief = Binance(venue), Binance(venue), Binance(venue)
        stranger.key, thief.secret = "nobody", "guess"
        asked = "/api/v3/account"

        assert (await client.public(asked)).code == -2014
        assert (await stranger.signed("GET", asked)).body == {
            "code": -2015,
            "msg": "Invalid API-key, IP, or permissions for action.",
        }
        assert (await stranger.signed("GET", asked)).status == 401
        assert (await thief.signed("GET", asked)).body == {
            "code": -1022,
            "msg": "Signature for this request is not valid.",
        }
        assert (await client.keyed("GET", asked, timestamp=client.now_ms())).code == -1102
        assert (await client.keyed("GET", asked)).code == -1102
        assert (await client.signed("GET", asked, recvWindow=60001)).code == -1131
        assert (await client.signed("GET", asked, timestamp=client.now_ms() - 5001)).code == -1021
        assert (await client.signed("GET", asked, timestamp=client.now_ms() * 1000)).status == 200, (
            "microseconds"
        )


async def test_ed25519_key_signs_requests_and_logs_on() -> None:
    private = Ed25519PrivateKey.generate()
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    account = KeyedAccount(name="ed", api_key="ed-key", public_key=pem)
    hmac_account = KeyedAccount(name="demo", api_key="demo-key", secret="demo-secret")

    async with (
        open_protocols(accounts=[account, hmac_account]) as venue,
        connected(venue, "/ws-api/v3") as socket,
    ):
        client = _Ed25519(venue, private)
        refused = await socket.ask("session.logon", Binance(venue).frame_params())
        before = await socket.ask("session.status", {})
        logged_on = await socket.ask("session.logon", client.frame_params())
        placed = await socket.ask("order.place", {**ORDER, "timestamp": client.now_ms()})
        subscribed = await socket.ask("userDataStream.subscribe", {})
        logged_out = await socket.ask("session.logout", {})
        after = await socket.ask("order.place", {**ORDER, "timestamp": client.now_ms()})

        assert refused["status"] == 400 and before["result"]["apiKey"] is None
        assert logged_on["result"]["apiKey"] == "ed-key"
        assert placed["status"] == 200 and subscribed["result"] == {"subscriptionId": 0}
        assert logged_out["result"]["apiKey"] is None and after["error"]["code"] == -2014


class _Ed25519(Binance):
    def __init__(self, venue: Any, private: Ed25519PrivateKey) -> None:
        super().__init__(venue, "ed")
        self._private = private

    def signature(self, payload: str) -> str:
        from base64 import b64encode

        return b64encode(self._private.sign(payload.encode())).decode()


async def test_client_id_may_come_again_once_its_order_is_done() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        first = await client.place("BUY", "100", "1", newClientOrderId="x")
        twice = await client.place("BUY", "100", "1", newClientOrderId="x")
        await client.signed("DELETE", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="x")
        again = await client.place("BUY", "100", "1", newClientOrderId="x")
        asked = await client.signed("GET", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="x")
        both = await client.signed(
            "GET", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="x", orderId=first.body["orderId"]
        )
        rows = await client.signed("GET", "/api/v3/allOrders", symbol="BTCUSDT")

        assert twice.body == {"code": -2010, "msg": "Duplicate order sent."}
        assert asked.body["orderId"] == again.body["orderId"] != first.body["orderId"]
        assert both.code == -2039
        assert [row["status"] for row in rows.body] == ["CANCELED", "NEW"]


async def test_cancel_and_query_of_what_is_not_there() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        cancel = await client.signed("DELETE", "/api/v3/order", symbol="BTCUSDT", orderId=7)
        query = await client.signed("GET", "/api/v3/order", symbol="BTCUSDT", orderId=7)
        everything = await client.signed("DELETE", "/api/v3/openOrders", symbol="BTCUSDT")
        neither = await client.signed("DELETE", "/api/v3/order", symbol="BTCUSDT")

        assert cancel.body == {"code": -2011, "msg": "Unknown order sent."}
        assert query.body == {"code": -2013, "msg": "Order does not exist."}
        assert everything.code == -2011 and neither.code == -1102


async def test_orders_that_find_nobody_are_taken_and_expire() -> None:
    async with open_protocols() as venue:
        client, other = Binance(venue), Binance(venue, "other")
        await other.place("SELL", "100", "1")
        fok = await client.place("BUY", "100", "2", timeInForce="FOK")
        ioc = await client.place("BUY", "100", "2", timeInForce="IOC")

        assert fok.body["status"] == "EXPIRED" and fok.body["executedQty"] == "0.00000000"
        assert ioc.body["status"] == "EXPIRED" and ioc.body["executedQty"] == "1.00000000"
        assert [fill["commissionAsset"] for fill in ioc.body["fills"]] == ["BTC"]


async def test_market_order_for_an_amount_of_quote_currency() -> None:
    async with open_protocols() as venue:
        client, other = Binance(venue), Binance(venue, "other")
        await other.place("SELL", "100", "1")
        await other.place("SELL", "104", "1")
        answer = await client.signed(
            "POST", "/api/v3/order", symbol="BTCUSDT", side="BUY", type="MARKET", quoteOrderQty="152"
        )

        assert answer.body["status"] == "FILLED" and answer.body["origQuoteOrderQty"] == "152.00000000"
        assert (
            answer.body["executedQty"] == "1.50000000"
            and answer.body["cummulativeQuoteQty"] == "152.00000000"
        )
        assert [fill["price"] for fill in answer.body["fills"]] == ["100.00000000", "104.00000000"]


async def test_cancel_replace_tells_each_half() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        await client.place("BUY", "100", "1", newClientOrderId="old")
        path, replace = "/api/v3/order/cancelReplace", changed(price="101", newClientOrderId="new")
        good = await client.signed(
            "POST", path, **replace, cancelReplaceMode="STOP_ON_FAILURE", cancelOrigClientOrderId="old"
        )
        gone = await client.signed(
            "POST",
            path,
            **changed(price="102"),
            cancelReplaceMode="STOP_ON_FAILURE",
            cancelOrigClientOrderId="old",
        )
        half = await client.signed(
            "POST",
            path,
            **changed(price="103"),
            cancelReplaceMode="ALLOW_FAILURE",
            cancelOrigClientOrderId="old",
        )
        poor = await client.signed(
            "POST",
            path,
            **changed(quantity="99999"),
            cancelReplaceMode="STOP_ON_FAILURE",
            cancelOrigClientOrderId="new",
        )

        assert good.status == 200 and good.body["cancelResponse"]["origClientOrderId"] == "old"
        assert good.body["newOrderResponse"]["clientOrderId"] == "new"
        assert (gone.status, gone.code) == (400, -2022)
        assert gone.body["data"]["newOrderResult"] == "NOT_ATTEMPTED"
        assert (half.status, half.code) == (409, -2021)
        assert (half.body["data"]["cancelResult"], half.body["data"]["newOrderResult"]) == (
            "FAILURE",
            "SUCCESS",
        )
        assert (poor.status, poor.code) == (409, -2021)
        assert poor.body["data"]["newOrderResponse"]["code"] == -2010
        kinds = [(line.kind, line.verdict) for line in venue.lines(account="demo")][1:3]
        assert kinds == [("cancel", "accepted"), ("place", "accepted")]


async def test_replacement_that_no_filter_lets_through_leaves_the_old_order() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        await client.place("BUY", "100", "1", newClientOrderId="old")
        answer = await client.signed(
            "POST",
            "/api/v3/order/cancelReplace",
            **changed(price="100.05"),
            cancelReplaceMode="STOP_ON_FAILURE",
            cancelOrigClientOrderId="old",
        )
        rows = await client.signed("GET", "/api/v3/openOrders")

        assert answer.code == -1013 and [row["clientOrderId"] for row in rows.body] == ["old"]


async def test_amend_only_shrinks_keeps_the_place_and_renames() -> None:
    async with open_protocols() as venue:
        client, other = Binance(venue), Binance(venue, "other")
        await client.place("BUY", "100", "2", newClientOrderId="first")
        await other.place("BUY", "100", "1", newClientOrderId="behind")
        path = "/api/v3/order/amend/keepPriority"
        larger = await client.signed("PUT", path, symbol="BTCUSDT", origClientOrderId="first", newQty="3")
        smaller = await client.signed(
            "PUT", path, symbol="BTCUSDT", origClientOrderId="first", newQty="1", newClientOrderId="second"
        )
        await other.place("SELL", "100", "1", newClientOrderId="taker")
        by_new = await client.signed("GET", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="second")
        by_old = await client.signed("GET", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="first")

        assert larger.code == -2038
        amended = smaller.body["amendedOrder"]
        assert (amended["origClientOrderId"], amended["clientOrderId"], amended["qty"]) == (
            "first",
            "second",
            "1.00000000",
        )
        assert by_new.body["status"] == "FILLED", "it was still first in the queue"
        assert by_old.code == -2013


async def test_balances_trades_and_open_orders_follow_what_was_traded() -> None:
    async with open_protocols() as venue:
        client, other = Binance(venue), Binance(venue, "other")
        await client.place("SELL", "100", "2", newClientOrderId="maker")
        await other.place("BUY", "100", "0.5")
        account = await client.signed("GET", "/api/v3/account")
        trades = await client.signed("GET", "/api/v3/myTrades", symbol="BTCUSDT")
        orders = await client.signed("GET", "/api/v3/openOrders", symbol="BTCUSDT")
        cancelled = await client.signed("DELETE", "/api/v3/openOrders", symbol="BTCUSDT")

        balances = {row["asset"]: (row["free"], row["locked"]) for row in account.body["balances"]}
        assert balances["BTC"] == ("998.00000000", "1.50000000")
        assert balances["USDT"] == ("1000049.95000000", "0.00000000")
        [trade] = trades.body
        assert (trade["isMaker"], trade["commission"], trade["quoteQty"]) == (
            True,
            "0.05000000",
            "50.00000000",
        )
        assert (
            orders.body[0]["status"] == "PARTIALLY_FILLED" and orders.body[0]["executedQty"] == "0.50000000"
        )
        assert [row["status"] for row in cancelled.body] == ["CANCELED"]


async def test_order_count_limit_counts_unfilled_orders_and_weight_brings_429_then_418() -> None:
    async with open_protocols(has_rate_limits=True) as venue:
        client, other = Binance(venue), Binance(venue, "other")
        answers = [await client.place("BUY", "100", "1") for _ in range(101)]
        assert [answer.code for answer in answers[98:]] == [0, 0, -1015] and answers[100].status == 429
        assert answers[99].headers["X-MBX-ORDER-COUNT-10S"] == "100"
        assert answers[98].headers["X-MBX-USED-WEIGHT-1M"] == "0", "orders that succeed cost nothing"
        await other.place("SELL", "100", "1")
        assert (await client.place("BUY", "100", "1")).status == 200, "a fill gives its order back"

        statuses = [(await other.signed("GET", "/api/v3/openOrders")).status for _ in range(83)]
        assert statuses == [200] * 75 + [429] * 7 + [418]
        assert "Retry-After" in (await other.signed("GET", "/api/v3/account")).headers
        venue.pass_time(121)
        assert (await other.signed("GET", "/api/v3/account")).status == 200


async def test_listen_keys_of_spot_are_gone() -> None:
    async with open_protocols() as venue, connected(venue, "/ws-api/v3") as socket:
        assert (await Binance(venue).keyed("POST", "/api/v3/userDataStream")).status == 410
        assert (await socket.ask("userDataStream.start", {"apiKey": "demo-key"}))["status"] == 410


async def test_exchange_info_lists_what_filters_check() -> None:
    async with open_protocols(instruments=[SPOT, PERPETUAL]) as venue:
        info = (await Binance(venue).public("/api/v3/exchangeInfo")).body
        [symbol] = info["symbols"]
        filters = {each["filterType"]: each for each in symbol["filters"]}

        assert symbol["symbol"] == "BTCUSDT" and symbol["status"] == "TRADING"
        assert filters["PRICE_FILTER"]["tickSize"] == "0.10000000"
        assert filters["LOT_SIZE"]["stepSize"] == "0.00100000"
        assert filters["NOTIONAL"]["minNotional"] == "5.00000000"


async def test_signature_is_checked_over_the_bytes_that_came() -> None:
    """The two official examples of the documents, and parameters split between query and body."""
    from venue.protocols.binance.security import frame_payload, http_payload
    from venue.protocols.requests import Raw

    secret = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
    signer = Binance.__new__(Binance)
    signer.secret = secret
    query = "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC"
    signed = "0fd168b8ddb4876a0358a8d14d0c9f3da0e9b20c5d52b2a00fcf7d1c602f9a77"
    body = f"quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559&signature={signed}"
    payload, signature = http_payload(Raw("POST", "/api/v3/order", query, body.encode(), {}))
    assert signer.signature(payload.decode()) == signature

    params = {
        "symbol": "BTCUSDT",
        "side": "SELL",
        "type": "LIMIT",
        "timeInForce": "GTC",
        "quantity": "0.01000000",
        "price": "52000.00",
        "recvWindow": 100,
        "timestamp": 1645423376532,
        "apiKey": "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A",
        "signature": "aa1b5712c094bc4e57c05a1a5c1fd8d88dcd628338ea863fec7b88e59fe2db24",
    }
    payload, signature = frame_payload(params)
    assert signer.signature(payload.decode()) == signature


async def test_key_that_may_only_look_is_refused_where_something_would_change() -> None:
    account = KeyedAccount(name="demo", api_key="demo-key", secret="demo-secret", can_trade=False)
    async with open_protocols(accounts=[account]) as venue, connected(venue, "/ws-api/v3") as socket:
        client = Binance(venue)
        placed = await client.place("BUY", "100", "1")
        leverage = await client.signed("POST", "/fapi/v1/leverage", symbol="BTCUSDT", leverage=5)
        seen = await client.signed("GET", "/api/v3/account")
        subscribed = await socket.ask("userDataStream.subscribe.signature", client.frame_params())

        assert (placed.status, placed.code, leverage.code) == (401, -2015, -2015)
        assert seen.body["canTrade"] is False and subscribed["status"] == 200
