"""The venue server's own protocol: MessagePack messages, each after its length in four bytes.

`docs/paper-venue.md` describes it for other languages. This module only turns messages into bytes
and back; a damaged or oversized frame is a `WireError`, after which the connection is closed.
"""

import struct
from collections.abc import Iterator
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct

from host.api import BookTop, Command, Depth, Instrument, MarketEvent, Report, TandemError, Ticker, Trade

__all__ = [
    "PROTOCOL",
    "Arm",
    "Armed",
    "ClientMessage",
    "FrameReader",
    "Hello",
    "Ping",
    "Pong",
    "Refused",
    "Reported",
    "Resync",
    "Send",
    "ServerMessage",
    "Subscribe",
    "Welcome",
    "WireError",
    "encode",
    "encode_market",
    "market_event",
]

PROTOCOL: Final = 1
MAX_FRAME_BYTES: Final = 16 << 20
"""Larger than any whole book or list of 10,000 fills; a bigger length is a damaged stream."""

_LENGTH = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder(decimal_format="string")


class WireError(TandemError):
    """The other side sent bytes that are not this protocol."""


class _Frame(Struct, frozen=True, tag_field="type"):
    pass


# -- client to server ----------------------------------------------------------------------------


class Hello(_Frame, frozen=True, tag="hello"):
    """First message: which account this connection trades. An unknown account is opened."""

    account: str
    protocol: int = PROTOCOL


class Subscribe(_Frame, frozen=True, tag="subscribe"):
    """Send the public data of these symbols from now on; each starts with a whole book."""

    symbols: tuple[str, ...]


class Resync(_Frame, frozen=True, tag="resync"):
    """Send a whole book of one subscribed symbol."""

    symbol: str


class Send(_Frame, frozen=True, tag="send"):
    """A command; `valid_ns` is for how long after `sent_ns` the venue may act on it.

    Both clocks count nanoseconds since the Unix epoch. The window ends at `sent_ns + valid_ns` by
    the server's clock.
    """

    command: Command
    sent_ns: int
    valid_ns: int


class Arm(_Frame, frozen=True, tag="arm"):
    """Cancel this account's orders whose client ids begin with `tag` in `after_ms`, unless armed again; 0 disarms.

    Answered by `Armed`, in order. It is the account's: it outlives the connection.
    """

    after_ms: Annotated[int, Meta(ge=0)]
    tag: str = ""


class Ping(_Frame, frozen=True, tag="ping"):
    """Is anybody there? Answered by `Pong`."""


ClientMessage = Hello | Subscribe | Resync | Send | Arm | Ping


# -- server to client ----------------------------------------------------------------------------


class Welcome(_Frame, frozen=True, tag="welcome"):
    """Answers `Hello`: what is listed, and the venue's time."""

    instruments: tuple[Instrument, ...]
    now_ns: int
    protocol: int = PROTOCOL


class Refused(_Frame, frozen=True, tag="refused"):
    """The connection is closed after this; `text` says why and what to do."""

    text: str


class Reported(_Frame, frozen=True, tag="report"):
    """A report for this connection's account."""

    report: Report


class Armed(_Frame, frozen=True, tag="armed"):
    """Answers `Arm`, from when on it counts."""

    after_ms: int
    tag: str = ""


class Pong(_Frame, frozen=True, tag="pong"):
    """Answers `Ping`."""


class _Top(_Frame, frozen=True, tag="top"):
    event: BookTop


class _Depth(_Frame, frozen=True, tag="depth"):
    event: Depth


class _Trade(_Frame, frozen=True, tag="trade"):
    event: Trade


class _Ticker(_Frame, frozen=True, tag="ticker"):
    event: Ticker


_MarketFrame = _Top | _Depth | _Trade | _Ticker
ServerMessage = Welcome | Refused | Reported | Armed | Pong | _MarketFrame

_FRAME_OF: dict[type[MarketEvent], type[Any]] = {
    BookTop: _Top,
    Depth: _Depth,
    Trade: _Trade,
    Ticker: _Ticker,
}


def encode(message: ClientMessage | ServerMessage) -> bytes:
    """Return the frame of one message."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


def encode_market(event: MarketEvent) -> bytes:
    """Return the frame of one market event."""
    message: ServerMessage = _FRAME_OF[type(event)](event)
    return encode(message)


def market_event(message: ServerMessage) -> MarketEvent | None:
    """Return the market event that `message` carries, None where it carries none."""
    return message.event if isinstance(message, _MarketFrame) else None


M = TypeVar("M")


class FrameReader(Generic[M]):
    """Cuts a byte stream into messages of one direction."""

    def __init__(self, decoder: "msgspec.msgpack.Decoder[M]") -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    @staticmethod
    def for_server() -> "FrameReader[ClientMessage]":
        """Return a reader of what clients send."""
        return FrameReader(msgspec.msgpack.Decoder(ClientMessage))

    @staticmethod
    def for_client() -> "FrameReader[ServerMessage]":
        """Return a reader of what the server sends."""
        return FrameReader(msgspec.msgpack.Decoder(ServerMessage))

    def feed(self, data: bytes) -> Iterator[M]:
        """Yield the messages that `data` completes; raise `WireError` at the first that is none."""
        self._buffer += data
        offset = 0
        try:
            while len(self._buffer) - offset >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._buffer, offset)
                if length > MAX_FRAME_BYTES:
                    raise WireError(f"a frame has at most {MAX_FRAME_BYTES} bytes, was {length}; reconnect")
                end = offset + _LENGTH.size + length
                if len(self._buffer) < end:
                    break
                body = bytes(self._buffer[offset + _LENGTH.size : end])
                offset = end
                try:
                    yield self._decoder.decode(body)
                except msgspec.MsgspecError as error:
                    raise WireError(f"expected a message of the venue's protocol: {error}") from error
        finally:
            del self._buffer[:offset]
