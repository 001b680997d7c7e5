"""The venue's OKX protocol: what it accepts, what it refuses and in which words, and what it pushes."""

import asyncio
import base64
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any

import aiohttp
import pytest
from exchange_tools import FIXTURES, eventually, story, vectors
from okx_venue import DEMO, OkxVenue, okx_venue

from venue.perpetuals import FundingPayment
from venue.protocols.accounts import KeyedAccount
from venue.protocols.faults import FaultKind
from venue.protocols.okx.limits import OkxLimits
from venue.protocols.okx.names import Symbols
from venue.protocols.okx.reading import read_frame, read_rest
from venue.protocols.okx.silence import CLOSE_CODE
from venue.protocols.requests import Kind, Raw, Request

SPOT, SWAP = "BTC-USDT", "BTC-USDT-SWAP"


class Client:
    """A raw client: it signs, and asserts nothing."""

    def __init__(self, venue: OkxVenue, http: aiohttp.ClientSession, account: KeyedAccount = DEMO) -> None:
        self.venue = venue
        self.http = http
        self.account = account

    def stamp(self, shift_s: float = 0.0) -> str:
        now_s = self.venue.server.courses["okx"].front.desk.now_ns() / 1e9 + shift_s
        return datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def now_ms(self) -> int:
        return self.venue.server.courses["okx"].front.desk.now_ns() // 1_000_000

    async def ask(self, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Return status and answer of a signed request; `headers` overrides."""
        content = b"" if body is None else json.dumps(body).encode()
        stamp = headers.get("OK_ACCESS_TIMESTAMP", self.stamp())
        payload = f"{stamp}{method}{target}".encode() + content
        signed = {
            "OK-ACCESS-KEY": self.account.api_key,
            "OK-ACCESS-SIGN": self.sign(payload),
            "OK-ACCESS-TIMESTAMP": stamp,
            "OK-ACCESS-PASSPHRASE": self.account.passphrase,
            "x-simulated-trading": "1",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"{self.venue.rest_url}{target}"
        async with self.http.request(method, url, data=content or None, headers=signed) as response:
            return response.status, await response.json()

    def sign(self, payload: bytes) -> str:
        digest = hmac.new(self.account.secret.encode(), payload, sha256).digest()
        return base64.b64encode(digest).decode()

    async def place(self, client_id: str = "c1", **fields: Any) -> dict[str, Any]:
        """Place a limit order that rests, unless the fields say otherwise; return its outcome."""
        order = self.order(client_id, **fields)
        _, answer = await self.ask("POST", "/api/v5/trade/order", order)
        row: dict[str, Any] = answer["data"][0] if answer["data"] else answer
        return row

    def order(self, client_id: str = "c1", **fields: Any) -> dict[str, Any]:
        price = self.venue.best("BTC-USDT")[0] - 100
        usual = {"instId": SPOT, "tdMode": "cash", "side": "buy", "ordType": "limit", "sz": "0.01"}
        return {**usual, "px": str(price), "clOrdId": client_id, **fields}


@asynccontextmanager
async def client(**venue_terms: Any) -> AsyncIterator[Client]:
    async with okx_venue(**venue_terms) as venue, aiohttp.ClientSession() as http:
        yield Client(venue, http)


@asynccontextmanager
async def private(client: Client) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Open a private connection that is logged in."""
    async with client.http.ws_connect(f"{client.venue.ws_url}/ws/v5/private") as socket:
        stamp = client.now_ms() // 1000
        sign = client.sign(f"{stamp}GET/users/self/verify".encode())
        login = {"apiKey": DEMO.api_key, "passphrase": DEMO.passphrase, "timestamp": stamp, "sign": sign}
        await socket.send_json({"op": "login", "args": [login]})
        assert (await socket.receive_json())["event"] == "login"
        yield socket


async def asked(socket: aiohttp.ClientWebSocketResponse, op: str, arg: Any, **top: Any) -> dict[str, Any]:
    """Send an operation and return its answer; pushes before it are dropped."""
    await socket.send_json({"id": "1", "op": op, "args": [arg], **top})
    while True:
        message: dict[str, Any] = await socket.receive_json()
        if message.get("op") == op or message.get("event"):
            return message


BAD_KEYS = [
    ({"OK_ACCESS_KEY": "nobody"}, "50111"),
    ({"OK_ACCESS_SIGN": "d3Jvbmc="}, "50113"),
    ({"OK_ACCESS_PASSPHRASE": "wrong"}, "50105"),
    ({"OK_ACCESS_PASSPHRASE": ""}, "50104"),
    ({"OK_ACCESS_TIMESTAMP": "yesterday"}, "50112"),
]


@pytest.mark.parametrize(("headers", "code"), BAD_KEYS, ids=[code for _, code in BAD_KEYS])
def test_a_request_that_does_not_prove_who_sends_it_is_refused(headers: dict[str, str], code: str) -> None:
    @story
    async def run() -> None:
        async with client() as ours:
            status, answer = await ours.ask("GET", "/api/v5/account/balance", **headers)
            assert (status, answer["code"]) == (401, code)

    run()


@pytest.mark.parametrize("shift_s", [-31.0, 31.0])
def test_a_time_that_is_too_far_from_the_venues_is_refused(shift_s: float) -> None:
    @story
    async def run() -> None:
        async with client() as ours:
            _, answer = await ours.ask(
                "GET", "/api/v5/account/balance", OK_ACCESS_TIMESTAMP=ours.stamp(shift_s)
            )
            assert answer["code"] == "50102"

    run()


BAD_ORDERS = [
    ({"instId": "NO-SUCH"}, "51001"),
    ({"side": "up"}, "51000"),
    ({"ordType": "limbo"}, "51000"),
    ({"tdMode": "cross"}, "51000"),
    ({"clOrdId": "with-hyphen"}, "51000"),
    ({"clOrdId": "x" * 33}, "51000"),
    ({"sz": "0"}, "51000"),
    ({"sz": "nan"}, "51000"),
    ({"px": ""}, "51000"),
    ({"sz": "1000000"}, "51008"),
    ({"sz": "0.0100000001"}, "51121"),
    ({"px": "1"}, "51006"),
    ({"posSide": "long"}, "51000"),
]


@pytest.mark.parametrize(("fields", "code"), BAD_ORDERS, ids=[str(fields) for fields, _ in BAD_ORDERS])
def test_an_order_that_cannot_be_is_refused_in_the_venues_words(fields: dict[str, str], code: str) -> None:
    @story
    async def run() -> None:
        async with client() as ours:
            assert (await ours.place(**fields))["sCode"] == code
            (line,) = ours.venue.lines("place")
            assert (line.verdict, line.reason[:5]) == ("refused", code)

    run()


@story
async def test_a_client_id_is_taken_once_and_for_ever() -> None:
    async with client() as ours:
        placed = await ours.place()
        await ours.ask("POST", "/api/v5/trade/cancel-order", {"instId": SPOT, "clOrdId": "c1"})
        assert (await ours.place())["sCode"] == "51016"
        _, answer = await ours.ask("POST", "/api/v5/trade/cancel-order", {"instId": SPOT, "clOrdId": "c1"})
        assert (answer["code"], answer["data"][0]["sCode"]) == ("1", "51401")
        _, answer = await ours.ask("GET", f"/api/v5/trade/order?instId={SPOT}&ordId={placed['ordId']}")
        assert answer["data"][0]["state"] == "canceled"
        _, answer = await ours.ask("GET", f"/api/v5/trade/order?instId={SPOT}&clOrdId=c2")
        assert (answer["code"], answer["data"]) == ("51603", [])


@story
async def test_a_request_past_its_expiry_is_refused_on_arrival() -> None:
    async with client() as ours:
        late = str(ours.now_ms() - 1)
        _, answer = await ours.ask("POST", "/api/v5/trade/order", ours.order(), expTime=late)
        assert answer["code"] == "51149"
        _, answer = await ours.ask("POST", "/api/v5/trade/order", ours.order(), expTime="soon")
        assert answer["code"] == "50036"
        async with private(ours) as socket:
            answer = await asked(socket, "order", ours.order(), expTime=late)
            assert answer["code"] == "51149"
        assert [line.verdict for line in ours.venue.lines("place")] == ["refused"] * 3


@story
async def test_a_request_that_was_held_past_its_expiry_is_refused_by_the_engine() -> None:
    async with client() as ours, private(ours) as socket:
        ours.venue.fault(FaultKind.LATENCY, request="place", delay_ms=1700.0)
        answer = await asked(socket, "order", ours.order(), expTime=str(ours.now_ms() + 1500))
        assert (answer["code"], answer["data"][0]["sCode"]) == ("1", "51149")
        assert not list(ours.venue.exchange.records("demo/trading").open())
        (line,) = ours.venue.lines("place")
        assert line.verdict == "refused"


@story
async def test_the_socket_takes_an_instrument_by_its_number() -> None:
    async with client() as ours, private(ours) as socket:
        _, answer = await ours.ask("GET", f"/api/v5/public/instruments?instType=SPOT&instId={SPOT}")
        order = ours.order()
        del order["instId"]
        answer = await asked(socket, "order", order | {"instIdCode": answer["data"][0]["instIdCode"]})
        assert (answer["code"], answer["data"][0]["sCode"]) == ("0", "0")
        answer = await asked(socket, "order", order | {"instIdCode": 99_999, "clOrdId": "c2"})
        assert answer["data"][0]["sCode"] == "51001"


@story
async def test_nobody_trades_or_listens_without_a_login() -> None:
    async with client() as ours, ours.http.ws_connect(f"{ours.venue.ws_url}/ws/v5/private") as socket:
        assert (await asked(socket, "order", ours.order()))["code"] == "60011"
        answer = await asked(socket, "subscribe", {"channel": "orders", "instType": "ANY"})
        assert (answer["event"], answer["code"]) == ("error", "60011")
        login = {"apiKey": DEMO.api_key, "passphrase": "wrong", "timestamp": "1", "sign": ""}
        assert (await asked(socket, "login", login))["code"] == "60024"
        await socket.send_str("ping")
        assert await socket.receive_str() == "pong"


BAD_FRAMES = [("{", "60012"), ("[]", "60012"), ('{"op":"subscribe","args":[7]}', "60013")]


@pytest.mark.parametrize(("frame", "code"), BAD_FRAMES, ids=[frame for frame, _ in BAD_FRAMES])
def test_a_frame_without_sense_is_answered_by_an_error(frame: str, code: str) -> None:
    @story
    async def run() -> None:
        async with client() as ours, ours.http.ws_connect(f"{ours.venue.ws_url}/ws/v5/public") as socket:
            await socket.send_str(frame)
            answer = await socket.receive_json()
            assert (answer["event"], answer["code"]) == ("error", code)
            answer = await asked(socket, "subscribe", {"channel": "books", "instId": "NO-SUCH"})
            assert answer["code"] == "60018"

    run()


@story
async def test_the_life_of_an_order_is_pushed() -> None:
    async with client() as ours, private(ours) as socket:
        await asked(socket, "subscribe", {"channel": "orders", "instType": "SPOT"})

        async def pushed() -> dict[str, Any]:
            message = await socket.receive_json()
            row: dict[str, Any] = message["data"][0]
            return row

        await ours.place(tag="t1")
        live = await pushed()
        assert (live["state"], live["clOrdId"], live["tag"], live["accFillSz"]) == ("live", "c1", "t1", "0")
        price = str(Decimal(live["px"]) - 1)
        amend = {"instId": SPOT, "clOrdId": "c1", "newPx": price, "reqId": "r1"}
        await ours.ask("POST", "/api/v5/trade/amend-order", amend)
        amended = await pushed()
        assert (amended["amendResult"], amended["reqId"], amended["px"]) == ("0", "r1", price)
        await ours.ask("POST", "/api/v5/trade/cancel-order", {"instId": SPOT, "clOrdId": "c1"})
        ended = await pushed()
        assert (ended["state"], ended["cancelSource"], ended["amendResult"]) == ("canceled", "1", "")
        ask = ours.venue.best("BTC-USDT")[1]
        await ours.place("c2", ordType="post_only", px=str(ask + 100))
        assert ((await pushed())["cancelSource"]) == "31"
        await ours.place("c3", px=str(ask + 1000), sz="0.001")
        filled = [await pushed(), await pushed()]
        assert [row["state"] for row in filled] == ["live", "filled"]
        assert (filled[1]["fillSz"], filled[1]["execType"]) == ("0.001", "T")
        assert Decimal(filled[1]["fillFee"]) < 0 and filled[1]["fillFeeCcy"] == "BTC"


@story
async def test_leverage_is_the_engines_and_a_position_shows_what_it_ties_up() -> None:
    async with client() as ours:
        lever = {"instId": SWAP, "lever": "4", "mgnMode": "cross"}
        _, answer = await ours.ask("POST", "/api/v5/account/set-leverage", lever)
        assert answer["data"][0]["lever"] == "4"
        assert ours.venue.exchange.account("demo/trading").leverage_of("BTC-USDT-PERP") == 4
        ask = ours.venue.best("BTC-USDT-PERP")[1]
        await ours.place("s1", instId=SWAP, tdMode="cross", px=str(ask + 1000), sz="1")
        _, answer = await ours.ask("GET", f"/api/v5/account/positions?instId={SWAP}")
        (row,) = answer["data"]
        worth = Decimal(row["avgPx"]) * Decimal(row["pos"]) * Decimal("0.01")
        assert Decimal(row["imr"]) == pytest.approx(worth / 4, rel=Decimal("1e-6"))
        assert (row["lever"], row["liqPx"]) == ("4", "")  # a million covers it down to nothing
        _, answer = await ours.ask("GET", f"/api/v5/account/leverage-info?instId={SWAP}&mgnMode=cross")
        assert answer["data"][0]["lever"] == "4"


@story
async def test_funding_shows_in_the_pushed_balance() -> None:
    async with client() as ours, private(ours) as socket:
        await asked(socket, "subscribe", {"channel": "account"})
        await socket.receive_json()  # how it is
        front: Any = ours.venue.server.courses["okx"].front
        ours.venue.exchange.account("demo/trading").pay("USDT", Decimal(-7))
        paid = FundingPayment("demo/trading", "BTC-USDT-PERP", "USDT", Decimal(-7), Decimal("0.0001"), 0)
        front.on_funding(paid, "demo", "trading")
        details = (await socket.receive_json())["data"][0]["details"]
        assert {row["ccy"]: row["cashBal"] for row in details}["USDT"] == "999993"


@story
async def test_the_dead_mans_switch_cancels_one_tag_alone() -> None:
    async with client() as ours:
        await ours.place("c1", tag="t1")
        await ours.place("c2", tag="t2")
        _, answer = await ours.ask("POST", "/api/v5/trade/cancel-all-after", {"timeOut": "5", "tag": "t1"})
        assert answer["code"] == "51000"  # 0, or 10 to 120 s
        _, answer = await ours.ask("POST", "/api/v5/trade/cancel-all-after", {"timeOut": 10, "tag": "t1"})
        assert int(answer["data"][0]["triggerTime"]) > 0
        front: Any = ours.venue.server.courses["okx"].front
        front._switches._over(front._members["demo"], "t1")  # its time has come
        await eventually(lambda: len(list(ours.venue.exchange.records("demo/trading").open())) == 1)
        _, answer = await ours.ask("GET", f"/api/v5/trade/order?instId={SPOT}&clOrdId=c1")
        assert (answer["data"][0]["state"], answer["data"][0]["cancelSource"]) == ("canceled", "20")


@story
async def test_a_batch_tells_each_outcome_and_may_be_answered_by_half() -> None:
    async with client() as ours:
        orders = [ours.order("c1"), ours.order("c1"), ours.order("c3")]
        _, answer = await ours.ask("POST", "/api/v5/trade/batch-orders", orders)
        assert answer["code"] == "2"
        assert [row["sCode"] for row in answer["data"]] == ["0", "51016", "0"]
        ours.venue.fault(FaultKind.HALF_BATCH, count=1)
        orders = [ours.order("c4"), ours.order("c5")]
        _, answer = await ours.ask("POST", "/api/v5/trade/batch-orders", orders)
        assert [row["clOrdId"] for row in answer["data"]] == ["c4"]
        assert len(list(ours.venue.exchange.records("demo/trading").open())) == 4
        _, answer = await ours.ask("POST", "/api/v5/trade/batch-orders", [ours.order("x")] * 21)
        assert answer["code"] == "51111"
        assert [line.kind for line in ours.venue.lines()].count(Kind.BATCH) >= 1


@story
async def test_misbehaviour_is_told_in_the_venues_words() -> None:
    async with client() as ours:
        ours.venue.fault(FaultKind.SERVER_ERROR, request="place", count=1)
        status, answer = await ours.ask("POST", "/api/v5/trade/order", ours.order())
        assert (status, answer["code"]) == (500, "50026")
        assert len(list(ours.venue.exchange.records("demo/trading").open())) == 1  # accepted all the same
        ours.venue.fault(FaultKind.RATE_LIMIT, request="place", count=1)
        status, answer = await ours.ask("POST", "/api/v5/trade/order", ours.order("c2"))
        assert (status, answer["code"]) == (429, "50011")
        ours.venue.fault(FaultKind.MAINTENANCE, request="place", count=1)
        status, answer = await ours.ask("POST", "/api/v5/trade/order", ours.order("c3"))
        assert (status, answer["code"]) == (503, "50001")


def test_orders_are_limited_by_instrument_and_batches_apart() -> None:
    limits = OkxLimits()
    raw = Raw("POST", "/api/v5/trade/order", "", b"", {})

    def takes(symbol: str, at_ns: int, kind: Kind = Kind.PLACE, count: int = 1) -> bool:
        request = Request("okx", "rest", "", kind, raw, at_ns, symbol=symbol)
        op = "batch-orders" if kind is Kind.BATCH else "order"
        return limits.takes_order("demo", request, op, count, at_ns)

    assert all(takes(SPOT, at) for at in range(60))
    assert not takes(SPOT, 60)
    assert takes(SWAP, 60)
    assert takes(SPOT, 60, Kind.BATCH, 20)
    assert takes(SPOT, 2_000_000_001)


@story
async def test_a_lost_change_shows_as_a_break_in_the_sequence() -> None:
    async with client() as ours, ours.http.ws_connect(f"{ours.venue.ws_url}/ws/v5/public") as socket:
        await asked(socket, "subscribe", {"channel": "books", "instId": SPOT})
        seqs = []
        ours.venue.fault(FaultKind.SEQUENCE_GAP, request="depth", skip=3, count=1)
        for _ in range(6):
            row = (await socket.receive_json())["data"][0]
            seqs.append((row["prevSeqId"], row["seqId"]))
        broken = [at for at in range(1, len(seqs)) if seqs[at][0] != seqs[at - 1][1]]
        assert seqs[0][0] == -1
        assert len(broken) == 1


@story
async def test_a_connection_that_is_silent_both_ways_is_closed_and_a_ping_is_no_silence() -> None:
    now_s, waiting = 0.0, []

    def after(seconds: float, call: Any) -> asyncio.TimerHandle:
        waiting.append((now_s + seconds, call))
        return asyncio.get_running_loop().call_later(1e6, call)

    def pass_time(to_s: float) -> None:
        nonlocal now_s
        now_s = to_s
        due = [item for item in waiting if item[0] <= now_s]
        waiting[:] = [item for item in waiting if item[0] > now_s]
        for _, call in due:
            call()

    async with client() as ours:
        front: Any = ours.venue.server.courses["okx"].front
        silence = front._silence
        silence._clock, silence._after = lambda: now_s, after
        async with ours.http.ws_connect(f"{ours.venue.ws_url}/ws/v5/public") as socket:
            await eventually(lambda: waiting)
            pass_time(20.0)
            await socket.send_str("ping")
            assert await socket.receive_str() == "pong"
            pass_time(31.0)
            await socket.send_str("ping")
            assert await socket.receive_str() == "pong"
            pass_time(61.5)
            message = await socket.receive()
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, CLOSE_CODE)


# -- shapes ----------------------------------------------------------------------------------------

SHAPES = {
    "instruments": ("/api/v5/public/instruments?instType=SWAP", "okx.instruments.47e60413"),
    "tickers": ("/api/v5/market/ticker?instId=BTC-USDT", "okx.tickers.7a674191"),
    "trades": ("/api/v5/market/trades?instId=BTC-USDT", "okx.trades.58d7c14b"),
    "rest_order": (f"/api/v5/trade/order?instId={SPOT}&clOrdId=c1", "okx.rest_order.c1a75d7f"),
    "fills": (f"/api/v5/trade/fills?instType=SPOT&instId={SPOT}", "okx.fills.c8a039ca"),
    "positions": ("/api/v5/account/positions", "okx.positions.de431c14"),
    "rest_account": ("/api/v5/account/balance", "okx.rest_account.03910a90"),
}


def recorded_row(name: str, vector_id: str) -> dict[str, Any]:
    file = FIXTURES / "wire" / "okx" / f"{name}.json"
    if not file.exists():
        pytest.skip(f"no {file}; set TANDEM_FIXTURES to the venue vectors")
    found = next((v for v in json.loads(file.read_text()) if v["id"] == vector_id), None)
    if found is None:
        pytest.skip(f"{vector_id} is not among the vectors")
    message = found["message"]
    row: dict[str, Any] = message["data"][0] if "data" in message else message
    return row


@pytest.mark.parametrize("name", SHAPES)
def test_every_field_of_the_venues_own_answer_is_in_ours_with_its_type(name: str) -> None:
    target, vector_id = SHAPES[name]
    wanted = recorded_row(name, vector_id)

    @story
    async def run() -> None:
        async with client() as ours:
            ask = ours.venue.best("BTC-USDT")[1]
            await ours.place("c1", px=str(ask + 1000))
            await ours.place("s1", instId=SWAP, tdMode="cross", px=str(ask + 1000), sz="1")
            feed = ours.venue.server.courses["okx"].front.desk.feed
            await eventually(lambda: feed["BTC-USDT"].trades)
            _, answer = await ours.ask("GET", target)
            assert answer["code"] == "0"
            compare(answer["data"][0], wanted, name)

    run()


NOT_KEPT = {"contTdSwTime", "maxPlatOILmt", "posLmtAmt", "posLmtPct", "preMktSwTime"}
"""Limits that this venue does not have."""


def compare(ours: dict[str, Any], theirs: dict[str, Any], where: str) -> None:
    for key in theirs.keys() - NOT_KEPT:
        assert key in ours, f"{where}: {key} is missing"
        assert type(ours[key]) is type(theirs[key]), f"{where}: {key} is {ours[key]!r}, was {theirs[key]!r}"
        if key == "details":
            compare(ours[key][0], theirs[key][0], f"{where}.{key}")


@pytest.mark.parametrize("vector", vectors("client_vectors/*okx*.json"))
def test_each_request_of_a_real_client_is_read_for_what_it_is(vector: dict[str, Any]) -> None:
    symbols = Symbols([])
    for step in vector["steps"]:
        if "http" in step:
            path, _, query = step["path"].partition("?")
            headers = {name.lower(): value for name, value in step["headers"].items()}
            raw = Raw(step["http"], path, query, (step.get("body") or "").encode(), headers)
            request = read_rest(raw, "", symbols, 0)
            is_signed = bool(step.get("signature"))
            assert (request.timestamp_ns is not None) == is_signed
            assert request.kind is not Kind.MARKET or not is_signed
        elif "ws_send" in step:
            raw = Raw("", step["ws_path"], "", step["ws_send"].encode(), {})
            assert read_frame(raw, symbols, 0).method == json.loads(step["ws_send"])["op"]


@story
async def test_a_request_of_anything_is_answered() -> None:
    async with client() as ours:
        bodies: list[Any] = [[], {}, [7], "x", None, [{}] * 30, {"instId": None, "px": {}}]
        for body in bodies:
            for path in ("order", "batch-orders", "amend-order", "cancel-batch-orders", "cancel-all-after"):
                status, answer = await ours.ask("POST", f"/api/v5/trade/{path}", body)
                assert status < 500 and answer["code"] != "0", (path, body)
        await asyncio.sleep(0)
