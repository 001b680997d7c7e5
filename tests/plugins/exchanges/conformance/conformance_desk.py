"""A behaviour of adapters: one test for all of them, and the desk at which it is tried.

`@behaviour("title")` makes of a coroutine that takes an `At` one test for each column of the table. What a
venue does not have is said with `absent`, by column and with the reason, and shown below the table.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec
import pytest
import uvloop
from conformance_book import Host
from conformance_columns import ADAPTERS, COLUMNS, Column, site_of
from conformance_exchange import MID, STEP
from conformance_sites import ProtocolSite, Site
from exchange_tools import DEADLINE_S, FakeHost, eventually

from host.api import (
    AmendOrder,
    CancelOrder,
    Command,
    ConnectionChanged,
    Depth,
    Instrument,
    OrderFilled,
    OrderNotFound,
    OrderSnapshot,
    OrderType,
    PlaceOrder,
    QueryOrder,
    RequestUnanswered,
    Side,
    SteppedAdapter,
    TimeInForce,
)

__all__ = ["At", "behaviour"]

WINDOW_NS: Final = 30_000_000_000
ASK_AGAIN_S: Final = 1.0
"""After so long without an answer a question is asked again."""
Story = Callable[["At"], Coroutine[Any, Any, None]]
R = TypeVar("R")


def behaviour(
    title: str,
    *,
    absent: Mapping[str, tuple[str, ...]] | None = None,
    has_rate_limits: bool = False,
    **params: Any,
) -> Callable[[Story], Callable[[str], None]]:
    """Have a story tried by every adapter but those in `absent`, which names them by the reason.

    `params` are parameters of the adapter, given to those which have them.
    """
    without = {name: reason for reason, names in (absent or {}).items() for name in names}
    unknown = without.keys() - COLUMNS.keys()
    if unknown:
        raise ValueError(f"{title}: absent must name columns, was {', '.join(sorted(unknown))}")

    def make(story: Story) -> Callable[[str], None]:
        def test(column: str) -> None:
            async def run() -> None:
                async with at_venue(COLUMNS[column], has_rate_limits=has_rate_limits, **params) as at:
                    await story(at)

            uvloop.run(asyncio.wait_for(run(), 2 * DEADLINE_S))

        test.__name__, test.__qualname__, test.__doc__ = story.__name__, story.__qualname__, story.__doc__
        test.__module__ = story.__module__
        there = [name for name in COLUMNS if name not in without]
        marked = pytest.mark.behaviour(title, without)(test)
        return pytest.mark.parametrize("column", there)(marked)

    return make


class At:
    """An adapter that is connected to a venue, its host, and the venue's side."""

    def __init__(self, column: Column, site: Site, host: Host, **params: Any) -> None:
        self.column: Final = column
        self.site: Final = site
        self.host: Final = host
        self.symbol: Final = column.symbol
        self.qty: Final = column.qty
        self.adapter: Final = self.make(**params)
        self.instruments: dict[str, Instrument] = {}
        self.log: Final = _Log()
        self._drive: asyncio.Task[None] | None = None
        self._hosts: Final[list[FakeHost]] = [host]

    @property
    def venue(self) -> ProtocolSite:
        """Return the venue server, for behaviours that only a protocol has."""
        assert isinstance(self.site, ProtocolSite), f"{self.column.name} has no protocol"
        return self.site

    def make(self, *, host: FakeHost | None = None, **params: Any) -> Any:
        """Return one more adapter of this account; parameters that it does not have are left out."""
        adapter_type = ADAPTERS[self.column.exchange]
        known = set(adapter_type.params_type.__struct_fields__)
        url = {"url": getattr(self.site, "url", "")}
        wanted = {name: value for name, value in params.items() if name in known}
        if "leverage" in wanted and self.column.exchange in (
            "okx",
            "bybit",
        ):  # these take one for each symbol
            wanted["leverage"] = {self.symbol: Decimal(wanted["leverage"])}
        settings = {**(url if "url" in known else {}), **self.column.params, **wanted}
        adapter = adapter_type(adapter_type.params_type(**settings))
        adapter.ctx = host or self.host
        return adapter

    def another_host(self) -> FakeHost:
        """Return a host for one more adapter of this account, as in another node; a venue in process is shared."""
        host = FakeHost(self.host.account)
        host.shared = {} if self.column.protocol else self.host.shared
        self._hosts.append(host)
        return host

    async def start(self) -> None:
        """Connect, subscribe, and wait until every channel is up and the book is there."""
        self.instruments = {item.symbol: item for item in await self.adapter.connect()}
        if isinstance(self.adapter, SteppedAdapter):
            self._drive = asyncio.create_task(self._step(self.adapter))
        await self.adapter.subscribe([self.symbol])
        await eventually(lambda: set(self.channels().values()) == {True}, "all channels up")
        await self.host.heard(Depth)

    async def stop(self) -> None:
        """Close the adapter, and raise what its tasks raised."""
        await self.adapter.close()
        if self._drive is not None:
            self._drive.cancel()
        for host in self._hosts:
            await host.stop()

    async def vanish(self) -> None:
        """Go without a word, as a process that dies; the venue lives on, in this process or not."""
        if self._drive is None:
            await self.stop()

    async def _step(self, adapter: SteppedAdapter[Any]) -> None:
        """Let the venue in this process live, as the host would."""
        while True:
            adapter.step(self.host.now_ns())
            await asyncio.sleep(0.0005)

    # -- commands --------------------------------------------------------------------------------

    def price(self, steps: float, side: Side = Side.BUY) -> Decimal:
        """Return a price so many steps behind the best of our side; across the market where negative."""
        away = STEP * Decimal(str(1 + steps))
        return MID - away if side is Side.BUY else MID + away

    def place(
        self, client_id: str, *, steps: float = 20, side: Side = Side.BUY, in_s: float = 30.0, **terms: Any
    ) -> PlaceOrder:
        """Send a limit order that rests, unless the terms say otherwise, and return it."""
        if terms.get("type") is OrderType.MARKET:
            terms = {"price": None, "time_in_force": TimeInForce.IOC, **terms}
        place = PlaceOrder(
            client_id,
            self.symbol,
            side,
            OrderType.LIMIT,
            TimeInForce.GTC,
            self.price(steps, side),
            self.qty,
            False,
            False,
        )
        place = msgspec.structs.replace(place, **terms)
        self.adapter.send(place, self.host.now_ns() + round(in_s * 1e9))
        return place

    async def rest(self, client_id: str, **terms: Any) -> PlaceOrder:
        """Place an order, and wait until it rests."""
        place = self.place(client_id, **terms)
        await eventually(lambda: client_id in self.site.open_ids(), f"{client_id} rests")
        return place

    def send(self, command: Command) -> None:
        """Send a command with a usual window."""
        self.adapter.send(command, self.host.now_ns() + WINDOW_NS)

    def amend(self, place: PlaceOrder, price: Decimal, qty: Decimal) -> None:
        """Send an amend of an order."""
        self.send(AmendOrder(place.client_id, place.symbol, place.side, price, qty))

    def cancel(self, client_id: str) -> None:
        """Send a cancel of an order."""
        self.send(CancelOrder(client_id, self.symbol))

    # -- what was told ---------------------------------------------------------------------------

    def told(self, client_id: str, *kinds: type[R]) -> list[R]:
        """Return the reports of these types about one order, oldest first."""
        return [
            report
            for report in self.host.reports
            if isinstance(report, kinds) and getattr(report, "client_id", "") == client_id
        ]

    def filled(self, client_id: str) -> Decimal:
        """Return how much of an order was told to have traded."""
        return sum((fill.qty for fill in self.told(client_id, OrderFilled)), Decimal(0))

    async def about(self, client_id: str, *kinds: type[Any]) -> Any:
        """Wait for the first report of one of these types about one order, and return it."""
        names = " or ".join(kind.__name__ for kind in kinds)
        await eventually(lambda: self.told(client_id, *kinds), f"{names} of {client_id}")
        return self.told(client_id, *kinds)[0]

    async def ask(self, query: Command, kind: type[R]) -> R:
        """Send a query and return its answer."""
        heard = len(self.host.of(kind))
        self.send(query)
        return await self.host.heard(kind, heard + 1)

    async def found(self, client_id: str) -> OrderSnapshot:
        """Ask for an order that the venue knows, and return what it says of it."""
        answer = await self._find_out(client_id)
        assert isinstance(answer, OrderSnapshot), answer
        return answer

    async def not_found(self, client_id: str) -> None:
        """Ask for an order that the venue does not know."""
        answer = await self._find_out(client_id)
        assert isinstance(answer, OrderNotFound), answer

    async def _find_out(self, client_id: str) -> OrderSnapshot | OrderNotFound:
        """Ask for an order by its client id until the venue says what it is, and return that."""

        def answers() -> list[OrderSnapshot | OrderNotFound]:
            return [*self.told(client_id, OrderSnapshot), *self.told(client_id, OrderNotFound)]

        known = answers()
        while not (new := [each for each in answers() if not any(each is old for old in known)]):
            # A question without an answer is asked again, as the host does.
            before, asked_s = len(self.host.reports), self._loop_s()
            self.send(QueryOrder(client_id, self.symbol))
            while self._loop_s() - asked_s < ASK_AGAIN_S and not any(
                isinstance(report, OrderSnapshot | OrderNotFound | RequestUnanswered)
                and report.client_id == client_id
                for report in self.host.reports[before:]
            ):
                await asyncio.sleep(0.001)
        return new[-1]

    def _loop_s(self) -> float:
        return asyncio.get_running_loop().time()

    def channels(self) -> dict[str, bool]:
        """Return which channels are up, as last told."""
        return {change.channel: change.is_up for change in self.host.of(ConnectionChanged)}

    async def is_up_again(self, channel: str, times: int = 1) -> None:
        """Wait until a channel was told to be down and up again so often."""

        def is_so() -> bool:
            changes = [each.is_up for each in self.host.of(ConnectionChanged) if each.channel == channel]
            return changes.count(False) >= times and changes[-1] and changes.count(True) > times

        await eventually(is_so, f"{channel} up again")

    def went_down(self) -> set[str]:
        """Return which channels were ever told to be down."""
        return {change.channel for change in self.host.of(ConnectionChanged) if not change.is_up}

    # -- the market ------------------------------------------------------------------------------

    def move(self, qty: Decimal | None = None) -> str:
        """Have the rival improve the best bid by a third of a step, and return the order's id."""
        return self.site.rival(self.symbol, Side.BUY, qty or self.qty, self.price(-0.3))

    def take(self, price: Decimal, qty: Decimal, side: Side = Side.SELL) -> None:
        """Have the rival take what rests up to a price."""
        self.site.rival(self.symbol, side, qty, price, TimeInForce.IOC)


class _Log(logging.Handler):
    """What the adapter writes into its log from the level of a warning on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: Final[list[str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())

    def about(self, part: str) -> list[str]:
        """Return the lines that contain `part`."""
        return [line for line in self.lines if part in line]


@asynccontextmanager
async def at_venue(column: Column, *, has_rate_limits: bool = False, **params: Any) -> AsyncIterator[At]:
    """Open a venue and connect an adapter to it, until the block ends."""
    host = Host()
    async with site_of(column, host.shared, has_rate_limits=has_rate_limits) as site:
        at = At(column, site, host, **params)
        logging.getLogger("tandem").addHandler(at.log)
        try:
            await at.start()
            yield at
        finally:
            logging.getLogger("tandem").removeHandler(at.log)
            await at.stop()
