"""What `tandem pair` runs, and the folder it writes for that: a configuration per node, and a strategy to edit."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from host.api import TandemError
from host.config import bundled_plugins

__all__ = ["ACCOUNT", "NAMES", "FolderRefused", "PairPlan", "write_config", "write_folder"]

NAMES: Final = ("a", "b", "c")
ACCOUNT: Final = "paper"
STRATEGY: Final = "market_maker.py"
"""The copy of the bundled `two_sided` that both nodes run."""

# Every tick moves a quote: the time without an order is the time without a leader, to a few milliseconds.
_INSTANCES: Final = """
[[account]]
name = "{account}"
exchange = "paper_remote"
params = {{ url = "tcp:127.0.0.1:{venue_port}" }}

[[instance]]
name = "mm-btc"
plugin = "market_maker"
account = "{account}"
symbols = ["BTC-USDT"]
quote_tolerance_bps = 0.0
params = {{ half_spread_bps = 0.2, size = "0.01" }}

[[instance]]
name = "mm-eth"
plugin = "market_maker"
account = "{account}"
symbols = ["ETH-USDT"]
quote_tolerance_bps = 0.0
params = {{ half_spread_bps = 0.2, size = "0.2" }}

[risk.node]
max_daily_loss = "5000 USDT"
max_open_orders = 40
self_trade = "refuse"

[risk.symbol."BTC-USDT"]
max_position = "0.2"

[risk.symbol."ETH-USDT"]
max_position = "4"
"""

_NODE: Final = """# Node {name} of `tandem pair`. Saving this file, or {strategy}, changes the node while it trades.
[node]
name = {name_text}
data_dir = {data_dir}
plugin_dirs = [{plugins}]
durability = "{durability}"
order_window_ms = 500
journal_segment_kb = 8192

[store]
url = ""

[control]
listen = [{control}]

[failover]
cell = {cell}
lease = {lease}
ttl = "{ttl}"
replicate = {replicate}
control_address = {control}
# People who break things for fun switch more often than people who lose machines.
switch_limit = 1000

[failover.peers]
{peers}
"""


class FolderRefused(TandemError):  # noqa: N818 - an answer, not a malfunction
    """The folder of `--dir` holds something already."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"--dir {folder} is not empty, and a pair starts from nothing; name a new folder")
        self.folder = folder


class PairPlan(Struct, frozen=True, kw_only=True):
    """What was asked for on the command line. `lease` is empty for a SQLite file in the folder."""

    folder: Path
    nodes: int = 2
    ttl_ms: int = 600
    lease: str = ""
    durability: Literal["process", "replica"] = "process"
    seed: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """Return the nodes' names."""
        return NAMES[: self.nodes]

    @property
    def strategy(self) -> Path:
        """Return the file that people may edit while the pair trades."""
        return self.folder / "plugins" / STRATEGY


def write_folder(plan: PairPlan) -> None:
    """Make the folder with the strategy in it; raise `FolderRefused` where it is not empty."""
    if plan.folder.exists() and any(plan.folder.iterdir()):
        raise FolderRefused(plan.folder)
    plan.strategy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(bundled_plugins() / "strategies" / "two_sided.py", plan.strategy)


def write_config(
    plan: PairPlan,
    name: str,
    *,
    cell: str,
    lease: str,
    venue_port: int,
    sockets: Path,
    peers: Mapping[str, str],
) -> Path:
    """Write a node's configuration and return its file.

    `lease` and `venue_port` are where its own links lead; `peers` says where it dials each of the others.
    """
    path = plan.folder / f"{name}.toml"
    text = _NODE.format(
        name=name,
        strategy=plan.strategy.relative_to(plan.folder),
        name_text=json.dumps(name),
        data_dir=json.dumps(str(plan.folder / name)),
        plugins=json.dumps(str(plan.strategy.parent)),
        durability=plan.durability,
        control=json.dumps(f"unix:{sockets}/{name}.sock"),
        cell=json.dumps(cell),
        lease=json.dumps(lease),
        ttl=f"{plan.ttl_ms}ms",
        replicate=json.dumps(f"unix:{sockets}/{name}.journal.sock"),
        peers="\n".join(f"{peer} = {json.dumps(address)}" for peer, address in peers.items()),
    )
    path.write_text(text + _INSTANCES.format(account=ACCOUNT, venue_port=venue_port))
    return path
