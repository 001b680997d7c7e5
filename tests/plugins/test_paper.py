"""The paper adapters, driven as the host drives them."""

import asyncio
import importlib.util
import os
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from host.api import (
    AccountSnapshot,
    BookTop,
    Command,
    ConnectionChanged,
    Depth,
    ExchangeAdapter,
    ExchangeError,
    Instrument,
    MarketEvent,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderSnapshot,
    OrderStatus,
    OrderType,
    PlaceOrder,
    QueryAccount,
    QueryOrder,
    Report,
    RequestUnanswered,
    Side,
    TimeInForce,
)
from tests.faults.relay import Relay, Streams, running_relay
from venue.server import serve

REPO = Path(__file__).parents[2]
MARKETDATA = Path(os.environ.get("TANDEM_MARKETDATA", REPO.parent / "shared" / "marketdata"))
START_NS = 1_700_000_000_000_000_000
FAR_NS = 1 << 62
DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def paper() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("paper_under_test", REPO / "plugins/exchanges/paper.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


class Host:
    """The host's side: a clock that the test moves, and everything that was handed over."""

    account = "main"

    def __init__(self, data_dir: str = "", start_ns: int = START_NS) -> None:
        self.data_dir = data_dir
        self.shared: dict[str, Any] = {}
        self.time_ns = start_ns
        self.events: list[MarketEvent] = []
        self.reports: list[Report] = []
        self.on_market: Callable[[MarketEvent], None] = lambda event: None
        self.changed = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def now_ns(self) -> int:
        return self.time_ns

    def market(self, event: MarketEvent) -> None:
        self.events.append(event)
        self.on_market(event)
        self.changed.set()

    def report(self, report: Report) -> None:
        self.reports.append(report)
        self.changed.set()

    def listed(self, instruments: Sequence[Instrument]) -> None:
        pass

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        self.tasks.append(task)
        return task

    async def wait_for(self, *types: type[Report]) -> Report:
        """Return the first report of one of `types` that arrives from now on."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                self.changed.clear()
                heard = len(self.reports)
                await self.changed.wait()
                for report in self.reports[heard:]:
                    if isinstance(report, types):
                        return report


def started(paper: ModuleType, host: Host, symbol: str = "BTC-USDT", **params: Any) -> Any:
    adapter = paper.Paper(paper.PaperParams(**params))
    adapter.ctx = host
    asyncio.run(_start(adapter, symbol))
    return adapter


async def _start(adapter: ExchangeAdapter[Any], symbol: str) -> None:
    await adapter.connect()
    await adapter.subscribe([symbol])


def drive(adapter: Any, host: Host, steps: int) -> None:
    for _ in range(steps):
        due_ns = adapter.next_time_ns()
        if due_ns is None:
            return
        assert due_ns >= host.time_ns or not host.events
        host.time_ns = due_ns
        adapter.step(due_ns)


def order(client_id: str, side: Side, price: str | None, qty: str = "0.01") -> PlaceOrder:
    kind = OrderType.MARKET if price is None else OrderType.LIMIT
    tif = TimeInForce.IOC if price is None else TimeInForce.GTC
    limit = None if price is None else Decimal(price)
    return PlaceOrder(client_id, "BTC-USDT", side, kind, tif, limit, Decimal(qty), False, False)


def answers(host: Host) -> list[Report]:
    return [report for report in host.reports if not isinstance(report, ConnectionChanged)]


@pytest.mark.parametrize("market", ["synthetic", "calm"])
def test_order_sent_from_within_an_event_travels_and_fills(paper: ModuleType, market: str) -> None:
    host = Host()
    adapter = started(paper, host, market=market, latency_ms=1.0, jitter_ms=0.0)
    sent_ns: list[int] = []

    def take_once(event: MarketEvent) -> None:
        if isinstance(event, BookTop) and not sent_ns:
            sent_ns.append(host.time_ns)
            adapter.send(order("t", Side.BUY, None), FAR_NS)

    host.on_market = take_once
    drive(adapter, host, 500)

    accepted, fill, *_ = answers(host)
    assert isinstance(accepted, OrderAccepted) and accepted.ts_ns == sent_ns[0] + 1_000_000
    assert isinstance(fill, OrderFilled)
    assert [type(report) for report in host.reports[:3]] == [ConnectionChanged] * 3


def test_same_seed_gives_the_same_run(paper: ModuleType) -> None:
    def run(seed: int) -> tuple[list[MarketEvent], list[Report]]:
        host = Host()
        adapter = started(paper, host, seed=seed)
        numbers = iter(range(1000))

        def quote(event: MarketEvent) -> None:
            if isinstance(event, BookTop) and len(host.events) % 5 == 0:
                price = Decimal(str(event.bid))
                adapter.send(order(f"o{next(numbers)}", Side.BUY, str(price)), FAR_NS)

        host.on_market = quote
        drive(adapter, host, 600)
        return host.events, host.reports

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_silence_is_reported_after_the_timeout(paper: ModuleType) -> None:
    host = Host()
    adapter = started(
        paper, host, faults=paper.Faults(unanswered=1.0), answer_timeout_ms=50.0, latency_ms=1.0
    )
    sent_ns = host.time_ns
    adapter.send(order("x", Side.BUY, "1"), FAR_NS)
    drive(adapter, host, 500)

    [unanswered] = answers(host)
    assert isinstance(unanswered, RequestUnanswered) and unanswered.client_id == "x"
    assert unanswered.ts_ns == sent_ns + 50_000_000


def test_resync_hands_over_the_whole_book(paper: ModuleType) -> None:
    host = Host()
    adapter = started(paper, host)
    drive(adapter, host, 50)
    host.events.clear()

    adapter.resync("BTC-USDT")
    adapter.step(host.time_ns)

    assert isinstance(host.events[0], Depth) and host.events[0].is_snapshot


def test_account_is_as_it_was_after_the_process_was_killed(paper: ModuleType, tmp_path: Path) -> None:
    def ask(adapter: Any, host: Host, command: Command) -> Report:
        adapter.send(command, FAR_NS)
        before = len(host.reports)
        while len(host.reports) == before or isinstance(host.reports[-1], ConnectionChanged):
            drive(adapter, host, 1)
        return host.reports[-1]

    host = Host(str(tmp_path))
    adapter = started(paper, host, market="calm")
    drive(adapter, host, 20)
    ask(adapter, host, order("rest", Side.BUY, "60000"))
    adapter.send(order("take", Side.BUY, None), FAR_NS)
    drive(adapter, host, 20)
    before = ask(adapter, host, QueryAccount())
    # No close: the object is left as a killed process leaves it.

    host = Host(str(tmp_path), start_ns=host.time_ns + 1)
    adapter = started(paper, host, market="calm")
    after = ask(adapter, host, QueryAccount())
    rested = ask(adapter, host, QueryOrder("rest", "BTC-USDT"))
    refused = ask(adapter, host, order("take", Side.BUY, None))

    assert isinstance(before, AccountSnapshot) and isinstance(after, AccountSnapshot)
    assert [(b.currency, b.total) for b in after.balances] == [(b.currency, b.total) for b in before.balances]
    assert any(balance.total == Decimal("2.01") for balance in after.balances)
    assert isinstance(rested, OrderSnapshot) and rested.status is OrderStatus.EXPIRED
    assert isinstance(refused, OrderRejected)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"symbols": ("NO-SUCH",)}, "symbols must be among .*, was NO-SUCH"),
        ({"market": "/no/such/folder"}, "market = '/no/such/folder'"),
    ],
)
def test_wrong_setting_is_named(paper: ModuleType, params: dict[str, Any], text: str) -> None:
    with pytest.raises(ExchangeError, match=text):
        started(paper, Host(), **params)


def test_recording_plays_to_its_own_clock(paper: ModuleType) -> None:
    folder = MARKETDATA / "binance_spot_BTCUSDT_20240808-09"
    if not folder.exists():
        pytest.skip(f"no recordings at {MARKETDATA}; set TANDEM_MARKETDATA")
    host = Host(start_ns=0)
    adapter = started(paper, host, market=str(folder), maker_fee=Decimal("0.001"))
    sent: list[int] = []

    def take_once(event: MarketEvent) -> None:
        if isinstance(event, BookTop) and not sent:
            sent.append(host.time_ns)
            adapter.send(order("t", Side.BUY, None, "0.0001"), FAR_NS)

    host.on_market = take_once
    drive(adapter, host, 2000)

    assert [type(report) for report in answers(host)] == [OrderAccepted, OrderFilled]
    assert 1_700_000_000 < host.time_ns / 1e9 < 1_800_000_000


def test_the_switch_of_the_venue_in_this_process_cancels_what_its_tag_covers(paper: ModuleType) -> None:
    host = Host()
    adapter = started(paper, host, market="calm")
    adapter.send(order("tdt5i1n1", Side.BUY, "50000"), FAR_NS)
    adapter.send(order("tdt6i1n1", Side.BUY, "50000"), FAR_NS)
    asyncio.run(adapter.arm_dead_man(1_000, tag="tdt5i"))
    until_ns = host.time_ns + 2_000_000_000
    while host.time_ns < until_ns:
        drive(adapter, host, 1)
    assert [r.client_id for r in answers(host) if isinstance(r, OrderCancelled)] == ["tdt5i1n1"]


class LiveHost(Host):
    """The host on a real clock."""

    def now_ns(self) -> int:
        return time.time_ns()


@pytest.mark.parametrize("scheme", ["unix", "tcp"])
def test_remote_adapter_trades_and_comes_back_after_the_venue_was_away(
    paper: ModuleType, tmp_path: Path, scheme: str
) -> None:
    async def story() -> None:
        listen = f"unix:{tmp_path / 's'}" if scheme == "unix" else f"tcp:127.0.0.1:{_free_port()}"
        log = tmp_path / "log"
        server = await _server(listen, log)
        host = LiveHost()
        adapter = paper.PaperRemote(paper.PaperRemoteParams(url=listen, connect_timeout_s=5.0))
        adapter.ctx = host
        instruments = await adapter.connect()
        await adapter.subscribe(["BTC-USDT"])
        assert "BTC-USDT" in [instrument.symbol for instrument in instruments]

        adapter.send(order("x", Side.BUY, "50000"), FAR_NS)
        assert isinstance(await host.wait_for(OrderAccepted), OrderAccepted)
        await _stop(server)
        while not _is_down(host):
            await host.wait_for(ConnectionChanged)
        with pytest.raises(ExchangeError, match="nothing was sent"):
            adapter.send(order("y", Side.BUY, "50000"), FAR_NS)

        server = await _server(listen, log)
        while _is_down(host):
            await host.wait_for(ConnectionChanged)
        adapter.send(QueryOrder("x", "BTC-USDT"), FAR_NS)
        known = await host.wait_for(OrderSnapshot)
        assert isinstance(known, OrderSnapshot) and known.status is OrderStatus.EXPIRED
        while not any(isinstance(event, BookTop) for event in host.events):
            host.changed.clear()
            await host.changed.wait()
        await adapter.close()
        count = len(host.events)
        await asyncio.gather(*host.tasks)
        assert len(host.events) == count
        await _stop(server)

    asyncio.run(asyncio.wait_for(story(), DEADLINE_S))


def test_remote_request_without_an_answer_is_reported(paper: ModuleType, tmp_path: Path) -> None:
    async def story() -> Report:
        server = await _server(f"unix:{tmp_path / 's'}", tmp_path / "log")
        host = LiveHost()
        adapter = paper.PaperRemote(paper.PaperRemoteParams(url=f"unix:{tmp_path / 's'}"))
        adapter.ctx = host
        await _start(adapter, "BTC-USDT")
        adapter.send(order("x", Side.BUY, "50000"), FAR_NS)
        await _stop(server)
        report = await host.wait_for(RequestUnanswered, OrderAccepted, OrderCancelled)
        await adapter.close()
        await asyncio.gather(*(task for task in host.tasks if task.cancel()), return_exceptions=True)
        return report

    report = asyncio.run(asyncio.wait_for(story(), DEADLINE_S))
    assert isinstance(report, RequestUnanswered) and report.client_id == "x"


def test_a_connection_that_says_nothing_any_more_is_lost_and_comes_back(
    paper: ModuleType, tmp_path: Path
) -> None:
    async def story(relay: Relay) -> None:
        server = await _server(f"unix:{tmp_path / 's'}", tmp_path / "log")
        host = LiveHost()
        url = f"tcp:127.0.0.1:{relay.port}"
        adapter = paper.PaperRemote(paper.PaperRemoteParams(url=url, silence_s=0.4, connect_timeout_s=0.4))
        adapter.ctx = host
        await _start(adapter, "BTC-USDT")
        await asyncio.to_thread(relay.silence)
        while not _is_down(host):
            await host.wait_for(ConnectionChanged)
        told = [r for r in host.reports if isinstance(r, ConnectionChanged) and not r.is_up]
        assert {change.text for change in told} == {"the venue said nothing for 0.4 s"}
        await asyncio.to_thread(relay.resume)
        while _is_down(host):
            await host.wait_for(ConnectionChanged)
        await adapter.close()
        await asyncio.gather(*(task for task in host.tasks if task.cancel()), return_exceptions=True)
        await _stop(server)

    async def dial() -> Streams:
        return await asyncio.open_unix_connection(tmp_path / "s")

    with running_relay(dial) as relay:
        asyncio.run(asyncio.wait_for(story(relay), DEADLINE_S))


def test_a_connection_on_which_only_pings_are_answered_stays(paper: ModuleType, tmp_path: Path) -> None:
    async def story() -> None:
        server = await _server(f"unix:{tmp_path / 's'}", tmp_path / "log")
        host = LiveHost()
        adapter = paper.PaperRemote(paper.PaperRemoteParams(url=f"unix:{tmp_path / 's'}", silence_s=0.1))
        adapter.ctx = host
        await adapter.connect()
        await adapter.subscribe([])  # no market data
        pong, seen = asyncio.Event(), adapter._on_message
        adapter._on_message = lambda message: (seen(message), pong.set())
        for _ in range(20):
            await pong.wait()
            pong.clear()
        assert not _is_down(host)
        await adapter.close()
        await asyncio.gather(*(task for task in host.tasks if task.cancel()), return_exceptions=True)
        await _stop(server)

    asyncio.run(asyncio.wait_for(story(), DEADLINE_S))


def test_the_switch_of_a_venue_elsewhere_cancels_what_a_vanished_client_left(
    paper: ModuleType, tmp_path: Path
) -> None:
    listen = f"unix:{tmp_path / 's'}"

    def adapter_of(host: LiveHost) -> Any:
        adapter = paper.PaperRemote(paper.PaperRemoteParams(url=listen))
        adapter.ctx = host
        return adapter

    async def story() -> None:
        server = await _server(listen, tmp_path / "log")
        first, second = LiveHost(), LiveHost()
        vanishing, staying = adapter_of(first), adapter_of(second)
        await _start(vanishing, "BTC-USDT")
        await _start(staying, "BTC-USDT")
        vanishing.send(order("tdt5i1n1", Side.BUY, "50000"), FAR_NS)
        vanishing.send(order("tdt6i1n1", Side.BUY, "50000"), FAR_NS)
        await second.wait_for(OrderAccepted)
        await vanishing.arm_dead_man(60_000, tag="tdt6i")  # far longer than this test
        await vanishing.arm_dead_man(100, tag="tdt5i")
        await vanishing.close()
        cancelled = await second.wait_for(OrderCancelled)
        assert isinstance(cancelled, OrderCancelled) and cancelled.client_id == "tdt5i1n1"
        assert cancelled.reason == "dead man's switch"
        await staying.arm_dead_man(0, tag="tdt6i")

        await _stop(server)
        with pytest.raises(ExchangeError):
            await staying.arm_dead_man(1_000)
        await staying.close()
        tasks = [*first.tasks, *second.tasks]
        await asyncio.gather(*(task for task in tasks if task.cancel()), return_exceptions=True)

    asyncio.run(asyncio.wait_for(story(), DEADLINE_S))


def test_missing_venue_is_an_error_that_says_how_to_start_one(paper: ModuleType, tmp_path: Path) -> None:
    adapter = paper.PaperRemote(
        paper.PaperRemoteParams(url=f"unix:{tmp_path / 'nobody'}", connect_timeout_s=0.1)
    )
    adapter.ctx = LiveHost()
    with pytest.raises(ExchangeError, match="tandem venue --listen"):
        asyncio.run(adapter.connect())


def _is_down(host: Host) -> bool:
    changes = [report for report in host.reports if isinstance(report, ConnectionChanged)]
    return not changes[-1].is_up


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _server(listen: str, log: Path) -> "asyncio.Task[None]":
    is_up = asyncio.Event()
    task = asyncio.create_task(serve(listen, log=log, started=is_up))
    waiter = asyncio.create_task(is_up.wait())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    return task


async def _stop(server: "asyncio.Task[None]") -> None:
    server.cancel()
    await asyncio.gather(server, return_exceptions=True)
