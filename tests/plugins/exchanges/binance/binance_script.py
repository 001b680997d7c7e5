"""A Binance whose every answer a test decides: real sockets, a script behind them."""

import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from aiohttp import web
from exchange_tools import FakeHost, ScriptedVenue, eventually, scripted_venue

from host.api import (
    AmendOrder,
    CancelOrder,
    ConnectionChanged,
    OrderType,
    PlaceOrder,
    Secret,
    Side,
    TimeInForce,
)
from plugins.exchanges.binance.adapter import BinanceSpot, BinanceUsdm
from plugins.exchanges.binance.params import BinanceParams, BinanceUsdmParams

S = 1_000_000_000
API_SECRET = "a-secret-that-nothing-may-show"
API_KEY = "a-key-that-nothing-may-show"
Answer = tuple[int, Any]

FILTERS = [
    {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
    {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"},
    {"filterType": "NOTIONAL", "minNotional": "5"},
]


def listed(base: str) -> dict[str, Any]:
    return {
        "symbol": f"{base}USDT",
        "status": "TRADING",
        "baseAsset": base,
        "quoteAsset": "USDT",
        "contractType": "PERPETUAL",
        "filters": FILTERS,
    }


class BinanceScript:
    """Answers by method or path; whatever a test does not set is answered as an idle venue would."""

    def __init__(self, venue: ScriptedVenue) -> None:
        self.venue = venue
        self.skew_ms = 0
        self.symbols = [listed("BTC"), listed("ETH")]
        self.book_id = 100
        self.api_calls: list[tuple[str, dict[str, Any]]] = []
        self.rest_calls: list[tuple[str, dict[str, str]]] = []
        self.subscribed: list[str] = []
        self.api: dict[str, Callable[[dict[str, Any]], Answer | None]] = {}
        self.rest: dict[str, Callable[[dict[str, str]], Answer]] = {}
        self.api_sockets: list[web.WebSocketResponse] = []
        self.sockets: dict[str, list[web.WebSocketResponse]] = defaultdict(list)
        """Open and closed ones, by stream name."""
        self.last_order_id = 1000
        venue.on_message = self._on_message
        venue.on_request = self._on_request

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.skew_ms

    async def push(self, stream: str, data: dict[str, Any]) -> None:
        """Send one message of a market stream to everybody who follows it."""
        for socket in self.sockets[stream]:
            if not socket.closed:
                await socket.send_str(json.dumps({"stream": stream, "data": data}))

    async def push_raw(self, stream: str, text: str) -> None:
        for socket in self.sockets[stream]:
            if not socket.closed:
                await socket.send_str(text)

    async def event(self, event: dict[str, Any]) -> None:
        """Send one private event: on the WebSocket API (spot)."""
        for socket in self.api_sockets:
            if not socket.closed:
                await socket.send_str(json.dumps({"subscriptionId": 0, "event": event}))

    def calls(self, method: str) -> list[dict[str, Any]]:
        return [params for name, params in self.api_calls if name == method]

    # -- inside ----------------------------------------------------------------------------------

    async def _on_message(self, socket: web.WebSocketResponse, text: str) -> None:
        message = json.loads(text)
        method, request_id = message["method"], message["id"]
        if method == "SUBSCRIBE":
            for stream in message["params"]:
                self.sockets[stream].append(socket)
                self.subscribed.append(stream)
            await socket.send_str(json.dumps({"result": None, "id": request_id}))
            return
        params = message["params"]
        self.api_calls.append((method, params))
        if socket not in self.api_sockets:
            self.api_sockets.append(socket)
        answer = self.api.get(method, self._usual(method))(params)
        if answer is None:
            return
        status, body = answer
        kind = "result" if status == 200 else "error"
        await socket.send_str(json.dumps({"id": request_id, "status": status, kind: body}))

    def _usual(self, method: str) -> Callable[[dict[str, Any]], Answer | None]:
        if method == "order.place":
            return self.placed
        if method == "order.cancel":
            return lambda params: (200, self.order(params["origClientOrderId"], "CANCELED"))
        if method == "order.modify":
            return lambda params: (
                200,
                {
                    **self.order(params["origClientOrderId"], "NEW"),
                    "price": params["price"],
                    "origQty": params["quantity"],
                },
            )
        return lambda params: (200, {"subscriptionId": 0})

    def placed(self, params: dict[str, Any]) -> Answer:
        """Accept an order."""
        self.last_order_id += 1
        body = {"symbol": params["symbol"], "orderId": self.last_order_id, "transactTime": self.now_ms()}
        return 200, {**body, "clientOrderId": params["newClientOrderId"]}

    def order(self, client_id: str, status: str, filled: str = "0") -> dict[str, Any]:
        """Return an order as REST shows it."""
        return {
            "symbol": "BTCUSDT",
            "orderId": 77,
            "clientOrderId": client_id,
            "price": "100.00",
            "origQty": "0.50",
            "executedQty": filled,
            "status": status,
            "side": "BUY",
            "type": "LIMIT",
            "time": self.now_ms(),
            "updateTime": self.now_ms(),
        }

    async def _on_request(self, request: web.Request) -> web.Response:
        params = dict(request.query)
        path = f"{request.method} {request.path}"
        self.rest_calls.append((path, params))
        status, body = self.rest.get(path, self._usual_rest(path))(params)
        headers = body.pop("_headers", {}) if isinstance(body, dict) else {}
        return web.json_response(body, status=status, headers=headers)

    def _usual_rest(self, path: str) -> Callable[[dict[str, str]], Answer]:
        name = path.rpartition("/")[2]
        usual: dict[str, Any] = {
            "time": {"serverTime": self.now_ms()},
            "exchangeInfo": {"symbols": self.symbols, "rateLimits": []},
            "account": {
                "balances": [{"asset": "USDT", "free": "900", "locked": "100"}],
                "commissionRates": {"maker": "0.0002", "taker": "0.0004"},
            }
            if "/api/" in path
            else {"assets": [{"asset": "USDT", "walletBalance": "1000", "initialMargin": "10"}]},
            "depth": {"lastUpdateId": self.book_id, "bids": [["100.00", "1"]], "asks": [["101.00", "2"]]},
            "openOrders": [],
            "myTrades": [],
            "userTrades": [],
            "positionRisk": [],
            "commissionRate": {"makerCommissionRate": "0.0002", "takerCommissionRate": "0.0005"},
            "dual": {"dualSidePosition": False},
            "listenKey": {"listenKey": "LK1"},
        }
        return lambda params: (200, usual.get(name, {}))


@asynccontextmanager
async def scripted_binance() -> AsyncIterator[BinanceScript]:
    """Serve a scripted Binance until the block ends."""
    async with scripted_venue() as venue:
        yield BinanceScript(venue)


class Trader:
    """An adapter connected to a script, and the host's side of it."""

    def __init__(self, script: BinanceScript, *, usdm: bool = False, **params: Any) -> None:
        self.script = script
        self.host = FakeHost()
        settings: dict[str, Any] = {
            "api_key": Secret(API_KEY),
            "api_secret": Secret(API_SECRET),
            "url": script.venue.http_url,
            "clock_error_ms": 5000.0,  # this machine may be busy
            **params,
        }
        self.adapter: BinanceSpot | BinanceUsdm = (
            BinanceUsdm(BinanceUsdmParams(**settings)) if usdm else BinanceSpot(BinanceParams(**settings))
        )
        self.adapter.ctx = self.host

    @property
    def symbol(self) -> str:
        return "BTC-USDT" if isinstance(self.adapter, BinanceSpot) else "BTC-USDT-PERP"

    async def start(self) -> "Trader":
        await self.adapter.connect()
        await self.adapter.subscribe([self.symbol])
        return self

    async def stop(self) -> None:
        await self.adapter.close()
        await self.host.stop()

    def deadline_ns(self) -> int:
        return self.host.now_ns() + 30 * S

    def place(self, client_id: str = "c1", **changes: Any) -> int:
        """Send an order, and return its deadline."""
        fields: dict[str, Any] = {
            "client_id": client_id,
            "symbol": self.symbol,
            "side": Side.BUY,
            "type": OrderType.LIMIT,
            "time_in_force": TimeInForce.GTC,
            "price": Decimal("100.00"),
            "qty": Decimal("0.50"),
            "post_only": True,
            "reduce_only": False,
            **changes,
        }
        deadline_ns = self.deadline_ns()
        self.adapter.send(PlaceOrder(**fields), deadline_ns)
        return deadline_ns

    def cancel(self, client_id: str = "c1") -> None:
        self.adapter.send(CancelOrder(client_id, self.symbol), self.deadline_ns())

    def amend(self, client_id: str = "c1") -> None:
        amend = AmendOrder(client_id, self.symbol, Side.BUY, Decimal("99.00"), Decimal("0.40"))
        self.adapter.send(amend, self.deadline_ns())

    def channel_news(self, channel: str) -> list[bool]:
        return [change.is_up for change in self.host.of(ConnectionChanged) if change.channel == channel]

    async def back_up(self, *channels: str) -> None:
        """Wait until each of these channels was lost and is up again."""
        await eventually(lambda: all(self.channel_news(name)[-2:] == [False, True] for name in channels))


@asynccontextmanager
async def trading(*, usdm: bool = False, **params: Any) -> AsyncIterator[tuple[BinanceScript, Trader]]:
    """Connect an adapter to a script, and take both down afterwards."""
    async with scripted_binance() as script:
        trader = Trader(script, usdm=usdm, **params)
        await trader.start()
        try:
            yield script, trader
        finally:
            await trader.stop()
