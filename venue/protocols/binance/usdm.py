"""The USDⓈ-M product: its endpoints, its wallet, and the events that its user data stream tells."""

from decimal import Decimal
from typing import Any, Final

from host.api import InstrumentKind
from venue.execution import ExecutionReport
from venue.perpetuals import FundingPayment
from venue.protocols.accounts import KeyedAccount
from venue.protocols.binance.countdown import Countdown
from venue.protocols.binance.limits import Limits, OrderLimit
from venue.protocols.binance.listen_keys import ListenKeys
from venue.protocols.binance.product import Product
from venue.protocols.binance.symbols import Listing, fixed
from venue.protocols.binance.usdm_account import UsdmAccount
from venue.protocols.binance.usdm_batches import UsdmBatches
from venue.protocols.binance.usdm_lookup import UsdmLookup
from venue.protocols.binance.usdm_market import UsdmMarket
from venue.protocols.binance.usdm_orders import UsdmOrders
from venue.protocols.binance.usdm_queries import UsdmQueries
from venue.protocols.binance.usdm_shapes import order_update, trade_lite
from venue.protocols.front import Desk

__all__ = ["Usdm"]

LIMITS: Final = (OrderLimit("SECOND", 10, 300), OrderLimit("MINUTE", 1, 1200))
WEIGHT: Final = 2400
_ZERO = Decimal(0)


class Usdm(Product):
    """Binance USDⓈ-M futures."""

    wallet_name = "usdm"

    def __init__(self, desk: Desk) -> None:
        self.listing: Final = Listing(desk.exchange.instruments, InstrumentKind.LINEAR)
        limits = Limits(WEIGHT, LIMITS, is_on=desk.has_rate_limits)
        self.listen_keys: Final = ListenKeys(desk)
        lookup = UsdmLookup(desk, self.listing)
        orders = UsdmOrders(desk, self.listing, lookup)
        self._countdown = Countdown(desk, self.listing)
        self._account = UsdmAccount(desk, self.listing, limits, self._tell_leverage)
        endpoints = (
            *UsdmMarket(desk, self.listing, limits).endpoints(),
            *self._account.endpoints(),
            *orders.endpoints(),
            *UsdmBatches(self.listing, orders).endpoints(),
            *UsdmQueries(desk, self.listing, lookup).endpoints(),
            *self._countdown.endpoints(),
            *self.listen_keys.endpoints(),
        )
        super().__init__(desk, limits, endpoints)
        self._realised: dict[tuple[str, str], Decimal] = {}

    def open_wallet(self, account: KeyedAccount) -> str:
        """Return the futures wallet of an account: USDT alone, which all contracts settle in."""
        currencies = {each.settle for each in self.listing.by_name.values()}
        return self.desk.accounts.wallet(account.name, self.wallet_name, currencies, leverage=Decimal(20))

    def on_execution(self, report: ExecutionReport, account: str) -> None:
        """Tell the account's listeners what happened to an order, and to the account by it."""
        order = report.order
        name = self.listing.name_of(order.symbol)
        if not name:
            return
        instrument, wallet = self.listing.by_name[name], order.owner
        event_ms, time_ms = self._now_ms(), self.desk.shown_ns(report.ts_ns) // 1_000_000
        lite = trade_lite(report, name, event_ms, time_ms)
        if lite is not None:
            self.listen_keys.tell(account, lite, name)
            total = self._realised.get((wallet, order.symbol), _ZERO) + report.realised
            self._realised[(wallet, order.symbol)] = total
            view = self._account.view(wallet, instrument)
            update = self._account_update(wallet, "ORDER", [view.event_row(total)], event_ms, time_ms)
            self.listen_keys.tell(account, update, name)
        values = self.desk.exchange.account(wallet).order_values(order.symbol)
        told = order_update(report, instrument, name, event_ms=event_ms, time_ms=time_ms, order_values=values)
        self.listen_keys.tell(account, told, name)

    def on_funding(self, payment: FundingPayment, account: str) -> None:
        """Tell the account's listeners that funding was paid."""
        name = self.listing.name_of(payment.symbol)
        self._account.note_funding(payment)
        event_ms, time_ms = self._now_ms(), self.desk.shown_ns(payment.ts_ns) // 1_000_000
        update = self._account_update(
            payment.account, "FUNDING_FEE", [], event_ms, time_ms, change=payment.amount
        )
        self.listen_keys.tell(account, update, name)

    def close(self) -> None:
        """Stop the countdowns."""
        self._countdown.close()

    def _account_update(
        self,
        wallet: str,
        why: str,
        positions: list[dict[str, Any]],
        event_ms: int,
        time_ms: int,
        change: Decimal = _ZERO,
    ) -> dict[str, Any]:
        account = self.desk.exchange.account(wallet)
        balances = [
            {"a": asset, "wb": fixed(total), "cw": fixed(total), "bc": fixed(change)}
            for asset, total in sorted(account.balances.items())
        ]
        data = {"m": why, "B": balances, "P": positions}
        return {"e": "ACCOUNT_UPDATE", "E": event_ms, "T": time_ms, "a": data}

    def _tell_leverage(self, account: str, symbol: str, leverage: int) -> None:
        now_ms = self._now_ms()
        config = {"s": symbol, "l": leverage}
        event = {"e": "ACCOUNT_CONFIG_UPDATE", "E": now_ms, "T": now_ms, "ac": config}
        self.listen_keys.tell(account, event, symbol)

    def _now_ms(self) -> int:
        return self.desk.now_ns() // 1_000_000
