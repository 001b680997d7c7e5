"""REST answers: instruments, balances, positions, fees, errors, each held to every vector there is."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from exchange_tools import vectors
from hypothesis import given
from hypothesis import strategies as st
from okx_tools import filled_in, frame_of, listing, listings

from host.api import ExchangeError, InstrumentKind, RejectReason
from plugins.exchanges._shared.verdicts import Action
from plugins.exchanges.okx.answers import (
    balances_of,
    positions_of,
    read_answer,
    read_balances,
    read_config,
    read_fees,
    read_instruments,
    read_positions,
    read_replies,
    read_time_ns,
)
from plugins.exchanges.okx.errors import ERRORS, code_number, reason_of_cancel
from plugins.exchanges.okx.frames import BadFrame, read_private_frame
from plugins.exchanges.okx.products import Listing, Listings, listing_of


def raw(item: Any) -> msgspec.Raw:
    return msgspec.Raw(frame_of(item))


def listed(item: dict[str, Any]) -> Listing | None:
    (row,), _ = read_instruments([raw(item)])
    return listing_of(row)


def check_listing(found: Listing | None, item: dict[str, Any]) -> None:
    if item["instType"] not in ("SPOT", "SWAP") or item["state"] != "live":
        assert found is None
        return
    assert found is not None
    instrument, unit = found.instrument, Decimal(item["ctVal"] or 1)
    per = unit if instrument.kind is InstrumentKind.LINEAR else Decimal(1)
    assert instrument.lot_size == Decimal(item["lotSz"]) * per
    assert instrument.min_qty == Decimal(item["minSz"]) * per
    assert instrument.tick_size == Decimal(item["tickSz"])
    if item["instType"] == "SPOT":
        assert instrument.symbol == f"{item['baseCcy']}-{item['quoteCcy']}"
    else:
        assert instrument.symbol == f"{item['uly']}-PERP"
        assert instrument.settle == item["settleCcy"]
        wanted = unit if instrument.kind is InstrumentKind.INVERSE else Decimal(1)
        assert instrument.contract_size == wanted
    code = item.get("instIdCode")
    assert found.code == (int(code) if code else None)


@pytest.mark.parametrize("vector", vectors("wire/okx/instruments.json"))
def test_each_instrument_of_the_vectors_is_listed_with_its_filters(vector: dict[str, Any]) -> None:
    for item in filled_in(vector["message"])["data"]:
        check_listing(listed(item), item)


@pytest.mark.parametrize("vector", vectors("ccxt/okx/markets.json"))
def test_each_market_of_ccxt_is_listed_with_the_same_terms(vector: dict[str, Any]) -> None:
    found, theirs = listed(vector["raw"]), vector["ccxt"]
    check_listing(found, vector["raw"])
    if found is None:
        return
    assert float(found.instrument.tick_size) == theirs["precision"]["price"]
    assert float(found.instrument.lot_size / found.unit) == theirs["precision"]["amount"]
    assert (found.instrument.base, found.instrument.quote) == (theirs["base"], theirs["quote"])


def test_an_instrument_without_sense_is_refused_and_one_without_its_tick_is_left_out() -> None:
    item = {"instId": "A-B", "instType": "SPOT", "state": "live", "baseCcy": "A", "quoteCcy": "B"}
    sizes = {"tickSz": "0", "lotSz": "1", "minSz": "1"}
    with pytest.raises(BadFrame, match="above 0"):
        listed(item | sizes)
    good, bad = read_instruments([raw(item | {"tickSz": None}), raw(item | sizes)])
    assert (len(good), len(bad)) == (1, 1)


def test_an_instrument_that_vanished_is_still_known_but_not_listed() -> None:
    table = listings("BTC-USDT", "ETH-USDT")
    assert table.replace([listing("BTC-USDT")]) == ["ETH-USDT is no longer listed"]
    assert table.find("ETH-USDT") is not None
    assert table.known("ETH-USDT").inst_id == "ETH-USDT"
    with pytest.raises(ExchangeError, match="ETH-USDT"):
        table.listed("ETH-USDT")


@pytest.mark.parametrize(
    "vector", [*vectors("wire/okx/account.json"), *vectors("wire/okx/rest_account.json")]
)
def test_each_balance_of_the_vectors_is_read(vector: dict[str, Any]) -> None:
    data = filled_in(vector["message"]).get("data", [])
    accounts = [item for item in data if "details" in item]
    if not accounts:
        pytest.skip("no account")
    coins = [coin for item in accounts for coin in item["details"]]
    found = balances_of(read_balances(raw(item) for item in accounts))
    assert [balance.currency for balance in found] == [coin["ccy"] for coin in coins]
    assert [balance.total for balance in found] == [Decimal(coin["cashBal"]) for coin in coins]
    assert [balance.free for balance in found] == [Decimal(coin["availBal"]) for coin in coins]


@pytest.mark.parametrize(
    "vector", [*vectors("wire/okx/positions.json"), *vectors("wire/okx/rest_account.json")]
)
def test_each_position_of_the_vectors_is_read(vector: dict[str, Any]) -> None:
    data = [item for item in filled_in(vector["message"])["data"] if "posId" in item and "pos" in item]
    if not data:
        pytest.skip("no positions")
    table = Listings()
    table.replace(
        listing(item["instId"] + ("" if item["instId"].count("-") == 2 else "-SWAP")) for item in data
    )
    found = positions_of(table, read_positions(raw(item) for item in data))
    for item, position in zip([item for item in data if table.find(item["instId"])], found, strict=True):
        where = table.expect(item["instId"])
        sign = -1 if item["posSide"] == "short" else 1
        assert position.qty == sign * Decimal(item["pos"]) * where.unit
        assert position.entry_price == Decimal(item["avgPx"])


@pytest.mark.parametrize(
    "vector", [*vectors("wire/okx/account.json"), *vectors("wire/okx/rest_account.json")]
)
def test_each_fee_rate_of_the_vectors_is_positive_when_paid(vector: dict[str, Any]) -> None:
    data = [item for item in filled_in(vector["message"]).get("data", []) if "makerU" in item]
    if not data:
        pytest.skip("no fees")
    maker, taker = read_fees([raw(data[0])]).of(listing("BTC-USDT"))
    assert (maker, taker) == (-Decimal(data[0]["maker"]), -Decimal(data[0]["taker"]))


def test_rates_are_those_of_the_instruments_group_or_of_its_settlement() -> None:
    row = {"maker": "-0.01", "taker": "-0.02", "makerU": "-0.0002", "takerU": "-0.0005"}
    assert read_fees([raw(row)]).of(listing("BTC-USDT-SWAP")) == (Decimal("0.0002"), Decimal("0.0005"))
    assert read_fees([raw(row)]).of(listing("BTC-USD-SWAP")) == (Decimal("0.01"), Decimal("0.02"))
    groups = row | {"feeGroup": [{"groupId": "3", "maker": "0.0001", "taker": "-0.0003"}]}
    grouped = msgspec.structs.replace(listing("BTC-USDT"), group="3")
    assert read_fees([raw(groups)]).of(grouped) == (Decimal("-0.0001"), Decimal("0.0003"))


@pytest.mark.parametrize(
    "vector",
    [case for name in ("new_order", "batch", "cancel") for case in vectors(f"wire/okx/rest_{name}.json")],
)
def test_each_answer_to_a_request_says_what_became_of_each_order(vector: dict[str, Any]) -> None:
    answer = read_answer(frame_of(vector["message"]))
    assert answer.code == "0"
    for item, reply in zip(vector["message"]["data"], read_replies(answer.data), strict=True):
        assert reply.s_code == item.get("sCode", "0")
        assert reply.cl_ord_id == item.get("clOrdId", "")


@pytest.mark.parametrize("vector", vectors("wire/okx/ws_order_ops.json"))
def test_each_answer_to_an_operation_is_read(vector: dict[str, Any]) -> None:
    message = vector["message"]
    frame = read_private_frame(frame_of(message))
    assert (frame.id, frame.op, frame.code) == (message["id"], message["op"], message["code"])
    assert [reply.ord_id for reply in read_replies(frame.data)] == [item["ordId"] for item in message["data"]]


@pytest.mark.parametrize("vector", [*vectors("wire/okx/errors.json"), *vectors("wire/okx/ws_control.json")])
def test_each_control_message_is_read(vector: dict[str, Any]) -> None:
    message = filled_in(vector["message"])
    if "event" not in message:
        assert read_answer(frame_of(message)).code == message["code"]
        return
    frame = read_private_frame(frame_of(message))
    assert (frame.event, frame.code) == (message["event"], message.get("code", ""))


@pytest.mark.parametrize("vector", vectors("wire/okx/rest_time.json"))
def test_the_time_of_the_vectors_is_read(vector: dict[str, Any]) -> None:
    answer = read_answer(frame_of(vector["message"]))
    assert read_time_ns(answer.data) == int(vector["message"]["data"][0]["ts"]) * 1_000_000


@pytest.mark.parametrize("vector", vectors("ccxt/okx/responses.json"))
def test_each_answer_that_ccxt_knows_has_the_envelope(vector: dict[str, Any]) -> None:
    body = vector["http_response"]
    answer = read_answer(body.encode() if isinstance(body, str) else json.dumps(body).encode())
    assert answer.code.isdigit()


def test_position_mode_is_read() -> None:
    config = read_config([raw({"posMode": "long_short_mode", "acctLv": "2"})])
    assert (config.pos_mode, config.acct_lv) == ("long_short_mode", "2")


BRANCHES: dict[str, tuple[Action, RejectReason]] = {
    "50102": (Action.RETRY, RejectReason.EXPIRED_REQUEST),
    "60006": (Action.RETRY, RejectReason.EXPIRED_REQUEST),
    "50113": (Action.FATAL, RejectReason.OTHER),
    "60007": (Action.FATAL, RejectReason.OTHER),
    "50111": (Action.FATAL, RejectReason.OTHER),
    "50105": (Action.FATAL, RejectReason.OTHER),
    "60024": (Action.FATAL, RejectReason.OTHER),
    "50011": (Action.RETRY, RejectReason.RATE_LIMIT),
    "50061": (Action.RETRY, RejectReason.RATE_LIMIT),
    "51008": (Action.FIX, RejectReason.INSUFFICIENT_FUNDS),
    "51127": (Action.FIX, RejectReason.INSUFFICIENT_FUNDS),
    "51131": (Action.FIX, RejectReason.INSUFFICIENT_FUNDS),
    "51169": (Action.FIX, RejectReason.REDUCE_ONLY),
    "51016": (Action.FIX, RejectReason.DUPLICATE_ID),
    "51400": (Action.FIX, RejectReason.UNKNOWN_ORDER),
    "51401": (Action.FIX, RejectReason.UNKNOWN_ORDER),
    "51402": (Action.FIX, RejectReason.UNKNOWN_ORDER),
    "51603": (Action.FIX, RejectReason.UNKNOWN_ORDER),
    "51020": (Action.FIX, RejectReason.INVALID_QTY),
    "51121": (Action.FIX, RejectReason.INVALID_QTY),
    "51006": (Action.FIX, RejectReason.PRICE_BAND),
    "50004": (Action.UNKNOWN, RejectReason.OTHER),
    "51054": (Action.UNKNOWN, RejectReason.OTHER),
    "51149": (Action.UNKNOWN, RejectReason.OTHER),
    "99999": (Action.FIX, RejectReason.OTHER),
}
"""The errors worth a branch, as the venue facts list them."""


@pytest.mark.parametrize("code", BRANCHES)
def test_an_error_worth_a_branch_means_what_the_facts_say(code: str) -> None:
    verdict = ERRORS.verdict(code_number(code))
    assert (verdict.action, verdict.reason) == BRANCHES[code]


CLASSES: dict[str, tuple[Action, ...]] = {
    "AuthenticationError": (Action.FATAL, Action.RETRY, Action.FIX),
    "InsufficientFunds": (Action.FIX,),
    "RateLimitExceeded": (Action.RETRY, Action.FIX),
    "InvalidNonce": (Action.RETRY,),
    "RequestTimeout": (Action.UNKNOWN,),
    "OrderNotFound": (Action.FIX,),
    "BadSymbol": (Action.FIX,),
}


@pytest.mark.parametrize("vector", vectors("errors/okx_from_sdks.json"))
def test_each_listed_error_is_judged_as_its_class_allows(vector: dict[str, Any]) -> None:
    verdict = ERRORS.verdict(code_number(vector["code"]))
    assert verdict.action in CLASSES.get(vector["ccxt_class"] or "", tuple(Action))


def test_a_code_that_is_no_number_says_no() -> None:
    assert ERRORS.verdict(code_number("<err>")).action is Action.FIX


def test_the_venue_says_by_a_number_why_it_ended_an_order() -> None:
    assert reason_of_cancel("31") is RejectReason.WOULD_TAKE
    assert reason_of_cancel("1") is RejectReason.OTHER


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["code", "data", "details", "x"]), inner),
    max_leaves=10,
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_an_answer_of_anything_is_read_or_refused(body: bytes) -> None:
    try:
        answer = read_answer(body)
        read_instruments(answer.data)
        balances_of(read_balances(answer.data))
        positions_of(Listings(), read_positions(answer.data))
    except BadFrame:
        return


@pytest.mark.parametrize(("said", "told"), [("50000.5", "50000.5"), ("", "0"), ("0", "0"), ("-12", "0")])
def test_a_position_bears_the_price_of_its_liquidation_and_0_where_the_venue_names_none(
    said: str, told: str
) -> None:
    row = {"instId": "BTC-USDT-SWAP", "pos": "100", "posSide": "net", "avgPx": "60000", "liqPx": said}
    held = read_positions([msgspec.Raw(json.dumps(row).encode())])
    (position,) = positions_of(listings("BTC-USDT-SWAP"), held)
    assert (position.symbol, position.liquidation_price) == ("BTC-USDT-PERP", Decimal(told))
