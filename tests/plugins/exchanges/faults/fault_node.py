"""A real node (`tandem run`) that trades restlessly at a venue, and what both must agree on afterwards."""

import asyncio
import os
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

from exchange_tools import REPO
from fault_venues import DEMO, FaultVenue, Served

from host.api import OrderRejected
from host.config.secret_files import SECRETS_FOLDER, SecretFiles
from host.core.accounting import signed_value
from host.core.entries import Reported
from host.core.state import TradingState
from host.journal import read
from venue.accounts import Account
from venue.protocols.request_log import RequestLine

__all__ = ["REQUESTS", "FaultNode", "fault_node"]

REQUESTS = frozenset({"place", "amend", "cancel"})
STALLED_S = 60.0
"""After so long without what is waited for, a story has failed. A machine may be slow."""
ROUNDING = Decimal("1E-8")
"""A venue's balances have eight decimals, and so may each trade be off by that."""
ORDER_WINDOW_MS = 500
MAX_DATA_AGE_MS = 2_000
"""Calm markets move several times a second."""

Traded = tuple[str, str, str, str]
"""A trade: account, symbol, its id there, the order's client id."""

STRATEGY = '''
    from contextlib import suppress
    from decimal import Decimal
    from random import Random

    from host.api import BookTop, OrderRefused, Params, Quote, Side, Strategy, TimeInForce


    class RestlessParams(Params, frozen=True):
        qty: Decimal = Decimal(1)
        seed: int = 1
        takes: bool = True
        """Whether it also crosses the spread, and quotes where it is likely to trade."""


    class Restless(Strategy[RestlessParams]):
        """Moves, adds and pulls quotes at random with every book, and takes now and then."""

        def on_start(self) -> None:
            self._random = Random(self.params.seed)

        def on_book(self, book: BookTop) -> None:
            draw, qty = self._random, self.params.qty
            takes = self.params.takes
            if draw.random() < 0.3:
                self.quote(book.symbol)
            else:
                away_bps = draw.choice((0.02, 2.0, 6.0) if takes else (60.0, 70.0, 80.0))
                levels = draw.choice((1, 1, 2))
                self.quote(
                    book.symbol,
                    *(Quote.around(book.mid, away_bps + level, qty * draw.choice((1, 2))) for level in range(levels)),
                )
            if takes and draw.random() < 0.2:
                with suppress(OrderRefused):  # as while orders are in doubt: it has no say then
                    if draw.random() < 0.5:
                        self.buy_limit(book.symbol, qty, Decimal(str(book.ask)), time_in_force=TimeInForce.IOC)
                    else:
                        self.sell_limit(book.symbol, qty, Decimal(str(book.bid)), time_in_force=TimeInForce.IOC)
'''


def request_of(line: RequestLine) -> str:
    """Return what a line of the venue's log is about; a batch has one for each of its orders."""
    if line.kind != "batch":
        return str(line.kind)
    return next((kind for kind in ("cancel", "amend") if kind in line.method), "place")


def client_ids_of(line: RequestLine) -> list[str]:
    """Return the orders that a line is about: a batch that was lost has one line for all of them."""
    return [line.client_id] if line.client_id else list(_client_ids_in(line.asked))


def _client_ids_in(asked: object) -> Iterator[str]:
    if isinstance(asked, dict):
        for name, value in asked.items():
            if name in ("clOrdId", "orderLinkId"):
                yield str(value)
            else:
                yield from _client_ids_in(value)
    elif isinstance(asked, list | tuple):
        for value in asked:
            yield from _client_ids_in(value)


class FaultNode:
    """The node, its venue, and what was seen of both."""

    def __init__(self, venue: FaultVenue, served: Served, folder: Path) -> None:
        self.venue = venue
        self.served = served
        self.folder = folder
        self.requests = 0
        """Order requests that the venue's log holds, as far as it was read."""
        self.process: asyncio.subprocess.Process | None = None
        self.accepted = 0
        """Orders that the venue has accepted, as far as the log was read."""
        self._read = 0

    def configure(self, *, takes: bool) -> None:
        """Write the node's configuration, its secrets and its strategy."""
        (self.folder / "mine").mkdir()
        (self.folder / "mine" / "restless.py").write_text(textwrap.dedent(STRATEGY).lstrip("\n"))
        secrets = SecretFiles(self.folder / "data" / SECRETS_FOLDER)
        for name, value in (("key", DEMO.api_key), ("secret", DEMO.secret), ("passphrase", DEMO.passphrase)):
            secrets.set(name, value)
        url = f"http://{self.served.server.addresses[self.venue.protocol]}"
        instances = [
            f'[[instance]]\nname = "i{number}"\nplugin = "restless"\naccount = "{account}"\n'
            f'symbols = ["{symbol}"]\nparams = {{ qty = "{self.venue.accounts[account].qty[symbol]}", '
            f"seed = {number}, takes = {str(takes).lower()} }}\n"
            for number, (symbol, account) in enumerate(self.venue.symbols.items())
        ]
        accounts = [self.venue.account_section(account, url) for account in self.venue.accounts]
        (self.folder / "tandem.toml").write_text(
            f"""
[node]
name = "f"
data_dir = "data"
plugin_dirs = ["{REPO}/plugins", "mine"]
order_window_ms = {ORDER_WINDOW_MS}
[control]
listen = []
[store]
url = ""
[risk.node]
max_data_age_ms = {MAX_DATA_AGE_MS}
{"".join(accounts)}
{"".join(instances)}"""
        )

    def look(self) -> None:
        """Read on in the venue's log."""
        lines = self.served.server.requests.lines
        while self._read < len(lines):
            line = lines[self._read]
            self._read += 1
            kind = request_of(line)
            if kind in REQUESTS:
                self.requests += 1
                self.accepted += kind == "place" and line.verdict == "accepted"

    def log(self) -> str:
        """Return the end of what the node has said."""
        return (self.folder / "node.log").read_text()[-3_000:]

    async def until(self, is_so: Callable[[], object], what: str) -> None:
        """Wait for something; as long as the venue still hears of orders, it may take its time."""
        patience = time.monotonic() + STALLED_S
        seen = self.requests
        while not is_so():
            await asyncio.sleep(0.005)
            self.look()
            if self.requests > seen:
                seen, patience = self.requests, time.monotonic() + STALLED_S
            has_ended = self.process is not None and self.process.returncode is not None
            if has_ended or time.monotonic() > patience:
                lines = "\n".join(str(line) for line in list(self.served.server.requests.lines)[-10:])
                raise AssertionError(f"no {what}:\n{self.log()}\n{lines}")

    async def trade(self, count: int, when: str = "") -> None:
        """Wait for so many more order requests, and then for an order that is accepted."""
        self.look()
        enough = self.requests + count
        await self.until(lambda: self.requests >= enough, f"more trading {when}")
        accepted = self.accepted
        await self.until(lambda: self.accepted > accepted, f"accepted order {when}")

    async def recover(self, when: str) -> None:
        """Wait until every symbol is traded again."""
        before = self.newest_orders()
        await self.until(
            lambda: all(newest > before[symbol] for symbol, newest in self.newest_orders().items()),
            f"accepted order in each symbol {when}",
        )

    def traded_symbols(self) -> set[str]:
        """Return the symbols in which there was a fill."""
        exchange = self.served.exchange
        return {
            fill.symbol
            for trading in self.venue.accounts.values()
            if exchange.has_account(trading.wallet)
            for fill in exchange.records(trading.wallet).fills_since(0)
        }

    def newest_orders(self) -> dict[str, int]:
        """Return the number of the newest order in each symbol, 0 where there was none."""
        newest = dict.fromkeys(self.venue.symbols, 0)
        exchange = self.served.exchange
        for trading in self.venue.accounts.values():
            if exchange.has_account(trading.wallet):
                for record in exchange.records(trading.wallet).all():
                    order = record.order
                    newest[order.symbol] = max(newest[order.symbol], order.order_id)
        return newest

    def open_orders(self) -> list[str]:
        """Return the client ids of what rests at the venue."""
        exchange = self.served.exchange
        return [
            record.order.client_id
            for trading in self.venue.accounts.values()
            for record in exchange.records(trading.wallet).open()
        ]

    def accepted_kinds(self) -> frozenset[str]:
        """Return which of the requests the venue has carried out."""
        lines = list(self.served.server.requests.lines)
        return frozenset(request_of(line) for line in lines if line.verdict == "accepted") & REQUESTS

    # -- afterwards ------------------------------------------------------------------------------

    def assert_agreed(self, *, may_repeat: bool = False) -> None:
        """Hold the stopped node to its venue: orders, fills, positions and balances.

        With `may_repeat` the way in may have doubled a request; even so no order may be accepted twice.
        """
        state, trades, refused = self._folded()
        assert state.orders == {}
        for account, trading in self.venue.accounts.items():
            self._assert_account(account, trading.wallet, state, trades)
        places = [line for line in self.served.server.requests.lines if request_of(line) == "place"]
        if not may_repeat:
            sent = Counter(client_id for line in places for client_id in client_ids_of(line))
            assert set(sent.values()) == {1}, "an order was sent twice"
        accepted = Counter(line.client_id for line in places if line.verdict == "accepted")
        assert set(accepted.values()) == {1}, "an order was accepted twice"
        traded = {client_id for _, _, _, client_id in trades}
        assert not refused & traded, "the node took an order for refused that traded"

    def assert_same_profit(self) -> None:
        """Hold the profit of what was closed to the venue's, that of inverse contracts in coin.

        Only where fills came in their order: else it is the same once all is closed.
        """
        state, _, _ = self._folded()
        for account, trading in self.venue.accounts.items():
            records = self.served.exchange.records(trading.wallet)
            for symbol, net in state.net_holdings.get(account, {}).items():
                fills = [fill for fill in records.fills_since(0) if fill.symbol == symbol]
                theirs = sum((records.realised(fill.trade_id) for fill in fills), Decimal(0))
                if symbol.endswith("-PERP"):
                    assert abs(net.realised - theirs) <= ROUNDING * (len(fills) + 1), (symbol, net, theirs)

    def _assert_account(self, account: str, wallet: str, state: TradingState, trades: set[Traded]) -> None:
        exchange = self.served.exchange
        records, money = exchange.records(wallet), exchange.account(wallet)
        assert [record.order.client_id for record in records.open()] == []
        fills = records.fills_since(0)
        theirs = {
            (account, fill.symbol, self.venue.trade_id(exchange, fill), fill.client_id) for fill in fills
        }
        assert {trade for trade in trades if trade[0] == account} == theirs
        for symbol in self.venue.accounts[account].qty:
            if symbol.endswith("-PERP"):
                assert state.account_qty(account, symbol) == money.position(symbol), symbol
        excess = self._cost_beyond(account, money, state)
        for currency, total in money.balances.items():
            ours = state.balances[account].get(currency, Decimal(0)) - excess.get(currency, Decimal(0))
            assert abs(ours - total) <= ROUNDING * (len(fills) + 1), (account, currency, ours, total)

    def _cost_beyond(self, account: str, money: Account, state: TradingState) -> dict[str, Decimal]:
        """Return by how much our open positions cost more than the venue says, by settlement currency.

        A fill that was missed and found later is booked later, and so another part of the same profit is realised
        by now: it is in the balance on the one side and in what is open on the other.
        """
        beyond: dict[str, Decimal] = {}
        for symbol, net in state.net_holdings.get(account, {}).items():
            qty = money.position(symbol)
            if qty:
                instrument = state.instruments[account][symbol]
                cost = net.open_cost - signed_value(instrument, money.entry_price(symbol), qty)
                beyond[instrument.settle] = beyond.get(instrument.settle, Decimal(0)) + cost
        return beyond

    def _folded(self) -> tuple[TradingState, set[Traded], set[str]]:
        """Fold the journal: its last state, every trade, and the orders that were refused."""
        state = TradingState()
        trades: set[Traded] = set()
        refused: set[str] = set()
        for record in read(self.folder / "data" / "journal"):
            outcome = state.apply(record.lsn, record.ts_ns, record.entry)
            if outcome is not None and outcome.fill is not None:
                fill = outcome.fill
                key = (fill.account, fill.symbol, fill.trade_id, fill.client_id)
                assert key not in trades, f"trade {key} was booked twice"
                trades.add(key)
            if isinstance(record.entry, Reported) and isinstance(record.entry.report, OrderRejected):
                refused.add(record.entry.report.client_id)
        return state, trades, refused


@asynccontextmanager
async def fault_node(venue: FaultVenue, folder: Path, *, takes: bool = True) -> AsyncIterator[FaultNode]:
    """Serve the venue and run a node there until the block ends; then stop it in order, faults and all gone."""
    async with venue.serve() as served:
        node = FaultNode(venue, served, folder)
        node.configure(takes=takes)
        code = "import sys; from host.cli import main; sys.exit(main())"
        with (folder / "node.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, "run", "-c", "tandem.toml",
                cwd=folder, stdout=log, stderr=log, env={**os.environ, "TANDEM__CONTROL__LISTEN": "[]"},
            )  # fmt: skip
        node.process = process
        try:
            await node.trade(1, "at the start")
            yield node
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), STALLED_S) == 0, node.log()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
