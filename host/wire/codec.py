"""Messages as bytes: JSON, or MessagePack with the same names.

A message is a map in both, so its first byte tells which it is.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Raw

from host.api import TandemError
from host.wire.messages import NO_STATE, Event, FromHost, FromStrategy

__all__ = ["JSON", "MSGPACK", "Codec", "CodecError", "codec_named", "codec_of"]


class CodecError(TandemError):
    """Bytes that are no message of the protocol, or not one for this direction."""


class Codec:
    """Writes and reads messages in one encoding. Its methods raise `CodecError` for what is no message."""

    def __init__(self, name: str, module: Any) -> None:
        self.name: Final = name
        self.encode: Final[Callable[[Any], bytes]] = module.Encoder(decimal_format="string").encode
        self._from_host = module.Decoder(FromHost).decode
        self._from_strategy = module.Decoder(FromStrategy).decode
        self._event = module.Decoder(Event).decode
        self._plain = module.Decoder().decode

    def decode_from_host(self, body: bytes) -> FromHost:
        """Return what the host said."""
        message: FromHost = _decoded(self._from_host, body)
        return message

    def decode_from_strategy(self, body: bytes) -> FromStrategy:
        """Return what a strategy said."""
        message: FromStrategy = _decoded(self._from_strategy, body)
        return message

    def to_saved(self, state: Raw) -> bytes:
        """Return a state that came in this encoding as the host keeps it: MessagePack; empty for none."""
        if self.name == "msgpack" or not memoryview(state):
            data = bytes(state)
            return b"" if data == _NIL else data
        plain = _decoded(self._plain, bytes(state))
        return b"" if plain is None else _SAVED.encode(plain)

    def from_saved(self, data: bytes) -> Raw:
        """Return a kept state as it goes into a message of this encoding."""
        if not data:
            return NO_STATE
        if self.name == "msgpack":
            return Raw(data)
        return Raw(self.encode(msgspec.msgpack.decode(data)))


def _decoded(decode: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        return decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CodecError(f"no message of the strategy protocol: {error}") from None


_NIL: Final = b"\xc0"
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
