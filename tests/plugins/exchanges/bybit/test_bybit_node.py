"""A real node (`tandem run`) at a venue that speaks Bybit and misbehaves: afterwards both know the same."""

import asyncio
import functools
import os
import signal
import sys
import textwrap
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, ParamSpec

import pytest
import uvloop
from bybit_venue import DEMO, BybitVenue, bybit_venue
from exchange_tools import DEADLINE_S, REPO, eventually

from host.config.secret_files import SECRETS_FOLDER, SecretFiles
from host.core.state import TradingState
from host.journal import read
from venue.protocols.bybit.names import Product
from venue.protocols.bybit.order_rows import execution_id
from venue.protocols.faults import FaultKind

ORDERS = int(os.environ.get("TANDEM_ORDERS", "12"))
"""Requests under each fault. With TANDEM_ORDERS set, each fault also has a node of its own; 1,000 is the proof."""
P = ParamSpec("P")
AFTERWARDS = 4
TOGETHER = 5
"""Faults that one node meets, one after the other."""
SYMBOLS = {"BTC-USDT": "0.01", "BTC-USDT-PERP": "0.01", "BTC-USD-PERP": "100"}
WALLET = "demo/unified"
ROUNDING = Decimal("1E-8")

STRATEGY = """
    from decimal import Decimal
    from random import Random

    from host.api import BookTop, OrderRefused, Params, Quote, Side, Strategy, TimeInForce


    class RestlessParams(Params, frozen=True):
        qty: Decimal = Decimal(1)
        seed: int = 1


    class Restless(Strategy[RestlessParams]):
        \"\"\"Moves its quotes with every book, sometimes to where they trade, and takes now and then.\"\"\"

        def on_start(self) -> None:
            self._random = Random(self.params.seed)

        def on_book(self, book: BookTop) -> None:
            away_bps = self._random.choice((0.02, 2.0, 6.0))
            self.quote(book.symbol, Quote.around(book.mid, away_bps, self.params.qty))
            if self._random.random() > 0.1:
                return
            try:
                if self._random.random() < 0.5:
                    self.buy_limit(book.symbol, Decimal(str(book.ask)), self.params.qty, time_in_force=TimeInForce.IOC)
                else:
                    self.sell_limit(book.symbol, Decimal(str(book.bid)), self.params.qty, time_in_force=TimeInForce.IOC)
            except OrderRefused:
                pass  # as while orders are in doubt: it has no say then
"""


def story(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test that is a coroutine; it has as long as pytest gives it, for a node has much to do."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        uvloop.run(test(*args, **kwargs))

    return run


def configure(folder: Path, venue: BybitVenue) -> None:
    """Write a node's configuration and its strategy."""
    (folder / "mine").mkdir()
    (folder / "mine" / "restless.py").write_text(textwrap.dedent(STRATEGY).lstrip("\n"))
    secrets = SecretFiles(folder / "data" / SECRETS_FOLDER)
    secrets.set("bybit-key", DEMO.api_key)
    secrets.set("bybit-secret", DEMO.secret)
    instances = "".join(
        f'[[instance]]\nname = "i{number}"\nplugin = "restless"\naccount = "main"\n'
        f'symbols = ["{symbol}"]\nparams = {{ qty = "{qty}", seed = {number} }}\n'
        for number, (symbol, qty) in enumerate(SYMBOLS.items())
    )
    (folder / "tandem.toml").write_text(
        f"""
[node]
name = "y"
data_dir = "data"
plugin_dirs = ["{REPO}/plugins", "mine"]
order_window_ms = 400
[control]
listen = []
[store]
url = ""
[[account]]
name = "main"
exchange = "bybit"
[account.params]
url = "{venue.rest_url}"
api_key = "secret:bybit-key"
api_secret = "secret:bybit-secret"
answer_timeout_ms = 200
ping_after_s = 0.5
lost_after_s = 3
{instances}"""
    )


@asynccontextmanager
async def node_at(venue: BybitVenue, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a node until the block ends; then stop it in order."""
    configure(folder, venue)
    code = "import sys; from host.cli import main; sys.exit(main())"
    with (folder / "node.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, "run", "-c", "tandem.toml", cwd=folder, stdout=log, stderr=log
        )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), DEADLINE_S) == 0, (folder / "node.log").read_text()[
            -3000:
        ]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def requests(venue: BybitVenue) -> int:
    """Return how many order requests the venue has seen."""
    return sum(line.kind in {"place", "amend", "cancel"} for line in venue.lines())


def filled(venue: BybitVenue) -> set[str]:
    """Return the symbols in which the account has traded."""
    if not venue.exchange.has_account(WALLET):
        return set()
    return {fill.symbol for fill in venue.exchange.records(WALLET).fills_since(0)}


async def traded_on(venue: BybitVenue, folder: Path, count: int, when: str = "") -> None:
    """Wait for so many more order requests, and for an order that was accepted meanwhile."""
    seen = requests(venue)
    try:
        for number in range(seen, seen + count):
            await eventually(lambda: requests(venue) > number)  # noqa: B023 - it is awaited here
        last = venue.lines()[-1].number
        await eventually(
            lambda: any(line.number > last and line.verdict == "accepted" for line in venue.lines("place"))
        )
    except TimeoutError:
        log, lines = (folder / "node.log").read_text()[-3_000:], venue.lines()[-10:]
        raise AssertionError(f"no more trading, {when}:\n{log}\n{lines}") from None


def folded(folder: Path) -> tuple[TradingState, set[tuple[str, str]]]:
    """Fold the journal: its last state, and every trade in it by symbol and id."""
    state, trades = TradingState(), set()
    for record in read(folder / "data" / "journal"):
        outcome = state.apply(record.lsn, record.ts_ns, record.entry)
        if outcome is not None and outcome.fill is not None:
            key = (outcome.fill.symbol, outcome.fill.trade_id)
            assert key not in trades, f"trade {key} was booked twice"
            trades.add(key)
    return state, trades


def assert_agreed(venue: BybitVenue, folder: Path, *, may_repeat: bool = False) -> None:
    """Hold a stopped node to its venue: orders, fills, positions and balances."""
    state, trades = folded(folder)
    records = venue.exchange.records(WALLET)
    assert [record.order.client_id for record in records.open()] == []
    assert state.orders == {}
    products = {symbol: Product(venue.exchange.instrument(symbol).kind.value) for symbol in SYMBOLS}
    theirs = {
        (fill.symbol, execution_id(products[fill.symbol], fill.trade_id)) for fill in records.fills_since(0)
    }
    assert trades == theirs
    account = venue.exchange.account(WALLET)
    for symbol in SYMBOLS:
        if symbol != "BTC-USDT":
            assert state.account_qty("main", symbol) == account.position(symbol)
    for currency, total in account.balances.items():
        assert abs(state.balances["main"][currency] - total) <= ROUNDING * len(trades), currency
    placed = Counter(line.client_id for line in venue.lines("place"))
    if not may_repeat:
        assert set(placed.values()) == {1}, "an order was sent twice"
    accepted = Counter(line.client_id for line in venue.lines("place") if line.verdict == "accepted")
    assert set(accepted.values()) == {1}, "an order was accepted twice"


@story
async def test_a_node_quotes_amends_cancels_and_fills_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with bybit_venue() as venue:
        async with node_at(venue, tmp_path):
            await traded_on(venue, tmp_path, ORDERS)
            for symbol in SYMBOLS:
                await eventually(lambda: symbol in filled(venue), f"a fill of {symbol}")  # noqa: B023 - awaited here
        kinds = {(line.kind, line.verdict) for line in venue.lines()}
        assert kinds >= {("place", "accepted"), ("amend", "accepted"), ("cancel", "accepted")}
        assert_agreed(venue, tmp_path)


Misbehave = Callable[[BybitVenue], Any]


def fault(kind: FaultKind, **fields: Any) -> Misbehave:
    return lambda venue: venue.fault(kind, **fields)


FAULTS: dict[str, Misbehave] = {
    "late requests": fault(
        FaultKind.LATENCY, request="place", probability=0.3, delay_ms=250.0, jitter_ms=400.0
    ),
    "late answers": fault(FaultKind.ANSWER_LATENCY, probability=0.3, delay_ms=100.0, jitter_ms=300.0),
    "lost answers to orders": fault(FaultKind.DROP, request="place", probability=0.2),
    "lost answers to amends": fault(FaultKind.DROP, request="amend", probability=0.3),
    "lost answers to cancels": fault(FaultKind.DROP, request="cancel", probability=0.3),
    "lost requests": fault(FaultKind.DROP_REQUEST, transport="ws", request="place", probability=0.2),
    "lost private events": fault(FaultKind.DROP, request="private", probability=0.1),
    "doubled private events": fault(FaultKind.DUPLICATE, request="private", probability=0.5),
    "private events out of order": fault(
        FaultKind.REORDER, request="private", probability=0.2, delay_ms=30.0
    ),
    "broken connections": fault(FaultKind.DISCONNECT, request="place", count=3),
    "broken before it was looked at": fault(
        FaultKind.DISCONNECT, request="amend", count=3, is_executed=False
    ),
    "5xx with the order accepted": fault(FaultKind.SERVER_ERROR, request="place", probability=0.2),
    "5xx without effect": fault(FaultKind.SERVER_ERROR, request="place", probability=0.2, is_executed=False),
    "too many requests": fault(FaultKind.RATE_LIMIT, request="amend", count=2),
    "missing changes of the book": fault(FaultKind.SEQUENCE_GAP, probability=0.1),
    "maintenance": fault(FaultKind.MAINTENANCE, request="place", count=5),
    "a clock that is off": fault(FaultKind.CLOCK_SKEW, skew_ms=-3_000.0),
}


async def misbehave(venue: BybitVenue, folder: Path, name: str) -> None:
    """Trade under one fault, then without it."""
    FAULTS[name](venue)
    await traded_on(venue, folder, ORDERS, f"with {name}")
    venue.server.faults.clear()
    await traded_on(venue, folder, AFTERWARDS, f"after {name}")


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, len(FAULTS), TOGETHER))
@story
async def test_whatever_goes_wrong_one_after_the_other_node_and_venue_agree_afterwards(
    first: int, tmp_path: Path
) -> None:
    async with bybit_venue() as venue:
        async with node_at(venue, tmp_path):
            await traded_on(venue, tmp_path, AFTERWARDS)
            for name in list(FAULTS)[first : first + TOGETHER]:
                await misbehave(venue, tmp_path, name)
        assert_agreed(venue, tmp_path)


@pytest.mark.skipif(
    "TANDEM_ORDERS" not in os.environ, reason="set TANDEM_ORDERS, such as 1000, for a node per fault"
)
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", FAULTS)
@story
async def test_whatever_goes_wrong_node_and_venue_agree_afterwards(name: str, tmp_path: Path) -> None:
    async with bybit_venue() as venue:
        async with node_at(venue, tmp_path):
            await misbehave(venue, tmp_path, name)
        assert_agreed(venue, tmp_path)


@story
async def test_every_line_cut_at_once_again_and_again(tmp_path: Path) -> None:
    async with bybit_venue() as venue, node_at(venue, tmp_path):
        for _ in range(3):
            await traded_on(venue, tmp_path, AFTERWARDS)
            venue.cut()
        await traded_on(venue, tmp_path, AFTERWARDS)
    assert_agreed(venue, tmp_path)


@story
async def test_no_order_is_accepted_after_its_window(tmp_path: Path) -> None:
    async with bybit_venue() as venue:
        async with node_at(venue, tmp_path):
            await traded_on(venue, tmp_path, AFTERWARDS)
            venue.fault(FaultKind.LATENCY, request="place", delay_ms=900.0, count=5)
            await eventually(
                lambda: sum("latency" in line.faults for line in venue.lines("place")) == 5, "late ones"
            )
            await traded_on(venue, tmp_path, AFTERWARDS)
        late = [line for line in venue.lines("place") if "latency" in line.faults]
        assert {line.verdict for line in late} == {"refused"}
        assert all(line.valid_ns is not None and line.valid_ns <= 400_000_000 for line in late)
        assert_agreed(venue, tmp_path)
