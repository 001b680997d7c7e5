"""What a run did, as one object for people and scripts."""

from decimal import Decimal

import msgspec
from msgspec import Struct

from host.core.accounting import total
from host.core.entries import InstanceState
from host.journal import journal_digest
from host.runtime.engine import Engine
from host.runtime.remote import RemoteModel, RemoteStatus, RemoteStrategy

__all__ = [
    "BlockReport",
    "BookCheck",
    "JournalReport",
    "LatencyReport",
    "PositionReport",
    "RunReport",
    "WorkerReport",
    "make_report",
]


class LatencyReport(Struct, frozen=True):
    """Time from a decoded event to its orders handed out, in µs, of the events that led to orders."""

    p50: float
    p99: float
    max: float


class JournalReport(Struct, frozen=True):
    """The journal of this run. `digest` is the SHA-256 of its entries: equal runs have equal ones."""

    entries: int
    bytes: int
    digest: str


class PositionReport(Struct, frozen=True):
    """One instance's result in one symbol. Money is in `currency`, `pnl` is after fees."""

    instance: str
    symbol: str
    qty: Decimal
    average_price: Decimal
    mark: Decimal | None
    realised: Decimal
    fees: dict[str, Decimal]
    pnl: Decimal | None
    currency: str


class BookCheck(Struct, frozen=True):
    """How often the best prices of the rebuilt depth equalled the latest quote's."""

    account: str
    symbol: str
    compared: int
    matched: int


class BlockReport(Struct, frozen=True):
    """How often one instance blocked the event loop, and for how many ms at most."""

    count: int
    longest_ms: float


class WorkerReport(Struct, frozen=True):
    """What became of the worker of one instance. Times are those from an event sent to it handled, in µs."""

    restarts: int
    conflated: int
    """Market events left out because it was too slow."""
    handled_p50_us: float
    handled_p99_us: float
    refused: int = 0
    """Messages, and requests in them, that broke the rules, and programs that were turned away."""
    strangers: int = 0
    """Messages and subscriptions without the token."""


class RunReport(Struct, frozen=True, kw_only=True):
    """The result of `tandem run`. `fees` and `pnl` are sums per currency."""

    node: str
    epoch: int
    stopped: str
    """Why the run ended."""
    halted: str
    """What made the node stop trading, such as a full disk; empty after an orderly run."""
    ran_s: float
    """In the node's own time: recorded seconds in a replay."""
    events: int
    orders: int
    amends: int
    cancels: int
    fills: int
    rejects: int
    refused: int
    """Commands that risk checks or the gate kept back."""
    open_orders: int
    """Left at the venue when the node stopped; 0 after a clean stop."""
    fees: dict[str, Decimal]
    pnl: dict[str, Decimal]
    positions: list[PositionReport]
    tick_to_order_us: LatencyReport
    events_per_s: float
    """Per second of wall-clock time."""
    journal: JournalReport
    books: list[BookCheck]
    reloads: int
    quarantined: list[str]
    skipped_instances: dict[str, str]
    """Instances that could not be started, and why."""
    models: dict[str, dict[str, int]]
    """Per instance and model: how often it was used and skipped."""
    anomalies: dict[str, int]
    blocks: dict[str, BlockReport]
    """Per instance: how often its code held the event loop for longer than allowed."""
    workers: dict[str, WorkerReport] = {}
    """Of each instance whose strategy runs in another process, and, as INSTANCE/MODEL, of each model that does."""


def make_report(
    engine: Engine, *, stopped: str, ran_s: float, wall_s: float, skipped: dict[str, str], reloads: int = 0
) -> RunReport:
    """Collect the result of a run that is over; reads the whole journal once for its digest."""
    positions = _positions(engine)
    pnl: dict[str, Decimal] = {}
    fees: dict[str, Decimal] = {}
    for row in positions:
        if row.pnl is not None:
            pnl[row.currency] = pnl.get(row.currency, Decimal(0)) + row.pnl
        for currency, fee in row.fees.items():
            fees[currency] = fees.get(currency, Decimal(0)) + fee
    latency = engine.tick_to_order
    journal = engine.journal
    return RunReport(
        node=engine.state.node,
        epoch=engine.state.epoch,
        stopped=stopped,
        halted=engine.halted or engine.must_stop,
        ran_s=ran_s,
        events=engine.events,
        orders=engine.oms.outbox.orders_sent,
        amends=engine.oms.outbox.amends_sent,
        cancels=engine.oms.outbox.cancels_sent,
        fills=engine.fills,
        rejects=engine.rejects,
        refused=engine.oms.outbox.refused,
        open_orders=len(engine.live_orders),
        fees=fees,
        pnl=pnl,
        positions=positions,
        tick_to_order_us=LatencyReport(
            round(latency.quantile_us(0.5), 2),
            round(latency.quantile_us(0.99), 2),
            round(latency.max_ns / 1e3, 2),
        ),
        events_per_s=round(engine.events / wall_s, 1) if wall_s > 0 else 0.0,
        journal=JournalReport(
            journal.last_lsn, journal.bytes_written, journal_digest(journal.folder, journal.first_lsn)
        ),
        books=[
            BookCheck(feed.account, feed.symbol, feed.checks, feed.matches)
            for account in engine.feeds.values()
            for feed in account.symbols.values()
        ],
        reloads=reloads,
        quarantined=[
            instance.instance
            for instance in engine.roster.instances.values()
            if instance.state is InstanceState.QUARANTINED
        ],
        skipped_instances=skipped,
        models={
            instance.instance: {
                f"{stage.name}.{what}": count
                for stage in instance.models
                for what, count in (("used", stage.used), ("skipped", stage.skipped))
            }
            for instance in engine.roster.instances.values()
            if instance.models
        },
        anomalies=dict(engine.state.anomalies),
        blocks={
            name: BlockReport(one.count, round(one.longest_ns / 1e6, 1))
            for name, one in engine.blocks.by_instance.items()
        },
        workers=_workers(engine),
    )


def _workers(engine: Engine) -> dict[str, WorkerReport]:
    reports = {}
    for name, instance in engine.roster.instances.items():
        if isinstance(instance.strategy, RemoteStrategy):
            reports[name] = _worker(instance.strategy.status())
        for stage in instance.models:
            if isinstance(stage.model, RemoteModel):
                reports[f"{name}/{stage.name}"] = _worker(stage.model.status())
    return reports


def _worker(now: RemoteStatus) -> WorkerReport:
    return WorkerReport(
        now.restarts, now.conflated, now.handled_p50_us, now.handled_p99_us, now.refused, now.strangers
    )


def _positions(engine: Engine) -> list[PositionReport]:
    rows = []
    for name, by_symbol in engine.state.holdings.items():
        record = engine.state.instances.get(name)
        if record is None:
            continue
        for symbol, holding in by_symbol.items():
            instrument = engine.state.instruments[record.account][symbol]
            mark = engine.upkeep.mark(record.account, symbol)
            rows.append(
                PositionReport(
                    name,
                    symbol,
                    holding.qty,
                    engine.state.position(name, symbol).average_price,
                    mark,
                    holding.realised,
                    dict(holding.fees),
                    None if mark is None else total(holding, instrument, mark),
                    instrument.settle,
                )
            )
    return rows


def encode_report(report: RunReport) -> bytes:
    """Return the report as JSON, decimals as strings."""
    return msgspec.json.encode(report)
