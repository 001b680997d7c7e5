"""python-binance, unmodified but for its base URLs, trades at the venue's Binance protocol."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from binance_clients import FUTURES_PRICE, SPOT_PRICE, led_to, still_venue
from protocol_tools import Venue

binance = pytest.importorskip("binance", reason="python-binance is a development dependency; install .[dev]")


@asynccontextmanager
async def desk() -> AsyncIterator[tuple[Venue, Any]]:
    async with still_venue() as venue:
        urls = ("API_URL", "MARGIN_API_URL", "FUTURES_URL", "WS_API_URL", "WS_FUTURES_URL")
        based = type(
            "Based",
            (binance.AsyncClient,),
            {name: led_to(getattr(binance.AsyncClient, name), venue) for name in urls},
        )
        client = based("demo-key", "demo-secret")
        try:
            yield venue, client
        finally:
            await client.close_connection()


def sockets(client: Any, venue: Venue) -> Any:
    names = ("STREAM_URL", "FSTREAM_URL")
    manager = type(
        "Based",
        (binance.BinanceSocketManager,),
        {name: led_to(getattr(binance.BinanceSocketManager, name), venue) for name in names},
    )
    return manager(client)


async def test_spot_orders_from_placing_to_cancelling() -> None:
    async with desk() as (_venue, client):
        await client.ping()
        info = await client.get_symbol_info("BTCUSDT")
        order = await client.order_limit_buy(symbol="BTCUSDT", quantity="1", price=str(SPOT_PRICE - 100))
        [found] = await client.get_open_orders(symbol="BTCUSDT")
        replaced = await client.cancel_replace_order(
            symbol="BTCUSDT",
            side="BUY",
            type="LIMIT",
            timeInForce="GTC",
            quantity="2",
            price=str(SPOT_PRICE - 50),
            cancelReplaceMode="STOP_ON_FAILURE",
            cancelOrderId=order["orderId"],
        )
        number = replaced["newOrderResponse"]["orderId"]
        cancelled = await client.cancel_order(symbol="BTCUSDT", orderId=number)
        with pytest.raises(binance.BinanceAPIException) as refused:
            await client.cancel_order(symbol="BTCUSDT", orderId=number)

        assert info["status"] == "TRADING" and found["orderId"] == order["orderId"]
        assert order["clientOrderId"].startswith("x-HNA2TXFJ")
        assert cancelled["status"] == "CANCELED" and refused.value.code == -2011


async def test_spot_account_trades_and_book() -> None:
    async with desk() as (_venue, client):
        bought = await client.order_market_buy(symbol="BTCUSDT", quantity="0.5")
        ioc = await client.create_order(
            symbol="BTCUSDT", side="BUY", type="LIMIT", timeInForce="IOC", quantity=0.001, price=50.0e3 / 2.5
        )
        btc = await client.get_asset_balance(asset="BTC")
        [trade] = await client.get_my_trades(symbol="BTCUSDT")
        book = await client.get_order_book(symbol="BTCUSDT")
        tops = await client.get_orderbook_ticker(symbol="BTCUSDT")

        assert bought["status"] == "FILLED" and ioc["status"] == "EXPIRED"
        assert float(btc["free"]) == pytest.approx(1000.5 - 0.001)
        assert (trade["orderId"], float(trade["price"])) == (bought["orderId"], SPOT_PRICE + 10)
        assert float(book["asks"][0][1]) == 4.5 and float(tops["bidPrice"]) == SPOT_PRICE - 10


async def test_spot_websocket_api_and_refusals() -> None:
    async with desk() as (_venue, client):
        placed = await client.ws_create_order(
            symbol="BTCUSDT",
            side="BUY",
            type="LIMIT",
            timeInForce="GTC",
            quantity="1",
            price=str(SPOT_PRICE - 100),
        )
        found = await client.ws_get_order(symbol="BTCUSDT", orderId=placed["orderId"])
        cancelled = await client.ws_cancel_order(symbol="BTCUSDT", orderId=placed["orderId"])
        client.API_SECRET = "guess"
        with pytest.raises(binance.BinanceAPIException) as refused:
            await client.get_account()

        assert found["status"] == "NEW" and cancelled["status"] == "CANCELED" and refused.value.code == -1022


async def test_futures_orders_positions_and_settings() -> None:
    async with desk() as (_venue, client):
        await client.futures_change_leverage(symbol="BTCUSDT", leverage=5)
        order = await client.futures_create_order(
            symbol="BTCUSDT",
            side="BUY",
            type="LIMIT",
            timeInForce="GTX",
            quantity="1",
            price=str(FUTURES_PRICE - 100),
        )
        moved = await client.futures_modify_order(
            symbol="BTCUSDT",
            orderId=order["orderId"],
            side="BUY",
            quantity="2",
            price=str(FUTURES_PRICE - 50),
        )
        [found] = await client.futures_get_open_orders(symbol="BTCUSDT")
        cancelled = await client.futures_cancel_order(symbol="BTCUSDT", orderId=order["orderId"])
        await client.futures_create_order(symbol="BTCUSDT", side="BUY", type="MARKET", quantity="1")
        [position] = await client.futures_position_information(symbol="BTCUSDT")
        batch = await client.futures_place_batch_order(
            batchOrders=[
                {
                    "symbol": "BTCUSDT",
                    "side": "BUY",
                    "type": "LIMIT",
                    "timeInForce": "GTC",
                    "quantity": "1",
                    "price": "20000",
                }
            ]
        )
        armed = await client.futures_countdown_cancel_all(symbol="BTCUSDT", countdownTime=60000)
        await client.futures_countdown_cancel_all(symbol="BTCUSDT", countdownTime=0)
        await client.futures_create_order(
            symbol="BTCUSDT", side="SELL", type="MARKET", quantity="1", reduceOnly="true"
        )
        trades = await client.futures_account_trades(symbol="BTCUSDT")
        [usdt] = [row for row in await client.futures_account_balance() if row["asset"] == "USDT"]
        account = await client.futures_account()

        assert (moved["price"], moved["origQty"], found["orderId"]) == (
            f"{FUTURES_PRICE - 50}.0",
            "2.000",
            order["orderId"],
        )
        assert cancelled["status"] == "CANCELED" and batch[0]["status"] == "NEW"
        assert (position["positionAmt"], float(position["entryPrice"])) == ("1.000", FUTURES_PRICE + 10)
        assert armed["countdownTime"] == "60000"
        assert [float(trade["realizedPnl"]) for trade in trades] == [0, -20]
        assert float(usdt["balance"]) < 1_000_000 - 20 and account["canTrade"]


async def test_market_and_user_sockets() -> None:
    async with desk() as (venue, client):
        manager = sockets(client, venue)
        async with manager.depth_socket("BTCUSDT") as depth, manager.trade_socket("BTCUSDT") as trades:
            bought = await client.order_market_buy(symbol="BTCUSDT", quantity="0.5")
            change, trade = await depth.recv(), await trades.recv()
        async with manager.user_socket() as user:
            placed = await client.order_limit_buy(symbol="BTCUSDT", quantity="1", price=str(SPOT_PRICE - 100))
            report = await user.recv()

        assert change["e"] == "depthUpdate" and float(change["a"][0][0]) == SPOT_PRICE + 10
        assert (trade["e"], float(trade["q"])) == ("trade", 0.5) and bought["status"] == "FILLED"
        assert (report["e"], report["i"], report["X"]) == ("executionReport", placed["orderId"], "NEW")


async def test_futures_sockets() -> None:
    async with desk() as (venue, client):
        manager = sockets(client, venue)
        async with manager.futures_user_socket() as user, manager.futures_depth_socket("BTCUSDT") as depth:
            placed = await client.futures_create_order(
                symbol="BTCUSDT",
                side="BUY",
                type="LIMIT",
                timeInForce="GTC",
                quantity="1",
                price=str(FUTURES_PRICE),
            )
            update, partial = await user.recv(), await depth.recv()

        assert (update["e"], update["o"]["i"], update["o"]["X"]) == (
            "ORDER_TRADE_UPDATE",
            placed["orderId"],
            "NEW",
        )
        assert float(partial["data"]["b"][0][0]) == FUTURES_PRICE
