"""A version of a strategy in a worker of its own, fed what happened lately, muted: what it wants is written down."""

import asyncio
import time
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from host.api import Candle, Fill, Order, OrderStatus, TandemError
from host.isolation.outlet import Item, Outlet
from host.isolation.seat import Seat
from host.isolation.session import Session
from host.isolation.settings import SECOND_NS, WorkerSettings
from host.loader import Offer
from host.runtime.history import Due, OwnEvent
from host.runtime.instance import Instance
from host.runtime.reload.probation import Baseline
from host.runtime.reload.shadow import Intent
from host.wire import Codec
from host.wire.messages import (
    Cancel,
    CandleEvent,
    FillEvent,
    IdRange,
    OrderEvent,
    Place,
    PutQuotes,
    Reports,
    TimerEvent,
    Turn,
    Welcome,
)

if TYPE_CHECKING:
    from host.isolation.workers import Workers
    from host.runtime.engine import Engine

__all__ = ["Rehearsal", "RehearsalFailed"]

MADE_UP_IDS: Final = IdRange("muted-", 1, 1 << 40)
MOST_AHEAD: Final = 512
"""Events that are put before a rehearsal at a time."""
LOOK_S: Final = 0.001


class RehearsalFailed(TandemError):  # noqa: N818 - the fact, in the words operators see
    """The version raised, hung or ended."""


class _MutedSession(Session):
    """Lets nothing out of what the peer wants, and tells it nothing but what it is fed."""

    def __init__(
        self, *args: Any, params: dict[str, Any], state: tuple[int, bytes], candle_ns: int, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.intents: list[Intent] = []
        self.quoted: set[str] = set()
        self._params: Final = params
        self._state: Final = state
        self._candle_ns: Final = candle_ns
        self._put = 0
        self._fed: list[int] = []
        """The number of each event that was fed."""

    def feed(self, event: Any) -> bool:
        """Add an event of the account's history, if it concerns the peer; return whether it counts as one.

        What its own orders lead to does not: see `Baseline`.
        """
        outlet, codec = self.outlet, self._codec
        assert outlet is not None
        assert codec is not None
        now_ns = time.monotonic_ns()
        if isinstance(event, OwnEvent):
            own = event.event
            if event.instance != self._instance.instance:
                return False
            if isinstance(own, Candle):
                if own.interval_ns != self._candle_ns:
                    return False  # made for a version that asks for others
                self._add(outlet, CandleEvent(own), now_ns)
            elif isinstance(own, Due):
                self._add(outlet, TimerEvent(own.trigger), now_ns)
            else:
                self._add(outlet, Reports((_report(own),)), now_ns)
        elif (
            self._instance.hears_market
            and event.symbol in self._instance.symbols
            and type(event) in self._wanted
            and (raw := Item(event).raw(codec)) is not None
        ):
            self._add(outlet, raw, now_ns)
        else:
            return False
        self._fed.append(self._put)
        self._send(outlet, now_ns)
        return not (isinstance(event, OwnEvent) and isinstance(event.event, Order | Fill))

    def _add(self, outlet: Outlet, event: Any, now_ns: int) -> None:
        self._put += 1
        outlet.put_own(event, now_ns)

    def _welcome(self, codec: Codec) -> Welcome:
        self._put += 1  # the start that follows
        version, data = self._state
        return msgspec.structs.replace(
            super()._welcome(codec),
            params=self._params,
            state_version=version,
            state=codec.from_saved(data),
            orders=(),
            ids=MADE_UP_IDS,
        )

    def _brief(self, outlet: Outlet, now_ns: int) -> None:
        pass  # it is told what happened by `feed`

    def _take_in(self, turn: Turn, outlet: Outlet, now_ns: int) -> None:
        at = bisect_right(self._fed, turn.handled)
        for request in turn.requests:
            if isinstance(request, PutQuotes):
                self.quoted.add(request.symbol)
                self.intents.append(Intent(at, "quote", request.symbol, request.quotes))
            elif isinstance(request, Place):
                order = request.order
                self.intents.append(Intent(at, "place", order.symbol, order))
                self._add(outlet, Reports((OrderEvent(self._muted(request)),)), now_ns)
            elif isinstance(request, Cancel):
                self.intents.append(Intent(at, "cancel", "", ""))

    def _muted(self, place: Place) -> Order:
        order, now_ns = place.order, self._engine.clock.now_ns()
        return Order(
            place.client_id, self._instance.instance, self._instance.account, order.symbol, order.side, order.type,
            order.time_in_force, order.price, order.qty, OrderStatus.CANCELLED, post_only=order.post_only,
            reduce_only=order.reduce_only, reason="muted: it never left the host", created_ns=now_ns,
            updated_ns=now_ns,
        )  # fmt: skip


class Rehearsal:
    """Belongs to the running loop; `close` ends the worker. `counted` is what it did so far."""

    def __init__(
        self,
        engine: "Engine",
        node: "Workers",
        instance: Instance,
        offer: Offer,
        params: object,
        settings: WorkerSettings,
    ) -> None:
        self.counted: Final = Baseline()
        self._name: Final = instance.instance
        self._offer: Final = offer
        self._settings: Final = settings
        self._failure = ""
        self._seat: Final = Seat(node, settings, self._fail)
        record = engine.state.instances[instance.instance]
        self._session: Final = _MutedSession(
            engine,
            instance,
            engine.roster.ids_of(instance.instance, record.number),
            settings,
            self._seat.channel,
            takes_over=False,
            on_welcomed=lambda: None,
            on_failed=self._fail,
            on_bye=lambda reason: self._fail(f"it said bye of its own will: {reason}"),
            on_cut_off=self._fail,
            params=msgspec.json.decode(msgspec.json.encode(params)),
            state=(record.state_version, record.strategy_state),
            candle_ns=offer.cls.candle_seconds * SECOND_NS,
        )

    @property
    def quoted(self) -> frozenset[str]:
        """Return the symbols that it quoted."""
        return frozenset(self._session.quoted)

    async def begin(self) -> None:
        """Start it with the instance's saved state; raise `RehearsalFailed` where it does not come to that."""
        self._seat.begin(self._name, self._offer, self._session.on_message)
        started_ns, limit_ns = time.monotonic_ns(), self._settings.start_ns
        while self._session.outlet is None or self._session.outlet.handled == 0:
            await self._wait()
            if self._session.outlet is None:
                self._seat.waits(time.monotonic_ns() - started_ns, limit_ns)
            if time.monotonic_ns() - started_ns > limit_ns:
                raise RehearsalFailed(f"it did not start within {limit_ns / 1e9:g} s{self._where}")
        self._session.busy_ns = self._session.slowest_us = 0  # its start is no event

    async def run(self, events: Sequence[Any]) -> None:
        """Feed it events and wait until it has handled them; raise `RehearsalFailed`."""
        session, outlet = self._session, self._session.outlet
        assert outlet is not None
        for event in events:
            while outlet.behind > MOST_AHEAD:
                await self._wait()
            self.counted.events += session.feed(event)
        while outlet.behind:
            await self._wait()
        self.counted.handler_ns, self.counted.slowest_ns = session.busy_ns, session.slowest_us * 1000

    def take_intents(self) -> list[Intent]:
        """Return what it wanted since this was asked before, and forget it."""
        taken, self._session.intents = self._session.intents, []
        return taken

    def close(self) -> None:
        """End it."""
        self._session.end()
        self._seat.end()

    async def _wait(self) -> None:
        outlet, now_ns = self._session.outlet, time.monotonic_ns()
        # What it writes is read with that, too: else it would wait for a reader.
        self._failure = self._failure or self._seat.fault(now_ns)
        if not self._failure and outlet is not None:
            stuck_ns = outlet.stuck_ns(now_ns)
            self._seat.waits(stuck_ns, self._settings.deadline_ns)
            if stuck_ns > self._settings.deadline_ns:
                stuck_ms, limit_ms = stuck_ns / 1e6, self._settings.deadline_ns / 1e6
                why = f"it handled nothing for {stuck_ms:.0f} ms, the limit is {limit_ms:g} ms"
                self._failure = f"{why}{self._where}"
        if self._failure:
            raise RehearsalFailed(self._failure)
        await asyncio.sleep(LOOK_S)

    @property
    def _where(self) -> str:
        """Return the line where it is, to follow why it failed; a reason is one line."""
        return self._seat.where.partition("\n")[0]

    def _fail(self, why: str) -> None:
        self._failure = self._failure or why


def _report(what: Order | Fill) -> OrderEvent | FillEvent:
    return OrderEvent(what) if isinstance(what, Order) else FillEvent(what)
