"""What a strategy outside the host is offered: `StrategyContext` from what the host has told."""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from host.api import (
    BookTop,
    Instrument,
    Order,
    OrderRefused,
    OrderRequest,
    OrderStatus,
    Position,
    Quote,
)
from host.wire.messages import (
    MOST_LOG_TEXT,
    Cancel,
    Held,
    IdRange,
    Log,
    Place,
    PutQuotes,
    Request,
    Welcome,
)

__all__ = ["RemoteContext"]

MOST_BEFORE_LOG: Final = 1_000
"""Requests of one turn, lines of the log included, beyond which it takes no more lines."""


class RemoteContext:
    """Keeps what the host said last; what the strategy wants is in `requests` until it is taken."""

    def __init__(self, welcome: Welcome, boot_ns: Callable[[], int]) -> None:
        self.instance: str = welcome.instance
        self.account: str = welcome.account
        self.symbols: tuple[str, ...] = welcome.symbols
        self.requests: list[Request] = []
        self.timers: dict[str, tuple[int, int]] = {}
        """(next due, every), both in ns, by name."""
        self.orders: Final = {order.client_id: order for order in welcome.orders}
        self.books: Final[dict[str, BookTop]] = {book.symbol: book for book in welcome.books}
        self.held: Final[dict[str, Held]] = {held.position.symbol: held for held in welcome.held}
        self.ids: Final[deque[IdRange]] = deque([welcome.ids])
        self.instruments: Final = {instrument.symbol: instrument for instrument in welcome.instruments}
        self._boot_ns: Final = boot_ns
        # The host's clock, carried on by this machine's: steps of the wall clock do not show.
        self._offset_ns: Final = welcome.now_ns - boot_ns()
        self._next_id = welcome.ids.first
        self.log: logging.LoggerAdapter[logging.Logger] = logging.LoggerAdapter(
            _RequestLogger(self.requests), {"instance": welcome.instance}
        )

    # -- StrategyContext -------------------------------------------------------------------------

    def now_ns(self) -> int:
        """Return the host's time."""
        return self._offset_ns + self._boot_ns()

    def instrument(self, symbol: str) -> Instrument:
        """Return what the venue allows for `symbol`."""
        return self.instruments[self._known(symbol)]

    def book(self, symbol: str) -> BookTop | None:
        """Return the latest top of book that can be trusted."""
        return self.books.get(self._known(symbol))

    def position(self, symbol: str) -> Position:
        """Return what this instance's own fills built up in `symbol`."""
        held = self.held.get(self._known(symbol))
        return Position(self.account, symbol) if held is None else held.position

    def inventory_ratio(self, symbol: str) -> float:
        """Return position / position limit, −1 to 1 (0 where no limit is configured)."""
        held = self.held.get(self._known(symbol))
        return 0.0 if held is None else held.inventory_ratio

    def open_orders(self, symbol: str | None = None) -> list[Order]:
        """Return this instance's orders that may still trade, as far as the host has told."""
        return [order for order in self.orders.values() if symbol in (None, order.symbol)]

    def quote(self, symbol: str, quotes: Sequence[Quote]) -> None:
        """State the wanted quotes, best level first; an empty sequence pulls them."""
        self.requests.append(PutQuotes(self._known(symbol), tuple(quotes)))

    def place(self, request: OrderRequest) -> str:
        """Send one order and return its client order id.

        Raises `OrderRefused` for a symbol that is not the instance's; what else the host refuses comes
        as an order that is `REJECTED`.
        """
        self._known(request.symbol)
        client_id = self._make_id()
        self.requests.append(Place(client_id, request))
        self.orders[client_id] = request.as_order(
            client_id, self.instance, self.account, OrderStatus.PENDING_NEW, self.now_ns()
        )
        return client_id

    def cancel(self, client_id: str) -> None:
        """Ask the venue to cancel one order; no effect on an order that is already done."""
        self.requests.append(Cancel(client_id))

    def set_timer(self, name: str, every_s: float) -> None:
        """Call `on_timer(name)` every `every_s` seconds until `cancel_timer`."""
        if every_s <= 0:
            raise ValueError(f"timer {name!r}: every_s must be above 0, was {every_s}")
        every_ns = max(int(every_s * 1e9), 1)
        self.timers[name] = (self.now_ns() + every_ns, every_ns)

    def cancel_timer(self, name: str) -> None:
        """Stop the timer; no effect when it is not set."""
        self.timers.pop(name, None)

    # -- for the stage ---------------------------------------------------------------------------

    def refused(self, client_id: str, reason: str) -> Order | None:
        """Return a placed order that the host refused, as it is by that; None for one that is not known."""
        order = self.orders.pop(client_id, None)
        if order is None:
            return None
        return msgspec.structs.replace(order, status=OrderStatus.REJECTED, reason=reason)

    def _make_id(self) -> str:
        ids = self.ids[0]
        if self._next_id > ids.last and len(self.ids) > 1:
            self.ids.popleft()
            ids = self.ids[0]
            self._next_id = ids.first
        if self._next_id > ids.last:
            raise OrderRefused(
                "NO_ORDER_ID",
                "all client order ids that the host handed out are used; wait for its next event",
            )
        self._next_id += 1
        return f"{ids.stem}{self._next_id - 1:x}"

    def _known(self, symbol: str) -> str:
        if symbol not in self.symbols:
            known = ", ".join(self.symbols)
            raise OrderRefused(
                "UNKNOWN_SYMBOL", f"instance {self.instance} trades {known}, was asked for {symbol}"
            )
        return symbol


class _RequestLogger(logging.Logger):
    """Sends what is logged to the host, with the strategy's next turn."""

    def __init__(self, requests: list[Request]) -> None:
        super().__init__("tandem.strategy", logging.DEBUG)
        self._requests = requests

    def handle(self, record: logging.LogRecord) -> None:
        if len(self._requests) >= MOST_BEFORE_LOG:
            return  # orders go before; the host keeps a hundred lines a second
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
        self._requests.append(Log(record.levelname.lower(), text[:MOST_LOG_TEXT]))


def boot_ns() -> int:
    """Return CLOCK_BOOTTIME, by which the host's time goes on."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
