"""Every Binance message of the venue vectors decodes to the right event, file by file."""

import json
import logging
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from exchange_tools import vector_files, vectors

from host.api import (
    BookTop,
    Depth,
    InstrumentKind,
    MarketEvent,
    OrderAccepted,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    OrderStatus,
    Side,
    Ticker,
    Trade,
)
from plugins.exchanges._shared.verdicts import Action
from plugins.exchanges.binance import answers
from plugins.exchanges.binance.errors import ERRORS
from plugins.exchanges.binance.instruments import decode_exchange_info, instruments_of
from plugins.exchanges.binance.market_frames import MarketDecoder, StreamAnswer, depth_snapshot
from plugins.exchanges.binance.user_events import Execution, Notice, decode_user_event, reports_of

Vector = dict[str, Any]
NOW_NS = 1_800_000_000_000_000_000


class Everything(dict[str, str]):
    """Takes every symbol for one of ours, under its own name."""

    def __missing__(self, wire: str) -> str:
        return wire


class Decoded:
    def __init__(self, symbols: dict[str, str] | None = None) -> None:
        self.answers: list[StreamAnswer] = []
        self.doubts: list[str | None] = []
        self.decoder = MarketDecoder(
            Everything() if symbols is None else symbols,
            self.answers.append,
            self.doubts.append,
            logging.getLogger("tandem.test"),
            "test",
        )

    def of(self, message: Any, stream: str) -> MarketEvent | None:
        """Decode a message as it comes in a combined stream; bare payloads are wrapped."""
        if not (isinstance(message, dict) and "stream" in message):
            message = {"stream": stream, "data": message}
        return self.decoder.decode(json.dumps(message).encode(), NOW_NS)


def usable(vector: Vector) -> Any:
    if vector.get("placeholders"):
        pytest.skip("the message has holes: its shape alone is given")
    return vector["message"]


def payload(message: Any) -> Any:
    return message.get("data", message) if isinstance(message, dict) else message


def streamed(vector: Vector) -> Any:
    message = usable(vector)
    if vector["kind"] != "ws":
        pytest.skip("an answer to a request for what we take from the stream")
    return message


@pytest.mark.parametrize("vector", vectors("wire/binance_*/book_ticker.json"))
def test_book_tickers_become_quotes(vector: Vector) -> None:
    message = streamed(vector)
    data = payload(message)
    event = Decoded().of(message, "btcusdt@bookTicker")
    if message.get("stream") == "!bookTicker":
        pytest.skip("the stream of all symbols is not one that we ask for")
    assert event == BookTop(
        data["s"],
        float(data["b"]),
        float(data["B"]),
        float(data["a"]),
        float(data["A"]),
        data.get("T", 0) * 1_000_000,
        NOW_NS,
        data["u"],
    )


@pytest.mark.parametrize("vector", vectors("wire/binance_*/depth_diff.json"))
def test_depth_changes_keep_levels_and_sequence(vector: Vector) -> None:
    message = streamed(vector)
    data = payload(message)
    event = Decoded().of(message, "btcusdt@depth@100ms")
    assert isinstance(event, Depth)
    assert (event.symbol, event.first_seq, event.seq) == (data["s"], data["U"], data["u"])
    assert event.prev_seq == data.get("pu", -1)
    assert event.bids == tuple((float(price), float(size)) for price, size, *_ in data["b"])
    assert event.asks == tuple((float(price), float(size)) for price, size, *_ in data["a"])
    assert not event.is_snapshot
    assert event.ts_event == data.get("T", data["E"]) * 1_000_000


@pytest.mark.parametrize("vector", vectors("wire/binance_*/depth_snapshot.json"))
def test_depth_snapshots_become_whole_books(vector: Vector) -> None:
    data = payload(usable(vector))
    event = depth_snapshot(json.dumps(data).encode(), "X-Y", NOW_NS)
    assert event.is_snapshot
    assert event.seq == event.first_seq == data["lastUpdateId"]
    assert event.bids == tuple((float(price), float(size)) for price, size, *_ in data["bids"])
    assert event.asks == tuple((float(price), float(size)) for price, size, *_ in data["asks"])


@pytest.mark.parametrize("vector", vectors("wire/binance_*/trade.json"))
@pytest.mark.parametrize("again", [False, True])
def test_trades_say_who_crossed_and_are_told_once(vector: Vector, again: bool) -> None:
    message = streamed(vector)
    data = payload(message)
    decoded = Decoded()
    event = decoded.of(message, "btcusdt@trade")
    assert isinstance(event, Trade)
    assert (event.symbol, event.price, event.qty) == (data["s"], float(data["p"]), float(data["q"]))
    assert (event.taker_is_buyer, event.trade_id) == (not data["m"], data["t"])
    assert event.ts_event == data["T"] * 1_000_000
    if again:
        assert decoded.of(message, "btcusdt@trade") is None


@pytest.mark.parametrize("vector", vectors("wire/binance_*/agg_trade.json"))
def test_aggregate_trades_are_read_too(vector: Vector) -> None:
    message = streamed(vector)
    data = payload(message)
    event = Decoded().of(message, "btcusdt@aggTrade")
    assert isinstance(event, Trade)
    assert (event.price, event.trade_id, event.taker_is_buyer) == (
        float(data["p"]),
        data.get("a", -1),
        not data["m"],
    )


@pytest.mark.parametrize("vector", vectors("wire/binance_*/ticker.json"))
def test_tickers_become_the_days_summary(vector: Vector) -> None:
    message = streamed(vector)
    data = payload(message)
    event = Decoded().of(message, "btcusdt@ticker")
    assert isinstance(event, Ticker)
    assert (event.symbol, event.last, event.open) == (data["s"], float(data["c"]), float(data["o"]))
    assert (event.high, event.low, event.volume) == (float(data["h"]), float(data["l"]), float(data["v"]))


@pytest.mark.parametrize("vector", vectors("wire/binance_spot/ws_control.json"))
def test_control_messages_are_no_data_and_no_error(vector: Vector) -> None:
    message = usable(vector)
    decoded = Decoded()
    if "method" in message or "subscriptionId" in message:
        pytest.skip("a request, or an event of the private stream")
    assert decoded.decoder.decode(json.dumps(message).encode(), NOW_NS) is None
    assert len(decoded.answers) == 1
    if "id" in message:
        assert decoded.answers[0].id == message["id"]
    else:
        assert decoded.answers[0].e == "serverShutdown"
    assert not decoded.decoder.bad.counts


EXECUTIONS = {
    "NEW": OrderAccepted,
    "CANCELED": OrderCancelled,
    "EXPIRED": OrderExpired,
    "TRADE_PREVENTION": OrderExpired,
    "REJECTED": OrderRejected,
    "TRADE": OrderFilled,
    "CALCULATED": OrderFilled,
}


def order_event(message: Any) -> tuple[Execution, Vector]:
    inner = message.get("event") or payload(message)
    event = decode_user_event(json.dumps(inner).encode())
    assert isinstance(event, Execution)
    return event, inner.get("o", inner) if isinstance(inner.get("o"), dict) else inner


@pytest.mark.parametrize(
    "vector",
    [
        *vectors("wire/binance_spot/execution_report.json"),
        *vectors("wire/binance_usdm/order_trade_update.json"),
    ],
)
def test_executions_become_reports(vector: Vector) -> None:
    message = usable(vector)
    if "c" not in (message.get("event") or payload(message)).get("o", message) and vector["kind"] == "test":
        with pytest.raises(msgspec.ValidationError, match="missing required field"):
            decode_user_event(json.dumps(message).encode())
        return
    event, raw = order_event(message)
    reports = reports_of(event, lambda wire: wire)
    if raw["x"] in ("TRADE", "CALCULATED") and Decimal(raw["l"]) == 0:
        assert reports == []  # nothing was executed
        return
    (report,) = reports
    assert type(report) is EXECUTIONS[raw["x"]]
    assert report.client_id == (raw.get("C") or raw["c"])
    assert report.ts_ns == raw["T"] * 1_000_000
    if isinstance(report, OrderFilled):
        assert (report.symbol, report.trade_id, report.venue_id) == (raw["s"], str(raw["t"]), str(raw["i"]))
        assert (report.price, report.qty) == (Decimal(raw["L"]), Decimal(raw["l"]))
        assert (report.fee, report.fee_currency) == (Decimal(raw["n"] or 0), raw["N"] or "")
        assert report.side is (Side.BUY if raw["S"] == "BUY" else Side.SELL)
        assert (report.liquidity == "maker") == raw["m"]
    if isinstance(report, OrderCancelled | OrderExpired):
        assert report.filled == Decimal(raw["z"])


@pytest.mark.parametrize(
    "vector",
    [
        param
        for name in (
            "binance_spot/account_position",
            "binance_spot/balance_update",
            "binance_spot/list_status",
            "binance_usdm/account_config",
            "binance_usdm/account_update",
            "binance_usdm/algo_update",
            "binance_usdm/margin_call",
            "binance_usdm/trade_lite",
        )
        for param in vectors(f"wire/{name}.json")
    ],
)
def test_other_private_events_are_known_by_name(vector: Vector) -> None:
    message = usable(vector)
    if not isinstance(message, dict) or not ("event" in message or "e" in payload(message)):
        pytest.skip("an answer to a request")
    inner = message.get("event") or message
    event = decode_user_event(json.dumps(inner).encode())
    assert isinstance(event, Notice)
    assert event.e == payload(inner)["e"]


@pytest.mark.parametrize("vector", vectors("wire/binance_*/exchange_info.json"))
def test_instruments_carry_the_venues_filters(vector: Vector) -> None:
    message = usable(vector)
    if vector["kind"] != "rest" or "symbols" not in message:
        pytest.skip("not a whole answer")
    kind = InstrumentKind.LINEAR if "usdm" in vector["id"] else InstrumentKind.SPOT
    info = decode_exchange_info(json.dumps(message).encode())
    out = instruments_of(info, kind, Decimal("0.001"), Decimal("0.002"))
    trading = [
        item
        for item in message["symbols"]
        if item["status"] == "TRADING" and item.get("contractType", "PERPETUAL") == "PERPETUAL"
    ]
    assert {item["symbol"] for item in trading} >= set(out)
    for item in trading:
        if item["symbol"] not in out:
            assert not item.get("isSpotTradingAllowed", True)
            continue
        got = out[item["symbol"]]
        suffix = "-PERP" if kind is InstrumentKind.LINEAR else ""
        assert got.symbol == f"{item['baseAsset']}-{item['quoteAsset']}{suffix}"
        for entry in item["filters"]:
            match entry["filterType"]:
                case "PRICE_FILTER" if Decimal(entry["tickSize"]):
                    assert got.tick_size == Decimal(entry["tickSize"])
                case "LOT_SIZE" if Decimal(entry["stepSize"]):
                    assert (got.lot_size, got.min_qty) == (
                        Decimal(entry["stepSize"]),
                        Decimal(entry["minQty"]),
                    )
                case "MIN_NOTIONAL" | "NOTIONAL":
                    assert got.min_notional == Decimal(entry.get("minNotional", entry.get("notional")))
        assert got.tick_size > 0 and got.lot_size > 0


@pytest.mark.parametrize("vector", vectors("ccxt/binance/markets.json"))
def test_instruments_agree_with_ccxt(vector: Vector) -> None:
    raw = vector["raw"]
    kind = InstrumentKind.LINEAR if "contractType" in raw else InstrumentKind.SPOT
    if kind is InstrumentKind.LINEAR and (raw["contractType"] != "PERPETUAL" or "contractSize" in raw):
        pytest.skip("a delivery or coin-margined contract")
    info = decode_exchange_info(json.dumps({"symbols": [raw]}).encode())
    out = instruments_of(info, kind, Decimal(0), Decimal(0))
    if raw["status"] != "TRADING" or not raw.get("isSpotTradingAllowed", True):
        assert not out
        return
    (got,) = out.values()
    ours, theirs = got.symbol.removesuffix("-PERP").replace("-", "/"), vector["symbol"].partition(":")[0]
    assert ours == theirs
    precision = vector.get("precision") or {}
    if precision.get("price") is not None:
        assert got.tick_size == Decimal(str(precision["price"]))
    if precision.get("amount") is not None:
        assert got.lot_size == Decimal(str(precision["amount"]))


def views(message: Any) -> list[Any]:
    items = message if isinstance(message, list) else [message]
    return [item for item in items if isinstance(item, dict) and "code" not in item]


ORDER_FILES = [
    param
    for name in ("rest_open_orders", "rest_order", "rest_cancel", "rest_batch")
    for param in vectors(f"wire/binance_*/{name}.json")
]


@pytest.mark.parametrize("vector", ORDER_FILES)
def test_orders_become_snapshots(vector: Vector) -> None:
    message = usable(vector)
    orders = [
        item
        for item in views(message)
        if {"clientOrderId", "origQty", "executedQty", "status", "price", "side"} <= item.keys()
    ]
    if not orders:
        pytest.skip("no order in it")
    for raw in orders:
        view = answers.decode_order(json.dumps(raw).encode())
        got = answers.order_snapshot(view, raw["symbol"], NOW_NS)
        assert got.client_id == raw.get("origClientOrderId", raw["clientOrderId"])
        assert got.venue_id == str(raw["orderId"])
        assert (got.qty, got.filled) == (Decimal(raw["origQty"]), Decimal(raw["executedQty"]))
        assert got.price == (Decimal(raw["price"]) or None)
        assert got.side is (Side.BUY if raw["side"] == "BUY" else Side.SELL)
        expected = answers.STATUSES[raw["status"]]
        if expected is OrderStatus.OPEN and got.filled:
            expected = OrderStatus.PARTIALLY_FILLED
        assert got.status is expected
        assert got.ts_ns == NOW_NS


@pytest.mark.parametrize("vector", vectors("wire/binance_*/rest_my_trades.json"))
def test_own_trades_become_fills(vector: Vector) -> None:
    message = usable(vector)
    for raw, view in zip(message, answers.decode_trades(json.dumps(message).encode()), strict=True):
        got = answers.fill(view, "c1", "X-Y")
        assert (got.price, got.qty) == (Decimal(raw["price"]), Decimal(raw["qty"]))
        assert (got.fee, got.fee_currency) == (Decimal(raw["commission"]), raw["commissionAsset"])
        assert got.side is (Side.BUY if raw.get("isBuyer", raw.get("buyer")) else Side.SELL)
        assert (got.liquidity == "maker") == raw.get("isMaker", raw.get("maker"))
        assert (got.trade_id, got.venue_id) == (str(raw["id"]), str(raw["orderId"]))
        assert got.ts_ns == raw["time"] * 1_000_000


@pytest.mark.parametrize("vector", vectors("wire/binance_*/rest_account.json"))
def test_accounts_become_balances(vector: Vector) -> None:
    message = usable(vector)
    if not isinstance(message, dict) or not ("balances" in message or "assets" in message):
        pytest.skip("not the account itself")
    got = answers.account_snapshot(
        answers.decode_account(json.dumps(message).encode()), (), lambda wire: wire, NOW_NS
    )
    expected = {
        item["asset"]: Decimal(item["free"]) + Decimal(item["locked"]) for item in message.get("balances", [])
    } | {item["asset"]: Decimal(item["walletBalance"]) for item in message.get("assets", [])}
    assert {item.currency: item.total for item in got.balances if item.total} == {
        currency: total for currency, total in expected.items() if total
    }


@pytest.mark.parametrize("vector", vectors("wire/binance_usdm/rest_positions.json"))
def test_positions_are_signed_and_flat_ones_left_out(vector: Vector) -> None:
    message = usable(vector)
    positions = answers.decode_positions(json.dumps(message).encode())
    account = answers.AccountView(assets=[])
    got = answers.account_snapshot(account, positions, lambda wire: wire, NOW_NS)
    expected = [
        (raw["symbol"], Decimal(raw["positionAmt"]), Decimal(raw["entryPrice"]))
        for raw in message
        if Decimal(raw["positionAmt"])
    ]
    assert [(item.symbol, item.qty, item.entry_price) for item in got.positions] == expected


@pytest.mark.parametrize(
    "vector", [*vectors("wire/binance_*/errors.json"), *vectors("wire/binance_spot/ws_api_errors.json")]
)
def test_error_answers_are_read_and_have_a_verdict(vector: Vector) -> None:
    message = usable(vector)
    raw = message.get("error", message)
    if "code" not in raw:
        pytest.skip("no error in it")
    error = answers.decode_error(json.dumps(raw).encode())
    assert (error.code, error.msg) == (raw["code"], raw["msg"])
    assert ERRORS.verdict(error.code, error.msg).action in Action


@pytest.mark.parametrize("file", vector_files("errors/binance_*.json"))
def test_every_documented_code_has_a_verdict_and_the_grave_ones_the_right(file: Path) -> None:
    table = {int(entry["code"]): entry for entry in json.loads(file.read_text()) if "code" in entry}
    if not table:
        pytest.skip("no codes in it")
    for code, entry in table.items():
        text = " ".join(entry["text"]) if isinstance(entry["text"], list) else str(entry["text"])
        verdict = ERRORS.verdict(code, text)
        if "status unknown" in text.lower():
            assert verdict.action is Action.UNKNOWN, (code, text)
    for code, action in {
        -1006: Action.UNKNOWN,
        -1007: Action.UNKNOWN,
        -2015: Action.FATAL,
        -1003: Action.RETRY,
    }.items():
        assert ERRORS.verdict(code).action is action


@pytest.mark.parametrize("vector", vectors("wire/binance_*/rest_time.json"))
def test_the_venues_time_is_in_nanoseconds(vector: Vector) -> None:
    message = usable(vector)
    assert answers.decode_server_time(json.dumps(message).encode()) == message["serverTime"] * 1_000_000


@pytest.mark.parametrize(("said", "told"), [("50000.5", "50000.5"), ("0", "0"), ("-12", "0")])
def test_a_position_bears_the_price_of_its_liquidation_and_0_where_the_venue_names_none(
    said: str, told: str
) -> None:
    held = answers.PositionView("BTCUSDT", Decimal(1), Decimal(60_000), Decimal(said))
    got = answers.account_snapshot(answers.AccountView(), [held], lambda wire: wire, NOW_NS)
    assert [position.liquidation_price for position in got.positions] == [Decimal(told)]
