"""Messages that make no sense: counted, shown once for each kind, and no book left wrong by them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from conformance_book import Followed
from conformance_desk import At, behaviour
from exchange_tools import eventually

from host.api import Depth, ExchangeError, OrderAccepted

NO_FRAMES = {"the venue's own adapters: no foreign messages": ("paper here", "paper away")}
LEFT_OUT = "others of this kind are counted only"
FIVE_MB = 5 << 20
UNKNOWN = {
    "binance": {"stream": "btcusdt@novelty", "data": {"e": "novelty", "s": "BTCUSDT"}},
    "okx": {"arg": {"channel": "novelty", "instId": "BTC-USDT"}, "data": [{"x": "1"}]},
    "bybit": {"topic": "novelty.BTCUSDT", "type": "delta", "data": {"x": "1"}},
}
"""A push of a sort that nobody has heard of."""


def book_of(message: Any) -> tuple[dict[str, Any], str, str]:
    """Return the part of a message that holds a book's changes, and what its bids and its number are called."""
    parts = [message]
    for part in parts:
        if isinstance(part, list):
            parts.extend(part)
        elif isinstance(part, dict):
            for bids, number in (("bids", "seqId"), ("b", "u")):
                if isinstance(part.get(bids), list):
                    return part, bids, number
            parts.extend(part.values())
    raise AssertionError(f"no book in {message}")


def without_number(data: bytes) -> bytes:
    """Leave the number out by which changes are put in order."""
    message = json.loads(data)
    book, _, number = book_of(message)
    del book[number]
    return json.dumps(message, separators=(",", ":")).encode()


def null_number(data: bytes) -> bytes:
    """Say null for that number."""
    message = json.loads(data)
    book, _, number = book_of(message)
    book[number] = None
    return json.dumps(message, separators=(",", ":")).encode()


def with_bid(price: str, size: str) -> Callable[[bytes], bytes]:
    """Return what replaces a message's bids by this one."""

    def change(data: bytes) -> bytes:
        message = json.loads(data)
        book, bids, _ = book_of(message)
        book[bids] = [[price, size, "0", "1"] if bids == "bids" else [price, size]]
        return json.dumps(message, separators=(",", ":")).encode()

    return change


async def is_left_out(at: At, change: Callable[[bytes], bytes]) -> None:
    """Spoil two changes of the book, and see it come back right, with one line in the log."""
    followed = Followed(at)
    await eventually(lambda: followed.is_right, "the first book")
    sent = at.venue.spoil(at.column.market_path, "depth", change, count=1)
    at.move()
    await eventually(lambda: sent, "a spoilt change")
    # The next good change shows what is missing, where the spoilt one did not.
    seen = len(at.host.of(Depth))
    at.move()
    await at.host.heard(Depth, seen + 1)
    await eventually(lambda: followed.is_right, "the book is right again")
    sent = at.venue.spoil(at.column.market_path, "depth", change, count=1)
    at.move()
    await eventually(lambda: sent, "a second one")
    at.move()
    await eventually(lambda: followed.is_right, "the book is right again")


async def still_trades(at: At, client_id: str = "after") -> None:
    """Place an order, to see that the adapter lives."""
    at.place(client_id)
    await at.about(client_id, OrderAccepted)


async def said_twice_shown_once(at: At, message: bytes) -> None:
    """Send a message twice on every connection with market data, and see it shown once for each of these."""
    lines = len(at.venue.connections_at(at.column.market_path))
    for _ in range(2):
        at.venue.say(at.column.market_path, message)
    await eventually(lambda: at.log.about(LEFT_OUT), "shown")
    followed = Followed(at)
    await eventually(lambda: followed.is_right, "the book")
    at.move()
    await eventually(lambda: followed.is_right, "the book goes on")
    assert 1 <= len(at.log.about(LEFT_OUT)) <= lines
    assert all(len(line) < 2_000 for line in at.log.lines)  # a sample, not all of it
    await still_trades(at)


@behaviour("bad input: not JSON", absent=NO_FRAMES)
async def test_a_message_that_is_not_json_is_shown_once(at: At) -> None:
    await said_twice_shown_once(at, b'{"this is not')


@behaviour("bad input: of an unknown type", absent=NO_FRAMES)
async def test_a_message_of_an_unknown_type_is_shown_once(at: At) -> None:
    await said_twice_shown_once(at, json.dumps(UNKNOWN[at.column.protocol]).encode())


@behaviour("bad input: 5 MB", absent=NO_FRAMES)
async def test_a_message_of_5_mb_is_shown_once(at: At) -> None:
    await said_twice_shown_once(at, b'{"padding":"' + b"x" * FIVE_MB)


@behaviour("bad input: a missing field", absent=NO_FRAMES)
async def test_a_change_without_its_number_has_the_book_fetched_anew(at: At) -> None:
    await is_left_out(at, without_number)
    assert len(at.log.about(LEFT_OUT)) == 1


@behaviour("bad input: a null field", absent=NO_FRAMES)
async def test_a_change_with_a_null_number_has_the_book_fetched_anew(at: At) -> None:
    await is_left_out(at, null_number)
    assert len(at.log.about(LEFT_OUT)) == 1


@behaviour("bad input: a number out of range", absent=NO_FRAMES)
async def test_a_price_beyond_all_numbers_never_reaches_the_book(at: At) -> None:
    await is_left_out(at, with_bid("1e999", "1"))


@behaviour("bad input: negative size", absent=NO_FRAMES)
async def test_a_negative_size_never_stays_in_the_book(at: At) -> None:
    await is_left_out(at, with_bid("59000", "-1"))


@behaviour("bad input: a crossed book", absent=NO_FRAMES)
async def test_a_crossed_book_is_fetched_anew(at: At) -> None:
    await is_left_out(at, with_bid("70000", "1"))


@behaviour("bad input: on the private line, the host asks", absent=NO_FRAMES)
async def test_a_private_message_that_cannot_be_read_has_the_host_ask(at: At) -> None:
    for times in (1, 2):
        at.venue.say(at.column.private_path, b'{"e":')
        await at.is_up_again("private", times)
    assert len(at.log.about(LEFT_OUT)) == 1
    assert "private" in at.went_down()
    await still_trades(at)


@behaviour(
    "bad input: an instrument that vanished",
    absent={"the simulated exchange delists nothing": ("paper here", "paper away")},
    instruments_every_s=0.1,
    reload_instruments_every_s=0.1,
)
async def test_in_an_instrument_that_vanished_no_order_is_placed(at: At) -> None:
    await at.rest("c1")
    at.venue.delist(at.column.wire)
    told = f"{at.symbol} is no longer listed"
    await eventually(lambda: at.log.about(told), "told")
    with pytest.raises(ExchangeError, match=at.symbol):
        at.place("c2")
    assert [line.client_id for line in at.venue.lines("place")] == ["c1"]
    assert len(at.log.about(told)) == 1
