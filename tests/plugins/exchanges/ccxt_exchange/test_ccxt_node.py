"""A real node (`tandem run`) trades through ccxt at a venue that misbehaves: afterwards both know the same."""

import asyncio
import os
import signal
import sys
import textwrap
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from bybit_venue import DEMO, bybit_venue
from exchange_tools import DEADLINE_S, REPO, eventually, story

from host.core.state import TradingState
from host.journal import read
from venue.protocols.bybit.names import Product
from venue.protocols.bybit.order_rows import execution_id
from venue.protocols.faults import FaultKind

pytest.importorskip("ccxt.pro", reason="ccxt is a development dependency; install .[dev]")

ORDERS = int(os.environ.get("TANDEM_ORDERS", "8"))
"""How many orders are placed while the venue misbehaves."""
SYMBOL, WALLET = "BTC-USDT-PERP", "demo/unified"

STRATEGY = """
    from decimal import Decimal
    from random import Random

    from host.api import BookTop, OrderRefused, Quote, Strategy, TimeInForce


    class Restless(Strategy):
        \"\"\"Moves its quotes now and then, and takes in between.\"\"\"

        def on_start(self) -> None:
            self._random = Random(1)

        def on_book(self, book: BookTop) -> None:
            if self._random.random() < 0.7:
                return
            self.quote(book.symbol, Quote.around(book.mid, self._random.choice((0.05, 3.0)), Decimal("0.01")))
            if self._random.random() < 0.3:
                try:
                    self.buy_limit(
                        book.symbol, Decimal("0.01"), Decimal(str(book.ask)), time_in_force=TimeInForce.IOC
                    )
                except OrderRefused:
                    pass  # as while orders are in doubt: it has no say then
"""

CONFIG = """
[node]
name = "c"
data_dir = "data"
plugin_dirs = ["{repo}/plugins", "mine"]
stop_timeout_ms = 20000
[control]
listen = []
[store]
url = ""
[[account]]
name = "main"
exchange = "ccxt"
[account.params]
venue = "bybit"
product = "linear"
url = "{url}"
api_key = "env:CCXT_NODE_KEY"
api_secret = "env:CCXT_NODE_SECRET"
rate_limit = false
amend = "none"
account_every_ms = 100
request_timeout_s = 1.0
[[instance]]
name = "restless"
plugin = "restless"
account = "main"
symbols = ["BTC-USDT-PERP"]
"""


@pytest.mark.slow
def test_a_node_trades_through_errors_and_lost_answers_and_agrees_with_its_venue(tmp_path: Path) -> None:
    @story
    async def run() -> None:
        async with bybit_venue() as venue:
            (tmp_path / "mine").mkdir()
            (tmp_path / "mine" / "restless.py").write_text(textwrap.dedent(STRATEGY).lstrip("\n"))
            (tmp_path / "tandem.toml").write_text(CONFIG.format(repo=REPO, url=venue.rest_url))
            code = "import sys; from host.cli import main; sys.exit(main())"
            keys = {"CCXT_NODE_KEY": DEMO.api_key, "CCXT_NODE_SECRET": DEMO.secret}
            log = tmp_path / "node.log"
            with log.open("wb") as out:
                node = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", code, "run", "-c", "tandem.toml",
                    cwd=tmp_path, stdout=out, stderr=out, env=os.environ | keys,
                )  # fmt: skip
            try:

                def placed() -> int:
                    return len(venue.lines("place"))

                await eventually(lambda: placed() >= 3, "orders")
                for kind, terms in (
                    ("server_error", {}),
                    ("server_error", {"is_executed": False}),
                    ("drop", {}),
                ):
                    venue.fault(FaultKind(kind), request="place", probability=0.3, **terms)
                seen = placed()
                await eventually(lambda: placed() >= seen + ORDERS, "orders in spite of it all")
                venue.server.faults.clear()
                await eventually(lambda: venue.exchange.records(WALLET).fills_since(0), "fills")
                node.send_signal(signal.SIGTERM)
                assert await asyncio.wait_for(node.wait(), DEADLINE_S) == 0, log.read_text()[-3000:]
            finally:
                if node.returncode is None:
                    node.kill()
                    await node.wait()
            state, trades = TradingState(), set[str]()
            for record in read(tmp_path / "data" / "journal"):
                outcome = state.apply(record.lsn, record.ts_ns, record.entry)
                if outcome is not None and outcome.fill is not None:
                    assert outcome.fill.trade_id not in trades, "booked twice"
                    trades.add(outcome.fill.trade_id)
            records, account = venue.exchange.records(WALLET), venue.exchange.account(WALLET)
            assert list(records.open()) == [] and state.orders == {}
            assert trades == {execution_id(Product.LINEAR, fill.trade_id) for fill in records.fills_since(0)}
            assert state.account_qty("main", SYMBOL) == account.position(SYMBOL)
            assert abs(state.balances["main"]["USDT"] - account.balances["USDT"]) < Decimal("1E-6")
            sent = Counter(line.client_id for line in venue.lines("place"))
            assert set(sent.values()) == {1}, "an order was sent twice"
            assert DEMO.secret not in log.read_text()

    run()
