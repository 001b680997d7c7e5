"""Faults on command against a real server: what the client sees, what the exchange did, what the log says."""

import asyncio
from random import Random

import aiohttp
import orjson
import pytest
from protocol_tools import Binance, Venue, connected, open_protocols, until

from host.api import OrderStatus
from venue.protocols.faults import FaultKind

NOT_OF_ONE_REQUEST = {
    FaultKind.CLOCK_SKEW,
    FaultKind.MAINTENANCE,
    FaultKind.STALE_BOOK,
    FaultKind.SEQUENCE_GAP,
    FaultKind.HALF_BATCH,
}


def open_ids(venue: Venue) -> list[str]:
    if not venue.running.exchange.has_account("demo/spot"):
        return []
    return [record.order.client_id for record in venue.running.exchange.records("demo/spot").open()]


async def test_request_held_beyond_its_window_is_refused_by_the_engine() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        venue.fault(kind=FaultKind.LATENCY, request="place", delay_ms=100)
        sent = asyncio.create_task(client.place("BUY", "100", "1", newClientOrderId="late", recvWindow=50))
        await until(lambda: venue.clock.sleepers == 1)
        venue.pass_time(0.2)
        late = await sent
        sent = asyncio.create_task(client.place("BUY", "100", "1", newClientOrderId="good", recvWindow=500))
        await until(lambda: venue.clock.sleepers == 1)
        venue.pass_time(0.2)
        good = await sent

        assert (late.status, late.code) == (400, -1021)
        assert good.status == 200 and open_ids(venue) == ["good"]
        [line] = venue.lines(client_id="late")
        assert line.verdict == "refused" and line.reason.startswith("-1021 ")
        assert line.arrived_ns < line.decided_ns, "the engine decided, and later than it arrived"
        assert line.decided_ns > line.timestamp_ns + line.valid_ns  # type: ignore[operator]
        assert line.faults == ("latency",)


async def test_request_late_on_arrival_never_reaches_the_engine() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        old = await client.place("BUY", "100", "1", timestamp=client.now_ms() - 5001)
        edge = await client.place("BUY", "100", "1", timestamp=client.now_ms() - 5000)
        ahead = await client.place("BUY", "100", "1", timestamp=client.now_ms() + 1000)
        near = await client.place("BUY", "100", "1", timestamp=client.now_ms() + 999)

        assert [answer.code for answer in (old, edge, ahead, near)] == [-1021, 0, -1021, 0]
        assert [line.decided_ns > 0 for line in venue.lines(kind="place")] == [False, True, False, True]


@pytest.mark.parametrize("is_executed", [True, False])
async def test_server_error_leaves_the_outcome_to_be_asked_for(is_executed: bool) -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        venue.fault(kind=FaultKind.SERVER_ERROR, request="place", count=1, is_executed=is_executed)
        answer = await client.place("BUY", "100", "1", newClientOrderId="x")
        asked = await client.signed("GET", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="x")

        assert (answer.status, answer.code) == (503, -1007)
        assert asked.code == (0 if is_executed else -2013)
        assert [line.verdict for line in venue.lines(kind="place")] == ["accepted" if is_executed else "lost"]


async def test_rate_limit_and_maintenance_carry_nothing_out() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        venue.fault(kind=FaultKind.RATE_LIMIT, request="place", count=1, retry_after_s=7)
        limited = await client.place("BUY", "100", "1")
        number = venue.fault(kind=FaultKind.MAINTENANCE)
        serviced = await client.public("/api/v3/time")
        venue.server.faults.remove(number)

        assert limited.status == 429 and limited.headers["Retry-After"] == "7"
        assert serviced.status == 503 and open_ids(venue) == []
        assert (await client.public("/api/v3/time")).status == 200


async def test_dropped_and_disconnected_requests_differ_in_what_was_done() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        venue.fault(kind=FaultKind.DISCONNECT, request="place", count=1)
        venue.fault(kind=FaultKind.DISCONNECT, request="place", skip=1, count=1, is_executed=False)
        for client_id in ("done", "undone"):
            with pytest.raises(aiohttp.ClientError):
                await client.place("BUY", "100", "1", newClientOrderId=client_id)

        assert open_ids(venue) == ["done"]
        assert {line.client_id: line.verdict for line in venue.lines(kind="place")} == {
            "done": "accepted",
            "undone": "lost",
        }


async def test_unanswered_request_is_carried_out_or_not_as_the_fault_says() -> None:
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
        venue.fault(kind=FaultKind.DROP, request="place", count=1)
        venue.fault(kind=FaultKind.DROP_REQUEST, request="place", skip=1, count=1)
        for number, client_id in enumerate(("done", "lost", "seen"), start=1):
            params = client.frame_params(**order, newClientOrderId=client_id)
            await socket.send({"id": number, "method": "order.place", "params": params})
        answer = await socket.next()

        assert answer["id"] == 3 and answer["status"] == 200
        assert open_ids(venue) == ["done", "seen"]


async def test_duplicated_order_is_refused_the_second_time() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        venue.fault(kind=FaultKind.DUPLICATE, request="place")
        answer = await client.place("BUY", "100", "1", newClientOrderId="x")

        assert answer.status == 200 and open_ids(venue) == ["x"]
        assert [line.verdict for line in venue.lines(client_id="x")] == ["accepted", "refused"]


async def test_late_frame_holds_those_behind_it_and_a_reordered_one_is_overtaken() -> None:
    async def order_of(kind: FaultKind) -> list[int]:
        async with open_protocols() as venue, connected(venue, "/ws-api/v3") as socket:
            venue.fault(kind=kind, request="market", delay_ms=50, count=1)
            for number in (1, 2, 3):
                await socket.send({"id": number, "method": "time"})
            await until(lambda: venue.clock.sleepers == 1)
            if kind is FaultKind.REORDER:
                first = [(await socket.next())["id"] for _ in range(2)]
                venue.pass_time(0.1)
                return [*first, (await socket.next())["id"]]
            venue.pass_time(0.1)
            return [(await socket.next())["id"] for _ in range(3)]

    assert await order_of(FaultKind.LATENCY) == [1, 2, 3]
    assert await order_of(FaultKind.REORDER) == [2, 3, 1]


async def test_skewed_clock_is_shown_and_judged_by() -> None:
    async with open_protocols() as venue:
        client = Binance(venue)
        venue.fault(kind=FaultKind.CLOCK_SKEW, skew_ms=10_000)
        shown = await client.public("/api/v3/time")
        by_real_time = await client.place("BUY", "100", "1")
        by_its_time = await client.place("BUY", "100", "1", timestamp=shown.body["serverTime"])

        assert shown.body["serverTime"] == client.now_ms() + 10_000
        assert (by_real_time.code, by_its_time.code) == (-1021, 0)
        assert venue.lines(kind="place")[1].arrived_ns == venue.clock.wall_now_ns(), "the log is never skewed"


async def test_private_events_are_dropped_and_doubled() -> None:
    async with open_protocols() as venue, connected(venue, "/ws-api/v3") as socket:
        client = Binance(venue)
        await socket.ask("userDataStream.subscribe.signature", client.frame_params())
        venue.fault(kind=FaultKind.DROP, request="private", count=2)
        venue.fault(kind=FaultKind.DUPLICATE, request="private", skip=2, count=1)
        await client.place("BUY", "100", "1", newClientOrderId="unheard")
        await client.place("BUY", "100", "1", newClientOrderId="twice")
        heard = [await socket.event("executionReport") for _ in range(2)]

        assert [event["c"] for event in heard] == ["twice", "twice"]


async def test_late_events_keep_their_order_and_a_reordered_one_is_overtaken() -> None:
    async def heard(kind: FaultKind, count: int | None) -> list[str]:
        async with open_protocols() as venue, connected(venue, "/ws-api/v3") as socket:
            client = Binance(venue)
            await socket.ask("userDataStream.subscribe.signature", client.frame_params())
            venue.fault(kind=kind, request="private", delay_ms=20, jitter_ms=20, count=count)
            for number in range(8):
                await client.place("BUY", "100", "1", newClientOrderId=f"o{number}")
            return [(await socket.event("executionReport"))["c"] for _ in range(8)]

    sent = [f"o{number}" for number in range(8)]
    assert await heard(FaultKind.LATENCY, None) == sent
    assert sorted(await heard(FaultKind.REORDER, 1)) == sent


async def test_connection_breaks_in_place_of_an_event_and_on_command() -> None:
    async with open_protocols(admin=True) as venue:
        client = Binance(venue)
        async with connected(venue, "/ws-api/v3") as socket:
            await socket.ask("userDataStream.subscribe.signature", client.frame_params())
            venue.fault(kind=FaultKind.DISCONNECT, request="private", count=1)
            await client.place("BUY", "100", "1")
            assert await socket.next() is None
        async with connected(venue, "/ws/btcusdt@trade") as socket:
            url = f"http://{venue.server.addresses['admin']}/disconnect?protocol=binance"
            async with venue.http.post(url) as response:
                assert orjson.loads(await response.read()) == {"disconnected": 1}
            assert await socket.next() is None


async def test_log_has_a_line_for_what_asked_for_nothing_that_exists() -> None:
    async with open_protocols() as venue, connected(venue, "/ws-api/v3") as socket:
        await Binance(venue).public("/api/v3/nowhere")
        await socket.socket.send_str("not json")
        await socket.next()

        assert [line.method for line in venue.lines()] == ["GET /api/v3/nowhere", ""]
        assert [line.verdict for line in venue.lines()] == ["refused", "refused"]


@pytest.mark.parametrize("seed", [1, 2])
async def test_log_judges_truly_whatever_goes_wrong(seed: int) -> None:
    """Under every fault at once: an order is at the engine exactly where a line says `accepted`."""
    random = Random(seed)
    kinds = [kind for kind in FaultKind if kind not in NOT_OF_ONE_REQUEST]
    async with open_protocols() as venue:
        client = Binance(venue)
        for kind in kinds:
            venue.fault(
                kind=kind,
                request=random.choice(("place", "cancel", "")),
                probability=0.1,
                delay_ms=20,
                jitter_ms=50,
                is_executed=random.random() < 0.5,
            )

        async def trade(number: int) -> None:
            try:
                async with asyncio.timeout(0.3):
                    if number % 3:
                        price = str(random.choice((99, 100, 101)))
                        side = random.choice(("BUY", "SELL"))
                        await client.place(side, price, "0.1", newClientOrderId=f"o{number}", recvWindow=40)
                    else:
                        known = f"o{random.randrange(1 + number)}"
                        await client.signed(
                            "DELETE", "/api/v3/order", symbol="BTCUSDT", origClientOrderId=known
                        )
            except (aiohttp.ClientError, TimeoutError):
                return  # the client does not know what became of it: that is what the log is for

        async def pass_time() -> None:
            while True:
                venue.pass_time(0.001)
                await asyncio.sleep(0)

        clock = asyncio.create_task(pass_time())
        for first in range(0, 150, 15):
            await asyncio.gather(*(trade(number) for number in range(first, first + 15)))
        venue.server.faults.clear()
        await until(lambda: venue.clock.sleepers == 0)
        clock.cancel()

        lines = venue.lines(kind="place")
        accepted = {line.order_id: line for line in lines if line.verdict == "accepted"}
        records = venue.running.exchange.records("demo/spot").all()
        assert {str(record.order.order_id) for record in records} == set(accepted)
        assert all(accepted[str(each.order.order_id)].client_id == each.order.client_id for each in records)
        assert 0 < len(accepted) < len(lines)
        for line in accepted.values():
            assert line.timestamp_ns is not None and line.valid_ns is not None
            assert line.decided_ns <= line.timestamp_ns + line.valid_ns, "accepted beyond its window"
        cancelled = {line.order_id for line in venue.lines(kind="cancel", verdict="accepted")}
        ended = {str(record.order.order_id) for record in records if record.end is OrderStatus.CANCELLED}
        assert ended == cancelled


async def test_a_protocol_that_fails_on_an_event_cuts_its_clients_off_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_protocols("binance", "okx") as venue:
        binance = Binance(venue)
        failing = venue.server.courses["okx"].front

        def fail(event: object) -> None:
            raise ArithmeticError("a price that this protocol cannot write")

        monkeypatch.setattr(failing, "on_market", fail)
        async with (
            connected(venue, "/ws/v5/public", "okx") as cut,
            connected(venue, "/ws/btcusdt@bookTicker") as kept,
        ):
            for side, price in (("BUY", "100"), ("SELL", "101")):
                assert (await binance.place(side, price, "1")).status == 200
            assert await cut.next() is None
            assert (await kept.next())["b"].startswith("100")
        async with connected(venue, "/ws/v5/public", "okx") as again:
            await again.socket.send_str("ping")
            assert (await again.socket.receive()).data == "pong"
