"""Wire to wire: the venue writes a quote's frame, our order's bytes arrive there, over loopback WebSockets.

Two processes: the venue, which takes all times, and a real node (`tandem run`) with the bundled Binance USDⓈ-M
adapter, a strategy with a model, ten risk checks and the journal. Reported as a ratio to a bare
ping-pong, measured in turn with it (A B A B): the same process answers the same frame with the same
bytes, over a third socket of the same library (picows at both ends), and does nothing else.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import uvloop
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.tick_to_order import quantile
from bench.wire_venue import PING_PATH, SYMBOL, WireVenue, wire_venue
from venue.protocols.accounts import DEMO_ACCOUNTS

REPO: Final = Path(__file__).parents[1]
WARM_UP: Final = 200
PATIENCE_S: Final = 0.05
"""A quote that has led to no order by then will not: the model widened as far as the market moved."""
QUIET_S: Final = 0.001
START_S: Final = 180.0
"""A node is there in two seconds, unless other work takes the cores."""

CONFIG = """
[node]
name = "bench"
data_dir = "{folder}/data"
plugin_dirs = ["{plugins}"]
[control]
listen = ["unix:{folder}/control.sock"]
[store]
url = ""

[[account]]
name = "usdm"
exchange = "binance_usdm"
[account.params]
api_key = "env:WIRE_KEY"
api_secret = "env:WIRE_SECRET"
url = "{url}"
socket_url = "{socket_url}"
ticker = false

[[instance]]
name = "quoter"
plugin = "two_sided"
account = "usdm"
symbols = ["{symbol}"]
models = ["inventory_skew"]
quote_tolerance_bps = 0.0
params = {{ half_spread_bps = 5.0, size = "0.010" }}

[[instance]]
name = "ping"
plugin = "ping_pong"
account = "usdm"
symbols = ["{symbol}"]
params = {{ url = "{socket_url}{ping}" }}

[risk.node]
max_daily_loss = "5000 USDT"
max_orders_per_second = 100000
max_open_orders = 1000
max_data_age_ms = 5000
price_collar_bps = 200.0
self_trade = "refuse"
[risk.instance.quoter]
max_order_qty = "1"
max_order_notional = "100000"
max_position = "10"
max_inventory_notional = "1000000"
"""


class Samples(Struct):
    """Times in ns, in turn: from a quote to the first order, and from a message to its bare answer."""

    orders: list[int] = []
    bare: list[int] = []
    without_order: int = 0


@asynccontextmanager
async def node_at(venue: WireVenue, folder: Path) -> AsyncIterator["asyncio.subprocess.Process"]:
    """Run a node at the venue; its report is on its standard output once it is told to stop."""
    config = folder / "tandem.toml"
    config.write_text(
        CONFIG.format(
            folder=folder, plugins=REPO / "bench" / "plugins", url=venue.rest_url,
            socket_url=venue.socket_url, symbol=SYMBOL, ping=PING_PATH,
        )
    )  # fmt: skip
    tandem = str(Path(sys.executable).with_name("tandem"))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TANDEM")}
    environ |= {"WIRE_KEY": DEMO_ACCOUNTS[0].api_key, "WIRE_SECRET": DEMO_ACCOUNTS[0].secret}
    with (folder / "node.log").open("wb") as log:
        node = await asyncio.create_subprocess_exec(
            tandem, "run", "-c", str(config), "--report", "json",
            stdout=asyncio.subprocess.PIPE, stderr=log, env=environ,
        )  # fmt: skip
    try:
        yield node
    finally:
        if node.returncode is None:
            node.kill()
            await node.wait()


async def measure(venue: WireVenue, count: int) -> Samples:
    """Have the node react to quotes and to bare messages in turn until there are `count` of each."""
    await started(venue)
    venue.write_bare(venue.order)  # what to answer with from now on
    found = Samples()
    for index in range(2 * (count + WARM_UP)):
        frame = await venue.next_quote()
        await venue.quiet(QUIET_S)
        written_ns = venue.write_quote(frame)
        arrived_ns = await venue.first(venue.orders, PATIENCE_S)
        if not arrived_ns:
            found.without_order += 1
            continue
        await venue.quiet(QUIET_S)
        bare_ns = venue.write_bare(frame)
        answered_ns = await venue.first(venue.pongs, PATIENCE_S)
        if index >= WARM_UP and answered_ns:
            found.orders.append(arrived_ns - written_ns)
            found.bare.append(answered_ns - bare_ns)
        if len(found.orders) == count:
            return found
    raise AssertionError(f"quotes must lead to orders, {found.without_order} of {2 * count} did not")


async def started(venue: WireVenue) -> None:
    """Write quotes until the node trades and has opened the bare connection."""
    async with asyncio.timeout(START_S):
        while True:
            frame = await venue.next_quote()
            venue.write_quote(frame)
            if await venue.first(venue.orders, PATIENCE_S) and venue.is_bare_open:
                return


async def run_once(count: int) -> tuple[Samples, dict[str, Any]]:
    """Measure one node, from its start to its report."""
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as name:
        folder = Path(name)
        async with wire_venue() as venue, node_at(venue, folder) as node:
            try:
                found = await measure(venue, count)
            except TimeoutError:
                raise SystemExit(
                    f"the node did not trade within {START_S:g} s; it says:\n"
                    + (folder / "node.log").read_text()[-2000:]
                ) from None
            node.send_signal(signal.SIGINT)
            out, _ = await node.communicate()
            if node.returncode:
                raise SystemExit(
                    f"the node ended with {node.returncode}:\n" + (folder / "node.log").read_text()[-2000:]
                )
    return found, json.loads(out)


def spread(values: list[int]) -> dict[str, float]:
    """Return the quantiles that are shown, in µs; the lowest says most where other work takes the cores."""
    return {f"p{percent}": quantile(values, percent / 100) for percent in (10, 50, 99)}


def figures(found: Samples, report: dict[str, Any]) -> dict[str, Any]:
    """Return one run's figures, times in µs."""
    orders, bare = spread(found.orders), spread(found.bare)
    return {
        "first_order_us": orders,
        "pingpong_us": bare,
        "ratio_p50": orders["p50"] / bare["p50"],
        "ratio_p99": orders["p99"] / bare["p99"],
        "ratio_p10": orders["p10"] / bare["p10"],
        "in_node_us": {name: report["tick_to_order_us"][name] for name in ("p50", "p99")},
        "rejects": report["rejects"],
        "open_orders": report["open_orders"],
    }


def median_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure."""
    out: dict[str, Any] = {}
    for name, value in runs[0].items():
        rows = [run[name] for run in runs]
        out[name] = median_of(rows) if isinstance(value, dict) else round(statistics.median(rows), 3)
    return out


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="nodes that are measured one after the other")
    parser.add_argument("--seconds", type=float, help="about how long to measure, instead of --orders")
    parser.add_argument(
        "--orders", type=int, default=2000, help="first orders of each run, and as many pings"
    )
    parser.add_argument("--json", action="store_true", help="print one object")
    args = parser.parse_args()
    count = args.orders if args.seconds is None else max(int(args.seconds / args.runs * 100), 20)
    runs = []
    for _ in range(args.runs):
        found, report = uvloop.run(run_once(count))
        runs.append(figures(found, report))
        print(runs[-1], file=sys.stderr)
    result = median_of(runs)
    if args.json:
        print(json.dumps(result))
        return
    parts = ("p10", "p50", "p99")
    table = Table(
        "", *(f"{part} µs" for part in parts), title=f"median of {args.runs} runs of {count} orders"
    )
    for name, key in (
        ("quote written → first order arrived", "first_order_us"),
        ("bare ping-pong of the same bytes", "pingpong_us"),
        ("of it in the node, frame decoded → two orders sent", "in_node_us"),
    ):
        table.add_row(name, *(f"{result[key][part]:.1f}" if part in result[key] else "" for part in parts))
    table.add_row("ratio (target 4)", *(f"{result[f'ratio_{part}']:.2f} ×" for part in parts))
    Console().print(table)


if __name__ == "__main__":
    main()
