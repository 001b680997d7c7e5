"""An account's orders, fills, balances and positions, as Bybit's lists show them."""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Final

from host.api import OrderFilled
from venue.exchange import Exchange
from venue.perpetuals import FundingPayment, liquidation_price, position_value, unrealised_profit
from venue.protocols.bybit.account_rows import PositionView, coin_row, funding_row
from venue.protocols.bybit.names import SIDES, Listing, Product, Symbols, number_of
from venue.protocols.bybit.order_rows import OrderView, Terms, execution_row, order_row
from venue.protocols.market_feed import MarketFeed
from venue.records import OrderRecord

__all__ = ["LedgerView"]

_FUNDING_FROM: Final = 1 << 40
"""Payments are numbered from here, trades from 1."""
_TOTALS: Final = ("totalEquity", "totalWalletBalance", "totalMarginBalance", "totalAvailableBalance")
_UNUSED: Final = (
    "accountIMRate",
    "accountIMRateByMp",
    "accountLTV",
    "accountMMRate",
    "accountMMRateByMp",
    "totalInitialMargin",
    "totalInitialMarginByMp",
    "totalMaintenanceMargin",
    "totalMaintenanceMarginByMp",
    "totalPerpUPL",
)
_UNKNOWN_TERMS: Final = Terms("", 0)
"""Of an order that was taken before the venue was last restarted."""


class LedgerView:
    """Reads one exchange for Bybit. `to_ms` turns market time into what this protocol shows."""

    def __init__(
        self,
        exchange: Exchange,
        symbols: Symbols,
        feed: MarketFeed,
        to_ms: Callable[[int], int],
    ) -> None:
        self._exchange: Final = exchange
        self._symbols: Final = symbols
        self._feed: Final = feed
        self._to_ms: Final = to_ms
        self._funding: Final[dict[str, list[tuple[int, Listing, dict[str, Any]]]]] = {}

    # -- orders ----------------------------------------------------------------------------------

    def find(self, wallet: str, listing: Listing, order_id: str, link_id: str) -> OrderRecord | None:
        """Return an order by the venue's id, which wins, or by the client's; None when it is unknown."""
        if order_id:
            number = number_of(order_id)
            record = None if number is None else self._exchange.find_order(wallet, order_id=number)
        else:
            record = self._exchange.find_order(wallet, client_id=link_id) if link_id else None
        return record if record is not None and record.order.symbol == listing.symbol else None

    def orders(self, wallet: str) -> list[OrderRecord]:
        """Return every order that is remembered, newest first."""
        return list(reversed(self._exchange.records(wallet).all()))

    def view(self, record: OrderRecord) -> OrderView:
        """Return an order as it is now."""
        order = record.order
        terms = record.terms if isinstance(record.terms, Terms) else _UNKNOWN_TERMS
        return OrderView(
            self._symbols.of(order.symbol),
            order.order_id,
            terms,
            SIDES[order.side],
            order.type,
            order.time_in_force,
            order.post_only,
            order.reduce_only,
            order.price,
            order.qty,
            record.booked,
            record.quote_filled,
            record.status,
            self._to_ms(record.updated_ns),
        )

    def order_rows(self, wallet: str, records: Iterable[OrderRecord]) -> list[dict[str, Any]]:
        """Return the rows of some orders."""
        fees: dict[str, Decimal] = {}
        for fill in self._exchange.records(wallet).fills_since(0):
            fees[fill.venue_id] = fees.get(fill.venue_id, Decimal(0)) + fill.fee
        return [
            order_row(self.view(record), fees.get(str(record.order.order_id), Decimal(0)))
            for record in records
        ]

    # -- fills -----------------------------------------------------------------------------------

    def executions(self, wallet: str, wants: Callable[[OrderFilled, Listing], bool]) -> list[dict[str, Any]]:
        """Return the rows of the fills that are wanted, newest first."""
        rows: list[tuple[int, dict[str, Any]]] = []
        for fill in self._exchange.records(wallet).fills_since(0):
            listing = self._symbols.of(fill.symbol)
            record = self._exchange.find_order(wallet, order_id=int(fill.venue_id))
            if record is not None and wants(fill, listing):
                rows.append((fill.ts_ns, self.execution(self.view(record), fill)))
        return [row for _, row in reversed(rows)]

    def funding(self, wallet: str) -> list[tuple[int, Listing, dict[str, Any]]]:
        """Return what was paid for positions: market time, symbol, row; oldest first."""
        return self._funding.get(wallet, [])

    def note_funding(self, wallet: str, payment: FundingPayment) -> dict[str, Any]:
        """Keep a funding payment among the executions, and return its row."""
        listing, paid = self._symbols.of(payment.symbol), self._funding.setdefault(wallet, [])
        qty, mark = self._exchange.account(wallet).position(payment.symbol), self._feed[payment.symbol].mark
        number = _FUNDING_FROM + len(paid)
        row = funding_row(listing, payment, qty, mark, self._to_ms(payment.ts_ns), number)
        paid.append((payment.ts_ns, listing, row))
        return row

    def execution(self, view: OrderView, fill: OrderFilled) -> dict[str, Any]:
        """Return the row of one fill."""
        mark = self._feed[fill.symbol].mark
        return execution_row(view, fill, self._to_ms(fill.ts_ns), int(fill.trade_id), mark)

    # -- money -----------------------------------------------------------------------------------

    def wallet(self, wallet: str) -> dict[str, Any]:
        """Return the unified account with its coins."""
        snapshot = self._exchange.account(wallet).snapshot(0)
        coins = [coin_row(balance) for balance in snapshot.balances]
        dollars = next((row["walletBalance"] for row in coins if row["coin"] == "USDT"), "0")
        return {
            "accountType": "UNIFIED",
            **dict.fromkeys(_UNUSED, "0"),
            **dict.fromkeys(_TOTALS, dollars),
            "coin": coins,
        }

    def position(self, wallet: str, listing: Listing, at_ms: int) -> PositionView:
        """Return the position of one symbol, an empty one included."""
        account, instrument = self._exchange.account(wallet), listing.instrument
        qty, entry = account.position(listing.symbol), account.entry_price(listing.symbol)
        mark = Decimal(repr(self._feed[listing.symbol].mark))
        margin, _ = account.margins(listing.symbol)
        balance = account.balances.get(instrument.settle, Decimal(0))
        return PositionView(
            listing,
            qty,
            entry,
            mark,
            account.leverage_of(listing.symbol),
            position_value(instrument, qty, mark) if mark else Decimal(0),
            margin,
            liquidation_price(instrument, qty, entry, balance),
            unrealised_profit(instrument, qty, entry, mark),
            at_ms,
        )

    def open_positions(self, wallet: str, product: Product) -> list[Listing]:
        """Return the symbols of a product in which something is held."""
        held = {item.symbol for item in self._exchange.account(wallet).snapshot(0).positions}
        return [listing for listing in self._symbols.in_product(product) if listing.symbol in held]
