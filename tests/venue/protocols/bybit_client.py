"""A bare client of the venue's Bybit protocol: signs, sends, and takes what comes."""

import hashlib
import hmac
import json
import time
from typing import Any

import aiohttp
from bybit_venue import DEMO, BybitVenue
from yarl import URL

from venue.protocols.accounts import KeyedAccount

WAIT_S = 20.0


class BybitClient:
    """One account over REST and WebSockets."""

    def __init__(
        self, venue: BybitVenue, session: aiohttp.ClientSession, account: KeyedAccount = DEMO
    ) -> None:
        self._venue = venue
        self._session = session
        self._account = account

    async def get(self, path: str, shift_ms: int = 0, window_ms: int = 5_000, **query: Any) -> Any:
        """Ask, signed; the timestamp is `shift_ms` ahead of the wall."""
        text = "&".join(f"{name}={value}" for name, value in query.items())
        url = URL(f"{self._venue.rest_url}{path}" + (f"?{text}" if text else ""), encoded=True)
        async with self._session.get(url, headers=self._headers(text, shift_ms, window_ms)) as response:
            return await response.json()

    async def post(
        self,
        path: str,
        body: Any,
        *,
        shift_ms: int = 0,
        window_ms: int = 5_000,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """Send a JSON object, or text as it is, signed."""
        text = body if isinstance(body, str) else json.dumps(body)
        signed = self._headers(text, shift_ms, window_ms) | (headers or {})
        async with self._session.post(f"{self._venue.rest_url}{path}", data=text, headers=signed) as response:
            return await response.json()

    async def place(self, symbol: str = "BTCUSDT", category: str = "spot", **fields: Any) -> Any:
        """Place an order far below the market, unless the fields say otherwise."""
        usual = {"side": "Buy", "orderType": "Limit", "qty": "0.01", "price": "50000"}
        return await self.post("/v5/order/create", {"category": category, "symbol": symbol} | usual | fields)

    async def socket(self, path: str, *, logs_in: bool = True) -> aiohttp.ClientWebSocketResponse:
        """Connect a WebSocket, and log in on a private one."""
        socket = await self._session.ws_connect(f"{self._venue.ws_url}{path}")
        if logs_in and "public" not in path:
            expires = int(time.time() * 1e3) + 10_000
            args = [self._account.api_key, expires, self.sign(f"GET/realtime{expires}")]
            await socket.send_json({"op": "auth", "args": args})
            answer = await socket.receive_json(timeout=WAIT_S)
            assert answer.get("success", answer.get("retCode") == 0), answer
        return socket

    def sign(self, text: str) -> str:
        """Sign as Bybit wants it."""
        return hmac.new(self._account.secret.encode(), text.encode(), hashlib.sha256).hexdigest()

    def _headers(self, payload: str, shift_ms: int, window_ms: int) -> dict[str, str]:
        stamp = str(int(time.time() * 1e3) + shift_ms)
        return {
            "X-BAPI-API-KEY": self._account.api_key,
            "X-BAPI-TIMESTAMP": stamp,
            "X-BAPI-RECV-WINDOW": str(window_ms),
            "X-BAPI-SIGN": self.sign(f"{stamp}{self._account.api_key}{window_ms}{payload}"),
            "Content-Type": "application/json",
        }


async def until(socket: aiohttp.ClientWebSocketResponse, topic: str) -> Any:
    """Return the next push of a topic."""
    while True:
        message = await socket.receive_json(timeout=WAIT_S)
        if message.get("topic", "").startswith(topic):
            return message
