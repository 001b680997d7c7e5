"""A scripted OKX: REST answers by path, logins and subscriptions confirmed, and what a test pushes."""

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from aiohttp import web
from exchange_tools import FakeHost, ScriptedVenue, eventually, scripted_venue

from host.api import OrderType, PlaceOrder, Secret, Side, TimeInForce
from plugins.exchanges.okx import Okx
from plugins.exchanges.okx.params import OkxParams

FAR_NS = 10_000_000_000


def spot(inst_id: str, code: int) -> dict[str, Any]:
    base, quote = inst_id.split("-")
    return {
        "instId": inst_id,
        "instType": "SPOT",
        "state": "live",
        "baseCcy": base,
        "quoteCcy": quote,
        "tickSz": "0.1",
        "lotSz": "0.00001",
        "minSz": "0.00001",
        "instIdCode": code,
    }


def swap(inst_id: str, code: int) -> dict[str, Any]:
    family = inst_id.removesuffix("-SWAP")
    return spot(family, code) | {
        "instId": inst_id,
        "instType": "SWAP",
        "uly": family,
        "ctType": "linear",
        "ctVal": "0.01",
        "lotSz": "0.1",
    }


class OkxScript:
    """What the scripted venue answers; a test changes it and looks at what was asked."""

    def __init__(self, venue: ScriptedVenue) -> None:
        self.venue = venue
        self.answers: dict[str, Any] = {
            "/api/v5/public/time": lambda: [{"ts": str(time.time_ns() // 1_000_000)}],
            "/api/v5/account/config": [{"posMode": "net_mode", "acctLv": "2"}],
            "/api/v5/account/trade-fee": [
                {"maker": "-0.0008", "taker": "-0.001", "makerU": "-0.0002", "takerU": "-0.0005"}
            ],
            "/api/v5/public/instruments": lambda: self.instruments,
            "/api/v5/account/set-leverage": [{}],
            "/api/v5/trade/cancel-all-after": [{"triggerTime": "1", "tag": "", "ts": "1"}],
        }
        self.instruments: list[dict[str, Any]] = [
            spot("BTC-USDT", 7),
            spot("ETH-USDT", 8),
            swap("BTC-USDT-SWAP", 9),
        ]
        self.bodies: list[tuple[str, Any, dict[str, str]]] = []
        self.operations: list[dict[str, Any]] = []
        self.reply_to: Callable[[dict[str, Any]], dict[str, Any] | None] = self.taken_in
        self.login = {"event": "login", "code": "0", "msg": "", "connId": "c"}
        self.refused_channel = ""
        venue.on_request, venue.on_message = self._on_request, self._on_message

    @staticmethod
    def taken_in(request: dict[str, Any]) -> dict[str, Any]:
        """Say of each order of an operation that it was taken in."""
        data = [
            {"clOrdId": arg.get("clOrdId", ""), "ordId": "9", "sCode": "0", "sMsg": ""}
            for arg in request["args"]
        ]
        return {"id": request["id"], "op": request["op"], "code": "0", "msg": "", "data": data}

    @staticmethod
    def refused(code: str, text: str = "no") -> Callable[[dict[str, Any]], dict[str, Any]]:
        """Return what answers each operation with a refusal."""

        def answer(request: dict[str, Any]) -> dict[str, Any]:
            reply = OkxScript.taken_in(request)
            for item in reply["data"]:
                item |= {"sCode": code, "sMsg": text, "ordId": ""}
            return reply | {"code": "1"}

        return answer

    def private(self) -> Any:
        """Return the newest private connection."""
        return self._socket("/ws/v5/private")

    def public(self) -> Any:
        """Return the newest public connection."""
        return self._socket("/ws/v5/public")

    def _socket(self, path: str) -> Any:
        pairs = zip(self.venue.paths, self.venue.sockets, strict=True)
        return [socket for at, socket in pairs if at == path and not socket.closed][-1]

    async def push_order(self, **fields: str) -> None:
        """Push one order on the private stream."""
        message = {"arg": {"channel": "orders", "instType": "ANY"}, "data": [row(**fields)]}
        await self.private().send_str(json.dumps(message))

    async def push(self, channel: str, inst_id: str, data: dict[str, Any], action: str = "") -> None:
        """Push one row of market data."""
        message: dict[str, Any] = {"arg": {"channel": channel, "instId": inst_id}, "data": [data]}
        if action:
            message["action"] = action
        await self.public().send_str(json.dumps(message))

    def subscribed(self) -> list[dict[str, str]]:
        """Return every subscription that was asked for."""
        requests = [json.loads(text) for text in self.venue.messages if text != "ping"]
        return [arg for request in requests if request["op"] == "subscribe" for arg in request["args"]]

    async def _on_message(self, socket: web.WebSocketResponse, text: str) -> None:
        if text == "ping":
            await socket.send_str("pong")
            return
        request = json.loads(text)
        op = request["op"]
        if op == "login":
            await socket.send_str(json.dumps(self.login))
        elif op in ("subscribe", "unsubscribe"):
            for arg in request["args"]:
                if arg["channel"] == self.refused_channel:
                    error = {"event": "error", "code": "60018", "msg": f"{arg} doesn't exist", "connId": "c"}
                    await socket.send_str(json.dumps(error))
                    continue
                await socket.send_str(json.dumps({"event": op, "arg": arg, "connId": "c"}))
                if arg["channel"] == "orders":
                    count = {"event": "channel-conn-count", "channel": "orders", "connCount": "1"}
                    await socket.send_str(json.dumps(count | {"connId": "c"}))
        else:
            self.operations.append(request)
            reply = self.reply_to(request)
            if reply is not None:
                await socket.send_str(json.dumps(reply))

    async def _on_request(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.bodies.append((request.path_qs, json.loads(body) if body else None, dict(request.headers)))
        answer = self.answers[request.path]
        data = answer() if callable(answer) else answer
        if isinstance(data, web.StreamResponse):
            return data
        if isinstance(data, dict):
            return web.json_response(data)
        return web.json_response({"code": "0", "msg": "", "data": data})


def row(**fields: str) -> dict[str, str]:
    """Return an order of ours as the venue pushes it."""
    known = {"instId": "BTC-USDT", "ordId": "9", "clOrdId": "c1", "side": "buy", "ordType": "limit"}
    return known | {"sz": "1", "px": "10", "accFillSz": "0", "state": "live", "uTime": "1"} | fields


def place(client_id: str = "c1", symbol: str = "BTC-USDT", **other: Any) -> PlaceOrder:
    """Return a limit order."""
    return PlaceOrder(
        client_id,
        symbol,
        Side.BUY,
        OrderType.LIMIT,
        TimeInForce.GTC,
        Decimal(10),
        Decimal(1),
        other.get("post_only", False),
        other.get("reduce_only", False),
    )


@asynccontextmanager
async def connected(
    symbols: tuple[str, ...] = ("BTC-USDT",),
    change: Callable[[OkxScript], None] = lambda _script: None,
    **params: Any,
) -> AsyncIterator[tuple[OkxScript, Okx, FakeHost]]:
    """Connect an adapter to a scripted venue, subscribed."""
    async with scripted_venue() as venue:
        script = OkxScript(venue)
        change(script)
        adapter = okx_at(venue, **params)
        host = FakeHost()
        adapter.ctx = host
        try:
            await adapter.connect()
            await adapter.subscribe(symbols)
            yield script, adapter, host
        finally:
            await adapter.close()
            await host.stop()


def okx_at(venue: ScriptedVenue, **params: Any) -> Okx:
    """Return an adapter that is configured for a scripted venue."""
    usual: dict[str, Any] = {
        name: Secret(f"the {name} itself") for name in ("api_key", "api_secret", "passphrase")
    }
    usual |= {"url": venue.http_url, "answer_timeout_ms": 20_000.0}
    return Okx(OkxParams(**(usual | params)))


async def operation(script: OkxScript, count: int = 1) -> dict[str, Any]:
    """Wait until so many operations were asked for, and return the last of them."""
    await eventually(lambda: len(script.operations) >= count, f"{count} operations")
    return script.operations[count - 1]
