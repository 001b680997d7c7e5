"""A real engine at the paper venue, in simulated time, behind a real gRPC server; and clients of it.

Time stands still while calls are made and moves when a test says so: what the venue answers comes with
`Site.advance`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from host.api import BookTop, NoParams, Quote, Strategy
from host.config import NodeConfig
from host.control.audit import AuditLog
from host.control.callers import Callers
from host.control.front import Front
from host.control.listen import Listener, Security, TcpAddress
from host.control.principal import Role
from host.control.server import ControlServer
from host.control.subject import Phase, Subject
from host.control.tail import JournalTail
from host.control.tokens import TokenStore
from host.control.trading_service import TradingService
from host.core import entries as e
from host.core.risk_limits import RiskConfig
from host.journal import Journal, read
from host.loader import Catalog, Version, make
from host.runtime.clock import VirtualClock
from host.runtime.driver import ReplayDriver
from host.runtime.engine import Engine, EngineSettings
from host.runtime.instance_control import InstanceControl
from host.runtime.instance_maker import InstanceMaker
from host.runtime.recovery import recover
from host.runtime.reload import Reloader, ReloadReport, ReloadSettings
from host.runtime.roster import InstanceSpec
from tandem.v1 import trading_pb2 as pb
from tandem.v1 import trading_pb2_grpc

PATIENCE_S = 60.0
START_NS = 1_754_650_000_000_000_000
SECOND = 1_000_000_000
ACCOUNT, BTC, PERP = "paper", "BTC-USDT", "BTC-USDT-PERP"
HAND = f"instances/hand@{ACCOUNT}"
PAPER = Path(__file__).parents[2] / "plugins" / "exchanges"
SERVICE = pb.DESCRIPTOR.services_by_name["TradingService"]


class Maker(Strategy[NoParams]):
    """Quotes far from the market, so that it is there and does not trade."""

    def __init__(self) -> None:
        super().__init__(NoParams())

    def on_book(self, book: BookTop) -> None:
        self.quote(book.symbol, Quote(book.bid * 0.95, Decimal("0.01"), book.ask * 1.05, Decimal("0.01")))


class Site:
    """One node's trading and its control API. `calls[role]` are stubs that call with that role."""

    def __init__(self, folder: Path, risk: RiskConfig | None = None) -> None:
        self.folder = folder
        self.catalog = Catalog.load([PAPER], entry_points=False)
        self.clock = VirtualClock(START_NS)
        self.journal = Journal.open(folder / "journal", node="a", segment_bytes=1 << 16)
        recovered = recover(self.journal)
        self.engine = Engine(
            clock=self.clock,
            journal=self.journal,
            state=recovered.state,
            risk_config=risk or RiskConfig(),
            settings=EngineSettings(snapshot_in_thread=False),
            fills=recovered.fills,
        )
        self.engine.start_epoch("a", self.journal.cell, recovered.state.epoch + 1, "test")
        self.driver = ReplayDriver(self.engine, self.clock, self.engine.stepped, None)
        reloader = Reloader(self.engine, self.catalog, ReloadSettings(), _nothing, lambda _version: None)
        maker = InstanceMaker(self.engine, lambda: reloader.catalog)
        self.subject = Subject(
            engine=self.engine,
            config=NodeConfig,
            host_version="test",
            started_ns=START_NS,
            phase=Phase.RUNNING,
            stop=lambda _reason: None,
            tail=JournalTail(self.journal),
            reloader=reloader,
            instances=InstanceControl(self.engine, reloader, maker, NodeConfig, {}),
            reload=_no_reload,
        )
        self.calls: dict[Role, Any] = {}
        self.nobody: Any = None

    @asynccontextmanager
    async def serving(self, stall_s: float = PATIENCE_S) -> AsyncIterator["Site"]:
        """Trade, and take calls."""
        await self._connect()
        tokens = TokenStore.open(self.folder / f"tokens-{self.engine.state.epoch}.json")
        audit = AuditLog.open(self.folder / "audit")
        callers = Callers(tokens, time.time_ns, loopback_role=None)
        front = Front(self.subject, callers, audit, stall_s)
        server = ControlServer(
            {"tandem.v1.TradingService": TradingService(self.subject)}, front, callers, self.folder
        )
        await server.start([Listener(TcpAddress("127.0.0.1", 0), Security.LOOPBACK)])
        (address,) = server.addresses
        assert isinstance(address, TcpAddress)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{address.port}") as channel:
            stub = trading_pb2_grpc.TradingServiceStub(channel)
            self.nobody = _Caller(stub, "")
            for role in Role:
                token = tokens.create(f"the-{role}", role, time.time_ns(), None)
                self.calls[role] = _Caller(stub, token)
            try:
                yield self
            finally:
                await server.close(0.0)
                callers.close()
                audit.close(time.time_ns())
                for feed in self.engine.feeds.values():
                    await feed.close()
                self.journal.close()

    async def _connect(self) -> None:
        offer = self.catalog.exchange("paper")
        adapter = make(offer, {"market": "calm", "symbols": [BTC, PERP], "persistent": False, "seed": 1})
        feed = self.engine.add_account(ACCOUNT, adapter, str(self.folder))
        self.engine.set_instruments(ACCOUNT, await adapter.connect(), {BTC, PERP})
        feed.follow([BTC, PERP])
        await adapter.subscribe([BTC, PERP])
        for symbol in (BTC, PERP):
            adapter.resync(symbol)  # changes of depth count from a whole book on
        self.engine.start_reconciling(ACCOUNT)
        await self.until(lambda: self.engine.reconciler.is_ready(ACCOUNT))
        spec = InstanceSpec(
            name="mm", account=ACCOUNT, symbols=(BTC,), plugin="test", digest="ab" * 32, params_json=b"{}"
        )
        self.engine.roster.start(self.engine.roster.add(spec, Maker(), (), feed.spawn))
        await self.until(lambda: len(self.resting("mm")) == 2 and self.engine.top(ACCOUNT, PERP) is not None)

    # -- time --------------------------------------------------------------------------------------

    async def advance(self, seconds: float) -> None:
        """Let the venue and the node go on for so long."""
        await self.driver.run(lambda: False, self.clock.now_ns() + round(seconds * SECOND))

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Let the venue and the node go on until then; at most a minute of their time."""
        assert await self.driver.run(is_so, self.clock.now_ns() + 60 * SECOND) == "stopped"

    # -- what can be seen --------------------------------------------------------------------------

    @property
    def trader(self) -> Any:
        """Return the stub of somebody who may do everything to trading."""
        return self.calls[Role.TRADER]

    def resting(self, instance: str = f"hand@{ACCOUNT}") -> list[str]:
        """Return the client ids of an instance's orders that rest."""
        return [
            o.client_id for o in self.engine.state.orders.values() if o.instance == instance and o.venue_id
        ]

    def journaled(self, kind: type) -> list[Any]:
        """Return the journal's entries of one kind."""
        return [record.entry for record in read(self.folder / "journal") if isinstance(record.entry, kind)]

    def price(self, share: float, symbol: str = BTC) -> str:
        """Return a price as a share of the best bid, on the tick."""
        top = self.engine.top(ACCOUNT, symbol)
        assert top is not None
        return f"{self.engine.state.instruments[ACCOUNT][symbol].price_floor(top.bid * share):f}"

    # -- what is often done ------------------------------------------------------------------------

    def order(self, **fields: Any) -> pb.PlaceOrderRequest:
        """Return a request for an order that rests."""
        usual = {"account": f"accounts/{ACCOUNT}", "symbol": BTC, "side": 1, "qty": "0.01"}
        price = {} if fields.get("type") == pb.ORDER_TYPE_MARKET else {"price": self.price(0.9)}
        return pb.PlaceOrderRequest(**{**usual, **price, **fields})

    async def rest(self, **fields: Any) -> pb.Order:
        """Place an order and let the venue take it."""
        placed = (await self.trader.PlaceOrder(self.order(**fields))).order
        await self.until(lambda: placed.client_id in self.resting())
        found: pb.Order = (await self.trader.GetOrder(pb.GetOrderRequest(name=placed.name))).order
        return found

    async def hold(self, qty: str = "0.01", symbol: str = BTC, side: int = 1) -> None:
        """Buy or sell at once, short of where the strategy rests."""
        price = self.price(1.02 if side == 1 else 0.98, symbol)
        taking = self.order(symbol=symbol, side=side, qty=qty, price=price, time_in_force=2)
        placed = (await self.trader.PlaceOrder(taking)).order
        await self.until(lambda: placed.client_id in self.engine.state.retired)
        assert self.engine.by_hand.find(placed.client_id).filled == Decimal(qty)


async def _nothing(_version: Version) -> None: ...


async def _no_reload(plugin: str) -> ReloadReport:
    raise AssertionError(f"no test here reloads {plugin}")


class _Caller:
    """The stub, with one caller's token and a deadline on every call."""

    def __init__(self, stub: trading_pb2_grpc.TradingServiceStub, token: str) -> None:
        self._stub = stub
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._stub, name)

        def call(request: Message, timeout: float = PATIENCE_S) -> Any:
            return method(request, metadata=self._metadata, timeout=timeout)

        return call


def run(site: Site, story: Callable[[Site], Awaitable[None]], **options: Any) -> None:
    """Tell a story at a site that serves."""

    async def tell() -> None:
        async with asyncio.timeout(PATIENCE_S), site.serving(**options):
            await story(site)

    asyncio.run(tell())


def is_stream(method: str) -> bool:
    """Return whether a method goes on answering."""
    return bool(SERVICE.methods_by_name[method].server_streaming)


async def first_answer(stub: Any, method: str, request: Message, timeout: float = PATIENCE_S) -> Any:
    """Return the answer of a call, of a stream the first one."""
    if not is_stream(method):
        return await getattr(stub, method)(request, timeout)
    call = getattr(stub, method)(request, timeout)
    try:
        async for answer in call:
            return answer
        raise AssertionError(f"{method} ended without an answer")
    finally:
        call.cancel()


class Refusal:
    """What a refused call was told."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code().name
        self.text = error.details() or ""
        self.reason = ""
        self.fields: list[str] = []
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        for detail in status.details if status is not None else ():
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                self.reason = info.reason
            elif detail.Unpack(bad):
                self.fields = [violation.field for violation in bad.field_violations]


async def refused(stub: Any, method: str, request: Message, timeout: float = PATIENCE_S) -> Refusal:
    """Return how a call is refused."""
    try:
        answer = await first_answer(stub, method, request, timeout)
    except grpc.aio.AioRpcError as error:
        return Refusal(error)
    raise AssertionError(f"{method} was carried out: {answer}")


def orders_journaled(site: Site) -> int:
    """Return how many orders were ever sent."""
    return len(site.journaled(e.PlaceSent))
