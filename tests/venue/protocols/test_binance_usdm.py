"""Binance USDⓈ-M: orders, batches, positions, settings, the dead man's switch, streams."""

from decimal import Decimal
from itertools import pairwise
from typing import Any

import orjson
import pytest
from protocol_tools import PERPETUAL, Binance, Venue, connected, open_protocols, until

from venue.calm import CalmParticipants
from venue.protocols.faults import FaultKind

ORDER = {
    "symbol": "BTCUSDT",
    "side": "BUY",
    "type": "LIMIT",
    "timeInForce": "GTC",
    "price": "100",
    "quantity": "1",
}
PATH = "/fapi/v1/order"


def changed(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in {**ORDER, **fields}.items() if value is not None}


async def risk(client: Binance) -> dict[str, Any]:
    """Return the position in BTCUSDT."""
    rows = (await client.signed("GET", "/fapi/v3/positionRisk", symbol="BTCUSDT")).body
    found: dict[str, Any] = rows[0]
    return found


@pytest.mark.parametrize(
    ("params", "code", "text"),
    [
        (changed(symbol="NONEUSDT"), -1121, "Invalid symbol."),
        (changed(side="HOLD"), -1117, "Invalid side."),
        (changed(type="GUESS"), -1116, "Invalid orderType."),
        (changed(type="STOP_MARKET"), -4120, "Algo Order API"),
        (changed(timeInForce="DAY"), -1115, "Invalid timeInForce."),
        (changed(price="100.05"), -1111, "Precision is over the maximum"),
        (changed(price="0"), -4001, "less than or equal to zero"),
        (changed(quantity="0.0001"), -1111, "Precision"),
        (changed(quantity="0"), -4003, "Quantity less than or equal to zero."),
        (changed(quantity="0.01"), -4164, "no smaller than 5"),
        (changed(quantity="900000"), -2019, "Margin is insufficient."),
        (changed(newClientOrderId="no spaces"), -4015, "Client order id is not valid."),
        (changed(timeInForce="GTX", price="200"), -5022, "Post Only"),
        (changed(timeInForce="FOK", price="200", quantity="9"), -5021, "FOK"),
        (changed(reduceOnly="true"), -2022, "ReduceOnly Order is rejected."),
        (changed(positionSide="LONG"), -4061, "position side"),
        (changed(type="MARKET"), -1106, "sent when not required"),
    ],
)
async def test_bad_order_is_refused_with_binances_code(params: dict[str, Any], code: int, text: str) -> None:
    async with open_protocols() as venue:
        other = Binance(venue, "other")
        await other.place_usdm("SELL", "150", "1")
        await other.place_usdm("BUY", "90", "1")
        answer = await Binance(venue).signed("POST", PATH, **params)

        assert (answer.status, answer.code) == (400, code) and text in answer.body["msg"]
        [line] = venue.lines(account="demo")
        assert line.verdict == "refused" and line.reason.startswith(str(code))


async def test_id_of_an_open_order_is_taken_and_of_a_done_one_is_free() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        await client.place_usdm("BUY", "100", "1", newClientOrderId="x")
        twice = await client.place_usdm("BUY", "100", "1", newClientOrderId="x")
        await client.signed("DELETE", PATH, symbol="BTCUSDT", origClientOrderId="x")
        again = await client.place_usdm("BUY", "100", "1", newClientOrderId="x")

        assert twice.code == -4116 and again.status == 200
        assert "avgPrice" not in again.body and "cumQuote" not in again.body, "gone since July 2026"


async def test_modify_needs_both_numbers_moves_the_order_and_cancels_what_is_filled() -> None:
    async with open_protocols() as venue:
        client, other = Binance(venue), Binance(venue, "other")
        placed = (await client.place_usdm("BUY", "100", "2", newClientOrderId="x")).body
        named = {"symbol": "BTCUSDT", "side": "BUY", "orderId": placed["orderId"]}
        half = await client.signed("PUT", PATH, **named, price="101")
        same = await client.signed("PUT", PATH, **named, price="100", quantity="2")
        moved = await client.signed("PUT", PATH, **named, price="101", quantity="3")
        await other.place_usdm("SELL", "101", "1")
        cut = await client.signed("PUT", PATH, **named, price="101", quantity="1")
        gone = await client.signed("PUT", PATH, **named, price="101", quantity="2")

        assert half.code == -1102 and same.code == -5027
        assert (moved.body["price"], moved.body["origQty"], moved.body["status"]) == ("101.0", "3.000", "NEW")
        assert cut.body["status"] == "CANCELED" and cut.body["executedQty"] == "1.000"
        assert gone.code == -2013


async def test_post_only_order_amended_into_the_book_is_cancelled() -> None:
    async with open_protocols() as venue:
        client, other = Binance(venue), Binance(venue, "other")
        await other.place_usdm("SELL", "110", "1")
        await client.place_usdm("BUY", "100", "1", timeInForce="GTX", newClientOrderId="x")
        named = {"symbol": "BTCUSDT", "side": "BUY", "origClientOrderId": "x"}
        crossed = await client.signed("PUT", PATH, **named, price="110", quantity="1")
        row = await client.signed("GET", PATH, symbol="BTCUSDT", origClientOrderId="x")

        assert crossed.status == 200 and row.body["status"] == "CANCELED" and row.body["timeInForce"] == "GTX"


async def test_position_profit_margin_and_liquidation_follow_the_trades() -> None:
    async with open_protocols() as venue:
        client, other = Binance(venue), Binance(venue, "other")
        await client.signed("POST", "/fapi/v1/leverage", symbol="BTCUSDT", leverage=10)
        await other.place_usdm("SELL", "100", "2")
        await client.place_usdm("BUY", "100", "2")
        await other.place_usdm("BUY", "119", "1")
        await other.place_usdm("SELL", "121", "1")
        opened = await risk(client)
        await client.signed(
            "POST", PATH, symbol="BTCUSDT", side="SELL", type="MARKET", quantity="1", reduceOnly="true"
        )
        closed = await risk(client)
        trades = (await client.signed("GET", "/fapi/v1/userTrades", symbol="BTCUSDT")).body
        account = (await client.signed("GET", "/fapi/v3/account")).body

        assert (opened["positionAmt"], opened["entryPrice"], opened["markPrice"]) == (
            "2.000",
            "100.0000",
            "120.00000000",
        )
        assert opened["unRealizedProfit"] == "40.00000000" and opened["notional"] == "240.00000000"
        assert opened["initialMargin"] == "20.00000000" and opened["liquidationPrice"] == "0.00000000"
        assert (closed["positionAmt"], closed["entryPrice"]) == ("1.000", "100.0000")
        assert [row["realizedPnl"] for row in trades] == ["0.00000000", "19.00000000"]
        fees = sum(Decimal(row["commission"]) for row in trades)
        assert Decimal(account["totalWalletBalance"]) == 1_000_000 + 19 - fees
        assert [row["symbol"] for row in account["positions"]] == ["BTCUSDT"]


async def test_leverage_and_margin_type_are_set_once_and_refused_otherwise() -> None:
    async with open_protocols() as venue:
        client, other = Binance(venue), Binance(venue, "other")
        leverage, margin = "/fapi/v1/leverage", "/fapi/v1/marginType"
        good = await client.signed("POST", leverage, symbol="BTCUSDT", leverage=50)
        bad = await client.signed("POST", leverage, symbol="BTCUSDT", leverage=126)
        same = await client.signed("POST", margin, symbol="BTCUSDT", marginType="CROSSED")
        other_type = await client.signed("POST", margin, symbol="BTCUSDT", marginType="ISOLATED")
        [config] = (await client.signed("GET", "/fapi/v1/symbolConfig", symbol="BTCUSDT")).body
        await other.place_usdm("SELL", "100", "1")
        await client.place_usdm("BUY", "100", "1")
        held = await client.signed("POST", margin, symbol="BTCUSDT", marginType="CROSSED")
        hedge = await client.signed("POST", "/fapi/v1/positionSide/dual", dualSidePosition="false")

        assert good.body["leverage"] == 50 and bad.code == -4028
        assert (same.code, other_type.body, held.code, hedge.code) == (
            -4046,
            {"code": 200, "msg": "success"},
            -4048,
            -4059,
        )
        assert (config["marginType"], config["leverage"]) == ("ISOLATED", 50)


async def test_leverage_decides_what_an_order_ties_up() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        for leverage, margin in ((10, "10.00000000"), (50, "2.00000000")):
            await client.signed("POST", "/fapi/v1/leverage", symbol="BTCUSDT", leverage=leverage)
            await client.place_usdm("BUY", "100", "1", newClientOrderId="x")
            account = (await client.signed("GET", "/fapi/v3/account")).body
            await client.signed("DELETE", "/fapi/v1/allOpenOrders", symbol="BTCUSDT")
            assert account["totalOpenOrderInitialMargin"] == margin


async def test_batch_tells_each_order_and_a_half_answered_one_the_first_half() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        path = "/fapi/v1/batchOrders"
        orders = [changed(newClientOrderId=f"o{n}", price=str(100 + n)) for n in range(3)]
        bad = changed(newClientOrderId="bad", quantity="0.01")
        placed = await client.signed("POST", path, batchOrders=orjson.dumps([*orders, bad]).decode())
        many = await client.signed("POST", path, batchOrders=orjson.dumps(orders * 2).decode())
        venue.fault(kind=FaultKind.HALF_BATCH, request="batch", count=1)
        changes = [
            {"symbol": "BTCUSDT", "side": "BUY", "origClientOrderId": f"o{n}", "price": "99", "quantity": "1"}
            for n in range(2)
        ]
        modified = await client.signed("PUT", path, batchOrders=orjson.dumps(changes).decode())
        cancelled = await client.signed(
            "DELETE",
            path,
            symbol="BTCUSDT",
            origClientOrderIdList=orjson.dumps(["o0", "o1", "nobody"]).decode(),
        )

        assert [row.get("clientOrderId", row.get("code")) for row in placed.body] == ["o0", "o1", "o2", -4164]
        assert many.code == -4082
        assert [row.get("price", row.get("code")) for row in modified.body] == ["99.0", -1007]
        assert [row.get("status", row.get("code")) for row in cancelled.body] == [
            "CANCELED",
            "CANCELED",
            -2011,
        ]
        assert [line.verdict for line in venue.lines(kind="place")] == ["accepted"] * 3 + ["refused"]
        assert [line.verdict for line in venue.lines(kind="amend")] == ["accepted"] * 2, (
            "both were carried out"
        )
        assert [row["clientOrderId"] for row in (await client.signed("GET", "/fapi/v1/openOrders")).body] == [
            "o2"
        ]


async def test_dead_mans_switch_cancels_one_symbols_orders_unless_it_is_armed_again() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        path = "/fapi/v1/countdownCancelAll"
        await client.place_usdm("BUY", "100", "1", newClientOrderId="x")
        armed = await client.signed("POST", path, symbol="BTCUSDT", countdownTime=5000)
        await until(lambda: venue.clock.sleepers == 1)
        venue.pass_time(4)
        await client.signed("POST", path, symbol="BTCUSDT", countdownTime=5000)
        await until(lambda: venue.clock.sleepers == 2)
        venue.pass_time(4)
        still = (await client.signed("GET", "/fapi/v1/openOrders", recvWindow=60000)).body
        venue.pass_time(1)
        records = venue.running.exchange.records("demo/usdm")
        await until(lambda: not list(records.open()))

        assert armed.body == {"symbol": "BTCUSDT", "countdownTime": "5000"}
        assert [row["clientOrderId"] for row in still] == ["x"]


async def test_user_stream_by_listen_key_tells_orders_trades_and_settings() -> None:
    async with open_protocols() as venue:
        client, other = Binance(venue), Binance(venue, "other")
        key = (await client.keyed("POST", "/fapi/v1/listenKey")).body["listenKey"]
        again = (await client.keyed("POST", "/fapi/v1/listenKey")).body["listenKey"]
        async with (
            connected(venue, f"/private/ws?listenKey={key}") as socket,
            connected(venue, f"/private/stream?listenKey={key}") as combined,
        ):
            await client.signed("POST", "/fapi/v1/leverage", symbol="BTCUSDT", leverage=7)
            await client.place_usdm("BUY", "100", "2", newClientOrderId="x")
            await other.place_usdm("SELL", "100", "1")
            config, new = await socket.next(), await socket.next()
            lite, account, traded = [await socket.next() for _ in range(3)]
            wrapped = await combined.next()

        assert again == key and wrapped == {"stream": key, "data": config}
        assert config["ac"] == {"s": "BTCUSDT", "l": 7}
        assert (new["e"], new["o"]["x"], new["o"]["X"], new["o"]["b"]) == (
            "ORDER_TRADE_UPDATE",
            "NEW",
            "NEW",
            "200.00000",
        )
        assert (lite["e"], lite["c"], lite["l"]) == ("TRADE_LITE", "x", "1")
        assert (account["e"], account["a"]["P"][0]["pa"]) == ("ACCOUNT_UPDATE", "1.000")
        assert (traded["o"]["x"], traded["o"]["X"], traded["o"]["z"], traded["o"]["ap"]) == (
            "TRADE",
            "PARTIALLY_FILLED",
            "1.000",
            "100.0",
        )


async def test_listen_key_runs_out_unless_it_is_kept_alive() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        path = "/fapi/v1/listenKey"
        assert (await client.keyed("PUT", path)).code == -1125
        key = (await client.keyed("POST", path)).body["listenKey"]
        async with connected(venue, f"/private/ws?listenKey={key}") as socket:
            venue.pass_time(3599)
            assert (await client.keyed("PUT", path)).body == {"listenKey": key}
            venue.pass_time(3599)
            await client.place_usdm("BUY", "100", "1", newClientOrderId="heard")
            assert (await socket.next())["o"]["c"] == "heard"
            venue.pass_time(2)
            await client.place_usdm("BUY", "100", "1", newClientOrderId="unheard")
            assert (await socket.next())["e"] == "listenKeyExpired"
            assert (await client.keyed("POST", path)).body["listenKey"] != key


async def test_websocket_api_places_modifies_cancels_and_tells_positions() -> None:
    async with open_protocols() as venue, connected(venue, "/ws-fapi/v1") as socket:
        client = Binance(venue)

        async def ask(method: str, **params: Any) -> Any:
            return await socket.ask(method, client.frame_params(**params))

        placed = await ask("order.place", **ORDER, newClientOrderId="x")
        moved = await ask(
            "order.modify", symbol="BTCUSDT", side="BUY", origClientOrderId="x", price="101", quantity="1"
        )
        status = await ask("order.status", symbol="BTCUSDT", origClientOrderId="x")
        positions = await ask("v2/account.position", symbol="BTCUSDT")
        cancelled = await ask("order.cancel", symbol="BTCUSDT", origClientOrderId="x")
        spot_only = await ask("order.cancelReplace", **ORDER)

        assert placed["result"]["status"] == "NEW" and moved["result"]["price"] == "101.0"
        assert status["result"]["origQty"] == "1.000" and positions["result"][0]["positionAmt"] == "0.000"
        assert cancelled["result"]["status"] == "CANCELED" and spot_only["status"] == 400
        assert [each["interval"] for each in placed["rateLimits"]] == ["SECOND", "MINUTE", "MINUTE"]


async def test_depth_changes_chain_by_the_id_before_and_bridge_the_snapshot() -> None:
    def calm(instrument: Any) -> CalmParticipants:
        return CalmParticipants(instrument, 3, Decimal(20_000), start_ns=1_700_000_000_000_000_000)

    async with open_protocols(instruments=[PERPETUAL], participants=calm) as venue:
        async with connected(venue, "/public/ws/btcusdt@depth@100ms") as socket:
            changes = []
            number = venue.fault(kind=FaultKind.LATENCY, request="depth")
            for sent in range(1, 6):
                _play(venue, 2)
                await until(lambda sent=sent: venue.server.faults.listed()[number]["matched"] == sent)
                if sent == 3:
                    snapshot = (await Binance(venue).public("/fapi/v1/depth", symbol="BTCUSDT")).body
                changes.append(await socket.next())

        assert all(after["pu"] == before["u"] for before, after in pairwise(changes))
        kept = [change for change in changes if change["u"] >= snapshot["lastUpdateId"]]
        assert kept[0]["U"] <= snapshot["lastUpdateId"] <= kept[0]["u"]


def _play(venue: Venue, steps: int) -> None:
    for _ in range(steps):
        venue.clock.advance(0.1)
        venue.running.step()


async def test_routes_carry_their_own_streams_and_the_old_one_is_gone() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        async with (
            connected(venue, "/public/stream?streams=btcusdt@bookTicker/btcusdt@aggTrade") as public,
            connected(venue, "/market/stream?streams=btcusdt@bookTicker/btcusdt@aggTrade") as market,
        ):
            await client.place_usdm("SELL", "101", "1")
            await client.place_usdm("BUY", "100", "1")
            await Binance(venue, "other").place_usdm("BUY", "101", "0.5")
            tops = [await public.next(), await public.next()]
            trade = await market.next()

        assert {each["stream"] for each in tops} == {"btcusdt@bookTicker"}
        assert trade["stream"] == "btcusdt@aggTrade" and trade["data"]["q"] == "0.500"


async def test_funding_is_paid_at_its_hour_from_longs_to_shorts() -> None:
    async with open_protocols() as venue:
        client, other = Binance(venue), Binance(venue, "other")
        key = (await client.keyed("POST", "/fapi/v1/listenKey")).body["listenKey"]
        await client.place_usdm("BUY", "100", "2")
        await other.place_usdm("SELL", "100", "2")
        await client.place_usdm("BUY", "99", "1")
        await other.place_usdm("SELL", "101", "1")
        before = venue.running.exchange.account("demo/usdm").balances["USDT"]
        async with connected(venue, f"/private/ws?listenKey={key}") as socket:
            venue.clock.advance(3000)
            await client.keyed("PUT", "/fapi/v1/listenKey")
            while not venue.running.exchange.account("demo/usdm").balances["USDT"] < before:
                venue.clock.advance(3000)
                await client.keyed("POST", "/fapi/v1/listenKey")
                venue.running.step()
            paid = await socket.event("ACCOUNT_UPDATE")
        income = (await client.signed("GET", "/fapi/v1/income", incomeType="FUNDING_FEE")).body
        accounts = venue.running.exchange.account

        assert accounts("demo/usdm").balances["USDT"] == before - Decimal("0.02"), "2 × 100 × 0.0001"
        assert accounts("other/usdm").balances["USDT"] > Decimal(1_000_000) - Decimal("0.2") + Decimal("0.01")
        assert paid["a"]["m"] == "FUNDING_FEE" and paid["a"]["B"][0]["bc"] == "-0.02000000"
        assert [row["income"] for row in income] == ["-0.02000000"]
