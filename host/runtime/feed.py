"""What one account receives: market events to strategies, reports to the OMS.

`AccountFeed.market` is where a decoded frame enters the node. From there to the bytes handed to the
socket everything is plain calls on this thread: book → strategy → models → OMS → journal → gate.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, get_args

from host.api import (
    AccountSnapshot,
    BookTop,
    Candle,
    ConnectionChanged,
    Depth,
    ExchangeAdapter,
    FillsSnapshot,
    Instrument,
    MarketEvent,
    OpenOrdersSnapshot,
    Report,
    SteppedAdapter,
    Ticker,
    Trade,
)
from host.core import entries as e
from host.core.books import Book, DepthResult
from host.core.features import FeatureMaker
from host.journal import JournalError
from host.runtime.candles import CandleMaker
from host.runtime.declared import check_declared
from host.runtime.history import EventHistory, OwnEvent
from host.runtime.link import AdapterLink
from host.runtime.relisting import relist

if TYPE_CHECKING:
    from host.runtime.engine import Engine
    from host.runtime.instance import Instance

__all__ = ["AccountFeed", "SymbolFeed"]

QUOTES_KEPT: Final = 64
"""Quotes of more than 100 ms in a fast market: no depth message is further behind."""

_REPORTS: Final[tuple[type, ...]] = get_args(Report)

Handler = tuple["Instance", Callable[[Any], None]]


class SymbolFeed:
    """One symbol of one account: its book, and which instances hear of what.

    The handler tuples are never changed in place: starting, stopping or reloading an instance
    replaces them whole.
    """

    __slots__ = (
        "account",
        "book",
        "candle_makers",
        "checks",
        "fault",
        "features",
        "matches",
        "on_book",
        "on_depth",
        "on_ticker",
        "on_trade",
        "quotes",
        "symbol",
    )

    def __init__(self, account: str, symbol: str) -> None:
        self.account = account
        self.symbol: Final = symbol
        self.book = Book(symbol)
        self.fault = ""
        """The kind of the book's present fault, once it was told; empty while the book is good."""
        self.quotes: deque[BookTop] = deque(maxlen=QUOTES_KEPT)
        """The latest quotes received, for comparing depth with."""
        self.features: FeatureMaker | None = None
        self.on_book: tuple[Handler, ...] = ()
        self.on_depth: tuple[Handler, ...] = ()
        self.on_trade: tuple[Handler, ...] = ()
        self.on_ticker: tuple[Handler, ...] = ()
        self.candle_makers: tuple[CandleMaker, ...] = ()
        self.checks = 0
        """How often the best prices of the depth were compared with the latest quote's."""
        self.matches = 0


class AccountFeed:
    """What the host keeps of one account, whichever version of its adapter is connected."""

    def __init__(self, engine: "Engine", account: str, adapter: ExchangeAdapter[Any], data_dir: str) -> None:
        self.account = account
        self.data_dir = data_dir
        self.shared: dict[str, Any] = {}
        self.adapter = adapter
        """The version that is live; a reload replaces it between two events."""
        self.symbols: dict[str, SymbolFeed] = {}
        self.listed: dict[str, Instrument] = {}
        """What the venue says of each of its symbols, followed or not."""
        self._engine: Final = engine
        self.now_ns: Final = engine.clock.now_ns
        self.history: Final = EventHistory()
        self.links: list[AdapterLink] = []
        """Of every version that is not closed: the live one, one on its way in, one on its way out."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._down: set[str] = set()
        self.is_settled = True
        """False from the loss of a connection until the account is reconciled again."""
        self.failure = ""
        """What the adapter raised; nothing is expected of it any more."""

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Run a coroutine until it ends or the account closes; an error in it gives up the account."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self.account}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    @property
    def known_instruments(self) -> Mapping[str, Instrument]:
        """Return what the journal says that the venue allows for each symbol that was ever used."""
        return self._engine.state.instruments.get(self.account, {})

    def relist(self, instruments: Sequence[Instrument]) -> None:
        """Take over the venue's list of instruments, which was read again."""
        relist(self._engine, self.account, instruments)

    def follow(self, symbols: Sequence[str]) -> None:
        """Keep a book of each of these symbols, from the first event on."""
        for symbol in symbols:
            self.symbols.setdefault(symbol, SymbolFeed(self.account, symbol))

    def open_link(
        self,
        adapter: ExchangeAdapter[Any],
        on_failed: Callable[[BaseException], None] | None = None,
        *,
        is_driven: bool = True,
    ) -> AdapterLink:
        """Give an adapter its context, and its turns (`is_driven`) if it is a stepped one.

        `on_failed` is told of what its code raises; without it the account is given up.
        """
        link = AdapterLink(self, adapter, on_failed or self.failed)
        self.links.append(link)
        if is_driven:
            self.give_turns(link)
        return link

    def give_turns(self, link: AdapterLink) -> None:
        """Have an adapter that lives in this process driven from now on."""
        if isinstance(link.adapter, SteppedAdapter):
            self._engine.stepped.append(link.adapter)

    async def close_link(self, link: AdapterLink) -> None:
        """Close an adapter, end its tasks, and give it no more turns."""
        self.take_turns(link)
        await link.close()
        self.forget_link(link)

    def forget_link(self, link: AdapterLink) -> None:
        """Have nothing to do with an adapter any more."""
        self.take_turns(link)
        if link in self.links:
            self.links.remove(link)

    def take_turns(self, link: AdapterLink) -> None:
        """Have an adapter driven no more."""
        if link.adapter in self._engine.stepped:
            self._engine.stepped.remove(link.adapter)

    def step_failed(self, adapter: ExchangeAdapter[Any], error: BaseException) -> None:
        """Take note that a stepped adapter raised; it gets no other turn."""
        on_failed = next((link.on_failed for link in self.links if link.adapter is adapter), self.failed)
        on_failed(error)

    def failed(self, error: BaseException) -> None:
        """Give the account up: its adapter's code raised."""
        self._engine.safety.adapter_failed(self.account, error)

    async def close(self) -> None:
        """Close the adapter, and other versions of it that are still there, and end all tasks."""
        for link in list(self.links):
            await self.close_link(link)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _task_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.failed(error)

    # -- market data -----------------------------------------------------------------------------

    def market(self, event: MarketEvent) -> None:
        """Take in one market event; strategies have reacted and orders are out when this returns.

        What the event itself makes raise (a price that is no number), or the adapter's `resync`, goes on to the
        adapter, once the turn has ended.
        """
        started_ns = perf_counter_ns()
        engine = self._engine
        engine.events += 1
        try:
            feed = self.symbols[event.symbol]
        except KeyError:
            return  # nobody trades it
        if engine.halted:
            return
        # Most events are quotes, every order starts with one, and each call costs: so the turn begins
        # here, and the quote is taken in and handed out here, as `_new_top` does it with one from depth.
        engine.depth += 1
        clock = self.now_ns  # a function that an attribute holds is called faster so, up to Python 3.11
        engine.now_ns = now_ns = clock()
        try:
            if now_ns >= engine.scheduler.look_ns and engine.depth == 1:
                engine.scheduler.look(now_ns)
            if type(event) is BookTop:
                feed.quotes.append(event)
                if feed.book.apply_top(event):
                    if feed.fault:
                        feed.fault = ""
                    features = feed.features
                    if features is not None:
                        features.on_book(event)
                    history = self.history
                    history.events.append(event)
                    history.sequence += 1
                    for instance, handle in feed.on_book:
                        try:
                            handle(event)
                        except JournalError:
                            raise
                        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: quarantined
                            engine.roster.misbehaved(instance, error, handle)
                elif feed.book.top_fault:
                    engine.safety.book_fault(feed, feed.book.top_fault)
            else:
                self._take_in(feed, event, now_ns)
        except JournalError as error:
            engine.abort_turn(error)
        except BaseException:
            engine.end_turn(now_ns, 0)  # a turn left open would have nothing written or sent ever after
            raise
        else:
            engine.end_turn(now_ns, started_ns)

    def _take_in(self, feed: SymbolFeed, event: MarketEvent, now_ns: int) -> None:
        kind = type(event)
        if kind is Trade:
            self._on_trade(feed, event, now_ns)  # type: ignore[arg-type]
        elif kind is Depth:
            self._on_depth(feed, event)  # type: ignore[arg-type]
        elif kind is Ticker:
            self._hand_out(feed.on_ticker, event)

    def _hand_out(self, handlers: tuple[Handler, ...], event: Any) -> None:
        self.history.add(event)
        for instance, handle in handlers:
            try:
                handle(event)
            except JournalError:
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: quarantined
                self._engine.roster.misbehaved(instance, error, handle)

    def _new_top(self, feed: SymbolFeed, top: BookTop) -> None:
        if feed.fault:
            feed.fault = ""
        if feed.features is not None:
            feed.features.on_book(top)
        self._hand_out(feed.on_book, top)

    def _on_depth(self, feed: SymbolFeed, depth: Depth) -> None:
        book, engine = feed.book, self._engine
        before = book.top
        result = book.apply_depth(depth)
        if result is DepthResult.GAP:
            engine.safety.book_fault(feed, book.depth_fault)
            self.adapter.resync(feed.symbol)
            return
        if result is DepthResult.STALE or result is DepthResult.HELD:
            return
        _compare(feed)
        if book.top_fault:
            engine.safety.book_fault(feed, book.top_fault)
        elif book.top is not before and book.top is not None:
            self._new_top(feed, book.top)
        if feed.on_depth:  # else it would fill the history for nobody
            if result is DepthResult.SNAPSHOT and book.seq != depth.seq:
                # The changes that came before it, and go on from it, were handed to nobody.
                depth = book.whole() or depth
            self._hand_out(feed.on_depth, depth)

    def _on_trade(self, feed: SymbolFeed, trade: Trade, now_ns: int) -> None:
        if feed.features is not None:
            feed.features.on_trade(trade)
        for maker in feed.candle_makers:
            maker.on_trade(trade, now_ns)
        self._hand_out(feed.on_trade, trade)

    def emit_candle(self, instance: "Instance", candle: Candle) -> None:
        """Hand a finished candle to the instance, if that is the length which its strategy asks for.

        The version before it, while it is kept for a rollback, may ask for another.
        """
        own = OwnEvent(instance.instance, candle, self._engine.now_ns)
        self.history.add(own)
        if instance.shadow is not None:
            instance.shadow.run((own,))
        elif instance.takes(candle):
            self._engine.roster.call(instance, instance.strategy.on_candle, candle)

    # -- reports ---------------------------------------------------------------------------------

    def report(self, report: Report) -> None:
        """Take in one report; state, strategies and the venue's next orders follow at once.

        Raises `NotAsDeclared` for one that could be journaled and not be read again. What a report makes raise
        goes on to the adapter, once the turn has ended.
        """
        check_declared(report, _REPORTS)
        started_ns = perf_counter_ns()
        engine = self._engine
        if engine.halted:
            engine.safety.note_last_answer(report)
            return
        if engine.is_following:
            self._watch_connection(report)
            return
        now_ns = self.now_ns()
        engine.begin_turn(now_ns)
        try:
            if now_ns >= engine.scheduler.look_ns and engine.depth == 1:
                engine.scheduler.look(now_ns)
            self._take_in_report(report, now_ns)
            if not self.is_settled:
                self.settle()
        except JournalError as error:
            engine.abort_turn(error)
        except BaseException:
            engine.end_turn(now_ns, 0)
            raise
        else:
            engine.end_turn(now_ns, started_ns)

    def _take_in_report(self, report: Report, now_ns: int) -> None:
        reconciler = self._engine.reconciler
        if isinstance(report, OpenOrdersSnapshot):
            reconciler.on_open_orders(self.account, report, now_ns)
        elif isinstance(report, FillsSnapshot):
            reconciler.on_fills(self.account, report, now_ns)
        elif isinstance(report, AccountSnapshot):
            reconciler.on_account(self.account, report, now_ns)
        elif isinstance(report, ConnectionChanged):
            self._on_connection(report, now_ns)
        else:
            self._engine.count_report(report)
            reconciler.on_report(self.account, report, now_ns)

    def _on_connection(self, change: ConnectionChanged, now_ns: int) -> None:
        engine = self._engine
        engine.oms.commit(e.ConnectionReported(self.account, change), now_ns)
        if not change.is_up:
            self._down.add(change.channel)
            self.is_settled = False
            if change.channel == "market":
                engine.safety.market_data_lost(self, change.text)
            engine.safety.out_of_touch(self, f"{change.channel} connection lost", now_ns)
        elif change.channel in self._down:
            self._down.discard(change.channel)
            if not self._down:
                # What happened while the line was down is asked for, never assumed.
                engine.reconciler.start(self.account, now_ns)

    def _watch_connection(self, report: Report) -> None:
        """As a standby, note which lines are up; what the venue says of orders comes from the primary."""
        if not isinstance(report, ConnectionChanged):
            return
        if report.is_up:
            self._down.discard(report.channel)
            return
        self._down.add(report.channel)
        if report.channel == "market":
            self._engine.safety.market_data_lost(self, report.text)

    @property
    def is_connected(self) -> bool:
        """Return whether all its lines are up and its adapter works."""
        return not self._down and not self.failure

    def take_up(self, now_ns: int) -> None:
        """Begin to trade on lines that were connected as a standby: within no turn, before the first order."""
        self.is_settled = False
        if not self._down:
            self._engine.reconciler.start(self.account, now_ns)

    def reconnected(self, down: set[str], now_ns: int) -> None:
        """Take note that another version is live, which is in touch but for the channels `down`."""
        self.failure = ""
        self._down = down
        self.is_settled = False
        if not down:
            self._engine.reconciler.start(self.account, now_ns)

    def settle(self) -> None:
        """After a lost connection, let trading go on once all lines are up and the venue agrees."""
        if not self._down and not self.failure and self._engine.reconciler.is_ready(self.account):
            self.is_settled = True
            self._engine.safety.in_touch(self)


def _compare(feed: SymbolFeed) -> None:
    """Count how often the best prices of the depth are those of the newest quote not ahead of it."""
    seq = feed.book.seq
    quote = next((quote for quote in reversed(feed.quotes) if quote.seq <= seq), None)
    bids, asks = feed.book.levels(1)
    if quote is not None and bids and asks:
        feed.checks += 1
        feed.matches += bids[0][0] == quote.bid and asks[0][0] == quote.ask
