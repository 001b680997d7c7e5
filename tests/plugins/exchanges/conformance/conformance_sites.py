"""The venues of the suite: the venue server speaking a protocol, the same speaking its own, and the one in process.

All three run the same exchange with a market in which nothing happens unless a test has it happen.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Final

from conformance_exchange import INVERSE, LINEAR, SPOT, open_exchange

from host.api import (
    CancelOrder,
    Command,
    OrderFilled,
    OrderType,
    PlaceOrder,
    Side,
    TimeInForce,
)
from venue.accounts import Account
from venue.clock import VenueClock
from venue.delivery import Faults, Latency
from venue.exchange import Exchange
from venue.house import HouseServer
from venue.opening import OpenVenue, opening_balances
from venue.protocols.connection import Connection
from venue.protocols.faults import Fault, FaultKind
from venue.protocols.request_log import RequestLine
from venue.protocols.requests import Reply, Request
from venue.protocols.server import ProtocolServer
from venue.protocols.settings import Settings
from venue.records import Records
from venue.running import RunningExchange

__all__ = ["EngineSite", "ProtocolSite", "Site", "house_site", "protocol_site"]

FAR_NS: Final = 1 << 62
RIVAL: Final = "rival"
"""The account that trades against ours, straight at the exchange."""


class Site:
    """A venue as a test sees it: what it holds, and how it is made to misbehave."""

    def __init__(self, exchange: Exchange, wallet: str) -> None:
        self.exchange: Final = exchange
        self.wallet: Final = wallet
        """The account of ours, as the exchange calls it."""
        self._rivals = 0
        exchange.open_account(RIVAL, {c: Decimal(10_000_000) for c in ("USDT", "USD", "BTC", "ETH")})
        exchange.disconnect(RIVAL)  # nobody listens to its reports

    @property
    def records(self) -> Records:
        """Return the orders and fills of our account."""
        return self.exchange.records(self.wallet)

    @property
    def account(self) -> Account:
        """Return the money of our account."""
        return self.exchange.account(self.wallet)

    @property
    def fills(self) -> tuple[OrderFilled, ...]:
        """Return what our account has traded."""
        return self.records.fills_since(0)

    def open_ids(self) -> set[str]:
        """Return the client ids of our open orders."""
        return {record.order.client_id for record in self.records.open()}

    def rival(
        self, symbol: str, side: Side, qty: Decimal, price: Decimal, tif: TimeInForce = TimeInForce.GTC
    ) -> str:
        """Have the rival place a limit order, and return its client id."""
        self._rivals += 1
        client_id = f"rival{self._rivals}"
        self._submit(
            PlaceOrder(client_id, symbol, side, OrderType.LIMIT, tif, price, qty, False, False),
        )
        return client_id

    def rival_cancels(self, symbol: str, client_id: str) -> None:
        """Have the rival cancel an order."""
        self._submit(CancelOrder(client_id, symbol))

    def _submit(self, command: Command) -> None:
        raise NotImplementedError

    # -- misbehaviour ----------------------------------------------------------------------------

    def lose_answer(self) -> None:
        """Carry the next order out, and lose the answer."""
        raise NotImplementedError

    def lose_request(self) -> None:
        """Have the next order never arrive."""
        raise NotImplementedError

    def hold_order(self, delay_ms: float) -> None:
        """Have the next order reach the matching engine late."""
        raise NotImplementedError

    def behave(self) -> None:
        """Take all misbehaviour back."""
        raise NotImplementedError

    def run_out(self) -> None:
        """Let dead man's switches run out that take longer than a test may: those that are armed, and no others."""

    def disturb_events(self, *, doubled: bool = False, overtaking: bool = False) -> None:
        """Tell the account's events twice, or let some overtake others."""
        raise NotImplementedError

    def mute(self) -> None:
        """Say nothing more on the connections that are open: no data, no answers, no pongs."""
        raise NotImplementedError

    def cut(self, path: str = "") -> None:
        """Break our connections whose address begins so; a venue with one connection has none."""
        raise NotImplementedError


class ProtocolSite(Site):
    """The venue server, speaking the protocol of a real venue."""

    def __init__(self, server: ProtocolServer, running: RunningExchange, protocol: str, wallet: str) -> None:
        super().__init__(running.exchange, wallet)
        self.server: Final = server
        self.running: Final = running
        self.protocol: Final = protocol
        self.url: Final = f"http://{server.addresses[protocol]}"

    def _submit(self, command: Command) -> None:
        self.running.submit(RIVAL, command, FAR_NS)
        self.running.step()

    def fault(self, kind: FaultKind, **fields: Any) -> int:
        """Put a fault in force and return its number."""
        return self.server.faults.add(Fault(kind=kind, protocol=self.protocol, **fields))

    def lines(self, *kinds: str) -> list[RequestLine]:
        """Return the request log's lines of these kinds; all of them without one."""
        return [line for line in self.server.requests.lines if not kinds or line.kind in kinds]

    @property
    def connections(self) -> list[Connection]:
        """Return the WebSockets that are open, in the order in which they were opened."""
        found = self.server.courses[self.protocol].connections
        return sorted(found, key=lambda connection: connection.number)

    def connections_at(self, path: str) -> list[Connection]:
        """Return the open WebSockets whose address begins so."""
        return [connection for connection in self.connections if connection.path.startswith(path)]

    def say(self, path: str, message: bytes) -> None:
        """Send a message of the test's own on every connection at an address."""
        for connection in self.connections_at(path):
            connection.send(message)

    def spoil(self, path: str, kind: str, change: Callable[[bytes], bytes], count: int = 1) -> list[bytes]:
        """Change the next pushes of a kind on their way; the result fills with what was sent instead."""
        sent: list[bytes] = []

        def spoiled(connection: Connection, push: Callable[..., None]) -> Callable[..., None]:
            def send(data: bytes | str, what: str, symbol: str = "") -> None:
                if what != kind or len(sent) >= count:
                    push(data, what, symbol)
                    return
                sent.append(change(data if isinstance(data, bytes) else data.encode()))
                connection.send(sent[-1])

            return send

        for connection in self.connections_at(path):
            connection.push = spoiled(connection, connection.push)  # type: ignore[method-assign]
        return sent

    def delist(self, wire: str) -> None:
        """List an instrument no longer."""
        front = self.server.courses[self.protocol].front
        answer = front.answer

        async def without(request: Request) -> Reply | None:
            reply = await answer(request)
            if reply is not None and (
                "exchangeInfo" in request.raw.path or "instruments" in request.raw.path
            ):
                reply.body = _without(reply.body, wire)
            return reply

        front.answer = without  # type: ignore[method-assign]

    def lose_answer(self) -> None:
        self.fault(FaultKind.DROP, request="place", count=1)

    def lose_request(self) -> None:
        self.fault(FaultKind.DROP_REQUEST, request="place", count=1)

    def behave(self) -> None:
        self.server.faults.clear()

    def run_out(self) -> None:
        front: Any = self.server.courses[self.protocol].front
        switches = {"okx": "_switches", "bybit": "_disconnects"}.get(self.protocol)
        if switches is not None:
            timers = getattr(front, switches)
            for account, what in list(timers._timers):
                timers._over(front._members[account], what)

    def hold_order(self, delay_ms: float) -> None:
        self.fault(FaultKind.LATENCY, request="place", delay_ms=delay_ms, count=1)

    def disturb_events(self, *, doubled: bool = False, overtaking: bool = False) -> None:
        if doubled:
            self.fault(FaultKind.DUPLICATE, request="private")
        if overtaking:
            self.fault(FaultKind.REORDER, request="private", delay_ms=30.0, probability=0.5)

    def mute(self) -> None:
        for connection in self.connections:
            connection.send = lambda data: None  # type: ignore[method-assign]
            connection.response.pong = _pong_nothing  # type: ignore[method-assign]

    def cut(self, path: str = "") -> None:
        for connection in self.connections_at(path):
            connection.abort()


class EngineSite(Site):
    """The venue with the house protocol or none: it misbehaves by how reports and requests travel."""

    def __init__(self, exchange: Exchange, clock: VenueClock, wallet: str, url: str = "") -> None:
        super().__init__(exchange, wallet)
        self.url: Final = url
        self.running: RunningExchange | None = None
        self.house: HouseServer | None = None
        self._clock = clock

    def _submit(self, command: Command) -> None:
        self.exchange.submit(RIVAL, command, self._clock.now_ns(), FAR_NS)
        if self.running is not None:
            self.running.step()

    def lose_answer(self) -> None:
        self.exchange.delivery.faults = Faults(unanswered=1.0)

    def lose_request(self) -> None:
        assert self.house is not None, "in this process nothing is lost"
        (session,) = self.house._sessions
        session._on_message = lambda message: session.abort()  # type: ignore[method-assign]

    def behave(self) -> None:
        self.exchange.delivery.latency, self.exchange.delivery.faults = Latency(), Faults()

    def hold_order(self, delay_ms: float) -> None:
        self.exchange.delivery.latency = Latency(base_ns=round(delay_ms * 1e6))

    def disturb_events(self, *, doubled: bool = False, overtaking: bool = False) -> None:
        self.exchange.delivery.faults = Faults(
            duplicate_report=float(doubled), reorder_report=0.5 * overtaking, reorder_ns=30_000_000
        )

    def mute(self) -> None:
        assert self.house is not None, "in this process there is no connection"
        for session in self.house._sessions:
            session.write = lambda frame: None  # type: ignore[method-assign]

    def cut(self, path: str = "") -> None:
        assert self.house is not None, "in this process there is no connection"
        for session in list(self.house._sessions):
            session.abort()


async def _pong_nothing(message: bytes = b"") -> None:
    pass


def _without(body: Any, wire: str) -> Any:
    """Return an answer without the instrument that the venue spells so."""
    if isinstance(body, dict):
        return {name: _without(value, wire) for name, value in body.items()}
    if isinstance(body, list):
        rows = [
            each
            for each in body
            if not isinstance(each, dict) or wire not in map(each.get, ("symbol", "instId"))
        ]
        return [_without(each, wire) for each in rows]
    return body


@asynccontextmanager
async def protocol_site(
    protocol: str, wallet: str, *, has_rate_limits: bool = False
) -> AsyncIterator[ProtocolSite]:
    """Serve a venue's protocol until the block ends."""
    clock = VenueClock()
    listed = [SPOT, LINEAR] if protocol == "binance" else [SPOT, LINEAR, INVERSE]
    running = RunningExchange(open_exchange(listed, clock), clock)
    settings = Settings(listen={protocol: "127.0.0.1:0"}, has_rate_limits=has_rate_limits)
    server = ProtocolServer(OpenVenue(running, None, False), settings, seed=1)
    await server.start()
    task = asyncio.create_task(running.run())
    running.step()
    try:
        yield ProtocolSite(server, running, protocol, wallet)
    finally:
        await server.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def house_site(account: str, path: str) -> AsyncIterator[EngineSite]:
    """Serve the house protocol at a Unix socket until the block ends."""
    clock = VenueClock()
    exchange = open_exchange([SPOT, LINEAR], clock)
    running = RunningExchange(exchange, clock)
    house = HouseServer(running, opening_balances(exchange.instruments))
    await house.start(f"unix:{path}")
    task = asyncio.create_task(running.run())
    running.step()
    site = EngineSite(exchange, clock, account, f"unix:{path}")
    site.running, site.house = running, house
    try:
        yield site
    finally:
        house.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
