"""A small venue to test against: instruments, commands, and a client that collects its reports."""

from decimal import Decimal

from host.api import (
    AmendOrder,
    CancelOrder,
    Command,
    Instrument,
    InstrumentKind,
    MarketEvent,
    OrderType,
    PlaceOrder,
    Report,
    Side,
    TimeInForce,
)
from venue.delivery import NO_FAULTS, Faults, Latency
from venue.exchange import Exchange
from venue.ledger import Ledger
from venue.live_market import LiveMarket

D = Decimal
NEVER = 1 << 62


def instrument(kind: InstrumentKind = InstrumentKind.SPOT, **changes: object) -> Instrument:
    """Return BTC-USDT (or its perpetual) with round numbers: tick 0.5, lot 0.1, fees 0.1 % and 0.2 %."""
    fields: dict[str, object] = {
        "symbol": "BTC-USDT" if kind is InstrumentKind.SPOT else "BTC-USDT-PERP",
        "kind": kind,
        "base": "BTC",
        "quote": "USDT",
        "tick_size": D("0.5"),
        "lot_size": D("0.1"),
        "min_qty": D("0.1"),
        "maker_fee": D("0.001"),
        "taker_fee": D("0.002"),
    }
    return Instrument(**{**fields, **changes})  # type: ignore[arg-type]


def place(
    client_id: str,
    side: Side,
    price: str | None,
    qty: str,
    *,
    symbol: str = "BTC-USDT",
    tif: TimeInForce = TimeInForce.GTC,
    post_only: bool = False,
    reduce_only: bool = False,
) -> PlaceOrder:
    """Return an order; a market order where `price` is None."""
    if price is None:
        return PlaceOrder(
            client_id, symbol, side, OrderType.MARKET, TimeInForce.IOC, None, D(qty), post_only, reduce_only
        )
    return PlaceOrder(client_id, symbol, side, OrderType.LIMIT, tif, D(price), D(qty), post_only, reduce_only)


def amend(client_id: str, price: str, qty: str, *, symbol: str = "BTC-USDT") -> AmendOrder:
    """Return an amend to a new price and total quantity."""
    return AmendOrder(client_id, symbol, Side.BUY, D(price), D(qty))


def cancel(client_id: str, *, symbol: str = "BTC-USDT") -> CancelOrder:
    """Return a cancel."""
    return CancelOrder(client_id, symbol)


class Venue:
    """An exchange without a crowd, and what it said to each account so far."""

    def __init__(
        self,
        *instruments: Instrument,
        latency: Latency | None = None,
        faults: Faults = NO_FAULTS,
        ledger: Ledger | None = None,
        balances: dict[str, Decimal] | None = None,
        is_fee_in_base: bool = False,
    ) -> None:
        self.exchange = Exchange(seed=7, latency=latency, faults=faults, ledger=ledger)
        self.now_ns = 1_000
        self.reports: dict[str, list[Report]] = {"a": [], "b": []}
        self.market: list[MarketEvent] = []
        listed = instruments or (instrument(),)
        for each in listed:
            self.exchange.list_instrument(each)
        self.exchange.restore(self.now_ns)
        for name in self.reports:
            start = {"USDT": D(10_000), "BTC": D(100)} if balances is None else balances
            self.exchange.open_account(name, start, is_fee_in_base=is_fee_in_base)
        for each in listed:
            self.exchange.add_market(LiveMarket(each))

    def send(self, account: str, *commands: Command, deadline_ns: int = NEVER) -> list[Report]:
        """Send, let everything arrive, and return what `account` heard because of it."""
        before = len(self.reports[account])
        for command in commands:
            self.exchange.submit(account, command, self.now_ns, deadline_ns)
        self.run()
        return self.reports[account][before:]

    def run(self) -> None:
        """Let time pass until nothing is on its way."""
        while (due_ns := self.exchange.next_time_ns()) is not None:
            self.now_ns = max(self.now_ns, due_ns)
            for account, output in self.exchange.step(due_ns):
                if account is None:
                    self.market.append(output)  # type: ignore[arg-type]
                else:
                    self.reports[account].append(output)  # type: ignore[arg-type]
