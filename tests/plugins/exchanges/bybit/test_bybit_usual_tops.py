"""The quick way of decoding best prices says what the thorough one says, and leaves a topic where that does."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from host.api import BookTop
from plugins.exchanges.bybit.frames import BadFrame
from plugins.exchanges.bybit.market_codec import MarketCodec
from plugins.exchanges.bybit.products import Product
from plugins.exchanges.bybit.usual_tops import BookState, usual_tops

NOW_NS = 1_700_000_000_000_000_000
SYMBOLS = {"BTCUSDT": "BTC-USDT-PERP"}
TOPIC = "orderbook.1.BTCUSDT"

_level = st.tuples(st.sampled_from(["10", "11", "nan", "x"]), st.sampled_from(["0", "1", "2.5", "-1", "nan"]))
_side = st.lists(_level, max_size=2)
_push = st.tuples(
    _side,
    _side,
    st.sampled_from([1, 0, 0, 0, 0, -1, 2]),
    st.sampled_from(["snapshot", "delta"]),
    st.booleans(),
)


def frame_of(u: int, bids: Any, asks: Any, kind: str = "delta", *, cts: bool = True, depth: int = 1) -> bytes:
    data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": u, "seq": 100 + u}
    push = {"topic": f"orderbook.{depth}.BTCUSDT", "ts": 5, "type": kind, "data": data}
    return json.dumps(push | ({"cts": 3} if cts else {}), separators=(",", ":")).encode()


def test_the_next_push_with_a_bid_and_an_ask_is_taken_the_quick_way() -> None:
    state = BookState("BTC-USDT-PERP", is_best_only=True)
    state.u = 4
    top = usual_tops({TOPIC: state})
    event = top(memoryview(frame_of(5, [["10", "1"]], [["11", "2"]])), NOW_NS)
    assert event == BookTop("BTC-USDT-PERP", 10.0, 1.0, 11.0, 2.0, 3_000_000, NOW_NS, 105)
    assert (state.u, state.seq, state.bid, state.ask) == (5, 105, (10.0, 1.0), (11.0, 2.0))


def test_whatever_is_not_exactly_so_is_left_to_the_thorough_way_and_changes_nothing() -> None:
    both: tuple[Any, Any] = [["10", "1"]], [["11", "2"]]
    for u, frame in (
        (4, frame_of(4, *both)),
        (4, frame_of(6, *both)),
        (0, frame_of(1, *both)),
        (4, frame_of(5, [], both[1])),
        (4, frame_of(5, [["10", "0"], ["9", "1"]], both[1])),
        (4, frame_of(5, *both, cts=False)),
        (4, frame_of(5, *both, depth=50)),
        (4, frame_of(5, *both).replace(b"BTCUSDT", b"ETHUSDT")),
        (4, b'{"op":"pong"}'),
    ):
        state = BookState("BTC-USDT-PERP", is_best_only=True)
        state.u = u
        assert usual_tops({TOPIC: state})(frame, NOW_NS) is None
        assert (state.u, state.seq, state.bid, state.ask) == (u, 0, None, None)


@given(st.lists(_push, max_size=12))
def test_both_ways_say_the_same_of_any_run_of_pushes(pushes: list[tuple[Any, Any, int, str, bool]]) -> None:
    quick, thorough = MarketCodec(Product.LINEAR, SYMBOLS), MarketCodec(Product.LINEAR, SYMBOLS)
    u = 3
    for bids, asks, off, kind, cts in pushes:
        u = u + 1 + off if off >= 0 else max(u - 1, 1)
        frame = frame_of(u, bids, asks, kind, cts=cts)
        top = quick.usual_top(frame, NOW_NS)
        assert (said(quick, frame) if top is None else repr((top,))) == said(thorough, frame)
        assert quick.lost == thorough.lost
        assert quick.is_started(TOPIC) == thorough.is_started(TOPIC)


def said(codec: MarketCodec, frame: bytes) -> str:
    try:
        return repr(codec.events(frame, NOW_NS))  # as text: no nan equals another
    except BadFrame as error:
        return error.kind
