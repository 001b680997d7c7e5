"""Messages as bytes: what was written is read, and whatever is no message is refused as such."""

import contextlib
import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.api import Quote
from host.wire import JSON, MSGPACK, Codec, CodecError, codec_of
from host.wire.messages import (
    NO_STATE,
    Bye,
    Cancel,
    Events,
    Failed,
    Hello,
    Log,
    PutQuotes,
    Start,
    Stop,
    Turn,
    Unknown,
)

BOTH = pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=lambda codec: codec.name)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
SEQ = st.integers(0, 2**53)
TURNS = st.builds(
    Turn,
    seq=SEQ,
    handled=SEQ,
    requests=st.lists(st.builds(Cancel, st.text()) | st.builds(Log, st.text(), st.text())).map(tuple),
    slowest_us=SEQ,
    busy_ns=SEQ,
)
HELLOS = st.builds(Hello, protocol=SEQ, run=st.text())
MESSAGES = TURNS | HELLOS | st.builds(Failed, st.text(), st.text()) | st.builds(Bye, st.text())


@BOTH
@given(message=MESSAGES)
def test_what_was_written_is_read(codec: Codec, message: Any) -> None:
    body = codec.encode(message)
    assert codec_of(body) is codec
    assert codec.decode_from_strategy(body) == message


@BOTH
@given(body=st.binary(max_size=200))
def test_bytes_of_any_kind_are_a_message_or_refused(codec: Codec, body: bytes) -> None:
    for decode in (codec.decode_from_strategy, codec.decode_from_host):
        try:
            decode(body)
        except CodecError:
            continue


@BOTH
@given(message=MESSAGES, data=st.data())
def test_a_damaged_message_is_a_message_or_refused(codec: Codec, message: Any, data: st.DataObject) -> None:
    body = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    del body[data.draw(st.integers(0, len(body))) :]
    with contextlib.suppress(CodecError):
        codec.decode_from_strategy(bytes(body))


@pytest.mark.parametrize("type_", ["welcome", "events", "", "no such", None, 7])
def test_a_message_of_the_host_or_of_no_type_is_none_of_a_strategy(type_: object) -> None:
    with pytest.raises(CodecError, match="no message of the strategy protocol"):
        JSON.decode_from_strategy(json.dumps({"type": type_, "seq": 1, "handled": 1}).encode())


def test_fields_of_a_later_protocol_are_passed_over() -> None:
    found = JSON.decode_from_strategy(b'{"type": "bye", "reason": "done", "mood": "good"}')
    assert found == Bye("done")


@BOTH
@given(state=PLAIN)
def test_a_state_is_kept_as_it_was_sent_whatever_the_encoding(codec: Codec, state: Any) -> None:
    raw = msgspec.Raw(codec.encode(state))
    saved = codec.to_saved(raw)
    assert (msgspec.msgpack.decode(saved) if saved else None) == state
    for other in (JSON, MSGPACK):
        again = other.from_saved(saved)
        assert (again == NO_STATE) is (state is None)
        assert state is None or other.to_saved(again) == saved


def test_nesting_without_end_is_refused() -> None:
    for codec, body in (
        (JSON, b'{"type":"turn","state":' + b"[" * 100_000),
        (MSGPACK, b"\x81\xa1x" + b"\x91" * 100_000),
    ):
        with pytest.raises(CodecError):
            codec.decode_from_strategy(body)


@BOTH
def test_an_event_of_a_later_host_is_counted_and_passed_over(codec: Codec) -> None:
    events = [{"type": "start"}, {"type": "eclipse", "moon": 1}, {"type": "stop", "reason": "dark"}]
    found = codec.decode_from_host(codec.encode({"type": "events", "seq": 3, "events": events}))
    assert found == Events(3, (Start(), Unknown("eclipse"), Stop("dark")))  # type: ignore[arg-type]


@BOTH
@pytest.mark.parametrize("event", [{"type": "stop", "reason": 7}, {"no": "type"}, {"type": None}, 7, []])
def test_an_event_that_is_damaged_is_none_of_a_later_host(codec: Codec, event: object) -> None:
    with pytest.raises(CodecError, match="no message of the strategy protocol"):
        codec.decode_from_host(codec.encode({"type": "events", "seq": 1, "events": [event]}))


class Number(float):
    """Stands for the numbers of a library, such as NumPy's."""


class Whole(int):
    """The same, whole."""


@BOTH
def test_numbers_of_a_librarys_own_kind_are_written_as_numbers(codec: Codec) -> None:
    quote = Quote(Number(99.5), Decimal(1), Number(100.5), Decimal(2))
    turn = Turn(seq=Whole(1), handled=0, requests=(PutQuotes("BTC-USDT", (quote,)),))

    assert codec.decode_from_strategy(codec.encode(turn)) == turn


@BOTH
def test_what_is_no_number_is_not_written(codec: Codec) -> None:
    with pytest.raises(TypeError, match="object cannot be sent"):
        codec.encode(Log("info", object()))  # type: ignore[arg-type]
