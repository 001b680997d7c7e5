"""One account as the exchange sees it: its money, its orders, and whether anyone is listening."""

from decimal import Decimal

from host.api import Instrument, InstrumentKind, Side
from venue.accounts import Account
from venue.market import VenueOrder
from venue.records import Records

__all__ = ["Client"]

_ZERO = Decimal(0)


class Client:
    """The account, its order records and its connection; and the rules that need both."""

    __slots__ = ("account", "is_connected", "records")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.records = Records()
        self.is_connected = True

    def reduce_only_orders(self, symbol: str) -> list[VenueOrder]:
        """Return the open reduce-only orders in `symbol`, oldest first."""
        return [
            record.order
            for record in self.records.open()
            if record.order.reduce_only and record.order.symbol == symbol
        ]

    def may_reduce(self, instrument: Instrument, side: Side, added: Decimal) -> bool:
        """Return whether `added` more reduce-only quantity on `side` stays within the position.

        A spot holding is not a position: there reduce-only means to sell what is held.
        """
        if instrument.kind is InstrumentKind.SPOT:
            return side is Side.SELL
        position = self.account.position(instrument.symbol)
        reducible = position if side is Side.SELL else -position
        resting = (
            order.remaining for order in self.reduce_only_orders(instrument.symbol) if order.side is side
        )
        return sum(resting, _ZERO) + added <= reducible

    def uncovered(self, instrument: Instrument) -> list[VenueOrder]:
        """Return the newest reduce-only orders that the position no longer covers."""
        orders = self.reduce_only_orders(instrument.symbol)
        if not orders or instrument.kind is InstrumentKind.SPOT:
            return []
        position = self.account.position(instrument.symbol)
        covered = {Side.SELL: max(position, _ZERO), Side.BUY: max(-position, _ZERO)}
        found = []
        for order in orders:
            if order.remaining <= covered[order.side]:
                covered[order.side] -= order.remaining
            else:
                found.append(order)
        return found
