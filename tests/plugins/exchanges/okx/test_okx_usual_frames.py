"""The quick way of decoding says of a message what the thorough one says, or nothing at all."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from okx_tools import frame_of, listings

from host.api import BookTop, Depth
from plugins.exchanges.okx.frames import BadFrame, read_market_frame
from plugins.exchanges.okx.market_codec import market_events
from plugins.exchanges.okx.usual_frames import usual_events

NOW_NS = 1_700_000_000_000_000_000
TABLE = listings("BTC-USDT", "BTC-USDT-SWAP")
BID, ASK = ["10.1", "3", "0", "1"], ["10.2", "4.5", "0", "2"]

_numbers = st.sampled_from(["10.1", "10.2", "3", "0", "-1", "nan", "1e400", "", "x"])
_level = st.lists(_numbers, min_size=1, max_size=4)
_side = st.none() | st.lists(_level, max_size=3)
_numbered = st.integers(-2, 1 << 40)


def thorough(frame: bytes) -> list[Any]:
    try:
        return list(market_events(TABLE, read_market_frame(frame), NOW_NS))
    except BadFrame:
        return []


def top_push(**changed: Any) -> dict[str, Any]:
    row = {"asks": [ASK], "bids": [BID], "ts": "1654032991947", "seqId": 9} | changed
    return {"arg": {"channel": "bbo-tbt", "instId": "BTC-USDT-SWAP"}, "data": [row]}


def book_push(**changed: Any) -> dict[str, Any]:
    row = {
        "asks": [ASK, ASK],
        "bids": [BID],
        "ts": "1654032991947",
        "checksum": 0,
        "seqId": 9,
        "prevSeqId": 7,
    }
    arg = {"channel": "books", "instId": "BTC-USDT"}
    return {"arg": arg, "action": "update", "data": [row | changed]}


@pytest.mark.parametrize("inst_id", ["BTC-USDT", "BTC-USDT-SWAP"])
@pytest.mark.parametrize(("push", "kind"), [(top_push(), BookTop), (book_push(), Depth)])
def test_what_the_venue_sends_nearly_always_is_taken_the_quick_way(
    push: dict[str, Any], kind: type, inst_id: str
) -> None:
    frame = frame_of(push | {"arg": push["arg"] | {"instId": inst_id}})
    event = usual_events(TABLE.market_names)(memoryview(frame), NOW_NS)
    assert type(event) is kind
    assert [event] == thorough(frame)


@pytest.mark.parametrize(
    "push",
    [
        book_push() | {"action": "snapshot"},
        book_push(prevSeqId=-1),
        book_push() | {"data": []},
        book_push() | {"data": [book_push()["data"][0]] * 2},
        top_push(asks=[]),
        top_push(bids=None),
        top_push() | {"data": top_push()["data"] * 2},
        top_push() | {"arg": {"channel": "bbo-tbt", "instId": "XYZ-USDT"}},
        top_push() | {"arg": {"channel": "books", "instId": "BTC-USDT"}},
        book_push() | {"arg": {"channel": "books5", "instId": "BTC-USDT"}},
        {"event": "subscribe", "arg": {"channel": "bbo-tbt", "instId": "BTC-USDT"}},
    ],
)
def test_whatever_is_not_exactly_so_is_left_to_the_thorough_way(push: dict[str, Any]) -> None:
    assert usual_events(TABLE.market_names)(frame_of(push), NOW_NS) is None


@given(_side, _side, st.sampled_from(["1", "x", ""]), _numbered, _numbered, st.booleans(), st.booleans())
@example([["10", "1"]], [["9", "0"]], "1", 8, 7, True, False)
def test_both_ways_say_the_same(
    bids: Any, asks: Any, ts: str, seq: int, prev: int, is_book: bool, is_reversed: bool
) -> None:
    changed = {"bids": bids, "asks": asks, "ts": ts, "seqId": seq}
    push = book_push(**changed, prevSeqId=prev) if is_book else top_push(**changed)
    if is_reversed:
        push = dict(reversed(push.items()))
    frame = json.dumps(push, separators=(",", ":")).encode()
    event = usual_events(TABLE.market_names)(frame, NOW_NS)
    assert event is None or repr([event]) == repr(thorough(frame))  # as text: no nan equals another


@given(st.binary(max_size=80))
def test_no_bytes_make_it_fall_over(tail: bytes) -> None:
    event = usual_events(TABLE.market_names)
    for head in (b"", b'{"arg":{"channel":"b', b'{"arg":{"channel":"bbo-tbt","instId":"BTC-USDT"},"data":['):
        assert event(head + tail, NOW_NS) is None
