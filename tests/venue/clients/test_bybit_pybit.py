"""pybit, unmodified but for its base URL, trades at the venue's Bybit protocol."""

import asyncio
import copy
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from typing import Any

import pytest
from bybit_venue import DEMO, BybitVenue, bybit_venue
from exchange_tools import DEADLINE_S, eventually, story

from venue.protocols.faults import FaultKind

pybit = pytest.importorskip("pybit", reason="pybit is a development dependency; install .[dev]")
from pybit import _websocket_trading, exceptions, unified_trading  # type: ignore[import-untyped]  # noqa: E402 - only where it is installed

SYMBOLS = {"spot": "BTCUSDT", "linear": "BTCUSDT", "inverse": "BTCUSD"}
OURS = {"spot": "BTC-USDT", "linear": "BTC-USDT-PERP", "inverse": "BTC-USD-PERP"}
QTY = {"spot": "0.01", "linear": "0.01", "inverse": "100"}
ONCE = {"testnet": False, "restart_on_error": False}
"""A connection that is closed stays closed: pybit may dial again in the middle of its own goodbye."""
EACH = pytest.mark.parametrize("category", list(SYMBOLS))


class Client:
    """pybit blocks: each call runs in a thread, while the venue answers in the test's loop."""

    def __init__(self, venue: BybitVenue, category: str) -> None:
        self.http = unified_trading.HTTP(api_key=DEMO.api_key, api_secret=DEMO.secret)
        self.http.endpoint = venue.rest_url
        self.category = category

    async def call(self, name: str, **fields: Any) -> Any:
        """Make one call in this category and return its result."""
        fields = {"category": self.category} | fields
        answer = await asyncio.to_thread(getattr(self.http, name), **fields)
        assert answer["retCode"] == 0
        return answer["result"]

    async def order(self, name: str, **fields: Any) -> Any:
        """Make one call about the symbol."""
        return await self.call(name, symbol=SYMBOLS[self.category], **fields)


@asynccontextmanager
async def traded(category: str) -> AsyncIterator[tuple[BybitVenue, Client, str]]:
    """Open a venue and a client; the price is one that rests below the market."""
    async with bybit_venue() as venue:
        price = venue.best(OURS[category])[0] - 100
        yield venue, Client(venue, category), str(price)


@contextmanager
def sockets_led_to(venue: BybitVenue) -> Iterator[None]:
    """Lead pybit's WebSockets to the venue: its base URLs are constants."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unified_trading, "PUBLIC_WSS", f"{venue.ws_url}/v5/public/{{CHANNEL_TYPE}}")
        patch.setattr(unified_trading, "PRIVATE_WSS", f"{venue.ws_url}/v5/private")
        # pybit notes what it asks for after it was sent: an answer must not come within microseconds.
        venue.fault(FaultKind.LATENCY, transport="ws", delay_ms=100.0)
        patch.setattr(_websocket_trading, "TRADE_WSS", f"{venue.ws_url}/v5/trade")
        yield


class Heard:
    """What a stream handed to its callback, in its own thread."""

    def __init__(self) -> None:
        self.messages: queue.Queue[dict[str, Any]] = queue.Queue()

    def __call__(self, message: dict[str, Any]) -> None:
        self.messages.put(copy.deepcopy(message))  # pybit goes on changing a book

    async def first(self, wanted: Callable[[dict[str, Any]], object] = bool) -> dict[str, Any]:
        """Return the next message that is wanted."""
        while True:
            message = await asyncio.to_thread(self.messages.get, True, DEADLINE_S)
            if wanted(message):
                return message


@EACH
@story
async def test_markets_time_and_book(category: str) -> None:
    async with traded(category) as (venue, client, _):
        (row,) = (await client.order("get_instruments_info"))["list"]
        ours = venue.exchange.instrument(OURS[category])
        assert Decimal(row["priceFilter"]["tickSize"]) == ours.tick_size
        assert (row["baseCoin"], row["quoteCoin"], row["status"]) == (ours.base, ours.quote, "Trading")
        book = await client.order("get_orderbook", limit=5)
        assert Decimal(book["b"][0][0]) < Decimal(book["a"][0][0])
        assert len(book["b"]) == len(book["a"]) == 5
        answer = await asyncio.to_thread(client.http.get_server_time)
        assert (
            abs(int(answer["result"]["timeNano"]) - venue.server.courses["bybit"].front.desk.now_ns())
            < 10**10
        )
        ticker = (await client.order("get_tickers"))["list"][0]
        assert Decimal(ticker["bid1Price"]) < Decimal(ticker["ask1Price"])


@EACH
@story
async def test_an_order_is_placed_found_amended_and_cancelled(category: str) -> None:
    async with traded(category) as (venue, client, price):
        terms = {"side": "Buy", "orderType": "Limit", "qty": QTY[category], "price": price}
        placed = await client.order("place_order", **terms, orderLinkId="mm-0001_a", timeInForce="PostOnly")
        assert placed["orderLinkId"] == "mm-0001_a"
        (row,) = (await client.order("get_open_orders"))["list"]
        assert (row["orderId"], row["orderStatus"], row["timeInForce"]) == (
            placed["orderId"],
            "New",
            "PostOnly",
        )
        assert (Decimal(row["price"]), Decimal(row["qty"])) == (Decimal(price), Decimal(QTY[category]))
        lower = str(Decimal(price) - 1)
        await client.order("amend_order", orderLinkId="mm-0001_a", price=lower)
        (row,) = (await client.order("get_open_orders"))["list"]
        assert (Decimal(row["price"]), Decimal(row["qty"])) == (Decimal(lower), Decimal(QTY[category]))
        await client.order("cancel_order", orderId=placed["orderId"])
        assert (await client.order("get_open_orders"))["list"] == []
        (row,) = (await client.order("get_order_history"))["list"]
        assert (row["orderStatus"], row["cancelType"]) == ("Cancelled", "CancelByUser")
        kinds = [line.kind for line in venue.lines() if line.kind in {"place", "amend", "cancel"}]
        assert kinds == ["place", "amend", "cancel"]


@EACH
@story
async def test_a_fill_shows_in_executions_balance_and_position(category: str) -> None:
    async with traded(category) as (venue, client, _):
        terms = {"side": "Buy", "orderType": "Market", "qty": QTY[category]}
        await client.order(
            "place_order", **terms, **({"marketUnit": "baseCoin"} if category == "spot" else {})
        )
        rows = (await client.order("get_executions"))["list"]
        assert sum(Decimal(row["execQty"]) for row in rows) == Decimal(QTY[category])
        assert {(row["side"], row["isMaker"], row["execType"]) for row in rows} == {("Buy", False, "Trade")}
        wallet = await asyncio.to_thread(client.http.get_wallet_balance, accountType="UNIFIED")
        (account,) = wallet["result"]["list"]
        told = {row["coin"]: Decimal(row["walletBalance"]) for row in account["coin"]}
        assert told == venue.exchange.account("demo/unified").balances
        if category != "spot":
            (position,) = (await client.order("get_positions"))["list"]
            assert (position["side"], Decimal(position["size"])) == ("Buy", Decimal(QTY[category]))


@story
async def test_a_spot_market_buy_is_sized_in_quote_currency_by_default() -> None:
    async with traded("spot") as (venue, client, _):
        await client.order("place_order", side="Buy", orderType="Market", qty="120")
        rows = (await client.order("get_executions"))["list"]
        spent = sum(Decimal(row["execValue"]) for row in rows)
        assert Decimal(119) < spent <= Decimal(121)
        assert {row["feeCurrency"] for row in rows} == {"BTC"}
        assert venue.lines("place")[0].verdict == "accepted"


@story
async def test_batches_run_in_parallel_lists_and_cancel_all_ends_them() -> None:
    async with traded("linear") as (_, client, price):
        one = {"symbol": "BTCUSDT", "side": "Buy", "orderType": "Limit", "qty": "0.01", "price": price}
        answer = await asyncio.to_thread(
            client.http.place_batch_order, category="linear", request=[one, one | {"qty": "0.00001"}, one]
        )
        assert [row["code"] for row in answer["retExtInfo"]["list"]] == [0, 10001, 0]
        assert [bool(row["orderId"]) for row in answer["result"]["list"]] == [True, False, True]
        assert len((await client.order("cancel_all_orders"))["list"]) == 2
        assert (await client.order("get_open_orders"))["list"] == []


@story
async def test_refusals_bear_the_venues_codes() -> None:
    async with traded("linear") as (venue, client, price):
        terms = {"side": "Buy", "orderType": "Limit", "price": price}
        for fields, code in (
            ({"qty": "5000"}, 110007),
            ({"qty": "0.0000001"}, 10001),
            ({"qty": "0.01", "orderLinkId": "x" * 37}, 10001),
        ):
            with pytest.raises(exceptions.InvalidRequestError) as caught:
                await client.order("place_order", **terms, **fields)
            assert caught.value.status_code == code
        with pytest.raises(exceptions.InvalidRequestError) as caught:
            await client.order("cancel_order", orderLinkId="nobody")
        assert caught.value.status_code == 110001
        assert {line.verdict for line in venue.lines("place")} == {"refused"}


@EACH
@story
async def test_public_streams(category: str) -> None:
    async with traded(category) as (venue, _, _price):
        with sockets_led_to(venue):
            stream = await asyncio.to_thread(unified_trading.WebSocket, channel_type=category, **ONCE)
            books, trades, tickers = Heard(), Heard(), Heard()
            try:
                await asyncio.to_thread(stream.orderbook_stream, 50, SYMBOLS[category], books)
                await asyncio.to_thread(stream.trade_stream, SYMBOLS[category], trades)
                await asyncio.to_thread(stream.ticker_stream, SYMBOLS[category], tickers)
                first = await books.first()
                assert first["type"] == "snapshot" and len(first["data"]["b"]) == 5
                later = await books.first()  # pybit keeps the book and hands over all of it
                assert later["data"]["u"] == first["data"]["u"] + 1
                assert (await trades.first())["data"][0]["s"] == SYMBOLS[category]
                assert (await tickers.first())["data"]["symbol"] == SYMBOLS[category]
            finally:
                await asyncio.to_thread(stream.exit)


@EACH
@story
async def test_private_streams_and_orders_over_the_websocket(category: str) -> None:
    async with traded(category) as (venue, _, price):
        with sockets_led_to(venue):
            private = await asyncio.to_thread(
                unified_trading.WebSocket,
                channel_type="private",
                **ONCE,
                api_key=DEMO.api_key,
                api_secret=DEMO.secret,
            )
            orders, executions, wallets = Heard(), Heard(), Heard()
            await asyncio.to_thread(private.order_stream, orders)
            await asyncio.to_thread(private.execution_stream, executions)
            await asyncio.to_thread(private.wallet_stream, wallets)
            await eventually(lambda: len(venue.lines("subscribe")) >= 3, "subscribed")
            trading = await asyncio.to_thread(
                unified_trading.WebSocketTrading, **ONCE, api_key=DEMO.api_key, api_secret=DEMO.secret
            )
            answers = Heard()
            try:
                terms = {
                    "category": category,
                    "symbol": SYMBOLS[category],
                    "side": "Buy",
                    "qty": QTY[category],
                }
                await asyncio.to_thread(
                    trading.place_order, answers, **terms, orderType="Limit", price=price, orderLinkId="w1"
                )
                placed = await answers.first()
                assert (placed["retCode"], placed["data"]["orderLinkId"]) == (0, "w1")
                assert (await orders.first())["data"][0]["orderStatus"] == "New"
                await asyncio.to_thread(
                    trading.cancel_order,
                    answers,
                    category=category,
                    symbol=SYMBOLS[category],
                    orderLinkId="w1",
                )
                assert (await answers.first())["op"] == "order.cancel"
                assert (await orders.first())["data"][0]["orderStatus"] == "Cancelled"
                high = str(Decimal(price) + 500)
                await asyncio.to_thread(
                    trading.place_order, answers, **terms, orderType="Limit", price=high, timeInForce="IOC"
                )
                filled = (await executions.first())["data"][0]
                assert (filled["symbol"], filled["side"], filled["category"]) == (
                    SYMBOLS[category],
                    "Buy",
                    category,
                )
                assert (await wallets.first())["data"][0]["accountType"] == "UNIFIED"
            finally:
                await asyncio.to_thread(private.exit)
                await asyncio.to_thread(trading.exit)
