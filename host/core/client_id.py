"""Client order ids: what makes every send idempotent and every live order attributable.

An id is `[a-z0-9]{1,32}`, the strictest venue's rule (OKX): the cell's prefix, then `t` epoch,
`i` instance number and `n` sequence, each in hexadecimal. The separators are not hexadecimal
digits, so an id reads back without ambiguity. An epoch is never reused, so neither is an id.
"""

import re

from msgspec import Struct

__all__ = ["ClientId", "ClientIdMaker", "epoch_tag", "parse_client_id"]

MAX_LENGTH = 32
_PREFIX = re.compile(r"[a-z0-9]{1,6}")
_HEX = "(0|[1-9a-f][0-9a-f]*)"
_ID = re.compile(f"([a-z0-9]{{1,6}}?)t{_HEX}i{_HEX}n{_HEX}")
_SEQUENCE_DIGITS = 10
"""Room that is left for the sequence: 10^12 orders of one instance in one epoch."""


class ClientId(Struct, frozen=True):
    """The parts of one of our ids."""

    prefix: str
    epoch: int
    instance_number: int
    sequence: int


class ClientIdMaker:
    """Makes the ids of one instance in one epoch.

    Raises `ValueError` for a bad prefix, or an epoch and instance number too large to fit.
    """

    __slots__ = ("_next", "_stem")

    def __init__(self, prefix: str, epoch: int, instance_number: int) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ValueError(f"order id prefix must match [a-z0-9]{{1,6}}, was {prefix!r}")
        if epoch < 0 or instance_number < 0:
            raise ValueError(
                f"epoch and instance number must not be negative, was {epoch}, {instance_number}"
            )
        self._stem = f"{epoch_tag(prefix, epoch)}{instance_number:x}n"
        if len(self._stem) + _SEQUENCE_DIGITS > MAX_LENGTH:
            raise ValueError(
                f"epoch {epoch} and instance number {instance_number} leave no room for "
                f"{_SEQUENCE_DIGITS} more digits in {MAX_LENGTH} characters; use a shorter prefix than {prefix!r}"
            )
        self._next = 1

    def make(self) -> str:
        """Return an id that was never used before."""
        client_id = f"{self._stem}{self._next:x}"
        self._next += 1
        return client_id

    def reserve(self, count: int) -> tuple[str, int, int]:
        """Return (stem, first, last): sequences for ids that somebody else makes, and `make` never will.

        An id is the stem and the sequence in hexadecimal.
        """
        first = self._next
        self._next += count
        return self._stem, first, self._next - 1


def epoch_tag(prefix: str, epoch: int) -> str:
    """Return what the ids of one epoch begin with, and no id of another."""
    return f"{prefix}t{epoch:x}i"


def parse_client_id(client_id: str, prefix: str) -> ClientId | None:
    """Return the parts of an id made under `prefix`, or None for anybody else's."""
    match = _ID.fullmatch(client_id)
    if match is None or len(client_id) > MAX_LENGTH or match[1] != prefix:
        return None
    return ClientId(prefix, int(match[2], 16), int(match[3], 16), int(match[4], 16))
