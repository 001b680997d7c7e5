"""What a worker is told when it starts, by its standard input: not part of the strategy protocol."""

from pathlib import Path

import msgspec
from msgspec import Struct

from host.loader import Version

__all__ = ["Assignment", "SeatPlan"]


class SeatPlan(Struct, frozen=True):
    """One strategy, or quote model, that a worker runs: which class of which bytes, and how to reach the host."""

    instance: str
    version: Version
    offer: str
    events: str
    """Address of the socket that events come from."""
    turns: str
    """Address of the socket that takes turns."""
    key: bytes
    """Stands before every message, both ways: who does not know it is nobody."""
    model_params: bytes = b""
    """Of a quote model, its parameters as JSON; empty for a strategy, which is told them with its welcome."""


class Assignment(Struct, frozen=True):
    """All that a worker runs."""

    memory_bytes: int
    seats: tuple[SeatPlan, ...]

    def encode(self) -> bytes:
        """Return it as bytes."""
        return msgspec.msgpack.encode(self, enc_hook=str)

    @classmethod
    def decode(cls, data: bytes) -> "Assignment":
        """Return what `encode` wrote."""
        return msgspec.msgpack.decode(data, type=cls, dec_hook=lambda _type, value: Path(value))
