"""A real node (`tandem run`) trades at the venue's OKX protocol through everything that may go wrong."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from exchange_tools import REPO, eventually, story
from okx_venue import DEMO, OkxVenue, okx_venue

from venue.catalog import synthetic_market
from venue.protocols.faults import FaultKind
from venue.protocols.request_log import RequestLine

CONFIG = """
[node]
name = "okx-test"
data_dir = "{folder}/data"
plugin_dirs = ["{plugins}"]
order_window_ms = 1500
[control]
listen = ["unix:{folder}/control.sock"]
[store]
url = ""
[[account]]
name = "okx"
exchange = "okx"
[account.params]
api_key = "secret:key"
api_secret = "secret:secret"
passphrase = "secret:passphrase"
url = "{url}"
answer_timeout_ms = 2500.0
max_clock_error_ms = 1000.0
"""
INSTANCE = """
[[instance]]
name = "mm-{number}"
plugin = "two_sided"
account = "okx"
symbols = ["{symbol}"]
params = {{ half_spread_bps = 2.0, size = "0.01" }}
"""
SYMBOLS = ("BTC-USDT", "BTC-USDT-PERP")


@asynccontextmanager
async def node_at(venue: OkxVenue, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a node in a process of its own, with its secrets stored as an operator stores them."""
    config = folder / "tandem.toml"
    text = CONFIG.format(folder=folder, plugins=REPO / "plugins", url=venue.rest_url)
    config.write_text(text + "".join(INSTANCE.format(number=n, symbol=s) for n, s in enumerate(SYMBOLS)))
    tandem = str(Path(sys.executable).with_name("tandem"))
    for name, value in (("key", DEMO.api_key), ("secret", DEMO.secret), ("passphrase", DEMO.passphrase)):
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


def accepted(venue: OkxVenue, kind: str) -> list[RequestLine]:
    return [line for line in venue.lines(kind) if line.verdict == "accepted"]


def asked_by_id(venue: OkxVenue, client_id: str) -> bool:
    return any(line.client_id == client_id for line in venue.lines("query"))


def refused_late(venue: OkxVenue) -> list[RequestLine]:
    return [line for line in venue.lines("place") if line.verdict == "refused" and "51149" in line.reason]


def books_subscribed(venue: OkxVenue) -> int:
    lines = [line for line in venue.server.requests.lines if line.method == "subscribe"]
    return sum('"books"' in json.dumps(line.asked) for line in lines)


@pytest.mark.slow
def test_a_node_quotes_through_lost_requests_late_ones_gaps_and_cuts(tmp_path: Path) -> None:
    @story
    async def run() -> None:
        async with okx_venue(open_market=synthetic_market) as venue:
            venue.fault(FaultKind.DROP_REQUEST, request="place", count=1)
            venue.fault(FaultKind.LATENCY, request="place", skip=1, count=1, delay_ms=2000.0)
            async with node_at(venue, tmp_path) as node:
                await trade_through_it_all(venue)
                node.send_signal(signal.SIGINT)
                out, errors = await node.communicate()
            assert node.returncode == 0, errors.decode()
            report: dict[str, Any] = json.loads(out)
            judge(venue, report)

    run()


async def trade_through_it_all(venue: OkxVenue) -> None:
    def lost() -> list[RequestLine]:
        return [line for line in venue.lines("place") if line.verdict == "lost"]

    await eventually(lambda: lost() and asked_by_id(venue, lost()[0].client_id), "the lost order asked for")
    await eventually(
        lambda: refused_late(venue) and asked_by_id(venue, refused_late(venue)[0].client_id),
        "the late order refused and asked for",
    )
    await eventually(lambda: len(accepted(venue, "place")) >= 3, "quotes at last")

    before = books_subscribed(venue)
    venue.fault(FaultKind.SEQUENCE_GAP, request="depth", count=1)
    await eventually(lambda: books_subscribed(venue) > before, "the book asked for anew")

    logins, changes = len(venue.server_lines("login")), changed(venue)
    venue.cut()
    await eventually(lambda: len(venue.server_lines("login")) > logins, "the private stream back")
    await eventually(lambda: changed(venue) > changes, "quotes after the cut")


def changed(venue: OkxVenue) -> int:
    """Return how often an order was placed, amended or cancelled."""
    return sum(len(accepted(venue, kind)) for kind in ("place", "amend", "cancel", "batch"))


def judge(venue: OkxVenue, report: dict[str, Any]) -> None:
    assert report["quarantined"] == [] and report["halted"] == ""
    assert list(venue.exchange.records("demo/trading").open()) == []
    assert report["open_orders"] == 0
    assert report["fills"] == len(venue.fills())
    ids = [line.client_id for line in accepted(venue, "place")]
    assert len(ids) == len(set(ids))
    held = {item.symbol: item.qty for item in venue.exchange.account("demo/trading").snapshot(0).positions}
    ours = {item["symbol"]: item["qty"] for item in report["positions"] if item["symbol"] == SYMBOLS[1]}
    assert {symbol: str(qty) for symbol, qty in held.items()} == {s: q for s, q in ours.items() if float(q)}
