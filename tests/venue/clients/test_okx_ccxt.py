"""ccxt, REST and WebSocket, unmodified but for its base URL, trades at the venue's OKX protocol."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from exchange_tools import eventually, story
from okx_venue import DEMO, OTHER, OkxVenue, okx_venue

pro = pytest.importorskip("ccxt.pro", reason="ccxt is a development dependency; install .[dev]")

SPOT, LINEAR, INVERSE = "BTC/USDT", "BTC/USDT:USDT", "BTC/USD:BTC"
OURS = {SPOT: "BTC-USDT", LINEAR: "BTC-USDT-PERP", INVERSE: "BTC-USD-PERP"}
AMOUNT = {SPOT: 0.01, LINEAR: 2.0, INVERSE: 100.0}
"""Base currency on spot, contracts elsewhere: one is worth 0.01 BTC, or a dollar."""
EACH = pytest.mark.parametrize("symbol", [SPOT, LINEAR, INVERSE])
WAIT_S = 20.0


@asynccontextmanager
async def client_at(venue: OkxVenue, account: Any = DEMO) -> AsyncIterator[Any]:
    """Return ccxt's OKX client with every URL led to the venue."""
    keys = {"apiKey": account.api_key, "secret": account.secret, "password": account.passphrase}
    client = pro.okx({**keys, "enableRateLimit": False})
    client.urls["api"] = {"rest": venue.rest_url, "ws": f"{venue.ws_url}/ws/v5"}
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def traded(symbol: str) -> AsyncIterator[tuple[OkxVenue, Any, float]]:
    """Open a venue and a client; the price is one that rests below the market."""
    async with okx_venue() as venue, client_at(venue) as client:
        await client.load_markets()
        yield venue, client, float(venue.best(OURS[symbol])[0]) - 100


@EACH
@story
async def test_markets_are_read_as_they_are(symbol: str) -> None:
    async with traded(symbol) as (venue, client, _):
        market, ours = client.market(symbol), venue.exchange.instrument(OURS[symbol])
        per = 0.01 if symbol == LINEAR else 1.0
        assert market["active"]
        assert market["precision"]["price"] == float(ours.tick_size)
        assert market["precision"]["amount"] == pytest.approx(float(ours.lot_size) / per)
        assert market["limits"]["amount"]["min"] == pytest.approx(float(ours.min_qty) / per)
        assert (market["spot"], market["swap"]) == (symbol == SPOT, symbol != SPOT)
        assert market["contractSize"] == (None if symbol == SPOT else per)


@EACH
@story
async def test_an_order_is_placed_found_amended_and_cancelled(symbol: str) -> None:
    async with traded(symbol) as (venue, client, price):
        placed = await client.create_order(
            symbol, "limit", "buy", AMOUNT[symbol], price, {"clientOrderId": "mm0001a"}
        )
        (found,) = await client.fetch_open_orders(symbol)
        assert (found["id"], found["clientOrderId"]) == (placed["id"], "mm0001a")
        assert (found["price"], found["amount"], found["status"]) == (price, AMOUNT[symbol], "open")
        await client.edit_order(placed["id"], symbol, "limit", "buy", AMOUNT[symbol] * 2, price - 1)
        edited = await client.fetch_order(placed["id"], symbol)
        assert (edited["price"], edited["amount"]) == (price - 1, AMOUNT[symbol] * 2)
        await client.cancel_order(placed["id"], symbol)
        assert await client.fetch_open_orders(symbol) == []
        assert (await client.fetch_order(placed["id"], symbol))["status"] == "canceled"
        (done,) = await client.fetch_canceled_orders(symbol)
        assert done["id"] == placed["id"]
        kinds = [line.kind for line in venue.lines() if line.kind in ("place", "batch", "amend", "cancel")]
        assert kinds == ["batch", "amend", "cancel"]


@EACH
@story
async def test_a_trade_moves_money_and_shows_among_the_trades(symbol: str) -> None:
    async with traded(symbol) as (venue, client, price):
        before = await client.fetch_balance()
        placed = await client.create_order(symbol, "limit", "buy", AMOUNT[symbol], price + 1000)
        await eventually(venue.fills)
        trades = await client.fetch_my_trades(symbol)
        assert sum(trade["amount"] for trade in trades) == pytest.approx(AMOUNT[symbol])
        for trade in trades:
            assert (trade["order"], trade["side"]) == (placed["id"], "buy")
            assert trade["takerOrMaker"] == "taker" and trade["fee"]["cost"] > 0
        order = await client.fetch_order(placed["id"], symbol)
        assert order["status"] == "closed"
        after = await client.fetch_balance()
        if symbol == SPOT:
            gained = AMOUNT[SPOT] - sum(trade["fee"]["cost"] for trade in trades)
            assert {trade["fee"]["currency"] for trade in trades} == {"BTC"}
            assert after["BTC"]["total"] - before["BTC"]["total"] == pytest.approx(gained)
            assert await client.fetch_positions() == []
        else:
            (position,) = await client.fetch_positions([symbol])
            assert (position["contracts"], position["side"]) == (AMOUNT[symbol], "long")
            assert position["entryPrice"] == pytest.approx(order["average"], rel=1e-6)
            await client.create_order(symbol, "market", "sell", AMOUNT[symbol], None, {"reduceOnly": True})
            assert await client.fetch_positions([symbol]) == []


@story
async def test_maker_flags_do_what_they_say() -> None:
    async with traded(SPOT) as (_, client, price):
        crossing = await client.create_order(SPOT, "limit", "buy", 0.01, price + 1000, {"postOnly": True})
        ended = await client.fetch_order(crossing["id"], SPOT)
        assert (ended["status"], ended["filled"]) == ("canceled", 0)
        assert ended["info"]["cancelSource"] == "31"
        for time_in_force, source in (("IOC", "14"), ("FOK", "13")):
            missed = await client.create_order(
                SPOT, "limit", "buy", 0.01, price - 1000, {"timeInForce": time_in_force}
            )
            ended = await client.fetch_order(missed["id"], SPOT)
            assert (ended["status"], ended["info"]["cancelSource"]) == ("canceled", source)


@story
async def test_a_spot_market_buy_takes_its_size_in_base_currency_as_ccxt_says() -> None:
    async with traded(SPOT) as (venue, client, _):
        placed = await client.create_order(SPOT, "market", "buy", 0.005)
        await eventually(venue.fills)
        assert (await client.fetch_order(placed["id"], SPOT))["filled"] == pytest.approx(0.005)


@story
async def test_several_orders_go_in_one_request_and_each_has_its_own_outcome() -> None:
    async with traded(LINEAR) as (_, client, price):
        orders = [
            {"symbol": LINEAR, "type": "limit", "side": "buy", "amount": 1, "price": price - at}
            for at in range(3)
        ]
        placed = await client.create_orders(orders)
        assert len(await client.fetch_open_orders(LINEAR)) == 3
        await client.cancel_orders([order["id"] for order in placed], LINEAR)
        assert await client.fetch_open_orders(LINEAR) == []


@story
async def test_leverage_and_fees_and_time_are_answered() -> None:
    async with traded(LINEAR) as (venue, client, _):
        await client.set_leverage(5, LINEAR, {"mgnMode": "cross"})
        assert (await client.fetch_leverage(LINEAR))["longLeverage"] == 5
        fee = await client.fetch_trading_fee(LINEAR)
        ours = venue.exchange.instrument("BTC-USDT-PERP")
        assert (fee["maker"], fee["taker"]) == (float(ours.maker_fee), float(ours.taker_fee))
        assert abs(await client.fetch_time() - client.milliseconds()) < 60_000
        assert (await client.fetch_status())["status"] == "ok"


@EACH
@story
async def test_public_data_is_read(symbol: str) -> None:
    async with traded(symbol) as (venue, client, _):
        book = await client.fetch_order_book(symbol, 5)
        assert book["bids"][0][0] < book["asks"][0][0] and len(book["bids"]) <= 5
        await eventually(lambda: venue.server.courses["okx"].front.desk.feed[OURS[symbol]].trades)
        trades = await client.fetch_trades(symbol)
        assert trades and trades[0]["symbol"] == symbol
        assert (await client.fetch_ticker(symbol))["last"] > 0


REFUSALS = [
    ({"apiKey": "nobody"}, "AuthenticationError"),
    ({"secret": "wrong"}, "AuthenticationError"),
    ({"password": "wrong"}, "AuthenticationError"),
]


@pytest.mark.parametrize(("keys", "error"), REFUSALS, ids=[next(iter(keys)) for keys, _ in REFUSALS])
def test_who_cannot_prove_who_he_is_is_refused(keys: dict[str, str], error: str) -> None:
    @story
    async def run() -> None:
        async with okx_venue() as venue, client_at(venue) as client:
            for name, value in keys.items():
                setattr(client, name, value)
            with pytest.raises(getattr(pro, error)):
                await client.fetch_balance()

    run()


@story
async def test_what_cannot_be_is_refused_in_the_venues_own_words() -> None:
    async with traded(SPOT) as (_, client, price):
        with pytest.raises(pro.InsufficientFunds):
            await client.create_order(SPOT, "limit", "buy", 1_000_000, price)
        await client.create_order(SPOT, "limit", "buy", 0.01, price, {"clientOrderId": "twice"})
        with pytest.raises(pro.InvalidOrder, match="51016"):
            await client.create_order(SPOT, "limit", "buy", 0.01, price, {"clientOrderId": "twice"})
        with pytest.raises(pro.OrderNotFound):
            await client.cancel_order("2600000000000099999", SPOT)
        with pytest.raises(pro.OrderNotFound):
            await client.fetch_order("2600000000000099999", SPOT)


# -- WebSocket -------------------------------------------------------------------------------------


@EACH
@story
async def test_the_watched_book_is_the_venues(symbol: str) -> None:
    async with traded(symbol) as (venue, client, _):
        per = Decimal("0.01") if symbol == LINEAR else Decimal(1)

        async def agrees() -> bool:
            book = await client.watch_order_book(symbol)
            found = venue.exchange.snapshot(OURS[symbol])
            ours = [(price, size / float(per)) for price, size in found.bids[:5]]
            return [tuple(level[:2]) for level in book["bids"][:5]] == [pytest.approx(each) for each in ours]

        async with asyncio.timeout(WAIT_S):
            while not await agrees():
                continue


@story
async def test_what_happens_to_an_order_is_watched() -> None:
    async with traded(SPOT) as (_, client, price):
        watched: list[Any] = []

        async def watch() -> None:
            while True:
                watched.extend(await client.watch_orders(SPOT))

        task = asyncio.create_task(watch())
        try:
            await client.authenticate({"access": "private"})
            await eventually(lambda: client.clients)
            while not watched:
                await client.create_order(SPOT, "limit", "buy", 0.01, price)
                await asyncio.sleep(0)
            placed = watched[-1]
            assert placed["status"] == "open"
            await client.cancel_order(placed["id"], SPOT)
            await eventually(
                lambda: any(o["id"] == placed["id"] and o["status"] == "canceled" for o in watched)
            )
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@EACH
@story
async def test_orders_go_over_the_socket(symbol: str) -> None:
    async with traded(symbol) as (venue, client, price):
        placed = await client.create_order_ws(symbol, "limit", "buy", AMOUNT[symbol], price)
        (found,) = await client.fetch_open_orders(symbol)
        assert (found["id"], found["price"]) == (placed["id"], price)
        await client.edit_order_ws(placed["id"], symbol, "limit", "buy", AMOUNT[symbol] * 2, price - 1)
        assert (await client.fetch_order(placed["id"], symbol))["price"] == price - 1
        await client.cancel_order_ws(placed["id"], symbol)
        assert await client.fetch_open_orders(symbol) == []
        assert {line.transport for line in venue.lines() if line.kind in ("batch", "amend", "cancel")} == {
            "ws"
        }


@story
async def test_balance_trades_and_positions_are_watched() -> None:
    async with traded(LINEAR) as (venue, client, price):
        async with client_at(venue, OTHER) as other:
            await other.load_markets()
            assert (await other.fetch_balance())["USDT"]["total"] == 1_000_000
        waiting = [
            asyncio.create_task(client.watch_balance()),
            asyncio.create_task(client.watch_my_trades(LINEAR)),
        ]
        try:
            while not all(task.done() for task in waiting):
                await client.create_order(LINEAR, "limit", "buy", 1, price + 1000)
                await asyncio.sleep(0)
            balance, (trade, *_) = (task.result() for task in waiting)
            assert balance["USDT"]["total"] > 0
            assert trade["side"] == "buy" and trade["amount"] == 1
            (position,) = await client.watch_positions([LINEAR])
            assert position["side"] == "long"
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
