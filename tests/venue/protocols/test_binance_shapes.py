"""Every field of a recorded or documented Binance message is in the venue's own, with the same type."""

import asyncio
import os
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from protocol_tools import Binance, Socket, Venue, connected, open_protocols

FIXTURES = Path(os.environ.get("TANDEM_FIXTURES", Path(__file__).parents[4] / "shared" / "venues")) / "wire"

ABSENT = {
    # Only orders of kinds that the venue does not serve have these, or only orders that expired.
    "strategyId", "strategyType", "trailingDelta", "trailingTime", "preventedMatchId", "preventedQuantity",
    "activatePrice", "priceRate", "AP", "cr", "v", "eR",
    "contingencyType", "listStatusType", "listOrderStatus", "listClientOrderId", "transactionTime", "orders",
    "orderReports", "listStatus", "sors",
    # Left the API: ids of both orders of a trade, sums in the futures' replies (2026), account permissions.
    "trade.b", "trade.a", "reply.avgPrice", "reply.cumQuote", "reply.cumBase", "account.permissions", "settlePlan",
    # As a client library's own fixtures have them; Binance's examples of the same messages do not.
    "bookTicker.T", "bookTicker.E", "allowAmend", "cancel.stopPrice", "cancel.icebergQty", "cancel.time",
    "cancel.updateTime", "cancel.isWorking", "cancel.workingTime", "cancelAll.stopPrice", "cancelAll.icebergQty",
    "replace.stopPrice", "replace.icebergQty", "place.stopPrice", "place.icebergQty", "amend.origQty",
    "amend.cummulativeQuoteQty", "amend.stopPrice", "amend.icebergQty", "amend.time", "amend.updateTime",
    "amend.isWorking", "amend.origQuoteOrderQty",
    "autoAssetExchange",  # a number in an example, a text in what was recorded
}  # fmt: skip
"""What need not be there, by name or by sample and name."""

SERVED = {
    "binance_spot": {
        "GET /api/v3/exchangeInfo": "exchangeInfo", "GET /api/v3/account": "account",
        "GET /api/v3/account/commission": "commission", "GET /api/v3/time": "time",
        "GET /api/v3/trades": "trades", "GET /api/v3/depth": "depth", "GET /api/v3/myTrades": "myTrades",
        "GET /api/v3/openOrders": "openOrders", "GET /api/v3/allOrders": "openOrders",
        "DELETE /api/v3/order": "cancel", "PUT /api/v3/order/amend/keepPriority": "amend",
        "GET /api/v3/rateLimit/order": "orderCounts",
    },
    "binance_usdm": {
        "GET /fapi/v1/exchangeInfo": "exchangeInfo", "GET /fapi/v3/account": "account",
        "GET /fapi/v3/balance": "balance", "GET /fapi/v1/accountConfig": "accountConfig",
        "GET /fapi/v2/positionRisk": "risk", "GET /fapi/v1/time": "time", "GET /fapi/v1/depth": "depth",
        "GET /fapi/v1/trades": "trades", "GET /fapi/v1/historicalTrades": "trades",
        "GET /fapi/v1/userTrades": "myTrades", "GET /fapi/v1/openOrders": "openOrders",
        "GET /fapi/v1/openOrder": "openOrder", "DELETE /fapi/v1/order": "reply",
        "POST /fapi/v1/leverage": "leverage", "GET /fapi/v1/premiumIndex": "premium",
        "GET /fapi/v1/ticker/bookTicker": "tickers",
    },
}  # fmt: skip
METHODS = {
    "account.status": "account", "order.place": "place", "order.cancel": "cancel", "order.status": "status",
    "openOrders.status": "openOrders", "time": "time", "depth": "depth", "myTrades": "myTrades",
    "exchangeInfo": "exchangeInfo", "trades.recent": "trades", "ticker.book": "tickers",
    "openOrders.cancelAll": "cancelAll", "order.cancelReplace": "replace", "avgPrice": "average",
    "session.logout": "session", "v2/account.status": "account", "order.modify": "reply",
    "order.amend.keepPriority": "amend",
}  # fmt: skip


def classified(product: str, fixture: dict[str, Any]) -> tuple[str, Any] | None:
    """Return which of our messages a fixture is to be compared with, and its content."""
    if fixture.get("placeholders") or fixture.get("role") == "request":
        return None
    message = fixture["message"]
    if isinstance(message, dict):
        message = message.get("data", message) if "stream" in message else message.get("event", message)
    if isinstance(message, dict) and "e" in message:
        return message["e"], message
    sent = (fixture.get("client_sends") or [{}])[0].get("method", "") or fixture.get("method", "")
    if isinstance(message, dict) and "result" in message and isinstance(message.get("status"), int):
        return (METHODS[sent], message["result"]) if sent in METHODS else None
    if fixture.get("path"):
        name = SERVED[product].get(f"{fixture.get('verb')} {fixture['path']}")
        return None if name is None or (isinstance(message, dict) and "code" in message) else (name, message)
    if isinstance(message, dict) and {"lastUpdateId", "bids"} <= set(message) and "pair" not in message:
        return "depth", message
    if isinstance(message, dict) and {"u", "b", "B", "a", "A"} <= set(message):
        return "bookTicker", message
    return None


def cases() -> list[Any]:
    found = []
    for product in SERVED:
        for path in sorted((FIXTURES / product).glob("*.json")):
            for fixture in orjson.loads(path.read_bytes()):
                what = classified(product, fixture)
                if what is not None:
                    found.append(pytest.param(product, *what, id=fixture["id"]))
    skipped = pytest.mark.skip(reason=f"no {FIXTURES}; set TANDEM_FIXTURES to the venue vectors")
    return found or [pytest.param("", "", None, marks=skipped)]


def differences(name: str, recorded: Any, ours: Any, at: str = "") -> list[str]:
    """Return where a recorded message has something that ours has not, or has otherwise."""
    if isinstance(recorded, dict):
        if not isinstance(ours, dict):
            return [f"{at}: an object, ours {ours!r}"]
        return [
            difference
            for key, value in recorded.items()
            if key not in ABSENT and f"{name}.{key}" not in ABSENT
            for difference in (
                differences(name, value, ours[key], f"{at}.{key}")
                if key in ours
                else [f"{at}.{key}: missing"]
            )
        ]
    if isinstance(recorded, list):
        if not isinstance(ours, list):
            return [f"{at}: a list, ours {ours!r}"]
        pairs = [(each, _like(each, ours)) for each in recorded[:3]] if ours else []
        return [d for each, own in pairs if own is not None for d in differences(name, each, own, f"{at}[]")]
    if recorded is None or ours is None:
        return []
    return [] if type(recorded) is type(ours) else [f"{at}: {recorded!r}, ours {ours!r}"]


def _like(recorded: Any, ours: list[Any]) -> Any:
    """Return the one of ours that a recorded element is to be compared with; None for a kind we have not."""
    kind = "filterType"
    if isinstance(recorded, dict) and kind in recorded:
        return next((each for each in ours if each[kind] == recorded[kind]), None)
    return ours[0]


async def _spot(venue: Venue, told: dict[str, Any]) -> None:
    client, other = Binance(venue), Binance(venue, "other")
    paths = "/ws/btcusdt@bookTicker/btcusdt@depth@1ms/btcusdt@trade/btcusdt@aggTrade/btcusdt@depth5@1ms"
    async with connected(venue, paths) as market, connected(venue, "/ws-api/v3") as user:
        await user.ask("userDataStream.subscribe.signature", client.frame_params())
        await other.place("SELL", "100", "5")
        placed = await client.place("BUY", "100", "1")
        await client.place("BUY", "90", "2", newClientOrderId="x")
        get = {
            "exchangeInfo": "/api/v3/exchangeInfo", "time": "/api/v3/time",
            "average": "/api/v3/avgPrice?symbol=BTCUSDT",
            "trades": "/api/v3/trades?symbol=BTCUSDT", "depth": "/api/v3/depth?symbol=BTCUSDT",
            "tickers": "/api/v3/ticker/bookTicker",
        }  # fmt: skip
        await _public(venue, get, told)
        named = {"symbol": "BTCUSDT"}
        told["place"] = placed.body
        told["account"] = (await client.signed("GET", "/api/v3/account")).body
        told["commission"] = (await client.signed("GET", "/api/v3/account/commission", **named)).body
        told["orderCounts"] = (await client.signed("GET", "/api/v3/rateLimit/order")).body
        told["myTrades"] = (await client.signed("GET", "/api/v3/myTrades", **named)).body
        told["openOrders"] = (await client.signed("GET", "/api/v3/openOrders", **named)).body
        told["status"] = told["openOrders"][0]
        x = {**named, "origClientOrderId": "x", "newClientOrderId": "x"}
        told["amend"] = (await client.signed("PUT", "/api/v3/order/amend/keepPriority", **x, newQty="1")).body
        replace = {
            "cancelReplaceMode": "STOP_ON_FAILURE",
            "cancelOrigClientOrderId": "x",
            "newClientOrderId": "y",
        }
        order = {"side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": "91", "quantity": "1"}
        told["replace"] = (
            await client.signed("POST", "/api/v3/order/cancelReplace", **named, **replace, **order)
        ).body
        told["cancel"] = (await client.signed("DELETE", "/api/v3/order", **named, origClientOrderId="y")).body
        await client.place("BUY", "90", "2")
        told["cancelAll"] = (await client.signed("DELETE", "/api/v3/openOrders", **named)).body
        told["session"] = (await user.ask("session.status", {}))["result"]
        for kind in ("executionReport", "outboundAccountPosition"):
            told[kind] = await user.event(kind)
        await _streams(market, told, {"bookTicker", "depthUpdate", "trade", "aggTrade"})
    front: Any = venue.server.courses["binance"].front
    feed = venue.server.courses["binance"].front.desk.feed["BTC-USDT"]
    await other.place("BUY", "80", "5")
    told["24hrTicker"] = front._spot_streams._shapes.ticker(feed, "BTCUSDT", "ticker")


async def _usdm(venue: Venue, told: dict[str, Any]) -> None:
    client, other = Binance(venue), Binance(venue, "other")
    key = (await client.keyed("POST", "/fapi/v1/listenKey")).body["listenKey"]
    fast, rest = (
        "/public/ws/btcusdt@bookTicker/btcusdt@depth@1ms/btcusdt@trade",
        "/market/ws/btcusdt@aggTrade",
    )
    async with (
        connected(venue, fast) as market,
        connected(venue, rest) as trades,
        connected(venue, f"/private/ws?listenKey={key}") as user,
    ):
        named = {"symbol": "BTCUSDT"}
        told["leverage"] = (await client.signed("POST", "/fapi/v1/leverage", **named, leverage=5)).body
        await other.place_usdm("SELL", "100", "5")
        await other.place_usdm("BUY", "80", "5")
        await client.place_usdm("BUY", "100", "1")
        placed = await client.place_usdm("BUY", "90", "2")
        get = {
            "exchangeInfo": "/fapi/v1/exchangeInfo", "time": "/fapi/v1/time", "premium": "/fapi/v1/premiumIndex",
            "trades": "/fapi/v1/trades?symbol=BTCUSDT", "depth": "/fapi/v1/depth?symbol=BTCUSDT",
            "tickers": "/fapi/v1/ticker/bookTicker",
        }  # fmt: skip
        await _public(venue, get, told)
        signed = {
            "account": "/fapi/v3/account", "balance": "/fapi/v3/balance", "accountConfig": "/fapi/v1/accountConfig",
            "risk": "/fapi/v2/positionRisk", "openOrders": "/fapi/v1/openOrders",
        }  # fmt: skip
        for name, path in signed.items():
            told[name] = (await client.signed("GET", path)).body
        told["myTrades"] = (await client.signed("GET", "/fapi/v1/userTrades", **named)).body
        told["openOrder"] = told["openOrders"][0]
        number = placed.body["orderId"]
        told["reply"] = (await client.signed("DELETE", "/fapi/v1/order", **named, orderId=number)).body
        for kind in ("ACCOUNT_CONFIG_UPDATE", "TRADE_LITE", "ACCOUNT_UPDATE", "ORDER_TRADE_UPDATE"):
            told[kind] = await user.event(kind)
        await _streams(market, told, {"bookTicker", "depthUpdate", "trade"})
        await _streams(trades, told, {"aggTrade"})
    front: Any = venue.server.courses["binance"].front
    feed = front.desk.feed["BTC-USDT-PERP"]
    for kind, stream in (("24hrTicker", "ticker"), ("markPriceUpdate", "markPrice")):
        told[kind] = front._usdm_streams._shapes.ticker(feed, "BTCUSDT", stream)


async def _public(venue: Venue, paths: dict[str, str], told: dict[str, Any]) -> None:
    for name, path in paths.items():
        async with venue.http.get(f"{venue.url()}{path}") as response:
            told[name] = orjson.loads(await response.read())


async def _streams(socket: Socket, told: dict[str, Any], wanted: set[str]) -> None:
    while wanted - set(told):
        message = await socket.next()
        told.setdefault(message.get("e", "bookTicker" if "u" in message else "partial"), message)


@cache
def samples(product: str) -> dict[str, Any]:
    """Return one of each message of ours, by name."""

    async def story() -> dict[str, Any]:
        told: dict[str, Any] = {}
        async with open_protocols() as venue:
            await (_spot if product == "binance_spot" else _usdm)(venue, told)
        return told

    return asyncio.run(story())


@pytest.mark.parametrize(("product", "name", "recorded"), cases())
def test_message_has_every_field_of_the_recorded_one(product: str, name: str, recorded: Any) -> None:
    ours = samples(product)
    if name not in ours:
        pytest.skip(f"the venue sends no {name}")
    mine = ours[name]
    if isinstance(mine, list) and isinstance(recorded, dict):
        mine = mine[0]

    found = differences(name, recorded, mine)
    assert not found, "; ".join(found)
