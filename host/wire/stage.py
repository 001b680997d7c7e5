"""A strategy at its end of the protocol: bytes in, callbacks, bytes out. Sans-IO.

Whoever has the sockets gives `receive` what came, calls `idle` when nothing more is there, and `on_time`
when a timer is due. The same strategy class runs here as inline in the host.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from host.api import Fill, Order, OrderStatus, Params, Strategy, TandemError
from host.core.carried import StateNotCarried, carry_state, encode_state
from host.wire.codec import JSON, Codec, codec_of
from host.wire.context import RemoteContext, boot_ns
from host.wire.messages import (
    NO_STATE,
    PROTOCOL,
    Ack,
    Book,
    BookLost,
    Bye,
    CandleEvent,
    DepthEvent,
    Event,
    Events,
    Failed,
    Hello,
    Instruments,
    Missed,
    OrderEvent,
    OrderRefusal,
    ParamsEvent,
    Positions,
    Refused,
    Reports,
    Save,
    Start,
    Stop,
    TickerEvent,
    TimerEvent,
    TradeEvent,
    Turn,
    Welcome,
)

__all__ = ["Stage", "StageRefused"]

SAY_HANDLED_EVERY: Final = 32
"""Events handled without a wish before the host hears of it, while more are there, ..."""
SAY_HANDLED_NS: Final = 10_000_000
"""... and for how long at most: many slow events in a row are progress, and not one that takes for ever."""
LOOK_AT_TIMERS_NS: Final = 10_000_000
"""How often it is looked among events whether a timer is due: they would wait for all that has come otherwise."""
SAVE_STATE_NS: Final = 1_000_000_000
"""How often a state that changed without an order or fill is sent."""
KEPT_TURNS: Final = 256
"""Turns kept to be sent again; the host acknowledges a quarter of that at a time."""

_MARKET: Final = ("book", "depth", "trade", "ticker", "candle")


class StageRefused(TandemError):  # noqa: N818 - the answer, not a malfunction
    """The host does not let this strategy in, or lets it in no more. `reason` is a stable code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"the host refused: {reason}: {detail}")
        self.reason = reason


class Stage:
    """Runs one strategy. `make(params)` constructs it, once the host has said with which parameters.

    `send` is given each message; `describe` says an error in words. `is_over` is true when nothing more
    comes: it said `bye`, or its code raised. `is_ready` is asked before each event whether the strategy takes
    another one now; those that wait are handled by `go_on`.
    """

    def __init__(
        self,
        cls: type[Strategy[Any]],
        make: Callable[[Mapping[str, object]], Strategy[Any]],
        codec: Codec,
        send: Callable[[bytes], None],
        *,
        run: str,
        client: str = "",
        describe: Callable[[BaseException], str] = repr,
        is_ready: Callable[[], bool] | None = None,
    ) -> None:
        self.is_over = False
        self.is_welcome = False
        self.is_briefed = False
        """Whether all that it had not heard before it came has been told."""
        self.strategy: Strategy[Any] | None = None
        self.failure: BaseException | None = None
        """What its code raised; None while it has not."""
        self.instance = ""
        self._cls: Final = cls
        self._make: Final = make
        self._codec: Final = codec
        self._send_bytes: Final = send
        self._run: Final = run
        self._client: Final = client
        self._describe: Final = describe
        self._is_ready: Final = is_ready
        self._waiting: deque[Event] = deque()
        """What came and is to be handled when the strategy is ready."""
        self._ctx: RemoteContext | None = None
        self._turn = 0
        self._handled = 0
        self._said_handled = 0
        self._unsaid = 0
        self._say_by_ns = 0
        """When the host is to hear of the events handled, though more are there; 0: it knows of all."""
        self._look_ns = 0
        """When it is looked next, among events, whether a timer is due."""
        self._has_news = False
        self._sent_state = b""
        self._next_save_ns = 0
        self._slowest_ns = self._busy_ns = 0
        self._kept: dict[int, bytes] = {}
        self._where = ""
        self._is_torn = False
        """Whether something ended a callback halfway that was no error of the strategy's: an interrupt."""
        self._reactions: Final[dict[type[Any], Callable[[Any], None]]] = {
            Book: self._on_book,
            DepthEvent: self._on_depth,
            TradeEvent: self._on_trade,
            TickerEvent: self._on_ticker,
            CandleEvent: self._on_candle,
            BookLost: self._on_book_lost,
            Missed: self._on_missed,
            Reports: self._on_reports,
            OrderRefusal: self._on_refusal,
            Positions: self._on_positions,
            Instruments: self._on_instruments,
            ParamsEvent: self._on_params,
            TimerEvent: self._on_timer_event,
            Start: self._on_start,
            Stop: self._on_stop,
            Save: self._on_save,
        }

    # -- for whoever has the sockets -------------------------------------------------------------

    def say_hello(self) -> None:
        """Ask to be let in; to be repeated until `is_welcome`."""
        cls = self._cls
        wanted = tuple(
            kind
            for kind in _MARKET
            if kind == "book" or getattr(cls, f"on_{kind}") is not getattr(Strategy, f"on_{kind}")
        )
        self._send(
            Hello(
                protocol=PROTOCOL,
                client=self._client,
                run=self._run,
                state_version=cls.state_type.state_version,
                subscribe=wanted,
            )
        )

    def receive(self, body: bytes) -> None:
        """Take in one message of the host; raise `StageRefused`, or `CodecError` for what is none."""
        # What is said to a peer of another encoding comes here, too: that it has the place, for one.
        message = codec_of(body).decode_from_host(body)
        if isinstance(message, Events):
            if self.is_welcome and not self.is_over:
                self._take_in(message)
        elif isinstance(message, Ack):
            self._on_ack(message)
        elif isinstance(message, Welcome):
            if message.run not in ("", self._run):
                if self.is_welcome:
                    raise StageRefused("TAKEN", f"{message.instance} is run by somebody else from here on")
            elif not self.is_welcome:
                self._on_welcome(message)
        elif isinstance(message, Refused) and message.run in ("", self._run):
            raise StageRefused(message.reason, message.detail)

    def idle(self) -> None:
        """Say how far everything is handled; to be called when nothing more is there to receive."""
        if self._handled != self._said_handled and not self.is_over:
            self._say()

    @property
    def has_more(self) -> bool:
        """Return whether events that came wait for the strategy to be ready."""
        return bool(self._waiting) and not self.is_over

    def go_on(self) -> None:
        """Handle what waits, as far as the strategy is ready for it."""
        if self._say_by_ns and time.perf_counter_ns() > self._say_by_ns:
            self._say()  # what it was not ready for another one before is over by now
        while self.has_more and (self._is_ready is None or self._is_ready()):
            self._handle((self._waiting.popleft(),))

    def open_orders(self) -> list[Order]:
        """Return the orders that may still trade, those included of which the host has said nothing yet."""
        return [] if self._ctx is None else self._ctx.open_orders()

    @property
    def unacknowledged(self) -> int:
        """Return how many turns were sent and are not known to be with the host, of those that are kept."""
        return len(self._kept)

    def next_timer_ns(self) -> int | None:
        """Return in how many ns a timer is due; None without one."""
        ctx = self._ctx
        if ctx is None or not ctx.timers or self.is_over:
            return None
        return max(min(due_ns for due_ns, _ in ctx.timers.values()) - ctx.now_ns(), 0)

    def on_time(self) -> None:
        """Call the timers that are due; a late one is called once, not once per missed time."""
        ctx, strategy = self._ctx, self.strategy
        if ctx is None or strategy is None or self.is_over:
            return
        now_ns = ctx.now_ns()
        for name, (due_ns, every_ns) in list(ctx.timers.items()):
            if now_ns >= due_ns and name in ctx.timers and not self.is_over:
                late_ns = (now_ns - due_ns) % every_ns
                ctx.timers[name] = (now_ns - late_ns + every_ns, every_ns)
                self._guarded(lambda name=name: strategy.on_timer(name), "on_timer")  # type: ignore[misc]
        if ctx.requests and not self.is_over:
            self._say()

    def leave(self, reason: str = "") -> None:
        """Go of its own will: run the strategy's `on_stop`, send its last state, and say bye.

        After an interrupt in the middle of a callback its state is that of the turn before: what it was
        about to handle it hears again.
        """
        if not self.is_welcome or self.is_over:
            return
        if self._is_torn:
            self.is_over = True
            self._send(Bye(reason, self._run))
        else:
            self._guarded(lambda: self._part(reason), "on_stop")

    # -- inside ----------------------------------------------------------------------------------

    def _send(self, message: Any) -> None:
        self._send_bytes(self._codec.encode(message))

    def _on_welcome(self, welcome: Welcome) -> None:
        self.is_welcome = True
        self.instance = welcome.instance
        self._ctx = RemoteContext(welcome, boot_ns)
        self._turn = welcome.next_turn - 1
        saved = self._codec.to_saved(welcome.state)

        def construct() -> None:
            strategy = self._make(welcome.params)
            assert self._ctx is not None
            strategy.ctx = self._ctx
            if saved:
                strategy.state = carry_state(
                    strategy.state_type, welcome.state_version, saved, welcome.instance
                )
            self.strategy = strategy
            if welcome.state_version == strategy.state_type.state_version:
                self._sent_state = encode_state(strategy)  # else the host has none of this version

        self._guarded(construct, "__init__")

    def _on_ack(self, ack: Ack) -> None:
        for seq in [seq for seq in self._kept if seq <= ack.seq]:
            del self._kept[seq]
        if ack.ids is not None and self._ctx is not None:
            self._ctx.ids.append(ack.ids)
        if ack.resend:
            if self._kept and ack.seq + 1 not in self._kept:
                raise StageRefused(
                    "GAP", f"turn {ack.seq + 1} is to be sent again and is not kept any more; begin anew"
                )
            for seq in sorted(self._kept):
                self._send_bytes(self._kept[seq])

    def _take_in(self, message: Events) -> None:
        number, received = message.seq - len(message.events), self._handled + len(self._waiting)
        if number != received:
            raise StageRefused("GAP", f"event {received + 1} was due, {number + 1} came; begin anew")
        if self._is_ready is None:
            self._handle(message.events)
        else:
            self._waiting.extend(message.events)
            self.go_on()

    def _handle(self, events: Sequence[Event]) -> None:
        assert self._ctx is not None
        number, requests, is_time = self._handled, self._ctx.requests, False
        for event in events:
            number += 1
            if not self.is_briefed:
                self.is_briefed = not isinstance(event, Start | Reports)
            react = self._reactions.get(type(event))
            if react is not None:
                started_ns = time.perf_counter_ns()
                try:
                    react(event)
                except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: told to the host
                    self._failed(error)
                    return
                except BaseException:
                    self._is_torn = True
                    raise
                ended_ns = time.perf_counter_ns()
                taken_ns = ended_ns - started_ns
                if not self._say_by_ns:
                    self._say_by_ns = started_ns + SAY_HANDLED_NS
                if ended_ns > self._say_by_ns:
                    self._unsaid = SAY_HANDLED_EVERY
                self._busy_ns += taken_ns
                if taken_ns > self._slowest_ns:
                    self._slowest_ns = taken_ns
                if ended_ns > self._look_ns:
                    self._look_ns = ended_ns + LOOK_AT_TIMERS_NS
                    is_time = True
            self._handled = number
            self._unsaid += 1
            if requests or self._unsaid >= SAY_HANDLED_EVERY:
                self._say()
            if is_time and not self.is_over:
                is_time = False
                self.on_time()
            if self.is_over:
                return

    def _say(self) -> None:
        """Send a turn: what the strategy wants, how far everything is handled, and its state if it is due."""
        ctx, strategy = self._ctx, self.strategy
        assert ctx is not None
        assert strategy is not None
        state = NO_STATE
        now_ns = boot_ns()
        if self._has_news or now_ns >= self._next_save_ns:
            try:
                state = self._new_state(strategy)
            except Exception as error:  # noqa: BLE001 - plugin boundary: told to the host
                self._where = "encoding its state"
                self._failed(error)
                return
            self._has_news = False
            self._next_save_ns = now_ns + SAVE_STATE_NS
        self._turn += 1
        turn = Turn(
            seq=self._turn,
            handled=self._handled,
            requests=tuple(ctx.requests),
            state=state,
            slowest_us=self._slowest_ns // 1000,
            busy_ns=self._busy_ns,
        )
        try:
            body = self._codec.encode(turn)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            self._where = "sending what it wants"
            self._failed(error)
            return
        ctx.requests.clear()
        self._said_handled = self._handled
        self._unsaid = self._say_by_ns = self._slowest_ns = self._busy_ns = 0
        self._kept[self._turn] = body
        if len(self._kept) > KEPT_TURNS:
            del self._kept[next(iter(self._kept))]
        self._send_bytes(body)

    def _new_state(self, strategy: Strategy[Any]) -> Raw:
        """Return the state as it is sent; nothing where it is what it was."""
        data, codec = encode_state(strategy), self._codec
        if data == self._sent_state:
            return NO_STATE
        state = codec.from_saved(data)
        if codec is JSON:
            # What JSON has not (a float that is no number) is found out now, not with the next beginning.
            carry_state(
                strategy.state_type, strategy.state_type.state_version, codec.to_saved(state), self.instance
            )
        self._sent_state = data
        return state

    def _guarded(self, work: Callable[[], None], where: str) -> None:
        self._where = where
        try:
            work()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: told to the host
            self._failed(error)
        except BaseException:
            self._is_torn = True
            raise

    def _failed(self, error: BaseException) -> None:
        self.is_over, self.failure = True, error
        text = str(error) if isinstance(error, StateNotCarried) else self._describe(error)
        self._send(Failed(self._where, text, self._run))

    # -- reactions -------------------------------------------------------------------------------

    def _on_book(self, event: Book) -> None:
        assert self._ctx is not None
        assert self.strategy is not None
        book = event.data
        self._ctx.books[book.symbol] = book
        self._where = "on_book"
        self.strategy.on_book(book)

    def _on_depth(self, event: DepthEvent) -> None:
        assert self.strategy is not None
        self._where = "on_depth"
        self.strategy.on_depth(event.data)

    def _on_trade(self, event: TradeEvent) -> None:
        assert self.strategy is not None
        self._where = "on_trade"
        self.strategy.on_trade(event.data)

    def _on_ticker(self, event: TickerEvent) -> None:
        assert self.strategy is not None
        self._where = "on_ticker"
        self.strategy.on_ticker(event.data)

    def _on_candle(self, event: CandleEvent) -> None:
        assert self.strategy is not None
        self._where = "on_candle"
        self.strategy.on_candle(event.data)

    def _on_book_lost(self, event: BookLost) -> None:
        assert self._ctx is not None
        self._ctx.books.pop(event.symbol, None)

    def _on_missed(self, event: Missed) -> None:
        assert self._ctx is not None
        count = event.books + event.depths + event.tickers + event.trades
        self._ctx.log.warning("too slow: %d events of %s were left out", count, event.symbol)

    def _on_reports(self, event: Reports) -> None:
        assert self._ctx is not None
        for held in event.held:
            self._ctx.held[held.position.symbol] = held
        for report in event.reports:
            if isinstance(report, OrderEvent):
                self._on_order(report.data)
            else:
                self._on_fill(report.data)

    def _on_order(self, order: Order) -> None:
        assert self._ctx is not None
        if order.status.is_terminal:
            self._ctx.orders.pop(order.client_id, None)
        else:
            self._ctx.orders[order.client_id] = order
        self._tell_order(order)

    def _tell_order(self, order: Order) -> None:
        assert self.strategy is not None
        self._has_news = True
        self._where = "on_order"
        self.strategy.on_order(order)

    def _on_fill(self, fill: Fill) -> None:
        assert self.strategy is not None
        self._has_news = True
        self._where = "on_fill"
        self.strategy.on_fill(fill)

    def _on_refusal(self, event: OrderRefusal) -> None:
        assert self._ctx is not None
        reason = f"{event.reason}: {event.detail}"
        if event.action == "place":
            order = self._ctx.refused(event.client_id, reason)
            if order is not None:
                assert order.status is OrderStatus.REJECTED
                self._tell_order(order)
                return
        self._ctx.log.warning("the host refused to %s: %s", event.action, reason)

    def _on_positions(self, event: Positions) -> None:
        assert self._ctx is not None
        for held in event.data:
            self._ctx.held[held.position.symbol] = held

    def _on_instruments(self, event: Instruments) -> None:
        assert self._ctx is not None
        for instrument in event.data:
            self._ctx.instruments[instrument.symbol] = instrument

    def _on_params(self, event: ParamsEvent) -> None:
        strategy = self.strategy
        assert strategy is not None
        self._where = "on_params"
        old = strategy.params
        params: Params = msgspec.convert(event.data, strategy.params_type)
        strategy.params = params
        strategy.on_params(old)

    def _on_timer_event(self, event: TimerEvent) -> None:
        assert self.strategy is not None
        self._where = "on_timer"
        self.strategy.on_timer(event.name)

    def _on_start(self, event: Start) -> None:
        assert self.strategy is not None
        self._where = "on_start"
        self.strategy.on_start()
        if event.takes_over:
            self._where = "on_takeover"
            self.strategy.on_takeover()

    def _on_stop(self, event: Stop) -> None:
        self._handled += (
            1  # the last turn says that this event is handled, too, because nothing comes after it
        )
        self._part(event.reason)

    def _on_save(self, _event: Save) -> None:
        self._has_news = True
        self._unsaid = SAY_HANDLED_EVERY

    def _part(self, reason: str) -> None:
        assert self.strategy is not None
        self._where = "on_stop"
        self.strategy.on_stop()
        self._has_news = True
        self._say()
        if not self.is_over:
            self.is_over = True
            self._send(Bye(reason, self._run))
