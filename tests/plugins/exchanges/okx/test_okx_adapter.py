"""The adapter against a scripted venue: what it sends, what it makes of each answer, how it comes back."""

import asyncio
import json
import logging
import time
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from exchange_tools import FakeHost, eventually, scripted_venue, story
from okx_script import FAR_NS, OkxScript, connected, okx_at, operation, place, row, spot

from host.api import (
    AccountSnapshot,
    AmendOrder,
    AmendRejected,
    Balance,
    BookTop,
    CancelOrder,
    CancelRejected,
    ConnectionChanged,
    Depth,
    ExchangeError,
    FillsSnapshot,
    OpenOrdersSnapshot,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderFilled,
    OrderNotFound,
    OrderRejected,
    OrderSnapshot,
    OrderStatus,
    QueryAccount,
    QueryFills,
    QueryOpenOrders,
    QueryOrder,
    RejectReason,
    RequestUnanswered,
    Side,
    Trade,
    VenuePosition,
)
from plugins.exchanges._shared.rate_limit import OverLimit
from plugins.exchanges._shared.venue_clock import ClockUnsure
from plugins.exchanges._shared.websocket import NotConnected

MS = 1_000_000


def soon() -> int:
    return time.time_ns() + FAR_NS


def amend(client_id: str = "c1") -> AmendOrder:
    return AmendOrder(client_id, "BTC-USDT", Side.BUY, Decimal(11), Decimal(2))


@story
async def test_connecting_returns_what_is_listed_with_the_accounts_fees() -> None:
    async with scripted_venue() as venue:
        OkxScript(venue)
        adapter = okx_at(venue)
        adapter.ctx = FakeHost()
        listed = {instrument.symbol: instrument for instrument in await adapter.connect()}
        await adapter.close()
    assert set(listed) == {"BTC-USDT", "ETH-USDT", "BTC-USDT-PERP"}
    assert listed["BTC-USDT"].taker_fee == Decimal("0.001")
    assert listed["BTC-USDT-PERP"].maker_fee == Decimal("0.0002")
    assert listed["BTC-USDT-PERP"].lot_size == Decimal("0.001")


@story
async def test_every_request_is_signed_and_says_that_it_is_a_demo() -> None:
    async with connected() as (script, _, _):
        signed = [headers for path, _, headers in script.bodies if "/account/" in path]
        assert signed and all("OK-ACCESS-SIGN" in headers for headers in signed)
        assert all(headers["x-simulated-trading"] == "1" for _, _, headers in script.bodies)


@story
async def test_all_channels_are_reported_up_and_every_stream_is_subscribed_once() -> None:
    async with connected(("BTC-USDT", "BTC-USDT-PERP")) as (script, _, host):
        up = [change.channel for change in host.of(ConnectionChanged) if change.is_up]
        assert sorted(up) == ["market", "orders", "private"]
        wanted = [
            {"channel": channel, "instId": inst_id}
            for inst_id in ("BTC-USDT", "BTC-USDT-SWAP")
            for channel in ("bbo-tbt", "books", "trades", "tickers", "price-limit")
        ]
        assert script.subscribed() == [{"channel": "orders", "instType": "ANY"}, *wanted]
        assert len(script.venue.sockets) == 2


@story
async def test_what_the_venue_tells_as_a_courtesy_is_no_bad_message(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tandem.okx"):
        async with connected() as (script, _, host):
            await script.push_order()
            await host.heard(OrderAccepted)  # the count of connections came before it
    assert caplog.records == []


@story
async def test_symbols_that_are_added_later_share_the_connection_and_come_back_with_it() -> None:
    async with connected() as (script, adapter, host):
        await adapter.subscribe(["BTC-USDT", "ETH-USDT"])
        later = {"channel": "books", "instId": "ETH-USDT"}
        await eventually(lambda: script.subscribed().count(later) == 1)
        assert len(script.venue.sockets) == 2
        await script.public().close()
        await eventually(lambda: script.subscribed().count(later) == 2)
        await eventually(lambda: host.of(ConnectionChanged)[-1].is_up)


@story
async def test_a_symbol_that_is_not_listed_is_refused_with_those_that_are() -> None:
    async with connected() as (_, adapter, _):
        with pytest.raises(ExchangeError, match=r"BTC-EUR.*BTC-USDT"):
            await adapter.subscribe(["BTC-EUR"])


@story
async def test_more_instruments_than_one_connection_takes_get_a_second_one() -> None:
    def many(script: OkxScript) -> None:
        script.instruments = [spot(f"C{number}-USDT", number) for number in range(1, 103)]

    symbols = tuple(f"C{number}-USDT" for number in range(1, 103))
    async with connected(symbols, many, tickers=False) as (script, _, host):
        assert script.venue.paths.count("/ws/v5/public") == 2
        assert len([change for change in host.of(ConnectionChanged) if change.is_up]) == 4


@story
async def test_an_order_goes_out_with_its_window_and_its_outcome_is_what_is_pushed() -> None:
    async with connected() as (script, adapter, host):
        deadline_ns = time.time_ns() + 3_000 * MS
        adapter.send(place("tdmt1ai1n1"), deadline_ns)
        sent = await operation(script)
        assert sent["op"] == "order"
        assert sent["args"] == [
            {
                "instIdCode": 7,
                "side": "buy",
                "ordType": "limit",
                "sz": "1",
                "tdMode": "cash",
                "px": "10",
                "tgtCcy": "base_ccy",
                "clOrdId": "tdmt1ai1n1",
                "tag": "tdmt1a",
            }
        ]
        assert int(sent["expTime"]) * MS <= deadline_ns
        assert host.of(OrderAccepted) == []  # taken in is not resting
        await script.push_order(clOrdId="tdmt1ai1n1")
        assert (await host.heard(OrderAccepted)).client_id == "tdmt1ai1n1"


@story
async def test_a_swap_goes_out_in_contracts_and_comes_back_in_base_currency() -> None:
    async with connected(("BTC-USDT-PERP",), margin_mode="isolated") as (script, adapter, host):
        adapter.send(place(symbol="BTC-USDT-PERP", reduce_only=True), soon())
        (arg,) = (await operation(script))["args"]
        assert (arg["sz"], arg["tdMode"], arg["reduceOnly"]) == ("100", "isolated", True)
        fill = {"tradeId": "5", "fillSz": "50", "fillPx": "10", "accFillSz": "50", "fillFee": "-0.1"}
        await script.push_order(
            instId="BTC-USDT-SWAP",
            sz="100",
            state="partially_filled",
            execType="M",
            fillFeeCcy="USDT",
            **fill,
        )
        filled = await host.heard(OrderFilled)
        assert (filled.symbol, filled.qty, filled.fee) == ("BTC-USDT-PERP", Decimal("0.50"), Decimal("0.1"))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("51008", RejectReason.INSUFFICIENT_FUNDS),
        ("51016", RejectReason.DUPLICATE_ID),
        ("50011", RejectReason.RATE_LIMIT),
        ("50037", RejectReason.EXPIRED_REQUEST),
    ],
)
def test_a_refused_order_is_rejected_with_our_word_for_it(code: str, reason: RejectReason) -> None:
    @story
    async def run() -> None:
        async with connected() as (script, adapter, host):
            script.reply_to = script.refused(code)
            adapter.send(place(), soon())
            assert (await host.heard(OrderRejected)).reason is reason

    run()


@pytest.mark.parametrize("code", ["50004", "51054", "51149"])
def test_an_answer_that_does_not_say_is_unanswered(code: str) -> None:
    @story
    async def run() -> None:
        async with connected() as (script, adapter, host):
            script.reply_to = script.refused(code)
            adapter.send(place(), soon())
            assert (await host.heard(RequestUnanswered)).client_id == "c1"
            assert host.of(OrderRejected) == []

    run()


@story
async def test_silence_is_unanswered_after_its_time_and_once() -> None:
    async with connected(answer_timeout_ms=50.0) as (script, adapter, host):
        script.reply_to = lambda _request: None
        adapter.send(place(), soon())
        await host.heard(RequestUnanswered)
        await script.push_order()
        await host.heard(OrderAccepted)  # what is true is told, however late
        assert len(host.of(RequestUnanswered)) == 1


@story
async def test_an_order_that_was_taken_in_and_never_pushed_is_unanswered() -> None:
    async with connected(answer_timeout_ms=50.0) as (_, adapter, host):
        adapter.send(place(), soon())
        assert (await host.heard(RequestUnanswered)).client_id == "c1"


@story
async def test_an_order_that_was_pushed_waits_for_nothing_more() -> None:
    async with connected(answer_timeout_ms=200.0) as (script, adapter, host):
        adapter.send(place("c1"), soon())
        await script.push_order(clOrdId="c1")
        await host.heard(OrderAccepted)
        adapter.send(place("c2"), soon())
        await host.heard(RequestUnanswered)
        assert [each.client_id for each in host.of(RequestUnanswered)] == ["c2"]


@story
async def test_an_amend_and_a_cancel_are_answered_by_what_is_pushed() -> None:
    async with connected() as (script, adapter, host):
        adapter.send(place(), soon())
        await script.push_order()
        await host.heard(OrderAccepted)
        adapter.send(amend(), soon())
        sent = await operation(script, 2)
        assert (sent["op"], sent["args"]) == (
            "amend-order",
            [{"instIdCode": 7, "clOrdId": "c1", "newSz": "2", "newPx": "11"}],
        )
        await script.push_order(px="11", sz="2", amendResult="0", uTime="2")
        assert (await host.heard(OrderAmended)).price == Decimal(11)
        adapter.send(CancelOrder("c1", "BTC-USDT"), soon())
        sent = await operation(script, 3)
        assert (sent["op"], sent["args"]) == ("cancel-order", [{"instIdCode": 7, "clOrdId": "c1"}])
        await script.push_order(state="canceled", cancelSource="1", uTime="3")
        assert (await host.heard(OrderCancelled)).filled == 0


@story
async def test_refused_amends_and_cancels_of_an_order_that_is_gone_say_so() -> None:
    async with connected() as (script, adapter, host):
        script.reply_to = script.refused("51503")
        adapter.send(amend(), soon())
        assert (await host.heard(AmendRejected)).reason is RejectReason.UNKNOWN_ORDER
        script.reply_to = script.refused("51402")
        adapter.send(CancelOrder("c1", "BTC-USDT"), soon())
        assert (await host.heard(CancelRejected)).reason is RejectReason.UNKNOWN_ORDER


@story
async def test_cancels_of_one_turn_go_out_as_one_and_a_batch_and_each_has_its_own_outcome() -> None:
    async with connected() as (script, adapter, host):

        def answer(request: dict[str, Any]) -> dict[str, Any]:
            reply = script.taken_in(request)
            if request["op"] == "batch-cancel-orders":
                reply["data"][1] |= {"sCode": "51402", "sMsg": "completed"}
                reply["code"] = "2"
            return reply

        script.reply_to = answer
        for number in range(25):
            adapter.send(CancelOrder(f"c{number}", "BTC-USDT"), soon())
        await operation(script, 3)
        ops = [(request["op"], len(request["args"])) for request in script.operations]
        assert ops == [("cancel-order", 1), ("batch-cancel-orders", 20), ("batch-cancel-orders", 4)]
        refused = [await host.heard(CancelRejected, 2)]
        assert [each.client_id for each in host.of(CancelRejected)] == ["c2", "c22"]
        assert refused[0].reason is RejectReason.UNKNOWN_ORDER


@story
async def test_orders_of_one_turn_go_out_as_two_and_a_batch_and_each_has_its_own_outcome() -> None:
    async with connected() as (script, adapter, host):

        def answer(request: dict[str, Any]) -> dict[str, Any]:
            reply = script.taken_in(request)
            if request["op"] == "batch-orders":
                reply["data"][1] |= {"sCode": "51008", "sMsg": "Insufficient balance"}
                reply["code"] = "2"
            return reply

        script.reply_to = answer
        for number in range(25):
            adapter.send(place(f"c{number}"), soon() + number)
        assert len(script.operations) == 0, "nothing waits for the network"
        await operation(script, 4)
        ops = [(request["op"], len(request["args"])) for request in script.operations]
        assert ops == [("order", 1), ("order", 1), ("batch-orders", 20), ("batch-orders", 3)]
        await host.heard(OrderRejected, 2)
        assert [each.client_id for each in host.of(OrderRejected)] == ["c3", "c23"]
        assert {each.reason for each in host.of(OrderRejected)} == {RejectReason.INSUFFICIENT_FUNDS}
        first = [request["args"][0]["clOrdId"] for request in script.operations]
        assert first == ["c0", "c1", "c2", "c22"]


@story
async def test_an_order_goes_out_before_its_own_cancel() -> None:
    async with connected() as (script, adapter, _):
        for number in range(3):
            adapter.send(place(f"c{number}"), soon())
        adapter.send(CancelOrder("c2", "BTC-USDT"), soon())
        await operation(script, 4)
        ops = [(request["op"], request["args"][0]["clOrdId"]) for request in script.operations]
        assert ops == [("order", "c0"), ("order", "c1"), ("batch-orders", "c2"), ("cancel-order", "c2")]


@story
async def test_a_batch_that_the_answer_knows_half_of_leaves_the_others_in_doubt() -> None:
    async with connected(answer_timeout_ms=100.0) as (script, adapter, host):

        def answer(request: dict[str, Any]) -> dict[str, Any]:
            reply = script.taken_in(request)
            if request["op"] == "batch-orders":
                reply["data"] = reply["data"][:1]
                reply["data"][0] |= {"sCode": "51008", "sMsg": "Insufficient balance"}
            return reply

        script.reply_to = answer
        for number in range(4):
            adapter.send(place(f"c{number}"), soon())
        await host.heard(OrderRejected)
        await host.heard(RequestUnanswered, 3)
        assert [each.client_id for each in host.of(OrderRejected)] == ["c2"]
        assert {each.client_id for each in host.of(RequestUnanswered)} == {"c0", "c1", "c3"}


@story
async def test_an_instrument_code_that_the_socket_does_not_know_sends_orders_over_rest() -> None:
    async with connected() as (script, adapter, host):
        script.reply_to = script.refused("51001", "Instrument ID does not exist")
        script.answers["/api/v5/trade/order"] = [{"clOrdId": "c2", "ordId": "9", "sCode": "0", "sMsg": ""}]
        adapter.send(place("c1"), soon())
        assert (await host.heard(OrderRejected)).reason is RejectReason.UNKNOWN_SYMBOL
        adapter.send(place("c2"), soon())
        await eventually(lambda: any(path == "/api/v5/trade/order" for path, _, _ in script.bodies))
        (_, body, headers) = next(each for each in script.bodies if each[0] == "/api/v5/trade/order")
        assert (body["instId"], body["clOrdId"]) == ("BTC-USDT", "c2")
        assert int(headers["expTime"]) > 0


@story
async def test_orders_go_over_rest_while_the_private_stream_is_down() -> None:
    async with connected() as (script, adapter, host):
        script.answers["/api/v5/trade/order"] = {
            "code": "1",
            "msg": "",
            "data": [{"clOrdId": "c1", "sCode": "51008", "sMsg": "Insufficient balance"}],
        }
        script.venue.refuses = True
        await script.private().close()
        await eventually(lambda: any(not change.is_up for change in host.of(ConnectionChanged)))
        adapter.send(place(), soon())
        assert (await host.heard(OrderRejected)).reason is RejectReason.INSUFFICIENT_FUNDS


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_error_over_rest_is_unanswered(status: int) -> None:
    @story
    async def run() -> None:
        async with connected(order_entry="rest") as (script, adapter, host):
            script.answers["/api/v5/trade/order"] = lambda: web.Response(status=status)
            adapter.send(place(), soon())
            assert (await host.heard(RequestUnanswered)).client_id == "c1"

    run()


@story
async def test_a_lost_private_stream_leaves_what_waits_unanswered_and_comes_back() -> None:
    async with connected(answer_timeout_ms=600_000.0) as (script, adapter, host):
        adapter.send(place(), soon())
        await operation(script)
        await script.private().close()
        assert (await host.heard(RequestUnanswered)).client_id == "c1"
        await eventually(lambda: host.of(ConnectionChanged)[-1].is_up)
        changes = [(change.channel, change.is_up) for change in host.of(ConnectionChanged)[3:]]
        assert changes == [("private", False), ("orders", False), ("private", True), ("orders", True)]


@story
async def test_a_notice_of_a_close_has_the_connection_replaced_without_a_gap() -> None:
    async with connected() as (script, adapter, host):
        old = script.private()
        await old.send_str(json.dumps({"event": "notice", "code": "64008", "msg": "upgrade"}))
        await eventually(lambda: script.private() is not old)
        adapter.send(place(), soon())
        await operation(script)
        assert all(change.is_up for change in host.of(ConnectionChanged))


@story
async def test_a_private_message_that_cannot_be_read_has_the_host_ask() -> None:
    async with connected() as (script, _, host):
        await script.private().send_str('{"arg":{"channel":"orders"},"data":[{"ordId":7}]}')
        await eventually(lambda: any(not change.is_up for change in host.of(ConnectionChanged)))
        await eventually(lambda: host.of(ConnectionChanged)[-1].is_up)


def test_a_key_that_the_venue_refuses_says_what_to_correct() -> None:
    @story
    async def run() -> None:
        def refuse(script: OkxScript) -> None:
            script.login = {"event": "error", "code": "60005", "msg": "Invalid OK-ACCESS-KEY"}

        with pytest.raises(ExchangeError, match=r"60005.*params\.api_key"):
            async with connected(change=refuse):
                pass

    run()


@pytest.mark.parametrize("channel", ["orders", "books"])
def test_a_subscription_that_is_refused_is_no_connection(channel: str) -> None:
    @story
    async def run() -> None:
        def refuse(script: OkxScript) -> None:
            script.refused_channel = channel

        with pytest.raises(NotConnected, match=f"refused: 60018.*{channel}"):
            async with connected(change=refuse):
                pass

    run()


@story
async def test_a_login_that_comes_too_often_is_tried_again() -> None:
    async with connected() as (script, _, host):
        good, script.login = script.login, {"event": "error", "code": "60014", "msg": "too frequent"}
        logins = sum('"login"' in text for text in script.venue.messages)
        await script.private().close()
        await eventually(lambda: sum('"login"' in text for text in script.venue.messages) > logins)
        script.login = good
        await eventually(lambda: host.of(ConnectionChanged)[-1].is_up)


@story
async def test_an_account_in_spot_mode_trades_spot_and_says_why_not_swaps() -> None:
    def spot_alone(script: OkxScript) -> None:
        good = script.answers["/api/v5/account/trade-fee"]
        answers = [good, {"code": "51010", "msg": "not in this account mode", "data": []}]
        script.answers["/api/v5/account/trade-fee"] = lambda: answers.pop(0)
        script.answers["/api/v5/account/config"] = [{"posMode": "net_mode", "acctLv": "1"}]

    async with connected(change=spot_alone) as (_, adapter, _):
        with pytest.raises(ExchangeError, match=r"BTC-USDT-PERP.*spot mode"):
            await adapter.subscribe(["BTC-USDT-PERP"])


def test_an_account_in_long_short_mode_is_refused_for_swaps_alone() -> None:
    @story
    async def run() -> None:
        def hedge(script: OkxScript) -> None:
            script.answers["/api/v5/account/config"] = [{"posMode": "long_short_mode", "acctLv": "2"}]

        async with connected(change=hedge):
            pass
        with pytest.raises(ExchangeError, match="net position mode"):
            async with connected(("BTC-USDT-PERP",), hedge):
                pass

    run()


@story
async def test_leverage_is_set_for_the_perpetuals_that_are_named() -> None:
    leverage = {"BTC-USDT-PERP": Decimal(5)}
    async with connected(("BTC-USDT-PERP",), leverage=leverage) as (script, _, _):
        (body,) = [body for path, body, _ in script.bodies if path.endswith("set-leverage")]
        assert body == {"instId": "BTC-USDT-SWAP", "lever": "5", "mgnMode": "cross"}


@story
async def test_the_dead_mans_switch_is_armed_in_seconds_for_one_tag() -> None:
    async with connected() as (script, adapter, _):
        await adapter.arm_dead_man(10_001, tag="tdmt1a2b3i")
        (body,) = [body for path, body, _ in script.bodies if path.endswith("cancel-all-after")]
        assert body == {"timeOut": "11", "tag": "tdmt1a2b3"}


@story
async def test_orders_are_refused_while_the_venues_clock_is_not_known_and_cancels_are_not() -> None:
    async with connected() as (script, adapter, host):
        script.answers["/api/v5/public/time"] = lambda: web.Response(status=503)
        script.reply_to = script.refused("50102", "Timestamp request expired")
        adapter.send(place(), soon())
        assert (await host.heard(OrderRejected)).reason is RejectReason.EXPIRED_REQUEST
        with pytest.raises(ClockUnsure):
            adapter.send(place("c2"), soon())
        adapter.send(CancelOrder("c1", "BTC-USDT"), soon())
        assert "expTime" not in await operation(script, 2)


@story
async def test_in_an_instrument_that_vanished_orders_are_cancelled_and_none_is_placed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "tandem.okx"):
        async with connected(reload_instruments_every_s=0.01) as (script, adapter, _):
            script.instruments = script.instruments[1:]
            await eventually(lambda: "BTC-USDT is no longer listed" in caplog.text)
            with pytest.raises(ExchangeError, match="BTC-USDT"):
                adapter.send(place(), soon())
            adapter.send(CancelOrder("c1", "BTC-USDT"), soon())
            assert (await operation(script))["op"] == "cancel-order"


@story
async def test_the_rate_limit_is_kept_before_the_venue_keeps_it_with_room_for_cancels() -> None:
    async with connected() as (script, adapter, host):
        for number in range(54):
            adapter.send(place(f"c{number}"), soon())
            await asyncio.sleep(0)  # a turn each: batches have a limit of their own
        with pytest.raises(OverLimit):
            adapter.send(place("c54"), soon())
        adapter.send(CancelOrder("c1", "BTC-USDT"), soon())
        await operation(script, 55)
        assert host.of(OrderRejected) == []


# -- market data -----------------------------------------------------------------------------------

TOP = {"asks": [["11", "1", "0", "1"]], "bids": [["10", "2", "0", "1"]], "ts": "2000"}
BOOK = {"asks": [["11", "1", "0", "1"]], "bids": [["9", "2", "0", "1"]], "ts": "1000"}


@story
async def test_market_data_is_handed_over_as_events() -> None:
    async with connected() as (script, _, host):
        await script.push("bbo-tbt", "BTC-USDT", TOP)
        trade = {"px": "10", "sz": "1", "side": "sell", "tradeId": "3", "ts": "1"}
        await script.push("trades", "BTC-USDT", trade)
        assert (await host.heard(BookTop)).bid == 10.0
        assert (await host.heard(Trade)).taker_is_buyer is False


@story
async def test_a_book_that_is_older_than_the_top_does_not_take_its_place() -> None:
    async with connected() as (script, _, host):
        await script.push("bbo-tbt", "BTC-USDT", TOP)
        await script.push("books", "BTC-USDT", BOOK | {"seqId": 1, "prevSeqId": -1}, "snapshot")
        await host.heard(BookTop, 2)
        assert [type(event) for event in host.events] == [BookTop, Depth, BookTop]


@story
async def test_a_resync_subscribes_the_book_anew_and_not_twice_for_one_gap() -> None:
    async with connected() as (script, adapter, _):
        adapter.resync("BTC-USDT")
        adapter.resync("BTC-USDT")
        books = {"channel": "books", "instId": "BTC-USDT"}
        await eventually(lambda: script.subscribed().count(books) == 2)
        (renewal,) = adapter._markets[0]._renewals.values()
        assert renewal.backoff.next_s() <= 0.1  # the second step: the first was taken once


@story
async def test_a_book_row_that_cannot_be_used_has_the_book_asked_for_anew() -> None:
    async with connected() as (script, _, host):
        await script.push("books", "BTC-USDT", BOOK, "update")  # its place in the sequence is missing
        books = {"channel": "books", "instId": "BTC-USDT"}
        await eventually(lambda: script.subscribed().count(books) == 2)
        assert host.of(Depth) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"data":7}', "x" * 5_000_000, '{"event":"strange"}'])
def test_messages_without_sense_are_counted_and_logged_once(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    @story
    async def run() -> None:
        with caplog.at_level(logging.WARNING, "tandem.okx"):
            async with connected() as (script, _, host):
                for _ in range(3):
                    await script.public().send_str(text)
                await script.push("bbo-tbt", "BTC-USDT", TOP)
                await host.heard(BookTop)

    run()
    assert len(caplog.records) == 1


@story
async def test_while_a_connection_is_replaced_nothing_is_told_twice_and_no_gap_is_made() -> None:
    async with connected() as (script, _, host):
        await script.push("books", "BTC-USDT", BOOK | {"seqId": 100, "prevSeqId": -1}, "snapshot")
        old = script.public()
        await old.send_str(json.dumps({"event": "notice", "code": "64008", "msg": "upgrade"}))
        await eventually(lambda: script.public() is not old)

        async def on_old(prev: int, seq: int) -> None:
            arg = {"channel": "books", "instId": "BTC-USDT"}
            data = BOOK | {"seqId": seq, "prevSeqId": prev}
            await old.send_str(json.dumps({"arg": arg, "action": "update", "data": [data]}))

        await script.push("books", "BTC-USDT", BOOK | {"seqId": 103, "prevSeqId": -1}, "snapshot")
        await host.heard(Depth, 2)
        await on_old(105, 110)  # the old connection is ahead
        await script.push("books", "BTC-USDT", BOOK | {"seqId": 105, "prevSeqId": 103}, "update")
        await host.heard(Depth, 3)
        await script.push("books", "BTC-USDT", BOOK | {"seqId": 110, "prevSeqId": 105}, "update")
        await host.heard(Depth, 4)
        assert [depth.seq for depth in host.of(Depth)] == [100, 103, 105, 110]


# -- questions -------------------------------------------------------------------------------------


@story
async def test_an_order_is_asked_for_by_the_id_that_we_gave() -> None:
    async with connected() as (script, adapter, host):
        script.answers["/api/v5/trade/order"] = [row(state="filled", accFillSz="1")]
        adapter.send(QueryOrder("c1", "BTC-USDT"), soon())
        assert (await host.heard(OrderSnapshot)).status is OrderStatus.FILLED
        script.answers["/api/v5/trade/order"] = {"code": "51603", "msg": "Order does not exist", "data": []}
        adapter.send(QueryOrder("c2", "BTC-USDT"), soon())
        assert (await host.heard(OrderNotFound)).client_id == "c2"
        asked = [path for path, _, _ in script.bodies if path.startswith("/api/v5/trade/order?")]
        assert asked[0] == "/api/v5/trade/order?instId=BTC-USDT&clOrdId=c1"


@story
async def test_open_orders_and_fills_are_read_page_by_page() -> None:
    async with connected() as (script, adapter, host):
        pages = [
            [row(ordId=str(at), clOrdId=f"c{at}") for at in range(100)],
            [row(ordId="100", clOrdId="last")],
        ]
        script.answers["/api/v5/trade/orders-pending"] = lambda: pages.pop(0)
        adapter.send(QueryOpenOrders(), soon())
        assert len((await host.heard(OpenOrdersSnapshot)).orders) == 101
        assert any("after=99" in path for path, _, _ in script.bodies)
        fill = {"instId": "BTC-USDT", "tradeId": "1", "ordId": "9", "clOrdId": "c1", "fillPx": "10"}
        fill |= {"fillSz": "1", "side": "buy", "ts": "5", "fee": "-0.1", "feeCcy": "BTC", "billId": "b"}
        script.answers["/api/v5/trade/fills"] = [fill]
        adapter.send(QueryFills(time.time_ns() - 60_000 * MS), soon())
        snapshot = await host.heard(FillsSnapshot)
        assert {each.trade_id for each in snapshot.fills} == {"1"}
        script.answers["/api/v5/trade/fills-history"] = []
        adapter.send(QueryFills(0), soon())
        assert (await host.heard(FillsSnapshot, 2)).fills == ()


@story
async def test_the_account_is_balances_and_signed_positions() -> None:
    async with connected() as (script, adapter, host):
        script.answers["/api/v5/account/balance"] = [
            {"details": [{"ccy": "USDT", "cashBal": "100", "availBal": "90"}]}
        ]
        script.answers["/api/v5/account/positions"] = [
            {"instId": "BTC-USDT-SWAP", "pos": "-50", "posSide": "net", "avgPx": "10"}
        ]
        adapter.send(QueryAccount(), soon())
        account = await host.heard(AccountSnapshot)
        assert account.balances == (Balance("USDT", Decimal(100), Decimal(10)),)
        assert account.positions == (VenuePosition("BTC-USDT-PERP", Decimal("-0.50"), Decimal(10)),)


@story
async def test_a_question_without_an_answer_is_left_to_the_host_to_repeat() -> None:
    async with connected() as (script, adapter, host):
        script.answers["/api/v5/account/balance"] = lambda: web.Response(status=500)
        script.answers["/api/v5/account/positions"] = []
        adapter.send(QueryAccount(), soon())
        await eventually(lambda: adapter._queries.failures == 1)
        assert host.of(AccountSnapshot) == []


@story
async def test_no_part_of_the_credentials_reaches_a_log_or_an_error(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with connected(answer_timeout_ms=50.0) as (script, adapter, host):
            script.answers["/api/v5/account/balance"] = lambda: web.Response(status=500)
            adapter.send(QueryAccount(), soon())
            await script.private().send_str("{")
            await asyncio.sleep(0)
            await eventually(lambda: adapter._queries.failures == 1)
            shown = " ".join([repr(host.reports), repr(adapter.params), caplog.text])
    assert "Secret(***)" in shown
    assert "itself" not in shown
