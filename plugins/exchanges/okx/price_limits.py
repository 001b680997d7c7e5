"""The prices that the venue takes at present: pushed as they move, kept to before an order is sent.

A buy may cost at most `buyLmt`, a sell must bring at least `sellLmt`. The venue refuses what is beyond (51006); here
it is not sent in the first place. Without limits, as while the connection that brings them is down, every price goes.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct

from host.api import ExchangeError, Side

from .frames import Frame, amount, decode
from .products import EXCHANGE, Listing

__all__ = ["PRICE_LIMITS", "BeyondLimit", "PriceLimits"]

PRICE_LIMITS: Final = "price-limit"
"""The channel: pushed when the limits move, each 200 ms at most."""


class BeyondLimit(ExchangeError):  # noqa: N818 - it says what is the case, like `OrderRefused`
    """Nothing was sent: the venue does not take this price at present."""


class _Row(Struct, rename="camel"):
    inst_id: str
    buy_lmt: str = ""
    sell_lmt: str = ""
    enabled: bool = True
    ts: int = 0


class _Push(Struct):
    data: tuple[_Row, ...] = ()


_PUSH: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_Push, strict=False)


class PriceLimits:
    """The latest limits of each instrument, by the venue's name of it."""

    def __init__(self) -> None:
        self._limits: Final[dict[str, tuple[int, Decimal, Decimal]]] = {}

    def take(self, frame: Frame) -> None:
        """Take a push in, unless it is older than what is known; raise `BadFrame`."""
        push: _Push = decode(_PUSH, frame, "price limit")
        for row in push.data:
            known = self._limits.get(row.inst_id)
            if known is not None and row.ts < known[0]:
                continue
            highest, lowest = (amount(row.buy_lmt), amount(row.sell_lmt)) if row.enabled else (_NONE, _NONE)
            self._limits[row.inst_id] = (row.ts, highest, lowest)

    def forget(self, inst_ids: Iterable[str]) -> None:
        """Know the limits of these no more: whoever tells of them is gone."""
        for inst_id in inst_ids:
            self._limits.pop(inst_id, None)

    def check(self, listing: Listing, side: Side, price: Decimal | None) -> None:
        """Raise `BeyondLimit` for a limit price that the venue would refuse; a market order has none."""
        known = self._limits.get(listing.inst_id)
        if known is None or price is None:
            return
        _, highest, lowest = known
        if side is Side.BUY:
            if highest > 0 and price > highest:
                raise _beyond(listing, "buy", "at most", highest, price)
        elif lowest > 0 and price < lowest:
            raise _beyond(listing, "sell", "at least", lowest, price)


_NONE: Final = Decimal(0)
"""The venue names no limit."""


def _beyond(listing: Listing, side: str, which: str, limit: Decimal, price: Decimal) -> BeyondLimit:
    return BeyondLimit(
        f"{EXCHANGE}: {listing.symbol}: the price of a {side} must be {which} {limit:f} at present, "
        f"was {price:f}; nothing was sent"
    )
