"""The host's conversation with one strategy in another process: what it is told, and what it asks for.

Everything that comes in enters as a turn of the engine and goes through the same `Instance` as the
wishes of an inline strategy: risk, journal and gate do not know the difference.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from host.api import BookTop, Candle, Depth, Fill, Order, Strategy, Ticker, Trade
from host.core.client_id import ClientIdMaker
from host.isolation.conduct import Conduct, Tally
from host.isolation.order_ids import IDS_AT_ONCE, OrderIds
from host.isolation.outlet import Item, Outlet
from host.isolation.settings import SECOND_NS, WorkerSettings
from host.isolation.standing import Standing, report_of
from host.isolation.wishes import Wishes, keep_refusal
from host.journal import JournalError
from host.runtime.instance import Instance
from host.runtime.plugin_errors import shortened
from host.runtime.remote import RemoteStatus
from host.wire import Codec, CodecError, codec_of
from host.wire.messages import (
    NO_STATE,
    PROTOCOL,
    Ack,
    BookLost,
    Bye,
    Event,
    Events,
    Failed,
    Heartbeat,
    Hello,
    IdRange,
    ParamsEvent,
    Place,
    Positions,
    Refused,
    Report,
    Reports,
    Save,
    Start,
    Stop,
    Turn,
    Welcome,
)

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["Session"]

ACK_EVERY: Final = 64
"""Turns that are acknowledged at once; those of a quiet worker with the next heartbeat."""
IDLE_WEIGHS: Final = 20
"""As how many messages a turn counts that says nothing new: there is next to no reason for one."""
NOT_DUE_WEIGHS: Final = 10
"""As how many one counts that is not due: where one was lost, some hundreds may come behind it."""
MOST_REQUESTS: Final = IDS_AT_ONCE
"""Of one turn: as many orders as ids are handed out ahead."""
ANSWER_REQUESTS: Final = 256
"""What a turn may ask for as an answer to what happened; with more, its time counts as unasked for."""
PLAUSIBLE_GAP: Final = 512
"""Turns that may be on their way behind one that was lost: together they are one breach of the rules."""
MAX_STATE_BYTES: Final = 1 << 20
_KINDS: Final = {"book": BookTop, "depth": Depth, "trade": Trade, "ticker": Ticker, "candle": Candle}


class Way(Protocol):
    """How messages leave."""

    def send(self, body: bytes) -> None:
        """Send one."""

    def is_subscribed(self) -> bool:
        """Return whether the peer listens."""

    def soon(self, work: Callable[[], None]) -> None:
        """Do `work` once everything that is there to be read by now has been."""

    def pause(self, for_ns: int) -> None:
        """Let nothing more come for so long."""


class Session:
    """From a peer's `hello` until it is gone. `on_gone(why)` is told once, with an empty text for a `bye`.

    `on_failed` is told what the strategy raised, `on_cut_off` that the peer breaks the rules.
    """

    def __init__(
        self,
        engine: "Engine",
        instance: Instance,
        ids: ClientIdMaker,
        settings: WorkerSettings,
        way: Way,
        *,
        takes_over: bool,
        is_held: bool = False,
        is_of_record: bool = True,
        tally: Tally | None = None,
        on_welcomed: Callable[[], None],
        on_failed: Callable[[str], None],
        on_bye: Callable[[str], None],
        on_cut_off: Callable[[str], None],
    ) -> None:
        self.outlet: Outlet | None = None
        """None until the peer is welcome."""
        self.conduct: Final = Conduct(settings, tally)
        self.slowest_us = 0
        """The longest that the peer took for one event so far, as it says."""
        self.busy_ns = 0
        """How long it took for all of them together."""
        self.is_held = is_held
        """Whether the peer is to wait: it said hello, and is let in by `admit`."""
        self.has_called = False
        self._is_of_record = is_of_record
        """Whether the journal is told the peer's states, and what it has heard."""
        self._unsaved: tuple[int, bytes] | None = None
        """The version and the bytes of its latest state, while it is not of record."""
        self._engine: Final = engine
        self._instance: Final = instance
        self._ids: Final = OrderIds(ids)
        self._settings: Final = settings
        self._way: Final = way
        self._takes_over = takes_over
        self._on_welcomed, self._on_failed = on_welcomed, on_failed
        self._on_bye, self._on_cut_off = on_bye, on_cut_off
        self._codec: Codec | None = None
        self._run = ""
        self._state_version = 1
        self._wanted: frozenset[type[Any]] = frozenset()
        self._is_over = False
        self._own: list[Report] = []
        """What was reported in this turn; it leaves at the turn's end."""
        self._heard = 0
        """How many of the instance's news the journal says the peer has heard, counted from hello."""
        self._standing: Final = Standing(engine, instance)
        self._wishes: Final = Wishes(instance, self._ids, self.conduct)
        self._acked = 0
        self._asked_again_ns = 0
        self._save_seq = 0
        """The number of the last event that asked for the peer's state."""
        self._is_in_burst = False

    # -- what the peer hears ---------------------------------------------------------------------

    def market(self, item: Item) -> None:
        """Pass on a market event, where the peer asked for its kind."""
        outlet = self.outlet
        if outlet is not None and type(item.event) in self._wanted:
            now_ns = time.monotonic_ns()
            outlet.put(item, now_ns)
            lost = self._standing.lost_books
            if lost and type(item.event) is BookTop:
                lost.discard(item.event.symbol)  # if it is lost again, that is news
            if not self._is_in_burst:
                # What else is read at this moment goes together: a message for each costs thrice as much.
                self._is_in_burst = True
                self._send(outlet, now_ns)
                self._way.soon(self._end_burst)

    def _end_burst(self) -> None:
        self._is_in_burst = False
        if self.outlet is not None:
            self._send(self.outlet, time.monotonic_ns())

    def candle(self, item: Item) -> None:
        """Pass on a candle."""
        outlet = self.outlet
        if outlet is not None and Candle in self._wanted:
            outlet.put_candle(item, time.monotonic_ns())
            self._send(outlet, time.monotonic_ns())

    def reported(self, what: Order | Fill) -> None:
        """Pass on, at the end of this turn, what the venue did to an order."""
        if self.outlet is not None:
            self._own.append(report_of(what))

    def tell(self) -> None:
        """Let out what was reported, positions first, and remember how far that brings the peer."""
        outlet, own = self.outlet, self._own
        if outlet is None or not own:
            return
        self._own = []
        self._put_reports(outlet, own, self._heard + len(self._standing.unheard))
        self._send(outlet, time.monotonic_ns())

    def tell_params(self, params: dict[str, Any]) -> None:
        """Pass on other parameters."""
        self.put(ParamsEvent(params))

    def tell_stop(self, reason: str) -> None:
        """Have the peer end."""
        self.put(Stop(reason))

    def put(self, event: Event) -> None:
        """Pass on what concerns the instance itself, at once."""
        outlet = self.outlet
        if outlet is not None:
            now_ns = time.monotonic_ns()
            outlet.put_own(event, now_ns)
            self._send(outlet, now_ns)

    def ask_state(self) -> None:
        """Ask for the state that the peer has by now."""
        outlet = self.outlet
        if outlet is not None:
            now_ns = time.monotonic_ns()
            self._save_seq = outlet.put_own(Save(), now_ns)
            self._send(outlet, now_ns)

    @property
    def owes_state(self) -> bool:
        """Return whether a state that was asked for has not come yet."""
        return self.outlet is not None and self.outlet.handled < self._save_seq

    def refuse(self, reason: str, detail: str) -> None:
        """Say that the peer is not let in, or no more; nothing that it says counts from here on."""
        self._is_over = True
        if self._way.is_subscribed():
            for codec in (self._codec,) if self._codec is not None else ():
                self._way.send(codec.encode(Refused(reason, detail, self._run)))

    def end(self) -> None:
        """Hear and say nothing any more."""
        self._is_over = True
        if self.outlet is not None:
            self.conduct.tally.conflated += self.outlet.conflated
        self.outlet = None

    def beat(self, now_ns: int) -> None:
        """Do what is due a few times a second: ask for progress, tell what changed meanwhile, acknowledge."""
        outlet = self.outlet
        if outlet is None:
            return
        for symbol in self._standing.newly_lost_books():
            outlet.put(Item(BookLost(symbol)), now_ns)
        self._put_positions(outlet, now_ns)
        if not outlet.behind:
            outlet.put_own(Heartbeat(self._engine.clock.now_ns()), now_ns)
        self._send(outlet, now_ns)
        if self.conduct.last_turn != self._acked:
            self._ack()

    def _send(self, outlet: Outlet, now_ns: int) -> None:
        while (batch := outlet.take(now_ns)) is not None:
            assert self._codec is not None
            self._way.send(self._codec.encode(_Batch(outlet.sent, batch)))

    def _put_reports(self, outlet: Outlet, reports: list[Report], mark: int) -> None:
        # One event: a state that has taken in half of them must not be saved as if it had heard none.
        held = self._standing.changed_holdings()
        outlet.put_own(Reports(tuple(reports), held), time.monotonic_ns(), mark)

    def _put_positions(self, outlet: Outlet, now_ns: int) -> None:
        changed = self._standing.changed_holdings()
        if changed:
            outlet.put_own(Positions(changed), now_ns)

    def status(self, state: str, *, pid: int = 0, restarts: int = 0, memory_bytes: int = 0) -> RemoteStatus:
        """Return how things are with the peer, of which its owner knows the rest."""
        outlet = self.outlet
        if outlet is None:
            return RemoteStatus(
                state=state,
                pid=pid,
                restarts=restarts,
                memory_bytes=memory_bytes,
                **self.conduct.tally.counts(),
            )
        return RemoteStatus(
            state=state,
            pid=pid,
            restarts=restarts,
            behind=outlet.behind,
            lag_ns=outlet.lag_ns(time.monotonic_ns()),
            slowest_us=self.slowest_us,
            handled_p50_us=outlet.handling.quantile_us(0.5),
            handled_p99_us=outlet.handling.quantile_us(0.99),
            memory_bytes=memory_bytes,
            **self.conduct.tally.counts(outlet.conflated),
        )

    # -- a peer on trial -------------------------------------------------------------------------

    def admit(self) -> None:
        """Let a peer in that was to wait: with its next hello, which it repeats every few ms."""
        self.is_held = False

    def take_record(self) -> None:
        """Journal, within a turn, the state that the peer has by now and what it has heard, and from here on."""
        if self._is_of_record:
            return
        self._is_of_record = True
        engine, instance = self._engine, self._instance
        heard = self._heard if self.outlet is None else self.outlet.heard
        record = engine.state.instances[instance.instance]
        version, data = self._unsaved or (record.state_version, record.strategy_state)
        engine.roster.states.heard(instance, version, data, heard - self._heard, engine.now_ns)
        self._heard = heard
        if self.outlet is not None:
            self._forget_refusals(self.outlet)

    def leave_record(self) -> None:
        """Journal nothing of the peer any more: an instance that runs elsewhere has gone on from what is saved."""
        self._is_of_record = False

    # -- what the peer says ----------------------------------------------------------------------

    def on_message(self, body: bytes) -> None:
        """Take in one message; whatever is wrong with it is counted, and cut off when it persists."""
        if self._is_over or self._engine.halted:
            return
        now_ns = time.monotonic_ns()
        conduct, outlet = self.conduct, self.outlet
        handled = 0 if outlet is None else outlet.handled
        is_answer = False
        conduct.count(now_ns)
        try:
            codec = codec_of(body)
            message = codec.decode_from_strategy(body)
        except CodecError as error:
            conduct.strike(str(error), now_ns, len(body))
        else:
            if self._codec not in (None, codec) and not isinstance(message, Hello):
                conduct.tally.repeated += 1  # of one before who spoke in the other encoding, and was given up
                conduct.count(now_ns, NOT_DUE_WEIGHS)
            elif isinstance(message, Turn):
                self._on_turn(message, now_ns)
                is_answer = (
                    outlet is not None
                    and outlet.handled > handled
                    and len(message.requests) <= ANSWER_REQUESTS
                )
            elif isinstance(message, Hello):
                self._on_hello(message, codec)
                is_answer = outlet is None and self.outlet is not None
            elif self._is_anothers(message):
                conduct.tally.repeated += 1  # the last word of one who was given up: not about who is in now
                conduct.count(now_ns, IDLE_WEIGHS)
            elif isinstance(message, Failed):
                self._is_over = True
                self._on_failed(shortened(f"{message.where} raised {message.error}"))
            else:
                self._is_over = True
                if self.outlet is not None and self.conduct.last_turn != self._acked:
                    self._ack()  # it may hang up once it knows that nothing is on its way any more
                self._on_bye(shortened(message.reason))
        if not is_answer:
            self._charge(now_ns)
        if conduct.fault and not self._is_over:
            self.refuse("CUT_OFF", conduct.fault)
            self._on_cut_off(conduct.fault)

    def _is_anothers(self, last: Failed | Bye) -> bool:
        """Return whether that is the last word of somebody who is not in."""
        return bool(last.run) and last.run != self._run

    def _charge(self, began_ns: int) -> None:
        """Let no more come for a while where a message that nothing asked for took more than the peer's share."""
        now_ns = time.monotonic_ns()
        pause_ns = self.conduct.spend(now_ns - began_ns, now_ns)
        if pause_ns:
            self._way.pause(pause_ns)

    def _on_hello(self, hello: Hello, codec: Codec) -> None:
        if self.outlet is not None:
            if hello.run != self._run:
                self._is_over = True
                self._on_bye("it began anew")
            return
        if not self._way.is_subscribed():
            return  # an answer would be lost: it says hello once more
        self.has_called = True
        if self.is_held:
            return
        self._codec, self._run = codec, hello.run
        if hello.protocol != PROTOCOL:
            detail = f"this host speaks version {PROTOCOL} of the strategy protocol, was {hello.protocol}"
            self.refuse("PROTOCOL", detail)
            self._on_cut_off(detail)
            return
        try:
            welcome = codec.encode(self._welcome(codec))
        except CodecError as error:
            self.refuse("STATE", str(error))
            self._on_cut_off(str(error))
            return
        self._state_version = hello.state_version
        self._wanted = frozenset(kind for name, kind in _KINDS.items() if name in hello.subscribe)
        outlet = self.outlet = Outlet(codec, self._settings, self._standing.whole_book)
        self._way.send(welcome)
        now_ns = time.monotonic_ns()
        outlet.put_own(Start(self._takes_over), now_ns)
        self._on_welcomed()
        self._brief(outlet, now_ns)
        self._send(outlet, now_ns)

    def _brief(self, outlet: Outlet, now_ns: int) -> None:
        """Tell what happened before the peer came: to its orders, and on its markets."""
        self._put_unheard(outlet)
        # Without the changes that follow it a book would be taken for the present one ever after.
        hears_depth = (
            Depth in self._wanted and type(self._instance.strategy).on_depth is not Strategy.on_depth
        )
        for symbol in self._instance.symbols:
            top = self._instance.book(symbol)
            if top is not None:
                outlet.put(Item(top), now_ns)
            if hears_depth and (whole := self._standing.whole_book(symbol)) is not None:
                outlet.put(Item(whole), now_ns)

    def _put_unheard(self, outlet: Outlet) -> None:
        """Tell what the peer's saved state has not seen."""
        for reports, told in self._standing.unheard_reports():
            self._put_reports(outlet, reports, self._heard + told)
        for order in self._instance.unheard_refusals.values():
            outlet.put_own(Reports((report_of(order),)), time.monotonic_ns(), order.client_id)

    def _welcome(self, codec: Codec) -> Welcome:
        return self._standing.welcome(
            codec,
            run=self._run,
            ids=self._ids.hand_out(),
            next_turn=self.conduct.last_turn + 1,
            deadline_ns=self._settings.deadline_ns,
        )

    # -- turns -----------------------------------------------------------------------------------

    def _on_turn(self, turn: Turn, now_ns: int) -> None:
        conduct, outlet = self.conduct, self.outlet
        if outlet is None:
            conduct.strike("a turn came before hello was answered", now_ns)
            return
        if not conduct.is_due(turn.seq):
            conduct.count(now_ns, NOT_DUE_WEIGHS)
            is_gap = turn.seq > conduct.last_turn
            is_due = now_ns - self._asked_again_ns > SECOND_NS // 10
            if is_gap and (is_due or turn.seq > conduct.last_turn + PLAUSIBLE_GAP):
                conduct.strike(f"turn {turn.seq} came, {conduct.last_turn + 1} was due", now_ns)
            if is_due:
                self._asked_again_ns = now_ns
                self._ack(resend=is_gap)
            return
        if len(turn.requests) > MOST_REQUESTS:
            conduct.strike(
                f"turn {turn.seq} has {len(turn.requests)} requests, at most {MOST_REQUESTS}", now_ns
            )
            return
        before = outlet.handled
        if not outlet.handle(turn.handled, now_ns):
            conduct.strike(f"it has handled event {turn.handled}, the last was {outlet.sent}", now_ns)
            return
        conduct.last_turn = turn.seq
        self.slowest_us = max(self.slowest_us, turn.slowest_us)
        self.busy_ns += turn.busy_ns
        if turn.requests or turn.state is not NO_STATE or outlet.heard > self._heard:
            self._take_in(turn, outlet, now_ns)
        elif turn.handled == before:
            conduct.count(now_ns, IDLE_WEIGHS)
        if self._is_of_record and not self._is_over:
            self._forget_refusals(outlet)
        if self._ids.are_short:
            self._ack(ids=self._ids.hand_out())
        elif turn.seq - self._acked >= ACK_EVERY:
            self._ack()
        if self.outlet is not None:
            self._send(outlet, now_ns)

    def _forget_refusals(self, outlet: Outlet) -> None:
        """Tell nobody else of the refused orders of which the peer has heard."""
        while outlet.handled_names:
            self._instance.unheard_refusals.pop(outlet.handled_names.pop(), None)

    def _take_in(self, turn: Turn, outlet: Outlet, now_ns: int) -> None:
        """Do in one turn of the engine, and so in one write, all that the strategy did with some events."""
        engine = self._engine
        try:
            state = self._state_of(turn)
        except CodecError as error:
            # As an inline one: what it has since could not be told from what it had.
            self.conduct.strike(str(error), now_ns)
            self.refuse("STATE", str(error))
            self._on_failed(f"its state cannot be kept: {error}")
            return
        started_ns = time.perf_counter_ns()
        engine.begin_turn(engine.clock.now_ns())
        try:
            if engine.now_ns >= engine.scheduler.look_ns and engine.depth == 1:
                engine.scheduler.look(engine.now_ns)
            for request in turn.requests:
                refusal = self._wishes.do(request, now_ns)
                if refusal is not None:
                    is_kept = isinstance(request, Place) and keep_refusal(
                        self._instance, request, refusal, engine.now_ns
                    )
                    if self.outlet is not None:
                        self.outlet.put_own(refusal, now_ns, refusal.client_id if is_kept else 0)
            self._save(state, outlet.heard)
        except JournalError as error:
            engine.abort_turn(error)
        except BaseException:
            engine.end_turn(engine.now_ns, 0)
            raise
        else:
            engine.end_turn(engine.now_ns, started_ns)

    def _state_of(self, turn: Turn) -> bytes | None:
        """Return a turn's state as it is kept, None where it has none; raise `CodecError` for what cannot be kept."""
        if turn.state is NO_STATE:
            return None
        assert self._codec is not None
        data = self._codec.to_saved(turn.state)
        if len(data) > MAX_STATE_BYTES:
            raise CodecError(f"it has {len(data)} bytes, at most {MAX_STATE_BYTES} are kept")
        return data

    def _save(self, state: bytes | None, heard: int) -> None:
        """Journal that the strategy has heard, with the state that it has since."""
        instance, engine = self._instance, self._engine
        if not self._is_of_record:
            if state is not None:
                self._unsaved = (self._state_version, state)
            return
        # By the journal, not by the instance: that was made before the last word of who ran the one before it.
        record = engine.state.instances[instance.instance]
        version, data = self._state_version, state
        if data is None:  # what was saved is still its state, in the version that it was saved in
            version, data = record.state_version, record.strategy_state
        if heard > self._heard or data != record.strategy_state:
            engine.roster.states.heard(instance, version, data, heard - self._heard, engine.now_ns)
            self._heard = heard

    def _ack(self, *, resend: bool = False, ids: IdRange | None = None) -> None:
        assert self._codec is not None
        self._acked = self.conduct.last_turn
        self._way.send(self._codec.encode(Ack(self._acked, resend, ids)))


class _Batch(msgspec.Struct, frozen=True, tag_field="type", tag="events"):
    """`Events` whose events are encoded already."""

    seq: int
    events: list[msgspec.Raw]


assert _Batch.__struct_config__.tag == Events.__struct_config__.tag
