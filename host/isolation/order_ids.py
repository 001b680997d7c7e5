"""The client order ids that one strategy in another process may use, and has used."""

from typing import Final

from host.api import OrderRefused
from host.core.client_id import ClientIdMaker
from host.wire.messages import IdRange

__all__ = ["IDS_AT_ONCE", "OrderIds"]

IDS_AT_ONCE: Final = 4096
"""Ids handed out ahead; half of them used, more follow."""
RANGES_KEPT: Final = 3


class OrderIds:
    """Hands out ranges of ids, from the same counter as the host's own, and takes each id once, rising."""

    def __init__(self, maker: ClientIdMaker) -> None:
        self.are_short = False
        """Whether it is time to hand out more."""
        self._maker: Final = maker
        self._ranges: list[IdRange] = []
        self._last = 0

    def hand_out(self) -> IdRange:
        """Return more ids, which nobody else will use."""
        self.are_short = False
        ids = IdRange(*self._maker.reserve(IDS_AT_ONCE))
        self._ranges = [*self._ranges[1 - RANGES_KEPT :], ids]
        return ids

    def use(self, client_id: str) -> None:
        """Use up one of the ids; raise `OrderRefused` for any other, or one at or before the last used."""
        number = self._number_of(client_id)
        if number is None or number <= self._last:
            text = f"{client_id[:64]!r} is not one of the ids handed out, or was used"
            raise OrderRefused("ORDER_ID", text)
        self._last = number
        left = sum(ids.last - max(number, ids.first - 1) for ids in self._ranges if ids.last >= number)
        self.are_short = left < IDS_AT_ONCE // 2

    def _number_of(self, client_id: str) -> int | None:
        for ids in self._ranges:
            digits = client_id.removeprefix(ids.stem)
            if digits == client_id or not (digits.isascii() and digits.isalnum() and len(digits) <= 16):
                continue
            try:
                number = int(digits, 16)
            except ValueError:
                continue
            if ids.first <= number <= ids.last and f"{number:x}" == digits:
                return number
        return None
