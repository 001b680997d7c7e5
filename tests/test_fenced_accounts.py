"""A node of a pair trades only where the venue refuses what reaches it too late."""

import asyncio
from pathlib import Path

import pytest

from host.assembly import Assembly, NodeNotStarted
from host.config import RunOptions, load_config
from host.core.state import TradingState
from host.journal import Journal
from host.loader import Catalog
from host.runtime.clock import LiveClock
from host.runtime.engine import Engine, EngineSettings

CONFIG = """
[node]
data_dir = "{folder}/data"
[[account]]
name = "main"
exchange = "ccxt"
params = {{ venue = "nowhere"{more} }}
[[instance]]
name = "mm"
plugin = "two_sided"
account = "main"
symbols = ["BTC-USDT"]
"""
PAIR = '[failover]\nlease = "sqlite:///{folder}/lease.db"\n'


def why_not(folder: Path, text: str) -> str:
    """Return why a node with this configuration does not start; that of ccxt has a venue which there is not."""
    (folder / "tandem.toml").write_text(text)
    config = load_config(folder / "tandem.toml", None, {}).config
    journal = Journal.open(config.journal_dir, node="test", segment_bytes=1 << 20)
    catalog = Catalog.load(config.plugin_dirs)
    settings = EngineSettings(snapshot_every=1_000_000)
    engine = Engine(
        clock=LiveClock(),
        journal=journal,
        state=TradingState(),
        risk_config=config.risk.limits,
        settings=settings,
    )
    try:
        engine.start_epoch("test", "main", 1, "test")
        with pytest.raises(NodeNotStarted) as refused:
            asyncio.run(Assembly(config, RunOptions(), engine, lambda: catalog).connect())
        return str(refused.value)
    finally:
        catalog.close()
        journal.close()


def test_a_pair_refuses_an_exchange_that_cannot_fence_and_says_what_may_happen(tmp_path: Path) -> None:
    text = why_not(tmp_path, CONFIG.format(folder=tmp_path, more="") + PAIR.format(folder=tmp_path))
    assert "exchange ccxt cannot have a venue refuse orders that arrive late" in text
    assert "docs/exchanges.md" in text


@pytest.mark.parametrize(("more", "pair"), [("", ""), (", unfenced_in_pair = true", PAIR)])
def test_it_is_let_through_alone_and_where_the_operator_accepts_it(
    tmp_path: Path, more: str, pair: str
) -> None:
    text = why_not(tmp_path, CONFIG.format(folder=tmp_path, more=more) + pair.format(folder=tmp_path))
    assert "cannot have a venue refuse" not in text
    assert "params.venue should be a venue that ccxt knows" in text or "ccxt library" in text
