"""How things are with an instance, in the words of the strategy protocol: when a peer comes, and what changed since."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from host.api import BookTop, Depth, Fill, Order
from host.runtime.instance import Instance
from host.wire import Codec
from host.wire.messages import PROTOCOL, FillEvent, Held, IdRange, OrderEvent, Report, Welcome

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["Standing", "report_of"]

REPORTS_AT_ONCE: Final = 256
"""Of what a peer has not heard, in one event."""


def report_of(what: Order | Fill) -> Report:
    """Return an order, as it is by now, or a fill as it is told."""
    if isinstance(what, Order):
        return OrderEvent(msgspec.structs.replace(what, trade_ids=list(what.trade_ids)))
    return FillEvent(what)


class Standing:
    """Reads an instance for one peer, and remembers what that was told of it last."""

    def __init__(self, engine: "Engine", instance: Instance) -> None:
        self.lost_books: Final[set[str]] = set()
        """The symbols of which the peer knows that their books cannot be trusted."""
        self._engine: Final = engine
        self._instance: Final = instance
        self._held: dict[str, Held] = {}

    def welcome(self, codec: Codec, *, run: str, ids: IdRange, next_turn: int, deadline_ns: int) -> Welcome:
        """Return all that a peer is to know first; raise `CodecError` where the saved state is not to be told."""
        engine, instance = self._engine, self._instance
        record = engine.state.instances[instance.instance]
        self._held = self._holdings()
        tops = (instance.book(symbol) for symbol in instance.symbols)
        return Welcome(
            protocol=PROTOCOL,
            run=run,
            instance=instance.instance,
            account=instance.account,
            symbols=instance.symbols,
            now_ns=engine.clock.now_ns(),
            params=msgspec.json.decode(msgspec.json.encode(instance.strategy.params)),
            state_version=record.state_version,
            state=codec.from_saved(record.strategy_state),
            instruments=tuple(instance.instrument(symbol) for symbol in instance.symbols),
            held=tuple(self._held.values()),
            orders=tuple(instance.open_orders()),
            books=tuple(top for top in tops if isinstance(top, BookTop)),
            ids=ids,
            next_turn=next_turn,
            deadline_ms=deadline_ns // 1_000_000,
        )

    def changed_holdings(self) -> tuple[Held, ...]:
        """Return what the instance holds of the symbols of which that changed since this was asked before."""
        before, self._held = self._held, self._holdings()
        return tuple(held for symbol, held in self._held.items() if before.get(symbol) != held)

    def _holdings(self) -> dict[str, Held]:
        instance = self._instance
        return {
            symbol: Held(instance.position(symbol), instance.inventory_ratio(symbol))
            for symbol in instance.symbols
        }

    def newly_lost_books(self) -> list[str]:
        """Return the symbols whose books cannot be trusted any more since the peer was told of one."""
        lost = []
        for symbol, feed in self._instance.feeds.items():
            if not feed.book.top_fault:
                self.lost_books.discard(symbol)
            elif symbol not in self.lost_books:
                self.lost_books.add(symbol)
                lost.append(symbol)
        return lost

    def whole_book(self, symbol: str) -> Depth | None:
        """Return all levels of a book as a snapshot; None where its depth cannot be trusted, or there is none."""
        return self._instance.feeds[symbol].book.whole()

    @property
    def unheard(self) -> list[Any]:
        """Return the news that the instance's saved state has not seen, oldest first."""
        return self._engine.state.unheard.get(self._instance.instance, [])

    def unheard_reports(self) -> Iterator[tuple[list[Report], int]]:
        """Yield those news as reports, some at a time, and how many of the news are told by then."""
        state, unheard = self._engine.state, self.unheard
        for begin in range(0, len(unheard), REPORTS_AT_ONCE):
            some, reports = unheard[begin : begin + REPORTS_AT_ONCE], []
            for news in some:
                order = state.orders.get(news.client_id) or state.retired.get(news.client_id)
                reports += [report_of(what) for what in (news.fill, order) if what is not None]
            yield reports, begin + len(some)
