"""ccxt, REST and WebSocket, unmodified but for its base URL, trades at the venue's Binance protocol."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from binance_clients import FUTURES_PRICE, SPOT_PRICE, led_to, still_venue
from protocol_tools import Binance, Venue

ccxt = pytest.importorskip("ccxt", reason="ccxt is a development dependency; install .[dev]")
pro = pytest.importorskip("ccxt.pro", reason="ccxt is a development dependency; install .[dev]")

SPOT, SWAP = "BTC/USDT", "BTC/USDT:USDT"
EACH = pytest.mark.parametrize(("symbol", "price"), [(SPOT, SPOT_PRICE), (SWAP, FUTURES_PRICE)])


@asynccontextmanager
async def ccxt_at(venue: Venue, name: str = "demo") -> AsyncIterator[Any]:
    client = pro.binance(
        {
            "apiKey": f"{name}-key",
            "secret": f"{name}-secret",
            "enableRateLimit": False,
            "options": {"warnOnFetchOpenOrdersWithoutSymbol": False},
        }
    )
    client.urls["api"] = led_to(client.urls["api"], venue, is_ccxt=True)
    try:
        await client.load_markets()
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def desk() -> AsyncIterator[tuple[Venue, Any]]:
    async with still_venue() as venue, ccxt_at(venue) as client:
        yield venue, client


@EACH
async def test_markets_are_read_as_they_are(symbol: str, price: int) -> None:
    async with desk() as (venue, client):
        market = client.market(symbol)
        ours = venue.running.exchange.instrument("BTC-USDT" if symbol == SPOT else "BTC-USDT-PERP")

        assert market["active"] and (market["spot"], bool(market["linear"])) == (
            symbol == SPOT,
            symbol == SWAP,
        )
        assert market["precision"]["price"] == float(ours.tick_size)
        assert market["precision"]["amount"] == float(ours.lot_size)
        assert market["limits"]["amount"]["min"] == float(ours.min_qty)
        assert market["limits"]["cost"]["min"] == float(ours.min_notional)
        assert set(client.symbols) == {SPOT, "ETH/USDT", SWAP}


@EACH
async def test_order_is_placed_amended_and_cancelled(symbol: str, price: int) -> None:
    async with desk() as (_venue, client):
        placed = await client.create_order(symbol, "limit", "buy", 1, price - 100, {"clientOrderId": "mm1"})
        [found] = await client.fetch_open_orders(symbol)
        amended = await client.edit_order(placed["id"], symbol, "limit", "buy", 2, price - 50)
        [after] = await client.fetch_open_orders(symbol)
        cancelled = await client.cancel_order(amended["id"], symbol)
        closed = await client.fetch_order(amended["id"], symbol)

        assert (found["id"], found["clientOrderId"], found["status"]) == (placed["id"], "mm1", "open")
        assert (after["price"], after["amount"]) == (price - 50, 2)
        assert (amended["id"] == placed["id"]) is (symbol == SWAP), "spot replaces, the futures modify"
        assert cancelled["status"] == closed["status"] == "canceled"
        assert await client.fetch_open_orders(symbol) == []


@EACH
async def test_order_types_are_taken_for_what_they_are(symbol: str, price: int) -> None:
    async with desk() as (_venue, client):
        maker = await client.create_order(symbol, "limit", "buy", 1, price - 20, {"postOnly": True})
        ioc = await client.create_order(symbol, "limit", "buy", 6, price + 10, {"timeInForce": "IOC"})
        market = await client.create_order(symbol, "market", "sell", 1)
        with pytest.raises(ccxt.ExchangeError):
            await client.create_order(symbol, "limit", "sell", 1, price - 200, {"postOnly": True})

        assert (await client.fetch_order(maker["id"], symbol))["status"] == "open"
        assert ioc["filled"] == 5 and ioc["status"] == "expired"
        assert market["filled"] == 1 and market["status"] == "closed"


@EACH
async def test_trades_balance_and_book_are_read_back(symbol: str, price: int) -> None:
    async with desk() as (_venue, client):
        kind = {"type": "spot" if symbol == SPOT else "swap"}
        before = await client.fetch_balance(kind)
        order = await client.create_order(symbol, "market", "buy", 1)
        [trade] = await client.fetch_my_trades(symbol)
        after = await client.fetch_balance(kind)
        book = await client.fetch_order_book(symbol, 5)
        trades = await client.fetch_trades(symbol)
        ticker = await client.fetch_ticker(symbol)

        assert (trade["order"], trade["side"], trade["price"], trade["amount"]) == (
            order["id"],
            "buy",
            price + 10,
            1,
        )
        assert trade["takerOrMaker"] == "taker" and trade["fee"]["currency"] == (
            "BTC" if symbol == SPOT else "USDT"
        )
        if symbol == SPOT:
            assert after["BTC"]["total"] == pytest.approx(before["BTC"]["total"] + 1 - 0.002)
            assert after["USDT"]["total"] == before["USDT"]["total"] - price - 10
        else:
            loss = 10 + trade["fee"]["cost"]  # bought 10 above the middle, which the position is marked at
            assert after["USDT"]["total"] == pytest.approx(before["USDT"]["total"] - loss, abs=1e-6)
            assert after["USDT"]["used"] > 0
        assert book["asks"][0] == [price + 10, 4] and book["bids"][0] == [price - 10, 5]
        assert trades[-1]["price"] == price + 10 and ticker["last"] == price + 10


@EACH
async def test_everything_is_cancelled_at_once(symbol: str, price: int) -> None:
    async with desk() as (_venue, client):
        for n in range(3):
            await client.create_order(symbol, "limit", "buy", 1, price - 100 - n)
        await client.cancel_all_orders(symbol)

        assert await client.fetch_open_orders(symbol) == []


@EACH
async def test_refusals_reach_the_caller_as_what_they_are(symbol: str, price: int) -> None:
    async with desk() as (_venue, client):
        with pytest.raises(ccxt.OrderNotFound):
            await client.cancel_order("999", symbol)
        with pytest.raises(ccxt.OrderNotFound):
            await client.fetch_order("999", symbol)
        # Which of the futures' codes means what, ccxt decides by Binance's own host name.
        poor = ccxt.InsufficientFunds if symbol == SPOT else ccxt.ExchangeError
        with pytest.raises(poor, match="insufficient"):
            await client.create_order(symbol, "limit", "buy", 4000, price - 100)
        client.secret = "guess"
        with pytest.raises(ccxt.AuthenticationError):
            await client.fetch_balance({"type": "spot" if symbol == SPOT else "swap"})
        client.secret = "demo-secret"
        client.options["timeDifference"] = 10_000
        with pytest.raises(ccxt.InvalidNonce):
            await client.create_order(symbol, "limit", "buy", 1, price - 100)


async def test_positions_leverage_margin_and_batches_of_the_futures() -> None:
    async with desk() as (_venue, client):
        await client.set_leverage(10, SWAP)
        await client.set_margin_mode("isolated", SWAP)
        orders = [
            {"symbol": SWAP, "type": "limit", "side": "buy", "amount": 1, "price": FUTURES_PRICE - 100 - n}
            for n in range(3)
        ]
        placed = await client.create_orders(orders)
        cancelled = await client.cancel_orders([order["id"] for order in placed], SWAP)
        await client.create_order(SWAP, "market", "buy", 2)
        [long] = await client.fetch_positions([SWAP])
        await client.create_order(SWAP, "market", "sell", 2, None, {"reduceOnly": True})
        with pytest.raises(ccxt.ExchangeError):
            await client.create_order(SWAP, "market", "sell", 1, None, {"reduceOnly": True})
        funding = await client.fetch_funding_rate(SWAP)

        assert [order["status"] for order in placed] == ["open"] * 3
        assert [order["status"] for order in cancelled] == ["canceled"] * 3
        assert (long["side"], long["contracts"], long["entryPrice"]) == ("long", 2, FUTURES_PRICE + 10)
        assert [each for each in await client.fetch_positions([SWAP]) if each["contracts"]] == []
        assert funding["fundingRate"] == 0.0001 and funding["markPrice"] == FUTURES_PRICE


@EACH
async def test_public_streams_tell_book_top_and_trades(symbol: str, price: int) -> None:
    async with desk() as (venue, client):
        other = Binance(venue, "other")
        place = other.place if symbol == SPOT else other.place_usdm

        async def trade_until(told: "asyncio.Task[Any]") -> Any:
            # Streams tell what happens from then on, and when they begin only the client knows.
            while not told.done():
                await place("BUY", str(price - 9), "0.001")
                await client.create_order(symbol, "market", "sell", 0.001)
            return await told

        book = await trade_until(asyncio.create_task(client.watch_order_book(symbol)))
        trades = await trade_until(asyncio.create_task(client.watch_trades(symbol)))
        tops = await trade_until(asyncio.create_task(client.watch_bids_asks([symbol])))

        assert book["asks"][0] == [price + 10, 5] and book["bids"][-1] == [price - 10, 5]
        assert (trades[0]["price"], trades[0]["amount"], trades[0]["side"]) == (price - 9, 0.001, "sell")
        assert tops[symbol]["ask"] == price + 10 and tops[symbol]["bid"] in (price - 10, price - 9)


@EACH
async def test_private_streams_tell_orders_trades_and_balances(symbol: str, price: int) -> None:
    async with desk() as (_venue, client):
        kind = {"type": "spot" if symbol == SPOT else "swap"}

        async def next_of(watched: "asyncio.Task[Any]") -> Any:
            while not watched.done():
                order = await client.create_order(symbol, "limit", "buy", 1, price - 100)
                await client.cancel_order(order["id"], symbol)
            return await watched

        await next_of(asyncio.create_task(client.watch_orders(symbol)))
        seen: dict[str, list[str]] = {}

        async def collect() -> None:
            while "closed" not in seen.get("mine", []):
                for order in await client.watch_orders(symbol):
                    if order["clientOrderId"] == "mine":
                        seen.setdefault("mine", []).append(order["status"])

        collected = asyncio.create_task(collect())
        fills = asyncio.create_task(client.watch_my_trades(symbol))
        balance = asyncio.create_task(client.watch_balance(kind))
        await client.create_order(symbol, "limit", "buy", 2, price + 10, {"clientOrderId": "mine"})
        await collected
        [fill] = [each for each in await fills if each["amount"] == 2]

        assert seen["mine"][-1] == "closed" and fill["price"] == price + 10
        while not balance.done():
            await client.create_order(symbol, "market", "buy", 0.001)
        assert (await balance)["USDT"]["total"] < 1_000_000


async def test_positions_are_streamed() -> None:
    async with desk() as (_venue, client):
        watched = asyncio.create_task(client.watch_positions([SWAP]))
        while not watched.done():
            await client.create_order(SWAP, "market", "buy", 0.001)
        [position] = await watched

        assert position["symbol"] == SWAP and position["side"] == "long"


@EACH
async def test_orders_go_over_the_websocket_api(symbol: str, price: int) -> None:
    async with desk() as (venue, client):
        placed = await client.create_order_ws(symbol, "limit", "buy", 1, price - 100)
        edited = await client.edit_order_ws(placed["id"], symbol, "limit", "buy", 2, price - 50)
        found = await client.fetch_order_ws(edited["id"], symbol)
        cancelled = await client.cancel_order_ws(edited["id"], symbol)
        with pytest.raises(ccxt.OrderNotFound):
            await client.cancel_order_ws(edited["id"], symbol)

        assert (found["amount"], found["price"], found["status"]) == (2, price - 50, "open")
        assert cancelled["status"] == "canceled"
        methods = [
            line.method for line in venue.lines(account="demo", transport="ws") if line.kind != "login"
        ]
        replace = ["order.cancelReplace"] * 2 if symbol == SPOT else ["order.modify"]
        assert methods == ["order.place", *replace, "order.status", "order.cancel", "order.cancel"]
