"""The venue's protocol: every message survives the wire, and damage is noticed."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from venue_tools import instrument, place

from host.api import BookTop, Depth, MarketEvent, OrderFilled, Side, Ticker, Trade
from host.api.orders import Liquidity
from venue.wire import (
    ClientMessage,
    FrameReader,
    Hello,
    Refused,
    Reported,
    Resync,
    Send,
    ServerMessage,
    Subscribe,
    Welcome,
    WireError,
    encode,
    encode_market,
    market_event,
)

FROM_CLIENT: list[ClientMessage] = [
    Hello("a"),
    Subscribe(("BTC-USDT",)),
    Resync("BTC-USDT"),
    Send(place("x", Side.BUY, "100.5", "0.1"), 1, 2),
    Send(place("y", Side.SELL, None, "1"), 1, 2),
]
FILL = OrderFilled(
    "x", "BTC-USDT", Side.BUY, "7", Decimal("1.10"), Decimal(2), Decimal("1e-12"), "USDT", Liquidity.MAKER, 3
)
EVENTS: list[MarketEvent] = [
    BookTop("X-Y", 1.5, 2.0, 1.6, 3.0, 1, 2, 3),
    Depth("X-Y", ((1.5, 2.0),), ((1.6, 0.0),), False, 4, 5),
    Trade("X-Y", 1.5, 2.0, True, 9),
    Ticker("X-Y", 1.0, 2.0, 3.0, 4.0, 5.0),
]


@given(st.data())
def test_messages_survive_any_cutting_of_the_stream(data: st.DataObject) -> None:
    stream = b"".join(encode(message) for message in FROM_CLIENT)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = FrameReader.for_server()
    received = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += list(reader.feed(stream[start:end]))

    assert received == FROM_CLIENT


def test_server_messages_survive_the_wire() -> None:
    messages: list[ServerMessage] = [Welcome((instrument(),), 5), Refused("no"), Reported(FILL)]
    stream = b"".join(encode(message) for message in messages)
    stream += b"".join(encode_market(event) for event in EVENTS)

    received = list(FrameReader.for_client().feed(stream))

    assert received[:3] == messages
    assert [market_event(message) for message in received[3:]] == EVENTS
    assert market_event(received[0]) is None


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (b"\xff\xff\xff\xff", "a frame has at most"),
        (b"\x00\x00\x00\x03abc", "expected a message"),
        (b"GET / HTTP/1.1\r\n\r\n", "a frame has at most"),
    ],
)
def test_damage_is_an_error_after_the_whole_messages_before_it(damage: bytes, text: str) -> None:
    received = []
    with pytest.raises(WireError, match=text):
        for message in FrameReader.for_server().feed(encode(Hello("a")) + damage):
            received.append(message)  # noqa: PERF402 - what came before the error counts

    assert received == [Hello("a")]
