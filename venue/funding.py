"""Funding: at its hours, longs pay shorts a part of their positions' value, or shorts longs."""

from collections.abc import Callable, Mapping
from decimal import Decimal

from venue.accounts import MONEY_QUANTUM
from venue.client import Client
from venue.ledger import Funded, Ledger
from venue.market import Market
from venue.perpetuals import FundingPayment, position_value
from venue.validation import mid_price

__all__ = ["Funding"]


class Funding:
    """Pays funding to and from all accounts. `at` calls something back at a time of the exchange's."""

    def __init__(
        self,
        at: Callable[[int, Callable[[int], None]], None],
        clients: Mapping[str, Client],
        markets: Mapping[str, Market],
        ledger: Ledger | None,
    ) -> None:
        self._at = at
        self._clients = clients
        self._markets = markets
        self._ledger = ledger
        self._paid: list[FundingPayment] = []

    def schedule(self, every_ns: int, rate: Decimal, now_ns: int) -> None:
        """Have longs pay shorts `rate` of their positions' value at every multiple of `every_ns`.

        The value is taken at the middle of the book. A symbol with an empty book pays nothing.
        """

        def pay(at_ns: int) -> None:
            self._pay(rate, at_ns)
            self._at(at_ns + every_ns - at_ns % every_ns, pay)

        self._at(now_ns + every_ns - now_ns % every_ns, pay)

    def take(self) -> list[FundingPayment]:
        """Return what was paid since the last call."""
        taken, self._paid = self._paid, []
        return taken

    def _pay(self, rate: Decimal, now_ns: int) -> None:
        for name, client in self._clients.items():
            for symbol, market in self._markets.items():
                qty, mark = client.account.position(symbol), mid_price(*market.best())
                if not qty or mark is None:
                    continue
                instrument = market.instrument
                amount = (-position_value(instrument, qty, mark) * rate).quantize(MONEY_QUANTUM)
                client.account.pay(instrument.settle, amount)
                self._paid.append(FundingPayment(name, symbol, instrument.settle, amount, rate, now_ns))
                if self._ledger is not None:
                    self._ledger.write(Funded(now_ns, name, symbol, instrument.settle, amount))
