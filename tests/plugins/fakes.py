"""A scripted host for strategies: it records what they ask for and fills orders on demand."""

import importlib.util
import logging
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from types import ModuleType

from host.api import (
    BookTop,
    Fill,
    Instrument,
    InstrumentKind,
    Liquidity,
    Order,
    OrderRefused,
    OrderRequest,
    OrderStatus,
    Position,
    Quote,
    Side,
)

SYMBOL = "BTC-USDT"
SECOND = 1_000_000_000
PLUGINS = Path(__file__).parents[2] / "plugins"


def load_plugin(relative: str) -> ModuleType:
    """Import a plugin file or folder by path, under a name of its own."""
    path = PLUGINS / relative
    name = "tests_plugin_" + path.stem
    is_folder = path.is_dir()
    spec = importlib.util.spec_from_file_location(
        name,
        path / "__init__.py" if is_folder else path,
        submodule_search_locations=[str(path)] if is_folder else None,
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class FakeContext:
    """Keeps the `StrategyContext` protocol for one symbol; a test moves its clock and its orders.

    With `fills_at_once` every order is filled in full as it is placed.
    """

    def __init__(self, *, position_limit: str = "1", fills_at_once: bool = False) -> None:
        self.instance = "test"
        self.account = "paper"
        self.symbols: tuple[str, ...] = (SYMBOL,)
        self.log = logging.LoggerAdapter(logging.getLogger("tests.plugins"))
        self.fills_at_once = fills_at_once
        self.refuses = False
        self.clock_ns = 0
        self.limit = Decimal(position_limit)
        self.qty = Decimal(0)
        self.quotes: list[tuple[Quote, ...]] = []
        self.requests: list[OrderRequest] = []
        self.orders: list[Order] = []
        self.fills: list[Fill] = []

    def now_ns(self) -> int:
        return self.clock_ns

    def instrument(self, symbol: str) -> Instrument:
        return Instrument(
            symbol=symbol,
            kind=InstrumentKind.SPOT,
            base="BTC",
            quote="USDT",
            tick_size=Decimal("0.01"),
            lot_size=Decimal("0.001"),
        )

    def book(self, symbol: str) -> BookTop | None:
        return None

    def position(self, symbol: str) -> Position:
        return Position(self.account, symbol, self.qty)

    def inventory_ratio(self, symbol: str) -> float:
        return float(self.qty / self.limit)

    def open_orders(self, symbol: str | None = None) -> list[Order]:
        return [order for order in self.orders if not order.status.is_terminal]

    def quote(self, symbol: str, quotes: Sequence[Quote]) -> None:
        self.quotes.append(tuple(quotes))

    def place(self, request: OrderRequest) -> str:
        self.requests.append(request)
        if self.refuses:
            raise OrderRefused("order_rate", "scripted refusal")
        order = Order(
            f"t{len(self.orders)}",
            self.instance,
            self.account,
            request.symbol,
            request.side,
            request.type,
            request.time_in_force,
            request.price,
            request.qty,
            OrderStatus.PENDING_NEW,
        )
        self.orders.append(order)
        if self.fills_at_once:
            self.fill(order)
        return order.client_id

    def cancel(self, client_id: str) -> None:
        raise AssertionError("no strategy under test cancels")

    def set_timer(self, name: str, every_s: float) -> None:
        raise AssertionError("no strategy under test sets timers")

    def cancel_timer(self, name: str) -> None:
        raise AssertionError("no strategy under test sets timers")

    # -- the script's side -----------------------------------------------------------------------

    def fill(self, order: Order) -> Fill:
        """Fill all of `order` and return the fill; the position counts it."""
        assert order.price is not None
        order.status, order.filled = OrderStatus.FILLED, order.qty
        self.qty += order.qty if order.side is Side.BUY else -order.qty
        fill = Fill(
            order.client_id,
            order.instance,
            order.account,
            order.symbol,
            order.side,
            order.price,
            order.qty,
            Decimal(0),
            "USDT",
            Liquidity.TAKER,
            f"x{len(self.fills)}",
            self.clock_ns,
        )
        self.fills.append(fill)
        return fill

    def top(self, mid: float, at_s: float, *, spread: float = 0.02) -> BookTop:
        """Move the clock to `at_s` and return a top of book around `mid`, on the tick."""
        self.clock_ns = round(at_s * SECOND)
        bid = round(mid - spread / 2, 2)
        return BookTop(SYMBOL, bid, 1.0, round(bid + spread, 2), 1.0, ts_recv=self.clock_ns)
