"""Answers of the WebSocket API and of REST, as recorded, as documented, and as ccxt understands them."""

import json
from decimal import Decimal
from typing import Any

import pytest
from exchange_tools import vectors

from host.api import OrderStatus, Secret
from plugins.exchanges.binance import answers
from plugins.exchanges.binance.errors import ERRORS
from plugins.exchanges.binance.instruments import decode_exchange_info
from plugins.exchanges.binance.market_frames import depth_snapshot
from plugins.exchanges.binance.order_entry import ApiFrame, decode_api_frame
from plugins.exchanges.binance.order_entry import _decode_placed as decode_placed
from plugins.exchanges.binance.signed import RequestSigner, ws_text

Vector = dict[str, Any]
OFFICIAL_KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
OFFICIAL_SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"


def same_order(raw: Vector, result: bytes) -> None:
    """An order in an answer is read as it is written."""
    view = answers.decode_order(result)
    got = answers.order_snapshot(view, "X-Y", 1)
    assert got.client_id == raw.get("origClientOrderId", raw["clientOrderId"])
    assert (got.venue_id, got.qty) == (str(raw["orderId"]), Decimal(raw["origQty"]))
    assert got.filled == Decimal(raw["executedQty"])
    assert got.price == (Decimal(raw["price"]) or None) or raw["type"] == "MARKET"


@pytest.mark.parametrize(
    "vector", [*vectors("wire/binance_*/ws_api.json"), *vectors("wire/binance_spot/ws_api_errors.json")]
)
def test_answers_of_the_websocket_api_are_read(vector: Vector) -> None:
    message = vector["message"]
    if vector.get("role") == "request":
        pytest.skip("a request; those that are signed are tested below")
    frame = decode_api_frame(json.dumps(message).encode())
    assert isinstance(frame, ApiFrame)
    if "event" in message:
        assert bytes(frame.event)
        return
    assert (frame.id, frame.status) == (message["id"], message["status"])
    assert [limit.count for limit in frame.rateLimits] == [
        limit.get("count") for limit in message.get("rateLimits", [])
    ]
    if "error" in message:
        assert frame.error is not None
        assert (frame.error.code, frame.error.msg) == (message["error"]["code"], message["error"]["msg"])
        assert ERRORS.verdict(frame.error.code, frame.error.msg)
        return
    raw, result = message["result"], bytes(frame.result)
    assert json.loads(result) == raw
    orders = [item for item in (raw if isinstance(raw, list) else [raw]) if "executedQty" in item]
    for order in orders:
        same_order(order, json.dumps(order).encode())
    if isinstance(raw, dict) and "orderId" in raw:
        assert decode_placed(result).orderId == raw["orderId"]
    if isinstance(raw, dict) and ("balances" in raw or "assets" in raw):
        assert answers.decode_account(result)
    if isinstance(raw, dict) and "bids" in raw:
        assert depth_snapshot(result, "X", 1).seq == raw["lastUpdateId"]
    if isinstance(raw, dict) and "symbols" in raw:
        assert len(decode_exchange_info(result).symbols) == len(raw["symbols"])
    if isinstance(raw, dict) and set(raw) == {"serverTime"}:
        assert answers.decode_server_time(result) == raw["serverTime"] * 1_000_000
    if isinstance(raw, list) and raw and "commission" in raw[0]:
        assert [view.id for view in answers.decode_trades(result)] == [item["id"] for item in raw]


@pytest.mark.parametrize("vector", vectors("wire/binance_spot/ws_api.json"))
def test_official_requests_are_signed_the_same_raw_letters_included(vector: Vector) -> None:
    message = vector["message"]
    params = message.get("params", {})
    if params.get("apiKey") != OFFICIAL_KEY or len(params.get("signature", "")) != 64:
        pytest.skip("not a request that the official example key signed")
    signer = RequestSigner(Secret(OFFICIAL_KEY), Secret(OFFICIAL_SECRET))
    ours = {name: value for name, value in sorted(params.items()) if name not in ("apiKey", "signature")}
    request = json.loads(signer.ws_request(message["id"], message["method"], ours))
    assert request == message
    assert ws_text({"apiKey": OFFICIAL_KEY, **ours}).count("&") == len(ours)


CCXT_STATUS = {
    "open": {OrderStatus.OPEN, OrderStatus.PARTIALLY_FILLED},
    "closed": {OrderStatus.FILLED},
    "canceled": {OrderStatus.CANCELLED},
    "expired": {OrderStatus.EXPIRED},
    "rejected": {OrderStatus.REJECTED},
}


@pytest.mark.parametrize("vector", vectors("ccxt/binance/responses.json"))
def test_answers_mean_what_ccxt_takes_them_to_mean(vector: Vector) -> None:
    raw, parsed = vector["http_response"], vector["ccxt_parsed"]
    raws = raw if isinstance(raw, list) else [raw]
    theirs = parsed if isinstance(parsed, list) else [parsed]
    is_dicts = all(isinstance(item, dict) for item in raws)
    if is_dicts and all("executedQty" in item for item in raws) and len(raws) == len(theirs):
        for item, expected in zip(raws, theirs, strict=True):
            got = answers.order_snapshot(answers.decode_order(json.dumps(item).encode()), "X", 1)
            assert (got.venue_id, got.client_id) == (expected["id"], expected["clientOrderId"])
            assert got.qty == Decimal(str(expected["amount"]))
            assert got.filled == Decimal(str(expected["filled"]))
            if item["type"] == "MARKET":
                assert got.price is None  # ccxt gives the average paid here
            else:
                assert got.price == (Decimal(str(expected["price"])) if expected["price"] else None)
            assert got.status in CCXT_STATUS[expected["status"]]
            assert got.side == expected["side"]
    elif is_dicts and raws and all("commission" in item for item in raws):
        for view, expected in zip(answers.decode_trades(json.dumps(raws).encode()), theirs, strict=True):
            got_fill = answers.fill(view, "c1", "X")
            assert (got_fill.trade_id, got_fill.venue_id) == (expected["id"], expected["order"])
            assert (got_fill.price, got_fill.qty) == (
                Decimal(str(expected["price"])),
                Decimal(str(expected["amount"])),
            )
            assert (got_fill.fee, got_fill.fee_currency) == (
                Decimal(str(expected["fee"]["cost"])),
                expected["fee"]["currency"],
            )
            assert (got_fill.side, got_fill.liquidity) == (expected["side"], expected["takerOrMaker"])
            assert got_fill.ts_ns == expected["timestamp"] * 1_000_000
    elif isinstance(raw, dict) and "balances" in raw:
        got_account = answers.account_snapshot(answers.decode_account(json.dumps(raw).encode()), (), str, 1)
        assert {balance.currency: balance.total for balance in got_account.balances} == {
            currency: Decimal(str(total)) for currency, total in parsed["total"].items() if total
        }
    elif isinstance(raw, dict) and "bids" in raw:
        book = depth_snapshot(json.dumps(raw).encode(), "X", 1)
        assert [list(level) for level in book.bids] == parsed["bids"]
        assert [list(level) for level in book.asks] == parsed["asks"]
    elif is_dicts and raws and all("positionAmt" in item for item in raws):
        held = {
            (item.symbol, item.positionAmt, item.entryPrice)
            for item in answers.decode_positions(json.dumps(raws).encode())
            if item.positionAmt
        }
        signed = {"long": 1, "short": -1}
        assert {(abs(qty), entry) for _, qty, entry in held} == {
            (Decimal(str(item["contracts"])), Decimal(str(item["entryPrice"])))
            for item in theirs
            if item["contracts"]
        }
        assert sum(1 if qty > 0 else -1 for _, qty, _ in held) == sum(
            signed[item["side"]] for item in theirs if item["contracts"]
        )
    else:
        pytest.skip(
            f"the host asks nothing that is answered so ({vector['method']}: {vector['description']})"
        )
