"""What the host and the worker of a quote model say to each other: both are always of one version."""

from typing import Final

import msgspec
from msgspec import Struct

from host.api import Adjustment, Features, Quote

__all__ = ["Answer", "Ask", "Broke", "Message", "Ready", "decode", "encode"]


class _Message(Struct, frozen=True, array_like=True, tag_field="type"):
    pass


class Ready(_Message, frozen=True, tag="ready"):
    """From the model: it is started; said again until the host says so, too."""


class Ask(_Message, frozen=True, tag="ask"):
    """From the host: what about this quote? A model is asked one thing at a time."""

    seq: int
    features: Features
    quote: Quote


class Answer(_Message, frozen=True, tag="answer"):
    """From the model: this."""

    seq: int
    adjustment: Adjustment


class Broke(_Message, frozen=True, tag="broke"):
    """From the model: its code raised, and where; at question 0 it does not even start."""

    seq: int
    where: str
    error: str


Message = Ready | Ask | Answer | Broke

encode: Final = msgspec.msgpack.Encoder(decimal_format="string").encode
_decode: Final = msgspec.msgpack.Decoder(Message).decode


def decode(body: bytes) -> Message:
    """Return a message; raise `msgspec.DecodeError` for bytes that are none."""
    try:
        message: Message = _decode(body)
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(str(error)) from None
    return message
