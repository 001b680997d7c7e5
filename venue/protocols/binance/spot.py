"""The spot product: its endpoints, its wallet, and the events that its user data stream tells."""

from typing import Any, Final

from host.api import InstrumentKind
from venue.execution import ExecutionReport
from venue.protocols.accounts import KeyedAccount
from venue.protocols.binance.limits import Limits, OrderLimit
from venue.protocols.binance.product import Product
from venue.protocols.binance.spot_account import SpotAccount
from venue.protocols.binance.spot_changing import SpotChanging
from venue.protocols.binance.spot_lookup import SpotLookup
from venue.protocols.binance.spot_market import SpotMarket
from venue.protocols.binance.spot_placing import SpotPlacing
from venue.protocols.binance.spot_queries import SpotQueries
from venue.protocols.binance.spot_shapes import account_position, execution_report
from venue.protocols.binance.symbols import Listing
from venue.protocols.front import Desk

__all__ = ["Spot"]

LIMITS: Final = (OrderLimit("SECOND", 10, 100), OrderLimit("DAY", 1, 200_000))
WEIGHT: Final = 6000


class Spot(Product):
    """Binance spot."""

    wallet_name = "spot"

    def __init__(self, desk: Desk) -> None:
        self.listing: Final = Listing(desk.exchange.instruments, InstrumentKind.SPOT)
        limits = Limits(WEIGHT, LIMITS, is_on=desk.has_rate_limits)
        lookup = SpotLookup(desk, self.listing)
        placing = SpotPlacing(desk, self.listing, lookup)
        self._changing = SpotChanging(desk, self.listing, lookup, placing)
        endpoints = (
            *SpotMarket(desk, self.listing, limits).endpoints(),
            *SpotAccount(desk, self.listing, limits).endpoints(),
            *placing.endpoints(),
            *self._changing.endpoints(),
            *SpotQueries(desk, self.listing, lookup).endpoints(),
        )
        super().__init__(desk, limits, endpoints)
        self._execution_number = 0

    def open_wallet(self, account: KeyedAccount) -> str:
        """Return the spot wallet of an account."""
        return self.desk.accounts.wallet(
            account.name, self.wallet_name, self.listing.currencies(), is_fee_in_base=True
        )

    def events(self, report: ExecutionReport, account: str) -> list[tuple[str, dict[str, Any]]]:
        """Return what the user data stream tells of an execution: (symbol, event), in order."""
        order = report.order
        name = self.listing.name_of(order.symbol)
        if not name:
            return []
        self._execution_number += 1
        shown = self.desk.shown_ns
        event_ms, time_ms = self.desk.now_ns() // 1_000_000, shown(report.ts_ns) // 1_000_000
        told = execution_report(
            report,
            name,
            event_ms=event_ms,
            time_ms=time_ms,
            created_ms=shown(order.created_ns) // 1_000_000,
            number=self._execution_number,
            cancel_id=self._changing.cancel_ids.get(order.order_id, ""),
        )
        if report.fill is not None and report.filled == report.fill.qty:
            self.limits.give_back_order(account, self.desk.now_ns())  # only unfilled orders count
        instrument, money = self.listing.by_name[name], self.desk.exchange.account(order.owner)
        balances = [
            (asset, money.free(asset), money.locked(asset)) for asset in (instrument.base, instrument.quote)
        ]
        return [(name, told), (name, account_position(balances, event_ms, time_ms))]
