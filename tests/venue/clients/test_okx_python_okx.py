"""python-okx, REST and WebSocket, trades at the venue's OKX protocol."""

import asyncio
import json
from typing import Any

import pytest
from exchange_tools import eventually, story
from okx_venue import DEMO, OkxVenue, okx_venue

websockets = pytest.importorskip("websockets", reason="it comes with python-okx, a development dependency")
Account = pytest.importorskip("okx.Account", reason="python-okx is a development dependency; install .[dev]")
MarketData = pytest.importorskip("okx.MarketData")
PublicData = pytest.importorskip("okx.PublicData")
Trade = pytest.importorskip("okx.Trade")
WsPrivate = pytest.importorskip("okx.websocket.WsPrivateAsync")
WsPublic = pytest.importorskip("okx.websocket.WsPublicAsync")

SWAP = "BTC-USDT-SWAP"


def api(kind: Any, venue: OkxVenue) -> Any:
    """Return one of the client's APIs, led to the venue; flag 1 is demo trading."""
    return kind(DEMO.api_key, DEMO.secret, DEMO.passphrase, flag="1", domain=venue.rest_url)


async def ask(call: Any, *args: Any, **fields: Any) -> list[Any]:
    """Call the client, which blocks, and return the rows of a good answer."""
    answer = await asyncio.to_thread(call, *args, **fields)
    assert answer["code"] == "0", answer
    rows: list[Any] = answer["data"]
    return rows


@story
async def test_markets_books_and_time_are_read() -> None:
    async with okx_venue() as venue:
        (found,) = await ask(api(PublicData.PublicAPI, venue).get_instruments, instType="SWAP", instId=SWAP)
        assert (found["ctVal"], found["settleCcy"], found["state"]) == ("0.01", "USDT", "live")
        (book,) = await ask(api(MarketData.MarketAPI, venue).get_orderbook, instId="BTC-USDT", sz="5")
        assert float(book["bids"][0][0]) == float(venue.best("BTC-USDT")[0])


@story
async def test_an_order_is_placed_found_amended_and_cancelled() -> None:
    async with okx_venue() as venue:
        trade, price = api(Trade.TradeAPI, venue), venue.best("BTC-USDT")[0] - 100
        order = {"instId": "BTC-USDT", "tdMode": "cash", "side": "buy", "ordType": "limit", "sz": "0.01"}
        (placed,) = await ask(trade.place_order, **order, px=str(price), clOrdId="c1")
        assert placed["sCode"] == "0"
        (found,) = await ask(trade.get_order_list, instType="SPOT")
        assert (found["ordId"], found["clOrdId"], found["state"]) == (placed["ordId"], "c1", "live")
        await ask(trade.amend_order, instId="BTC-USDT", clOrdId="c1", newSz="0.02", newPx=str(price - 1))
        (amended,) = await ask(trade.get_order, instId="BTC-USDT", ordId=placed["ordId"])
        assert (amended["sz"], float(amended["px"])) == ("0.02", float(price - 1))
        await ask(trade.cancel_order, instId="BTC-USDT", ordId=placed["ordId"])
        assert await ask(trade.get_order_list, instType="SPOT") == []
        (done,) = await ask(trade.get_orders_history, instType="SPOT")
        assert (done["state"], done["cancelSource"]) == ("canceled", "1")


@story
async def test_a_fill_moves_the_position_and_is_listed() -> None:
    async with okx_venue() as venue:
        trade, account = api(Trade.TradeAPI, venue), api(Account.AccountAPI, venue)
        (leverage,) = await ask(account.set_leverage, lever="5", mgnMode="cross", instId=SWAP)
        assert leverage["lever"] == "5"
        order = {"instId": SWAP, "tdMode": "cross", "side": "sell", "ordType": "market", "sz": "1"}
        (placed,) = await ask(trade.place_order, **order)
        fills = await ask(trade.get_fills, instType="SWAP")
        assert {fill["ordId"] for fill in fills} == {placed["ordId"]}
        (position,) = await ask(account.get_positions, instType="SWAP")
        assert (position["pos"], position["lever"]) == ("-1", "5")
        (balance,) = await ask(account.get_account_balance, ccy="USDT")
        assert [row["ccy"] for row in balance["details"]] == ["USDT"]
        (config,) = await ask(account.get_account_config)
        assert config["posMode"] == "net_mode"


class _PlainFactory:
    """The client always asks for TLS, which the venue has none of: the one thing that is replaced."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._socket: Any = None

    async def connect(self) -> Any:
        self._socket = await websockets.connect(self._url)
        return self._socket

    async def close(self) -> None:
        await self._socket.close()


@story
async def test_books_and_orders_come_over_the_sockets() -> None:
    async with okx_venue() as venue:
        books: list[Any] = []
        public = WsPublic.WsPublicAsync(f"{venue.ws_url}/ws/v5/public")
        public.factory = _PlainFactory(public.url)
        reading = [await public.start()]
        await public.subscribe(
            [{"channel": "books", "instId": "BTC-USDT"}], lambda text: books.append(json.loads(text))
        )
        await eventually(lambda: len(books) > 2, "pushes of the book")
        assert books[0]["event"] == "subscribe"
        assert (books[1]["action"], books[1]["data"][0]["prevSeqId"]) == ("snapshot", -1)
        assert books[2]["data"][0]["prevSeqId"] == books[1]["data"][0]["seqId"]

        told: list[Any] = []
        keys = (DEMO.api_key, DEMO.passphrase, DEMO.secret)
        private = WsPrivate.WsPrivateAsync(*keys, f"{venue.ws_url}/ws/v5/private")
        private.factory = _PlainFactory(private.url)
        private.callback = lambda text: told.append(json.loads(text))
        reading.append(await private.start())
        await private.login()
        await eventually(lambda: told and told[-1].get("event") == "login", "the login")
        await private.send("subscribe", [{"channel": "orders", "instType": "ANY"}])
        await eventually(lambda: told[-1].get("event") == "subscribe", "the subscription")
        order = {"instId": "BTC-USDT", "tdMode": "cash", "side": "buy", "ordType": "limit", "sz": "0.01"}
        price = str(venue.best("BTC-USDT")[0] - 100)
        await private.place_order([order | {"px": price, "clOrdId": "c1"}], id="7")
        await eventually(lambda: any(message.get("op") == "order" for message in told), "the answer")
        (answer,) = [message for message in told if message.get("op") == "order"]
        assert (answer["id"], answer["code"], answer["data"][0]["clOrdId"]) == ("7", "0", "c1")
        await eventually(lambda: any("data" in m and m.get("arg") for m in told), "the push")
        (push,) = [
            message
            for message in told
            if message.get("arg", {}).get("channel") == "orders" and "data" in message
        ]
        assert (push["data"][0]["clOrdId"], push["data"][0]["state"]) == ("c1", "live")
        await public.stop()
        await private.stop()
        await asyncio.gather(*reading, return_exceptions=True)
