"""Answers of REST and of the order-entry socket, error codes, and listings."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from bybit_tools import filled_in, frame_of, listing, listings, only
from exchange_tools import vectors
from hypothesis import given
from hypothesis import strategies as st

from host.api import InstrumentKind, RejectReason
from plugins.exchanges._shared.verdicts import Action
from plugins.exchanges.bybit import answers
from plugins.exchanges.bybit.errors import ERRORS, OK_CODE
from plugins.exchanges.bybit.frames import BadFrame
from plugins.exchanges.bybit.products import InstrumentRow, Listings, Product, listing_of

TRADING_SECTIONS = {"UTA", "Spot Trade", "WS OE General code"}
READERS: dict[str, Any] = {
    "instruments": answers.read_instruments,
    "rest_order": answers.read_orders,
    "execution": answers.read_executions,
    "wallet": answers.read_wallet,
    "rest_account": answers.read_wallet,
    "position": answers.read_positions,
    "rest_time": answers.read_time_ns,
}


def is_fee_rates(message: dict[str, Any]) -> bool:
    rows: Any = (message.get("result") or {}).get("list") or [{}]
    return isinstance(rows, list) and "takerFeeRate" in (rows[0] or {})


def is_rest_answer(vector: dict[str, Any]) -> bool:
    message = vector["message"]
    return isinstance(message, dict) and "retCode" in message and "op" not in message


@pytest.mark.parametrize("vector", only(vectors("wire/bybit/*.json"), is_rest_answer))
def test_each_recorded_answer_is_read(vector: dict[str, Any]) -> None:
    message = filled_in(vector["message"])
    answer = answers.read_answer(frame_of(vector))
    assert answer.ret_code == message["retCode"]
    file = vector["id"].split(".")[1]
    result: Any = message.get("result")
    if is_fee_rates(message):
        rates = answers.read_fees(Product.LINEAR, answer.result)
        assert rates == {
            row["symbol"]: (Decimal(row["makerFeeRate"]), Decimal(row["takerFeeRate"]))
            for row in result["list"]
        }
        return
    if file not in READERS or not isinstance(result, dict) or vector.get("path", "").endswith("price-limit"):
        return
    if vector.get("path") == "/v5/account/instruments-info":
        read: Any = answers.read_instruments(answer.result)
    else:
        read = READERS[file](answer.result)
    if file == "rest_time":
        assert read == int(result["timeNano"])
    else:
        assert len(read.list) == len(result["list"])
        assert getattr(read, "next_page_cursor", "") == result.get("nextPageCursor", "")


@pytest.mark.parametrize("case", vectors("ccxt/bybit/responses.json"))
def test_each_recorded_response_is_read(case: dict[str, Any]) -> None:
    raw, method = case["http_response"], case["method"]
    answer = answers.read_answer(json.dumps(raw).encode())
    assert answer.ret_code == OK_CODE
    if method == "fetchMyTrades":
        rows = answers.read_executions(answer.result).list
        assert [row.exec_id for row in rows] == [row["execId"] for row in raw["result"]["list"]]
    elif method.startswith("fetchPosition"):
        table = Listings()
        table.replace(listing(Product.LINEAR, row["symbol"]) for row in raw["result"]["list"])
        found = answers.positions_of(table, Product.LINEAR, answers.read_positions(answer.result))
        held = [row for row in raw["result"]["list"] if Decimal(row["size"])]
        expected = [Decimal(row["size"]) * (1 if row["side"] == "Buy" else -1) for row in held]
        assert [position.qty for position in found] == expected
        assert [position.entry_price for position in found] == [Decimal(row["avgPrice"]) for row in held]
    elif "Order" in method and method.startswith("fetch") and "Book" not in method:
        orders = answers.read_orders(answer.result).list
        assert [order.order_id for order in orders] == [row["orderId"] for row in raw["result"]["list"]]


@pytest.mark.parametrize(
    "vector", only(vectors("wire/bybit/wallet.json"), lambda v: not is_fee_rates(v["message"]))
)
def test_each_recorded_wallet_gives_its_balances(vector: dict[str, Any]) -> None:
    message = filled_in(vector["message"])
    rows = message.get("data") or message["result"]["list"]
    wallet = answers.read_wallet(json.dumps({"list": rows}).encode())
    balances = answers.balances_of(wallet)
    coins = [coin for row in rows for coin in row["coin"]]
    assert [(b.currency, b.total) for b in balances] == [
        (coin["coin"], Decimal(coin["walletBalance"] or 0)) for coin in coins
    ]


@pytest.mark.parametrize(
    "vector", only(vectors("wire/bybit/ws_order_ops.json"), lambda v: "retCode" in v["message"])
)
def test_each_recorded_order_reply_is_read(vector: dict[str, Any]) -> None:
    message = vector["message"]
    reply = answers.order_reply(frame_of(vector))
    assert (reply.req_id, reply.ret_code, reply.op) == (message["reqId"], message["retCode"], message["op"])
    assert reply.header == message.get("header", {})


@pytest.mark.parametrize("market", vectors("ccxt/bybit/markets.json"))
def test_each_recorded_market_is_listed(market: dict[str, Any]) -> None:
    raw, theirs = market["raw"], market["ccxt"]
    found = listing_of(msgspec.convert(raw, InstrumentRow, strict=False))
    assert found is not None
    instrument = found.instrument
    assert found.venue_symbol == theirs["id"]
    assert (instrument.base, instrument.quote) == (theirs["base"], theirs["quote"])
    kind = "spot" if theirs["spot"] else "linear" if theirs["linear"] else "inverse"
    assert instrument.kind is InstrumentKind(kind)
    assert float(instrument.tick_size) == theirs["precision"]["price"]
    assert float(instrument.lot_size) == theirs["precision"]["amount"]
    assert float(instrument.min_qty) == theirs["limits"]["amount"]["min"]
    lots = raw["lotSizeFilter"]
    assert instrument.min_notional == Decimal(lots.get("minOrderAmt") or lots["minNotionalValue"])
    ratio = max(Decimal(raw["riskParameters"][key]) for key in ("priceLimitRatioX", "priceLimitRatioY"))
    assert instrument.price_band is not None
    assert (instrument.price_band.down, instrument.price_band.up) == (1 - ratio, 1 + ratio)
    assert instrument.contract_size == 1


@pytest.mark.parametrize("vector", vectors("wire/bybit/instruments.json"))
def test_options_and_what_does_not_trade_are_not_listed(vector: dict[str, Any]) -> None:
    result = vector["message"]["result"]
    for row in answers.read_instruments(json.dumps(result).encode()).list:
        traded = row.status == "Trading" and not row.options_type
        assert (listing_of(row) is not None) is traded


def test_a_symbol_that_vanished_is_still_known_but_not_listed() -> None:
    table = Listings()
    both = [listing(Product.LINEAR, "BTCUSDT"), listing(Product.SPOT, "BTCUSDT")]
    assert table.replace(both) == []
    assert table.replace(both[1:]) == ["BTC-USDT-PERP is no longer listed"]
    assert [item.symbol for item in table.instruments] == ["BTC-USDT"]
    assert table.known("BTC-USDT-PERP").product is Product.LINEAR
    with pytest.raises(Exception, match="BTC-USDT-PERP"):
        table.listed("BTC-USDT-PERP")


def is_about_trading(error: dict[str, Any]) -> bool:
    return error["section"] in TRADING_SECTIONS and error["code"] != OK_CODE


@pytest.mark.parametrize("error", only(vectors("errors/bybit.json"), is_about_trading))
def test_each_code_that_an_order_can_meet_has_a_verdict_in_accord_with_its_text(
    error: dict[str, Any],
) -> None:
    code, text = error["code"], error["text"].lower()
    verdict = ERRORS.verdict(code)
    if "does not exist" in text and "order" in text and "coin" not in text:
        assert verdict.reason is RejectReason.UNKNOWN_ORDER
    if "duplicate" in text and ("clientorderid" in text or "orderlinkedid" in text):
        assert verdict.reason is RejectReason.DUPLICATE_ID
    if "timeout" in text:
        assert verdict.action is Action.UNKNOWN
    if "api key" in text and "invalid" in text:
        assert verdict.action is Action.FATAL
    if "rate limit" in text or "frequency" in text:
        assert verdict.is_limit


def test_the_codes_that_leave_the_outcome_open_are_never_taken_for_a_no() -> None:
    assert {ERRORS.verdict(code).action for code in (10000, 10016, 170007, 170146)} == {Action.UNKNOWN}
    assert ERRORS.verdict(10002).is_clock
    assert ERRORS.verdict(10006).is_limit
    assert ERRORS.verdict(110007).reason is RejectReason.INSUFFICIENT_FUNDS


@given(st.binary(max_size=100) | st.text(max_size=100).map(lambda text: json.dumps({"list": text}).encode()))
def test_no_bytes_make_a_reader_fall_over(body: bytes) -> None:
    for reader in (*READERS.values(), answers.read_answer, answers.order_reply):
        try:
            reader(body)
        except BadFrame as error:
            assert error.kind


@pytest.mark.parametrize(("said", "told"), [("50000.5", "50000.5"), ("", "0"), ("0", "0"), ("-12", "0")])
def test_a_position_bears_the_price_of_its_liquidation_and_0_where_the_venue_names_none(
    said: str, told: str
) -> None:
    row = {"symbol": "BTCUSDT", "side": "Sell", "size": "2", "avgPrice": "60000", "liqPrice": said}
    page = answers.read_positions(json.dumps({"list": [row]}).encode())
    (position,) = answers.positions_of(listings((Product.LINEAR, "BTCUSDT")), Product.LINEAR, page)
    assert (position.qty, position.liquidation_price) == (-2, Decimal(told))
