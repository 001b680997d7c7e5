"""Messages as bytes: JSON, or MessagePack with the same names.

A message is a map in both, so its first byte tells which it is.
"""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Final, cast, get_args

import msgspec
from msgspec import Raw, Struct

from host.api import TandemError
from host.wire.messages import NO_STATE, Event, Events, FromHost, FromStrategy, Unknown

__all__ = ["JSON", "MSGPACK", "Codec", "CodecError", "codec_named", "codec_of"]


class CodecError(TandemError):
    """Bytes that are no message of the protocol, or not one for this direction."""


class _Apart(Struct, tag_field="type", tag=Events.__struct_config__.tag):
    """`Events`, of which each is to be read by itself."""

    seq: int
    events: list[Raw]


_KNOWN: Final = frozenset(cls.__struct_config__.tag for cls in get_args(Event))


class Codec:
    """Writes and reads messages in one encoding. Its methods raise `CodecError` for what is no message."""

    def __init__(self, name: str, module: Any) -> None:
        self.name: Final = name
        self.encode: Final[Callable[[Any], bytes]] = module.Encoder(
            decimal_format="string", enc_hook=_number
        ).encode
        self._from_host = module.Decoder(FromHost).decode
        self._from_strategy = module.Decoder(FromStrategy).decode
        self._event = module.Decoder(Event).decode
        self._apart = module.Decoder(_Apart).decode
        self._type = module.Decoder(Unknown).decode
        self._plain = module.Decoder().decode

    def decode_from_host(self, body: bytes) -> FromHost:
        """Return what the host said; an event of a type that is not known here is `Unknown`."""
        try:
            message: FromHost = self._from_host(body)
        except _NO_MESSAGE as error:
            return self._with_unknown(body, error)
        return message

    def _with_unknown(self, body: bytes, error: Exception) -> Events:
        """Read events one by one, on a longer way: the host may be newer than what is read here."""
        try:
            apart = self._apart(body)
            unknown = [self._type(raw) for raw in apart.events]
            events = [
                self._event(raw) if other.type in _KNOWN else other
                for other, raw in zip(unknown, apart.events, strict=True)
            ]
        except _NO_MESSAGE:
            raise _no_message(error) from None
        return Events(apart.seq, cast("tuple[Event, ...]", tuple(events)))

    def decode_from_strategy(self, body: bytes) -> FromStrategy:
        """Return what a strategy said."""
        message: FromStrategy = _decoded(self._from_strategy, body)
        return message

    def to_saved(self, state: Raw) -> bytes:
        """Return a state that came in this encoding as the host keeps it: MessagePack; empty for none.

        Raises `CodecError` for what could not be read again: a map's key that is none, a number beyond 64 bits.
        """
        data = bytes(state)
        plain = _decoded(self._plain, data) if data else None
        if plain is None:
            return b""
        return data if self.name == "msgpack" else _written(_SAVED, plain)

    def from_saved(self, data: bytes) -> Raw:
        """Return a kept state as it goes into a message of this encoding; a float that is no number is null in JSON.

        Raises `CodecError` where it has what this encoding has not, such as a map's key that is null.
        """
        if not data:
            return NO_STATE
        if self.name == "msgpack":
            return Raw(data)
        return Raw(_written(self, _decoded(msgspec.msgpack.decode, data)))


def _number(value: Any) -> int | float:
    """Return a library's own kind of number, such as NumPy's, as one that can be written."""
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    raise TypeError(
        f"{type(value).__qualname__} cannot be sent: prices and quantities are numbers or Decimal"
    )


_NO_MESSAGE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def _decoded(decode: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        return decode(body)
    except _NO_MESSAGE as error:
        raise _no_message(error) from None


def _written(encoder: Any, plain: Any) -> bytes:
    """Return plain data in another encoding than the one that it came in."""
    try:
        written: bytes = encoder.encode(plain)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CodecError(f"a state that cannot be told in both JSON and MessagePack: {error}") from None
    return written


def _no_message(error: Exception) -> CodecError:
    return CodecError(f"no message of the strategy protocol: {error}")


_SAVED: Final = msgspec.msgpack.Encoder(decimal_format="string")
JSON: Final = Codec("json", msgspec.json)
MSGPACK: Final = Codec("msgpack", msgspec.msgpack)


def codec_of(body: bytes) -> Codec:
    """Return the encoding of a message by its first byte."""
    return JSON if body[:1] == b"{" else MSGPACK


def codec_named(name: str) -> Codec:
    """Return an encoding by its name; raise `CodecError` for another word than `json` and `msgpack`."""
    for codec in (JSON, MSGPACK):
        if codec.name == name:
            return codec
    raise CodecError(f'the encodings are "json" and "msgpack", was "{name}"')
