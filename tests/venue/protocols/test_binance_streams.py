"""Binance spot over WebSocket: market streams, their ids, user data, the WebSocket API."""

from decimal import Decimal
from itertools import pairwise
from typing import Any

from protocol_tools import SPOT, Binance, Venue, connected, open_protocols, until

from host.api import Instrument
from venue.calm import CalmParticipants
from venue.protocols.faults import FaultKind


def calm(instrument: Instrument) -> CalmParticipants:
    return CalmParticipants(instrument, 3, Decimal(20_000), start_ns=1_700_000_000_000_000_000)


async def play(venue: Venue, steps: int) -> None:
    """Let the crowd act so often."""
    for _ in range(steps):
        venue.clock.advance(0.1)
        venue.running.step()


async def test_book_from_snapshot_and_changes_equals_the_venues_and_its_tops() -> None:
    async with open_protocols(instruments=[SPOT], participants=calm) as venue:
        async with connected(venue, "/stream") as socket:
            await play(venue, 2)
            streams = ["btcusdt@depth@100ms", "btcusdt@bookTicker"]
            assert await socket.ask("SUBSCRIBE", streams) == {"result": None, "id": 1}
            await play(venue, 5)
            snapshot = (await Binance(venue).public("/api/v3/depth", symbol="BTCUSDT", limit=5000)).body
            await play(venue, 40)
            final = venue.running.exchange.snapshot("BTC-USDT")
            messages = list(socket.events)
            while not (
                messages
                and messages[-1]["stream"].endswith("100ms")
                and messages[-1]["data"]["u"] >= final.seq
            ):
                messages.append(await socket.next())

        changes = [each["data"] for each in messages if each["stream"] == streams[0]]
        tops = {each["data"]["u"]: each["data"] for each in messages if each["stream"] == streams[1]}
        assert all(after["U"] == before["u"] + 1 for before, after in pairwise(changes))
        book = {side: {level[0]: level[1] for level in snapshot[side]} for side in ("bids", "asks")}
        kept = [change for change in changes if change["u"] > snapshot["lastUpdateId"]]
        assert kept[0]["U"] <= snapshot["lastUpdateId"] + 1
        for change in kept:
            for side, key in (("bids", "b"), ("asks", "a")):
                for price, size in change[key]:
                    book[side][price] = size
                    if not float(size):
                        del book[side][price]
            newest = max((number for number in tops if number <= change["u"]), default=None)
            if newest is not None:
                assert max(book["bids"], key=float) == tops[newest]["b"]
                assert book["asks"][tops[newest]["a"]] == tops[newest]["A"]
        assert {float(p): float(s) for p, s in book["bids"].items()} == dict(final.bids)


async def test_sequence_gap_shows_as_a_hole_in_the_ids() -> None:
    async with open_protocols(instruments=[SPOT], participants=calm) as venue:
        async with connected(venue, "/ws/btcusdt@depth@100ms") as socket:
            number = venue.fault(kind=FaultKind.SEQUENCE_GAP, skip=1, count=1)
            for sent in range(1, 5):
                await play(venue, 1)
                await until(lambda sent=sent: venue.server.faults.listed()[number]["matched"] == sent)
            changes = [await socket.next() for _ in range(3)]

        gaps = [after["U"] - before["u"] > 1 for before, after in pairwise(changes)]
        assert gaps == [True, False]


async def test_stale_book_stands_still_while_the_connection_lives() -> None:
    async with open_protocols(instruments=[SPOT], participants=calm) as venue:
        client = Binance(venue)
        await play(venue, 3)
        async with connected(venue, "/ws/btcusdt@bookTicker") as socket:
            number = venue.fault(kind=FaultKind.STALE_BOOK, symbol="BTCUSDT")
            before = await client.public("/api/v3/depth", symbol="BTCUSDT")
            await play(venue, 10)
            during = await client.public("/api/v3/depth", symbol="BTCUSDT")
            answered = await socket.ask("LIST_SUBSCRIPTIONS")
            venue.server.faults.remove(number)
            await play(venue, 3)
            after = await client.public("/api/v3/depth", symbol="BTCUSDT")
            heard = await socket.next()

        assert before.body == during.body and after.body["lastUpdateId"] > during.body["lastUpdateId"]
        assert answered["result"] == ["btcusdt@bookTicker"] and socket.events == []
        assert heard["u"] > before.body["lastUpdateId"]


async def test_trade_streams_tell_each_trade_by_its_taker() -> None:
    async with open_protocols() as venue, connected(venue, "/ws/btcusdt@trade/btcusdt@aggTrade") as socket:
        client, other = Binance(venue), Binance(venue, "other")
        await client.place("SELL", "100", "1")
        await other.place("BUY", "100", "0.5")
        trade, aggregate = await socket.next(), await socket.next()

        assert (trade["e"], trade["p"], trade["q"], trade["m"]) == (
            "trade",
            "100.00000000",
            "0.50000000",
            False,
        )
        assert (aggregate["e"], aggregate["a"]) == ("aggTrade", trade["t"])


async def test_combined_and_raw_connections_differ_by_the_wrapper() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        async with (
            connected(venue, "/stream?streams=btcusdt@bookTicker") as combined,
            connected(venue, "/ws/btcusdt@bookTicker") as raw,
        ):
            await client.place("SELL", "101", "1")
            await client.place("BUY", "100", "1")
            assert await combined.next() == {"stream": "btcusdt@bookTicker", "data": await raw.next()}
            await combined.ask("SET_PROPERTY", ["combined", False])
            await client.place("BUY", "100.1", "1")
            assert (await combined.next())["b"] == "100.10000000"


async def test_unknown_streams_are_accepted_and_silent_and_bad_frames_answered() -> None:
    async with open_protocols() as venue, connected(venue, "/ws") as socket:
        assert (await socket.ask("SUBSCRIBE", ["nonsense@trade"])) == {"result": None, "id": 1}
        assert (await socket.ask("SUBSCRIBE", "btcusdt@trade"))["error"]["code"] == 2
        assert (await socket.ask("GUESS"))["error"]["code"] == 2
        assert (await socket.ask("UNSUBSCRIBE", ["nonsense@trade"])) == {"result": None, "id": 1}


async def test_more_than_five_frames_a_second_cost_the_connection() -> None:
    async with open_protocols(has_rate_limits=True) as venue, connected(venue, "/ws") as socket:
        for number in range(6):
            await socket.send({"method": "LIST_SUBSCRIPTIONS", "id": number})
        answers = [await socket.next() for _ in range(6)]

        assert answers[-1] is None


async def test_user_data_tells_the_life_of_orders_and_balances() -> None:
    async with open_protocols() as venue, connected(venue, "/ws-api/v3") as socket:
        client, other = Binance(venue), Binance(venue, "other")
        assert (await socket.ask("userDataStream.subscribe.signature", client.frame_params()))["result"] == {
            "subscriptionId": 0
        }
        again = await socket.ask("userDataStream.subscribe.signature", client.frame_params())
        placed = await client.place("BUY", "100", "2", newClientOrderId="x")
        await other.place("SELL", "100", "0.5")
        await client.signed(
            "DELETE", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="x", newClientOrderId="gone"
        )
        events = [await socket.event("executionReport") for _ in range(3)]
        balances = [await socket.event("outboundAccountPosition") for _ in range(3)]

        assert again["error"]["code"] == -2035
        assert [(event["x"], event["X"]) for event in events] == [
            ("NEW", "NEW"),
            ("TRADE", "PARTIALLY_FILLED"),
            ("CANCELED", "CANCELED"),
        ]
        assert [(event["c"], event["C"]) for event in events] == [("x", ""), ("x", ""), ("gone", "x")]
        assert [event["i"] for event in events] == [placed.body["orderId"]] * 3
        assert (events[1]["l"], events[1]["z"], events[1]["Z"], events[1]["m"]) == (
            "0.50000000",
            "0.50000000",
            "50.00000000",
            True,
        )
        assert (events[1]["n"], events[1]["N"]) == ("0.00050000", "BTC")
        usdt = [{row["a"]: row for row in event["B"]}["USDT"] for event in balances]
        assert [row["l"] for row in usdt] == ["200.00000000", "150.00000000", "0.00000000"]


async def test_unsubscribed_user_data_is_silent() -> None:
    async with open_protocols() as venue, connected(venue, "/ws-api/v3") as socket:
        client = Binance(venue)
        await socket.ask("userDataStream.subscribe.signature", client.frame_params())
        assert (await socket.ask("userDataStream.unsubscribe", {"subscriptionId": 0}))["status"] == 200
        await client.place("BUY", "100", "1")
        await socket.ask("time", {})

        assert socket.events == []


async def test_websocket_api_trades_and_tells_limits() -> None:
    async with open_protocols() as venue, connected(venue, "/ws-api/v3") as socket:
        client = Binance(venue)
        order = {
            "symbol": "BTCUSDT",
            "side": "BUY",
            "type": "LIMIT",
            "timeInForce": "GTC",
            "price": "100",
            "quantity": "1",
        }

        async def ask(method: str, **params: Any) -> Any:
            return await socket.ask(method, client.frame_params(**params))

        placed = await ask("order.place", **order, newClientOrderId="x", newOrderRespType="ACK")
        status = await ask("order.status", symbol="BTCUSDT", origClientOrderId="x")
        shrunk = await ask(
            "order.amend.keepPriority",
            symbol="BTCUSDT",
            origClientOrderId="x",
            newQty="0.5",
            newClientOrderId="x",
        )
        opened = await ask("openOrders.status", symbol="BTCUSDT")
        replaced = await ask(
            "order.cancelReplace",
            **{**order, "price": "101"},
            cancelReplaceMode="STOP_ON_FAILURE",
            cancelOrigClientOrderId="x",
            newClientOrderId="y",
        )
        cancelled = await ask("openOrders.cancelAll", symbol="BTCUSDT")
        refused = await ask("order.cancel", symbol="BTCUSDT", origClientOrderId="y")
        forged = await socket.ask("order.place", {**client.frame_params(**order), "price": "1"})
        late = await ask("order.place", **order, timestamp=client.now_ms() - 6000)
        unknown = await ask("order.guess")
        quiet = await socket.ask("time", {"returnRateLimits": False})

        assert placed["status"] == 200 and set(placed["result"]) == {
            "symbol",
            "orderId",
            "orderListId",
            "clientOrderId",
            "transactTime",
        }
        assert [each["rateLimitType"] for each in placed["rateLimits"]] == [
            "ORDERS",
            "ORDERS",
            "REQUEST_WEIGHT",
        ]
        assert status["result"]["status"] == "NEW" and shrunk["result"]["amendedOrder"]["qty"] == "0.50000000"
        assert opened["result"][0]["origQty"] == "0.50000000"
        assert replaced["result"]["newOrderResult"] == "SUCCESS"
        assert [row["clientOrderId"] != "y" and row["origClientOrderId"] for row in cancelled["result"]] == [
            "y"
        ]
        assert refused["error"]["code"] == -2011 and forged["error"]["code"] == -1022
        assert late["error"]["code"] == -1021 and unknown["status"] == 400
        assert "rateLimits" not in quiet and quiet["result"]["serverTime"] == client.now_ms()


async def test_server_pings_and_cuts_whoever_does_not_answer() -> None:
    from venue.protocols.binance.front import BinanceFront

    async with open_protocols() as venue:
        front: Any = venue.server.courses["binance"].front
        assert (BinanceFront.ping_s, BinanceFront.pong_s) == (20.0, 60.0)
        front.ping_s, front.pong_s = 0.01, 0.05
        async with venue.http.ws_connect(f"{venue.url(scheme='ws')}/ws", autoping=False) as deaf:
            pinged = await deaf.receive()
            while not deaf.closed and pinged.type.name == "PING":
                pinged = await deaf.receive()
            assert pinged.type.name in ("CLOSED", "CLOSE", "CLOSING", "ERROR")
        async with connected(venue, "/ws") as good:
            assert (await good.ask("LIST_SUBSCRIPTIONS"))["result"] == []
            connections = venue.server.courses["binance"].connections
            await until(lambda: len(connections) == 1)


async def test_path_that_is_not_served_is_refused() -> None:
    async with open_protocols() as venue:
        for path in ("/ws-api/v2", "/nowhere"):
            async with venue.http.get(f"{venue.url()}{path}", headers={"Upgrade": "websocket"}) as response:
                assert response.status == 404
