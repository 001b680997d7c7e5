"""A desk with its control API served on a Unix socket, and a client of it."""

import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import msgspec
from desk_tools import ACCOUNT, BTC, ETH, Desk, ScriptedVenue
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from leadership_tools import Pair

from host.config import AccountSection, ControlSection, InstanceSection, NodeConfig, NodeSection
from host.control.audit import AuditLog
from host.control.audit_chain import AUDIT_FOLDER, AuditLine, decode_line, read_lines
from host.control.callers import Callers
from host.control.front import Front
from host.control.listen import plan_listeners
from host.control.node_service import NodeService
from host.control.plugin_service import PluginService
from host.control.principal import Role
from host.control.server import ControlServer
from host.control.subject import Phase, Subject
from host.control.tail import JournalTail
from host.control.tokens import TOKENS_FILE, TokenStore
from host.control.trading_service import TradingService
from host.core.risk_limits import RiskConfig
from host.isolation.workers import Workers
from host.loader import Catalog, CompiledVersion, Version, VersionArchive, settle
from host.runtime.engine import Engine, EngineSettings
from host.runtime.instance import Instance
from host.runtime.instance_control import InstanceControl, with_api_instances
from host.runtime.instance_maker import InstanceMaker
from host.runtime.recovery import recover
from host.runtime.reload import ProbationLimits, Reloader, ReloadReport, ReloadSettings
from tandem.v1 import node_pb2_grpc, plugin_pb2_grpc, trading_pb2_grpc

MAKER = """
from decimal import Decimal
from host.api import BookTop, Params, Positive, Quote, State, Strategy

class MakerParams(Params, frozen=True):
    away: Positive = 1.0
    size: Decimal = Decimal("1")
    raises: bool = False

class MakerState(State):
    books: int = 0

class Maker(Strategy[MakerParams]):
    state: MakerState

    def on_params(self, old: MakerParams) -> None:
        if self.params.raises:
            raise ValueError("told to")

    def on_book(self, book: BookTop) -> None:
        self.state.books += 1
        away, size = self.params.away, self.params.size
        self.quote(book.symbol, Quote(book.bid - away, size, book.ask + away, size))
"""
SHIFT = """
from host.api import Adjustment, Features, Params, Quote, QuoteModel

class ShiftParams(Params, frozen=True):
    bps: float = 0.0

class Shift(QuoteModel[ShiftParams]):
    def adjust(self, features: Features, quote: Quote) -> Adjustment:
        if self.params.bps == 1000.0:
            raise ValueError("told to")
        return Adjustment(shift_bps=self.params.bps)
"""
LIMITS = ProbationLimits(seconds=5.0, events=3)
MM = InstanceSection(
    name="mm", plugin="maker", account=ACCOUNT, symbols=(BTC,), quote_tolerance_bps=0.0, params={"away": 2.0}
)
Status = grpc.StatusCode


class ControlDesk(Desk):
    """A desk that runs one configured instance, `mm`, and serves what `serving` is open for."""

    def __init__(
        self,
        folder: Path,
        venue: ScriptedVenue | None = None,
        *,
        sections: tuple[InstanceSection, ...] = (MM,),
        workers: type[Workers] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(folder / "journal", venue, **settings)
        self.home = folder
        plugins = folder / "plugins"
        if not plugins.exists():
            plugins.mkdir()
            (plugins / "maker.py").write_text(MAKER)
            (plugins / "shift.py").write_text(SHIFT)
        self.maker_file = plugins / "maker.py"
        catalog = Catalog.load([plugins], entry_points=False)
        assert not catalog.problems
        self.archive = VersionArchive(folder / "versions")
        settings_ = ReloadSettings(limits=LIMITS)
        self.reloader = Reloader(self.engine, catalog, settings_, _no_probe, self.archive.put)
        self.workers = None if workers is None else workers(self.engine, folder / "workers")
        """What runs strategies in other processes, where a test needs that; it is the test's to close."""
        stand_ins = () if self.workers is None else self.workers.stand_ins
        self.maker = InstanceMaker(self.engine, lambda: self.reloader.catalog, *stand_ins)
        self.config = NodeConfig(
            node=NodeSection(name="desk", data_dir=folder),
            account=(AccountSection(name=ACCOUNT, exchange="scripted", params={"api_key": "hush"}),),
            instance=sections,
            control=ControlSection(listen=(f"unix:{folder}/c.sock",)),
        )
        self.stopped: list[str] = []
        for section in with_api_instances(self.config, self.engine).instance:
            prepared = self.maker.prepare(section)
            self.reloader.take_on(section.name, prepared.use, prepared.model_uses)
            self.maker.start(self.maker.install(prepared), section)
        self.settle()
        self.control = InstanceControl(self.engine, self.reloader, self.maker, lambda: self.config, {})
        self.subject = Subject(
            engine=self.engine,
            config=lambda: self.config,
            host_version="test",
            started_ns=self.clock.now_ns(),
            phase=Phase.RUNNING,
            stop=self.stopped.append,
            tail=JournalTail(self.journal),
            reloader=self.reloader,
            instances=self.control,
            reload=self.reload,
        )
        self.pair = Pair(self)
        self.subject.leadership = self.pair
        self.server: ControlServer | None = None
        """What serves it, where a test needs to know."""
        self.tokens = TokenStore.open(folder / TOKENS_FILE)

    async def reload(self, plugin: str) -> ReloadReport:
        return await self.reloader.reload(
            plugin, lambda: settle(self.home / "plugins" / f"{plugin}.py", apart_ms=1), is_ordered=True
        )

    def standby_engine(self) -> Engine:
        """Return an engine that nothing drives, with what the journal says by now."""
        recovered = recover(self.journal)
        return Engine(
            clock=self.clock,
            journal=self.journal,
            state=recovered.state,
            risk_config=RiskConfig(),
            settings=EngineSettings(snapshot_in_thread=False),
            fills=recovered.fills,
        )

    def tick(self, bid: float = 100.0) -> None:
        for symbol in (BTC, ETH):
            self.clock.set(self.clock.now_ns() + 50_000_000)
            self.top(bid, bid + 1.0, symbol)

    def instance(self, name: str = "mm") -> Instance:
        return self.engine.roster.instances[name]

    def restarted(self) -> "ControlDesk":
        """Return the desk as the next process finds it."""
        self.journal.close()
        self.venue.waiting.clear()
        return ControlDesk(self.home, self.venue, now_ns=self.clock.now_ns() + 1)

    def token(self, role: Role) -> str:
        """Return a new token of a caller who is named as their role."""
        return self.tokens.create(str(role), role, time.time_ns(), None)

    def audited(self) -> list[AuditLine]:
        return [decode_line(line) for _, _, line in read_lines(self.home / AUDIT_FOLDER)]

    @asynccontextmanager
    async def serving(self, *, stall_s: float = 30.0) -> AsyncIterator["Client"]:
        """Serve the API, and give a client whose role is admin."""
        audit = AuditLog.open(self.home / AUDIT_FOLDER)
        callers = Callers(self.tokens, time.time_ns)
        front = Front(self.subject, callers, audit, stall_s)
        services = {
            "tandem.v1.NodeService": NodeService(self.subject),
            "tandem.v1.PluginService": PluginService(self.subject),
            "tandem.v1.TradingService": TradingService(self.subject),
        }
        server = ControlServer(services, front, callers, self.home)
        listen = self.config.control_listen
        await server.start(plan_listeners(listen, has_server_certificate=False, has_caller_proof=False))
        try:
            async with Client(f"unix:{self.home}/c.sock") as client:
                yield client
        finally:
            await server.close(0.0)
            callers.close()
            self.subject.tail.close()
            audit.close(time.time_ns())


class Client:
    """Stubs of every service on one channel."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address)
        self.node: Any = node_pb2_grpc.NodeServiceStub(self.channel)
        self.plugin: Any = plugin_pb2_grpc.PluginServiceStub(self.channel)
        self.trading: Any = trading_pb2_grpc.TradingServiceStub(self.channel)

    def stub(self, service: str) -> Any:
        """Return the stub of a service by its full name."""
        return {
            "tandem.v1.NodeService": self.node,
            "tandem.v1.PluginService": self.plugin,
            "tandem.v1.TradingService": self.trading,
        }[service]

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()


class Refusal(msgspec.Struct, frozen=True):
    """What a refused call was told."""

    code: grpc.StatusCode
    reason: str
    text: str
    fields: dict[str, str] = {}
    """Violations of `BadRequest` or `PreconditionFailure`: what, and what is wrong with it."""
    metadata: dict[str, str] = {}


async def refused(call: Coroutine[Any, Any, Any] | Any) -> Refusal:
    """Return how a call was refused; fail where it was not."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return refusal_in(error)
    raise AssertionError(f"expected a refusal, was {answer}")


def refusal_in(error: grpc.aio.AioRpcError) -> Refusal:
    """Return what an error of a call tells."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info, fields = error_details_pb2.ErrorInfo(), {}
    for detail in status.details if status is not None else ():
        bad, failure = error_details_pb2.BadRequest(), error_details_pb2.PreconditionFailure()
        if detail.Unpack(info):
            continue
        if detail.Unpack(bad):
            fields |= {one.field: one.description for one in bad.field_violations}
        if detail.Unpack(failure):
            fields |= {one.subject: one.description for one in failure.violations}
    return Refusal(error.code(), info.reason, error.details() or "", fields, dict(info.metadata))


def bearer(token: str) -> Sequence[tuple[str, str]]:
    """Return the metadata that shows a token."""
    return (("authorization", f"Bearer {token}"),)


async def _no_probe(version: Version) -> CompiledVersion | None:
    return None


Story = Callable[[], Coroutine[Any, Any, None]]
