"""ccxt, REST and WebSocket, unmodified but for its base URL, trades at the venue's Bybit protocol."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from bybit_venue import DEMO, OTHER, BybitVenue, bybit_venue
from exchange_tools import eventually, story

pro = pytest.importorskip("ccxt.pro", reason="ccxt is a development dependency; install .[dev]")

SPOT, LINEAR, INVERSE = "BTC/USDT", "BTC/USDT:USDT", "BTC/USD:BTC"
OURS = {SPOT: "BTC-USDT", LINEAR: "BTC-USDT-PERP", INVERSE: "BTC-USD-PERP"}
AMOUNT = {SPOT: 0.01, LINEAR: 0.01, INVERSE: 100.0}
EACH = pytest.mark.parametrize("symbol", [SPOT, LINEAR, INVERSE])
WAIT_S = 20.0


@asynccontextmanager
async def client_at(venue: BybitVenue, account: Any = DEMO) -> AsyncIterator[Any]:
    """Return ccxt's Bybit client with every URL led to the venue."""
    client = pro.bybit({"apiKey": account.api_key, "secret": account.secret, "enableRateLimit": False})
    client.urls["api"] = _led_to(client.urls["api"], venue)
    try:
        yield client
    finally:
        await client.close()


def _led_to(urls: Any, venue: BybitVenue) -> Any:
    if isinstance(urls, dict):
        return {name: _led_to(url, venue) for name, url in urls.items()}
    scheme, _, rest = urls.partition("://")
    base = venue.ws_url if scheme == "wss" else venue.rest_url
    _, slash, path = rest.partition("/")
    return f"{base}{slash}{path}"


@asynccontextmanager
async def traded(symbol: str) -> AsyncIterator[tuple[BybitVenue, Any, float]]:
    """Open a venue and a client; the price is one that rests below the market."""
    async with bybit_venue() as venue, client_at(venue) as client:
        await client.load_markets()
        yield venue, client, float(venue.best(OURS[symbol])[0]) - 100


@EACH
@story
async def test_markets_are_read_as_they_are(symbol: str) -> None:
    async with traded(symbol) as (venue, client, _):
        market, ours = client.market(symbol), venue.exchange.instrument(OURS[symbol])
        assert market["active"]
        assert market["precision"]["price"] == float(ours.tick_size)
        assert market["precision"]["amount"] == float(ours.lot_size)
        assert market["limits"]["amount"]["min"] == float(ours.min_qty)
        assert (market["spot"], market["linear"], market["inverse"]) == tuple(
            kind == symbol if kind == SPOT else (kind == symbol or None if symbol == SPOT else kind == symbol)
            for kind in (SPOT, LINEAR, INVERSE)
        )


@EACH
@story
async def test_an_order_is_placed_found_amended_and_cancelled(symbol: str) -> None:
    async with traded(symbol) as (venue, client, price):
        placed = await client.create_order(
            symbol, "limit", "buy", AMOUNT[symbol], price, {"clientOrderId": "mm-0001_a"}
        )
        (found,) = await client.fetch_open_orders(symbol)
        assert (found["id"], found["clientOrderId"]) == (placed["id"], "mm-0001_a")
        assert (found["price"], found["amount"], found["status"]) == (price, AMOUNT[symbol], "open")
        await client.edit_order(placed["id"], symbol, "limit", "buy", AMOUNT[symbol] * 2, price - 1)
        edited = await client.fetch_open_order(placed["id"], symbol)
        assert (edited["price"], edited["amount"]) == (price - 1, AMOUNT[symbol] * 2)
        await client.cancel_order(placed["id"], symbol)
        assert await client.fetch_open_orders(symbol) == []
        closed = await client.fetch_order(placed["id"], symbol, {"acknowledged": True})
        assert closed["status"] == "canceled"
        with pytest.raises(pro.OrderNotFound):
            await client.cancel_order(placed["id"], symbol)
        kinds = [line.kind for line in venue.lines() if line.kind in {"place", "amend", "cancel"}]
        assert kinds == ["place", "amend", "cancel", "cancel"]


@EACH
@story
async def test_a_fill_shows_in_trades_balance_and_position(symbol: str) -> None:
    async with traded(symbol) as (venue, client, _):
        before = await client.fetch_balance()
        await client.create_order(symbol, "market", "buy", AMOUNT[symbol])
        trades = await client.fetch_my_trades(symbol)
        assert sum(Decimal(repr(trade["amount"])) for trade in trades) == Decimal(repr(AMOUNT[symbol]))
        assert {(trade["side"], trade["takerOrMaker"]) for trade in trades} == {("buy", "taker")}
        assert all(trade["fee"]["cost"] > 0 for trade in trades)
        after = await client.fetch_balance()
        held = venue.exchange.account("demo/unified").balances
        assert {coin: after["total"][coin] for coin in held} == {
            coin: float(total) for coin, total in held.items()
        }
        assert before["total"] != after["total"]
        if symbol != SPOT:
            (position,) = await client.fetch_positions([symbol])
            assert (position["side"], position["contracts"]) == ("long", AMOUNT[symbol])
            assert position["entryPrice"] == pytest.approx(trades[0]["price"], rel=1e-6)


@EACH
@story
async def test_the_book_the_trades_and_the_ticker_are_the_markets(symbol: str) -> None:
    async with traded(symbol) as (venue, client, _):
        book = await client.fetch_order_book(symbol, 5)
        bids = [price for price, _ in book["bids"]]
        asks = [price for price, _ in book["asks"]]
        assert bids == sorted(bids, reverse=True) and asks == sorted(asks) and bids[0] < asks[0]
        assert len(bids) == len(asks) == 5
        await client.create_order(symbol, "market", "sell", AMOUNT[symbol])
        assert [trade for trade in await client.fetch_trades(symbol) if trade["side"] == "sell"]
        ticker = await client.fetch_ticker(symbol)
        assert ticker["bid"] < ticker["ask"] and ticker["last"] > 0
        assert (
            abs(await client.fetch_time() - venue.server.courses["bybit"].front.desk.now_ns() / 1e6) < 10_000
        )


@EACH
@story
async def test_terms_of_orders_are_understood(symbol: str) -> None:
    async with traded(symbol) as (_, client, price):
        maker = await client.create_order(
            symbol, "limit", "buy", AMOUNT[symbol], price + 500, {"postOnly": True}
        )
        ended = await client.fetch_order(maker["id"], symbol, {"acknowledged": True})
        assert (ended["status"], ended["filled"]) == ("canceled", 0)
        for time_in_force in ("IOC", "FOK"):
            order = await client.create_order(
                symbol, "limit", "buy", AMOUNT[symbol], price, {"timeInForce": time_in_force}
            )
            assert (await client.fetch_order(order["id"], symbol, {"acknowledged": True}))[
                "status"
            ] == "canceled"


@story
async def test_batches_and_cancelling_all() -> None:
    async with traded(LINEAR) as (_, client, price):
        orders = [
            {"symbol": LINEAR, "type": "limit", "side": "buy", "amount": 0.01, "price": price - step}
            for step in (0, 1, 2)
        ]
        placed = await client.create_orders([*orders, orders[0] | {"amount": 1e7}])
        assert len(await client.fetch_open_orders(LINEAR)) == 3
        await client.cancel_orders([placed[0]["id"]], LINEAR)
        assert len(await client.fetch_open_orders(LINEAR)) == 2
        await client.cancel_all_orders(LINEAR)
        assert await client.fetch_open_orders(LINEAR) == []


@story
async def test_leverage_and_modes() -> None:
    async with traded(LINEAR) as (_, client, _price):
        await client.set_leverage(7, LINEAR)
        await client.create_order(LINEAR, "market", "buy", 0.01)
        (position,) = await client.fetch_positions([LINEAR])
        assert position["leverage"] == 7
        assert position["initialMargin"] == pytest.approx(position["notional"] / 7, rel=1e-3)
        with pytest.raises(pro.BadRequest):
            await client.set_leverage(7, LINEAR)
        fee = await client.fetch_trading_fee(LINEAR)
        assert (fee["maker"], fee["taker"]) == (0.0002, 0.0005)


@story
async def test_bad_requests_are_refused_with_the_venues_own_codes() -> None:
    async with traded(LINEAR) as (venue, client, price):
        with pytest.raises(pro.InsufficientFunds, match="110007"):
            await client.create_order(LINEAR, "limit", "buy", 5_000.0, price)
        with pytest.raises(pro.BadRequest, match="10001"):
            await client.create_order(LINEAR, "limit", "buy", 0.01, price, {"orderLinkId": "not valid!"})
        await client.create_order(LINEAR, "limit", "buy", 0.01, price, {"clientOrderId": "twice"})
        with pytest.raises(pro.InvalidOrder, match="110072"):
            await client.create_order(LINEAR, "limit", "buy", 0.01, price, {"clientOrderId": "twice"})
        client.options["timeDifference"] = 20_000
        with pytest.raises(pro.InvalidNonce, match="10002"):
            await client.fetch_balance()
        client.options["timeDifference"] = 0
        client.secret = "wrong"
        with pytest.raises(pro.AuthenticationError, match="10004"):
            await client.fetch_balance()
        client.apiKey = "nobody"
        with pytest.raises(pro.AuthenticationError, match="10003"):
            await client.fetch_balance()
        assert venue.lines(account="demo")[-1].reason.startswith("10004")


@EACH
@story
async def test_the_watched_book_is_the_venues(symbol: str) -> None:
    async with traded(symbol) as (venue, client, _):
        for _ in range(5):
            book = await asyncio.wait_for(client.watch_order_book(symbol, 50), WAIT_S)
        assert book["bids"][0][0] < book["asks"][0][0]
        tops = await asyncio.wait_for(client.watch_bids_asks([symbol]), WAIT_S)
        assert tops[symbol]["bid"] < tops[symbol]["ask"]
        trades = await asyncio.wait_for(client.watch_trades(symbol), WAIT_S)
        assert trades[0]["price"] > 0
        ticker = await asyncio.wait_for(client.watch_ticker(symbol), WAIT_S)
        assert ticker["last"] is not None
        snapshot = venue.exchange.snapshot(OURS[symbol])
        await eventually(lambda: True)
        assert {price for price, _ in book["bids"]} & {price for price, _ in snapshot.bids}


@EACH
@story
async def test_own_orders_trades_and_balances_are_watched(symbol: str) -> None:
    async with traded(symbol) as (venue, client, price):
        orders = asyncio.ensure_future(client.watch_orders(symbol))
        trades = asyncio.ensure_future(client.watch_my_trades(symbol))
        balance = asyncio.ensure_future(client.watch_balance())
        await eventually(lambda: _watched(venue) >= {"order", "execution", "wallet"}, "subscriptions")
        placed = await client.create_order(symbol, "limit", "buy", AMOUNT[symbol], price)
        (seen,) = await asyncio.wait_for(orders, WAIT_S)
        assert (seen["id"], seen["status"], seen["price"]) == (placed["id"], "open", price)
        orders = asyncio.ensure_future(client.watch_orders(symbol))
        await client.cancel_order(placed["id"], symbol)
        assert (await asyncio.wait_for(orders, WAIT_S))[-1]["status"] == "canceled"
        await client.create_order(symbol, "market", "buy", AMOUNT[symbol])
        (trade, *_) = await asyncio.wait_for(trades, WAIT_S)
        assert (trade["symbol"], trade["side"]) == (symbol, "buy")
        assert "USDT" in await asyncio.wait_for(balance, WAIT_S)


@story
async def test_positions_are_watched() -> None:
    async with traded(LINEAR) as (venue, client, _):
        assert (
            await asyncio.wait_for(client.watch_positions([LINEAR]), WAIT_S) == []
        )  # ccxt asks over REST first
        positions = asyncio.ensure_future(client.watch_positions([LINEAR]))
        await eventually(lambda: "position" in _watched(venue), "subscription")
        await client.create_order(LINEAR, "market", "sell", 0.01)
        while True:
            (seen, *_) = await asyncio.wait_for(positions, WAIT_S)
            if seen["contracts"]:
                break
            positions = asyncio.ensure_future(client.watch_positions([LINEAR]))
        assert (seen["side"], seen["contracts"]) == ("short", 0.01)


@EACH
@story
async def test_orders_go_over_the_websocket_too(symbol: str) -> None:
    async with traded(symbol) as (venue, client, price):
        placed = await client.create_order_ws(symbol, "limit", "buy", AMOUNT[symbol], price)
        await client.edit_order_ws(placed["id"], symbol, "limit", "buy", AMOUNT[symbol] * 2, price)
        (found,) = await client.fetch_open_orders(symbol)
        assert found["amount"] == AMOUNT[symbol] * 2
        await client.cancel_order_ws(placed["id"], symbol)
        assert await client.fetch_open_orders(symbol) == []
        sent = [line.transport for line in venue.lines() if line.kind in {"place", "amend", "cancel"}]
        assert sent == ["ws", "ws", "ws"]


@story
async def test_two_accounts_trade_with_each_other() -> None:
    async with bybit_venue() as venue, client_at(venue) as maker, client_at(venue, OTHER) as taker:
        # Above whatever the market does meanwhile; the buyer takes all that is offered below, too.
        price = float(venue.best("BTC-USDT")[1]) + 20
        await maker.create_order(SPOT, "limit", "sell", 0.01, price)
        await taker.create_order(SPOT, "limit", "buy", 1.0, price + 20, {"timeInForce": "IOC"})
        sold = [t for t in await maker.fetch_my_trades(SPOT) if t["takerOrMaker"] == "maker"]
        bought = [t for t in await taker.fetch_my_trades(SPOT) if t["price"] == price]
        assert bought
        assert {trade["id"] for trade in bought} <= {trade["id"] for trade in sold}
        assert {trade["fee"]["currency"] for trade in sold} == {"USDT"}
        assert {trade["fee"]["currency"] for trade in bought} == {"BTC"}
        assert {trade["price"] for trade in sold} == {price}


def _watched(venue: BybitVenue) -> set[str]:
    return {topic for line in venue.lines("subscribe") for topic in line.asked.get("args") or ()}
