"""A real node (`tandem run`) trades both products at the venue server through what may go wrong."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from binance_venue import DEMO, PERPETUAL, SPOT, BinanceVenue, binance_venue
from exchange_tools import REPO, eventually, story

from venue.catalog import synthetic_market

CONFIG = """
[node]
name = "binance-test"
data_dir = "{folder}/data"
plugin_dirs = ["{plugins}"]
order_window_ms = 1500
[control]
listen = ["unix:{folder}/control.sock"]
[store]
url = ""
"""
ACCOUNT = """
[[account]]
name = "{exchange}"
exchange = "{exchange}"
[account.params]
api_key = "secret:key"
api_secret = "secret:secret"
url = "{url}"
answer_timeout_ms = 2500.0
clock_error_ms = 1000.0

[[instance]]
name = "mm-{exchange}"
plugin = "two_sided"
account = "{exchange}"
symbols = ["{symbol}"]
params = {{ half_spread_bps = 2.0, size = "0.01" }}
"""
ACCOUNTS = {"binance": SPOT, "binance_usdm": PERPETUAL}


@asynccontextmanager
async def node_at(venue: BinanceVenue, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a node in a process of its own, with its secrets stored as an operator stores them."""
    config = folder / "tandem.toml"
    accounts = [
        ACCOUNT.format(exchange=name, url=venue.url, symbol=symbol) for name, symbol in ACCOUNTS.items()
    ]
    config.write_text(CONFIG.format(folder=folder, plugins=REPO / "plugins") + "".join(accounts))
    tandem = str(Path(sys.executable).with_name("tandem"))
    for name, value in (("key", DEMO.api_key), ("secret", DEMO.secret)):
        storing = await asyncio.create_subprocess_exec(
            tandem, "secret", "set", "-c", str(config), name, stdin=asyncio.subprocess.PIPE
        )
        await storing.communicate(value.encode())
        assert storing.returncode == 0
    node = await asyncio.create_subprocess_exec(
        tandem, "run", "-c", str(config), "--report", "json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield node
    finally:
        if node.returncode is None:
            node.kill()
            await node.wait()


@pytest.mark.slow
def test_a_node_quotes_both_products_through_lost_late_and_cut(tmp_path: Path) -> None:
    @story
    async def run() -> None:
        async with binance_venue(open_market=synthetic_market) as venue:
            venue.fault(kind="drop_request", request="place", count=1)
            venue.fault(kind="latency", request="place", skip=1, count=1, delay_ms=2000.0)
            async with node_at(venue, tmp_path) as node:
                await trade_through_it_all(venue)
                node.send_signal(signal.SIGINT)
                out, errors = await node.communicate()
            assert node.returncode == 0, errors.decode()
            judge(venue, json.loads(out))
            assert DEMO.secret not in errors.decode() + out.decode()
            for file in (tmp_path / "data").rglob("*"):
                if file.is_file() and file.parent.name != "secrets":
                    assert DEMO.secret.encode() not in file.read_bytes(), file

    run()


async def trade_through_it_all(venue: BinanceVenue) -> None:
    def asked_about(client_id: str) -> bool:
        return any(
            (line.asked or {}).get("origClientOrderId") == client_id for line in venue.lines("query")
        ) or any(client_id == line.client_id for line in venue.lines("query", "refused"))

    def lost_or_late() -> list[str]:
        late = [line for line in venue.lines("place", "refused") if "-1021" in line.reason]
        return [line.client_id for line in [*venue.lines("place", "lost"), *late]]

    await eventually(lambda: len(lost_or_late()) == 2, "an order lost and one too late")
    await eventually(
        lambda: asked_about(venue.lines("place", "lost")[0].client_id), "the lost order asked for"
    )
    await eventually(lambda: {line.symbol for line in venue.lines("place")} and changed(venue) >= 6, "quotes")

    books = len([line for line in venue.lines("market") if line.method.endswith("/depth")])
    venue.fault(kind="sequence_gap", request="depth", count=1)
    await eventually(
        lambda: len([line for line in venue.lines("market") if line.method.endswith("/depth")]) > books,
        "the book asked for anew",
    )

    logins, changes = len(venue.lines("login")), changed(venue)
    venue.cut()
    await eventually(lambda: len(venue.lines("login")) >= logins + 2, "both private streams back")
    await eventually(lambda: changed(venue) > changes, "quotes after the cut")


def changed(venue: BinanceVenue) -> int:
    """Return how often an order was placed, amended or cancelled."""
    return sum(len(venue.lines(kind)) for kind in ("place", "amend", "cancel"))


def judge(venue: BinanceVenue, report: dict[str, Any]) -> None:
    assert report["quarantined"] == [] and report["halted"] == ""
    assert report["open_orders"] == 0
    for wallet in ("demo/spot", "demo/usdm"):
        assert list(venue.exchange.records(wallet).open()) == []
    ids = [line.client_id for line in venue.lines("place")]
    assert len(ids) == len(set(ids))
    held = {p.symbol: p.qty for p in venue.exchange.account("demo/usdm").snapshot(0).positions if p.qty}
    ours = {p["symbol"]: Decimal(p["qty"]) for p in report["positions"] if p["symbol"] == PERPETUAL}
    assert held == {symbol: qty for symbol, qty in ours.items() if qty}
