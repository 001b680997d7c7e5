"""A desk that runs what a configuration file says, and follows its edits."""

import asyncio
from collections.abc import Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any

from desk_tools import BTC, ETH, Desk, ScriptedVenue

from host.config import ConfigSource, NodeSection
from host.isolation.workers import Workers
from host.loader import Catalog, Version, capture
from host.runtime.instance import Instance
from host.runtime.instance_control import InstanceControl
from host.runtime.instance_maker import InstanceMaker
from host.runtime.reconfigure import ConfigReport, Reconfigurer
from host.runtime.reload import ProbationLimits, Reloader, ReloadSettings

MAKER = """
from decimal import Decimal
from host.api import BookTop, NonNegative, Params, Positive, Quote, State, Strategy

class MakerParams(Params, frozen=True):
    away: Positive = 1.0
    size: Decimal = Decimal("1")
    raises: bool = False

class MakerState(State):
    books: int = 0

class Maker(Strategy[MakerParams]):
    state: MakerState

    def on_params(self, old: MakerParams) -> None:
        if self.params.raises:
            raise ValueError("told to")

    def on_book(self, book: BookTop) -> None:
        self.state.books += 1
        away, size = self.params.away, self.params.size
        self.quote(book.symbol, Quote(book.bid - away, size, book.ask + away, size))
"""
SHIFT = """
from host.api import Adjustment, Features, Params, Quote, QuoteModel

class ShiftParams(Params, frozen=True):
    bps: float = 0.0
    starts: bool = True

class Shift(QuoteModel[ShiftParams]):
    def on_start(self) -> None:
        if not self.params.starts:
            raise RuntimeError("no model file")

    def adjust(self, features: Features, quote: Quote) -> Adjustment:
        return Adjustment(shift_bps=self.params.bps)
"""
FIRST = """
[node]
data_dir = "data"

[[account]]
name = "acc"
exchange = "scripted"

[[instance]]
name = "mm"
plugin = "maker"
account = "acc"
symbols = ["BTC-USDT"]
quote_tolerance_bps = 0
params = { away = 2.0 }
"""
OTHER = """
[[instance]]
name = "other"
plugin = "maker"
account = "acc"
symbols = ["ETH-USDT"]
"""
LIMITS = ProbationLimits(seconds=5.0, events=3)


class ConfigDesk(Desk):
    """A desk that runs what a configuration file says, and follows its edits."""

    def __init__(
        self, folder: Path, venue: ScriptedVenue | None = None, *, workers: type[Workers] | None = None
    ) -> None:
        super().__init__(folder / "journal", venue)
        self.workers = None if workers is None else workers(self.engine, folder / "workers")
        """What runs strategies and models in other processes, where a test needs that; it is the test's to close."""
        plugins = folder / "plugins"
        plugins.mkdir(exist_ok=True)
        self.maker_file = plugins / "maker.py"
        if not self.maker_file.exists():
            self.maker_file.write_text(MAKER)
        (plugins / "shift.py").write_text(SHIFT)
        self.file = folder / "tandem.toml"
        if not self.file.exists():
            self.file.write_text(FIRST)
        catalog = Catalog.load([plugins], entry_points=False)
        assert not catalog.problems
        self.kept: list[str] = []
        self.is_full = False
        self.reloader = Reloader(self.engine, catalog, ReloadSettings(limits=LIMITS), _no_probe, self._keep)
        stand_ins = () if self.workers is None else self.workers.stand_ins
        self.maker = InstanceMaker(self.engine, lambda: self.reloader.catalog, *stand_ins)
        source = ConfigSource(self.file, None, {})
        config = source.load().config
        self.skipped: dict[str, str] = {}
        self.node_sections: list[NodeSection] = []
        for section in config.instance:
            prepared = self.maker.prepare(section)
            self.reloader.take_on(section.name, prepared.use, prepared.model_uses)
            self.maker.start(self.maker.install(prepared), section)
        self.settle()
        self.reconfigurer = Reconfigurer(
            self.engine, self.reloader, self.maker, source, config, self.skipped, self.node_sections.append
        )

        self.control = InstanceControl(
            self.engine, self.reloader, self.maker, lambda: self.reconfigurer.config, self.skipped
        )

    def _keep(self, version: Version) -> None:
        if self.is_full:
            raise OSError("no space left on device")
        self.kept.append(version.name)

    async def edit(self, text: str) -> ConfigReport:
        """Save another text of the file and look at it."""
        self.file.write_text(text)
        report = await self.reconfigurer.look()
        self.settle()
        return report

    async def edit_plugin(self, text: str) -> None:
        self.maker_file.write_text(text)

        async def found() -> Version:
            return capture(self.maker_file)

        await self.reloader.reload("maker", found)

    def tick(self, bid: float = 100.0) -> None:
        for symbol in (BTC, ETH):
            self.clock.set(self.clock.now_ns() + 50_000_000)
            self.top(bid, bid + 1.0, symbol)

    def instance(self, name: str = "mm") -> Instance:
        return self.engine.roster.instances[name]

    def bids(self, symbol: str = BTC) -> list[Decimal | None]:
        return [order.price for order in self.venue.open(symbol) if order.side == "buy"]

    def since(self, lsn: int, kind: type[Any]) -> list[Any]:
        return [entry for entry in self.entries[lsn:] if isinstance(entry, kind)]


async def _no_probe(version: Version) -> None: ...


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())
