"""The venue's Bybit protocol: shapes as recorded, refusals as documented, windows and books exact."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from bybit_client import WAIT_S, BybitClient, until
from bybit_venue import BybitVenue, bybit_venue
from exchange_tools import eventually, story, vectors
from hypothesis import given
from hypothesis import strategies as st

from host.api import Depth
from venue.protocols.bybit.books import BookWindow
from venue.protocols.bybit.disconnects import DisconnectCancel
from venue.protocols.bybit.limits import BybitLimits
from venue.protocols.bybit.members import Member
from venue.protocols.bybit.names import Product, number_of, order_id_of
from venue.protocols.bybit.reading import read_rest
from venue.protocols.faults import FaultKind
from venue.protocols.requests import Raw


@asynccontextmanager
async def served() -> AsyncIterator[tuple[BybitVenue, BybitClient]]:
    async with bybit_venue() as venue, aiohttp.ClientSession() as session:
        yield venue, BybitClient(venue, session)


# -- shapes --------------------------------------------------------------------------------------

OMITTED = {
    "symbolId",  # a number of the venue's own
    "xstockMultiplier",
    "nextPageCursor",  # stray in rows that ccxt recorded
    "mmrSysUpdateTime",  # misprints, beside the right names
    "totalPerpUpl",
    "liqPriceByMp",  # of portfolio margin
}
"""Fields of recordings that say nothing to a client."""


def kind_of(value: Any) -> str:
    # ccxt writes numbers of its recordings as text.
    return "text" if isinstance(value, str | int) and not isinstance(value, bool) else type(value).__name__


def missing(recorded: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """Return the fields of a recording that ours has not, or has as something else; null is either's right."""
    names = [name for name in recorded if name not in OMITTED]
    absent = [name for name in names if name not in ours]
    other = [
        name
        for name in names
        if name in ours
        and None not in (recorded[name], ours[name])
        and kind_of(recorded[name]) != kind_of(ours[name])
    ]
    return absent + other


def rows_in(vector: dict[str, Any]) -> list[dict[str, Any]]:
    message = vector.get("http_response") or vector["message"]
    if not isinstance(message, dict):
        return []
    if isinstance(message.get("data"), list):
        return list(message["data"])
    result = message.get("result")
    return list(result.get("list") or ()) if isinstance(result, dict) else []


def is_perpetual(row: dict[str, Any]) -> bool:
    return row.get("category") != "option" and not row["symbol"].endswith(("-C", "-P"))


async def sample(venue: BybitVenue, client: BybitClient) -> dict[str, dict[str, Any]]:
    """Return one row of each sort that the venue makes."""
    pushed: dict[str, dict[str, Any]] = {}
    private = await client.socket("/v5/private")
    await private.send_json(
        {"op": "subscribe", "args": ["order", "execution", "execution.fast", "position", "wallet"]}
    )
    await client.place("BTCUSDT", "linear")
    await client.place("BTCUSDT", "linear", price="60100", timeInForce="IOC")
    async with asyncio.timeout(WAIT_S):
        while {"order", "execution", "execution.fast", "position", "wallet"} - pushed.keys():
            message = await private.receive_json()
            if "topic" in message:
                pushed[message["topic"]] = message["data"][0]
    await client.place("BTCUSDT", "spot")
    rows = {f"ws {topic}": row for topic, row in pushed.items()}
    for name, path, query in (
        ("order linear", "/v5/order/realtime", {"category": "linear", "symbol": "BTCUSDT"}),
        ("order spot", "/v5/order/realtime", {"category": "spot"}),
        ("execution", "/v5/execution/list", {"category": "linear"}),
        ("position", "/v5/position/list", {"category": "linear", "symbol": "BTCUSDT"}),
        ("wallet", "/v5/account/wallet-balance", {"accountType": "UNIFIED"}),
        ("fee", "/v5/account/fee-rate", {"category": "spot"}),
        ("instrument spot", "/v5/market/instruments-info", {"category": "spot"}),
        ("instrument linear", "/v5/market/instruments-info", {"category": "linear"}),
        ("trade", "/v5/market/recent-trade", {"category": "linear", "symbol": "BTCUSDT"}),
    ):
        rows[name] = (await client.get(path, 0, 5_000, **query))["result"]["list"][0]
    return rows


RECORDED: list[tuple[str, str, Callable[[dict[str, Any]], object]]] = [
    ("wire/bybit/order.json", "ws order", lambda row: "symbol" in row),
    ("wire/bybit/execution.json", "ws execution.fast", lambda row: "execType" not in row),
    ("wire/bybit/execution.json", "ws execution", lambda row: "category" in row and "execType" in row),
    ("wire/bybit/execution.json", "execution", lambda row: "category" not in row),
    ("wire/bybit/position.json", "position", lambda row: "avgPrice" in row),
    ("wire/bybit/position.json", "ws position", lambda row: "entryPrice" in row),
    ("wire/bybit/wallet.json", "wallet", lambda row: "coin" in row),
    ("wire/bybit/wallet.json", "fee", lambda row: "takerFeeRate" in row),
    ("wire/bybit/rest_order.json", "order linear", is_perpetual),
    (
        "wire/bybit/instruments.json",
        "instrument spot",
        lambda row: not row.keys() & {"contractType", "optionsType"},
    ),
    (
        "wire/bybit/instruments.json",
        "instrument linear",
        lambda row: row.get("contractType") == "LinearPerpetual",
    ),
    ("wire/bybit/public_trade.json", "trade", lambda row: "execId" in row),
    ("ccxt/bybit/responses.json", "order linear", lambda row: "orderStatus" in row and "tpslMode" in row),
    ("ccxt/bybit/responses.json", "order spot", lambda row: "orderStatus" in row and "tpslMode" not in row),
    ("ccxt/bybit/responses.json", "execution", lambda row: "execType" in row),
    (
        "ccxt/bybit/responses.json",
        "position",
        lambda row: "positionIdx" in row and "avgPrice" in row and "size" in row,
    ),
]


@pytest.mark.skipif(
    any(one.marks for one in vectors("wire/bybit/order.json")), reason="the venue vectors are absent"
)
@story
async def test_every_field_of_a_recorded_row_is_in_ours() -> None:
    async with served() as (venue, client):
        ours = await sample(venue, client)
        for file, name, is_wanted in RECORDED:
            rows = [row for one in vectors(file) for row in rows_in(one.values[0]) if is_wanted(row)]
            assert rows, (file, name)
            for row in rows:
                assert missing(row, ours[name]) == [], (file, name)


def test_an_order_id_reads_back_and_nobody_elses_does() -> None:
    for product in Product:
        assert number_of(order_id_of(product, 17)) == 17
    assert number_of("1321003749386327552") is None
    assert number_of("c6f055d9-7f21-4079-913d-e6523a9cfffa") is None
    assert number_of("") is None and number_of("x") is None


# -- refusals ------------------------------------------------------------------------------------


@story
async def test_a_request_counts_within_its_window_and_no_longer() -> None:
    async with served() as (_, client):
        # Well inside and well outside: the venue's own clock goes on while a request travels.
        for shift_ms, window_ms, code in (
            (0, 5_000, 0),
            (-30_000, 60_000, 0),
            (500, 5_000, 0),
            (-6_000, 5_000, 10002),
            (-30_000, 5_000, 10002),
            (30_000, 60_000, 10002),
            (-100, 0, 10002),
        ):
            answer = await client.get("/v5/account/info", shift_ms, window_ms)
            assert answer["retCode"] == code, (shift_ms, window_ms, answer)


@story
async def test_an_order_that_was_held_beyond_its_window_never_reaches_the_book() -> None:
    async with served() as (venue, client):
        venue.fault(FaultKind.LATENCY, request="place", delay_ms=600.0, count=1)
        fields = {"category": "spot", "symbol": "BTCUSDT", "side": "Buy", "orderType": "Limit", "qty": "0.01"}
        answer = await client.post("/v5/order/create", fields | {"price": "50000"}, window_ms=300)
        assert answer["retCode"] == 10002
        assert (await client.get("/v5/order/realtime", category="spot"))["result"]["list"] == []
        (line,) = venue.lines("place")
        assert (line.verdict, line.valid_ns) == ("refused", 300_000_000)


@story
async def test_bad_requests_are_refused_with_the_code_that_names_the_fault() -> None:
    async with served() as (venue, client):
        create = "/v5/order/create"
        order = {
            "category": "spot",
            "symbol": "BTCUSDT",
            "side": "Buy",
            "orderType": "Limit",
            "qty": "1",
            "price": "1",
        }
        for path, body, code in (
            (create, "not json", 10001),
            (create, "[]", 10001),
            (create, order | {"category": "shoes"}, 10001),
            (create, order | {"symbol": "NOPEUSDT"}, 170121),
            (create, order | {"category": "linear", "symbol": "NOPEUSDT"}, 10001),
            (create, order | {"side": "Both"}, 10001),
            (create, order | {"orderType": "Stop"}, 10001),
            (create, order | {"qty": "many"}, 10001),
            (create, order | {"qty": "-1"}, 10001),
            (create, order | {"qty": "NaN"}, 10001),
            (create, order | {"price": ""}, 10001),
            (create, order | {"timeInForce": "DAY"}, 10001),
            (create, order | {"triggerPrice": "3"}, 10001),
            (create, order | {"orderLinkId": "a b"}, 10001),
            (create, order | {"qty": "1000", "price": "60000"}, 170131),
            (create, order | {"category": "linear", "qty": "5000", "price": "60000"}, 110007),
            (create, order | {"price": "60000.01", "qty": "0.01"}, 170134),
            (create, order | {"price": "55000", "qty": "0.00001"}, 170140),
            ("/v5/order/cancel", {"category": "spot", "symbol": "BTCUSDT"}, 10001),
            ("/v5/order/cancel", {"category": "spot", "symbol": "BTCUSDT", "orderLinkId": "no"}, 170213),
            ("/v5/order/cancel", {"category": "linear", "symbol": "BTCUSDT", "orderLinkId": "no"}, 110001),
            ("/v5/order/amend", {"category": "linear", "symbol": "BTCUSDT", "orderId": "no"}, 110001),
            ("/v5/order/cancel-all", {"category": "linear"}, 10001),
            ("/v5/order/create-batch", {"category": "spot", "request": [order] * 11}, 10001),
            ("/v5/order/create-batch", {"category": "spot"}, 10001),
            (
                "/v5/position/set-leverage",
                {"category": "linear", "symbol": "BTCUSDT", "buyLeverage": "x"},
                10001,
            ),
            ("/v5/position/switch-mode", {"category": "linear", "symbol": "BTCUSDT", "mode": 3}, 110029),
            ("/v5/order/disconnected-cancel-all", {"timeWindow": 2}, 10001),
            ("/v5/nowhere", {}, 10017),
        ):
            answer = await client.post(path, body)
            assert answer["retCode"] == code, (path, body, answer)
        assert (await client.get("/v5/order/realtime", category="linear"))["retCode"] == 10001
        assert (await client.get("/v5/position/list", category="spot"))["retCode"] == 10001
        assert (await client.get("/v5/account/wallet-balance", accountType="SPOT"))["retCode"] == 10001
        wide = await client.get("/v5/execution/list", category="spot", startTime=0, endTime=10**12)
        assert wide["retCode"] == 10001
        assert venue.exchange.records("demo/unified").all() == []


@story
async def test_a_signature_covers_the_bytes_that_came() -> None:
    async with served() as (_, client):
        body = '{"category":  "spot", "symbol":"BTCUSDT","side":"Buy","orderType":"Limit","qty":"0.01","price":"50000"}'
        assert (await client.post("/v5/order/create", body))["retCode"] == 0
        wrong = {"X-BAPI-SIGN": client.sign("something else")}
        assert (await client.post("/v5/order/create", body, headers=wrong))["retCode"] == 10004
        assert (await client.post("/v5/order/create", body, headers={"X-BAPI-API-KEY": "nobody"}))[
            "retCode"
        ] == 10003
        assert (await client.post("/v5/order/create", body, headers={"X-BAPI-TIMESTAMP": "soon"}))[
            "retCode"
        ] in (10001, 10004)


@story
async def test_sockets_say_what_they_do_not_take() -> None:
    async with served() as (_, client):
        trade = await client.socket("/v5/trade", logs_in=False)
        await trade.send_json({"op": "order.create", "reqId": "1", "header": {}, "args": [{}]})
        assert (await trade.receive_json(timeout=WAIT_S))["retCode"] == 10005
        await trade.send_json({"op": "auth", "args": ["demo-key", 1, "x"]})
        assert (await trade.receive_json(timeout=WAIT_S))["retCode"] == 10004
        await trade.send_str("{")
        assert (await trade.receive_json(timeout=WAIT_S))["retCode"] == 10404
        private = await client.socket("/v5/private")
        await private.send_json({"op": "subscribe", "req_id": "7", "args": ["order", "order.spot"]})
        answer = await private.receive_json(timeout=WAIT_S)
        assert (answer["success"], answer["req_id"]) == (False, "7")
        await private.send_json({"op": "ping"})
        assert (await private.receive_json(timeout=WAIT_S))["op"] == "pong"
        public = await client.socket("/v5/public/spot")
        for args in (
            ["nothing.BTCUSDT"],
            ["orderbook.7.BTCUSDT"],
            ["publicTrade.NOPE"],
            ["publicTrade.BTCUSDT"] * 11,
        ):
            await public.send_json({"op": "subscribe", "args": args})
            assert (await public.receive_json(timeout=WAIT_S))["success"] is False
        await public.send_json({"op": "ping"})
        pong = await public.receive_json(timeout=WAIT_S)
        assert (pong["op"], pong["ret_msg"]) == ("ping", "pong")
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.socket("/v5/public/option")


# -- behaviour -----------------------------------------------------------------------------------


@story
async def test_a_post_only_order_that_crosses_is_taken_in_and_then_cancelled_unseen() -> None:
    async with served() as (_, client):
        private = await client.socket("/v5/private")
        await private.send_json({"op": "subscribe", "args": ["order"]})
        answer = await client.place(price="60500", timeInForce="PostOnly", orderLinkId="maker")
        assert answer["retCode"] == 0
        row = (await until(private, "order"))["data"][0]
        assert (row["orderLinkId"], row["orderStatus"]) == ("maker", "Cancelled")
        assert row["rejectReason"] == "EC_PostOnlyWillTakeLiquidity"


@story
async def test_what_is_open_is_cancelled_when_the_watched_connection_stays_away() -> None:
    async with served() as (venue, client):
        await client.post("/v5/order/disconnected-cancel-all", {"timeWindow": 3, "product": "SPOT"})
        front: Any = venue.server.courses["bybit"].front
        front._members["demo"].disconnect_s["SPOT"] = 0  # as if the three seconds were over at once
        await client.place("BTCUSDT", "spot", orderLinkId="spot")
        await client.place("BTCUSDT", "linear", orderLinkId="linear")
        private = await client.socket("/v5/private")
        await private.send_json({"op": "subscribe", "args": ["dcp.spot"]})
        await private.receive_json(timeout=WAIT_S)
        await private.close()
        records = venue.exchange.records("demo/unified")
        await eventually(
            lambda: [record.order.client_id for record in records.open()] == ["linear"], "cancelled"
        )
        (row,) = (await client.get("/v5/order/history", category="spot"))["result"]["list"]
        assert row["cancelType"] == "CancelByDCP"


@story
async def test_a_connection_that_comes_back_in_time_stops_the_count() -> None:
    fired: list[str] = []
    watched: set[str] = set()
    switch = DisconnectCancel(
        lambda _account, topic: topic in watched, lambda _member, product: fired.append(product)
    )
    member = Member("demo", "demo/unified", disconnect_s={"SPOT": 3600, "DERIVATIVES": 0})
    switch.gone(member, {"dcp.spot", "order"})
    switch.back("demo", {"dcp.spot"})
    assert not switch._timers
    watched.add("dcp.future")
    switch.gone(member, {"dcp.future"})
    assert not switch._timers  # another connection still watches
    watched.clear()
    switch.gone(member, {"dcp.future"})
    await eventually(lambda: fired == ["DERIVATIVES"], "fired")


def test_each_kind_of_request_has_its_count_and_says_what_is_left() -> None:
    limits, second = BybitLimits(), 1_700_000_000_000_000_000
    raw = Raw("POST", "/v5/order/create", "", b'{"category":"linear"}', {})
    request = read_rest(raw, "demo", second)
    for number in range(10):
        fits, headers = limits.take("demo", request, 1, second)
        assert (fits, headers["X-Bapi-Limit-Status"]) == (True, str(9 - number))
    assert limits.take("demo", request, 1, second)[0] is False
    assert limits.take("other", request, 1, second)[0] is True
    assert limits.take("demo", request, 1, second + 1_000_000_000)[0] is True
    spot = read_rest(Raw("POST", "/v5/order/create", "", b'{"category":"spot"}', {}), "demo", second)
    assert limits.take("demo", spot, 10, second)[0] is True
    assert limits.take("demo", spot, 11, second)[0] is False


LEVELS = st.dictionaries(st.integers(1, 12), st.integers(1, 3), max_size=12)


@given(st.lists(st.tuples(LEVELS, LEVELS), min_size=1, max_size=15), st.sampled_from([1, 3]))
def test_a_window_is_kept_exact_by_its_changes(
    books: list[tuple[dict[int, int], dict[int, int]]], depth: int
) -> None:
    window, ours = BookWindow("BTCUSDT", depth), {"b": {}, "a": {}}  # type: ignore[var-annotated]
    number = 0
    for seq, (bids, asks) in enumerate(books, 1):
        book = Depth(
            "BTC-USDT",
            tuple((float(price), float(size)) for price, size in sorted(bids.items(), reverse=True)),
            tuple((100.0 + price, float(size)) for price, size in sorted(asks.items())),
            True,
            seq,
            seq,
        )
        if not window.is_started:
            window.start(book)
            data: Any = window.snapshot()
        else:
            data = window.advance(book)
        if data is not None:
            assert number == 0 or data["u"] == number + 1
            number = data["u"]
            for side in "ba":
                if depth == 1 or seq == 1:
                    ours[side] = {}
                for price, size in data[side]:
                    ours[side][Decimal(price)] = Decimal(size)
                ours[side] = {price: size for price, size in ours[side].items() if size}
        assert ours["b"] == {Decimal(repr(p)): Decimal(repr(s)) for p, s in book.bids[:depth]}
        assert ours["a"] == {Decimal(repr(p)): Decimal(repr(s)) for p, s in book.asks[:depth]}


@story
async def test_a_topic_whose_turn_is_overdue_is_pushed_all_the_same() -> None:
    async with served() as (venue, client):
        public = await client.socket("/v5/public/spot")
        await public.send_json({"op": "subscribe", "args": ["orderbook.1.BTCUSDT"]})
        first = await until(public, "orderbook.1.BTCUSDT")
        streams: Any = venue.server.courses["bybit"].front._public
        key = (Product.SPOT, "orderbook.1.BTCUSDT")
        # As after a pause of the whole process: uvloop hands back another kind of handle.
        streams._soon(key, -1.0)
        streams._soon(key, 0.01)
        later = await until(public, "orderbook.1.BTCUSDT")
        assert later["data"]["u"] >= first["data"]["u"]
