"""A desk whose strategies come from plugin files that a test edits."""

import asyncio
import logging
import sys
import textwrap
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from desk_tools import ACCOUNT, BTC, Desk, ScriptedVenue

from host.core import entries as e
from host.core.entries import VersionState
from host.loader import Catalog, Version, capture, make, unload
from host.loader.capture import NAMESPACE
from host.loader.importer import is_loaded
from host.runtime.instance import Instance
from host.runtime.reload import Reloader, ReloadReport, ReloadSettings, StrategyUse
from host.runtime.reload.probation import ProbationLimits
from host.runtime.roster import InstanceSpec

PLUGIN = "maker"

MAKER = """
    from decimal import Decimal

    from host.api import BookTop, Fill, Params, Quote, State, Strategy

    class MakerParams(Params, frozen=True):
        size: int = 1

    class MakerState(State):
        books: int = 0
        fills: int = 0

    class Maker(Strategy[MakerParams]):
        state: MakerState

        def on_book(self, book: BookTop) -> None:
            self.state.books += 1
            size = Decimal(self.params.size)
            self.quote(book.symbol, Quote(book.bid - OFFSET, size, book.ask + OFFSET, size))

        def on_fill(self, fill: Fill) -> None:
            self.state.fills += 1
"""


def maker(offset: float = 0.02, *, more: str = "", at_book: str = "pass", head: str = "") -> str:
    """Return the text of a plugin that quotes `offset` away; `at_book` runs first in `on_book`."""
    text = textwrap.dedent(MAKER).replace("OFFSET", repr(offset))
    at = "self.state.books += 1\n"
    text = text.replace(at, at + textwrap.indent(textwrap.dedent(at_book).strip() + "\n", " " * 8))
    return textwrap.dedent(head) + text + textwrap.indent(textwrap.dedent(more), " " * 4)


def taking(ms: float) -> str:
    """Return a statement that takes a plugin so long by the desk's stopwatch."""
    return f'self.ctx.log.info("takes %s ms", {ms})'


class Stopwatch(logging.Handler):
    """How long plugin code takes, as it says itself in its log: so the machine's speed does not matter."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.ns = 0

    def __call__(self) -> int:
        return self.ns

    def emit(self, record: logging.LogRecord) -> None:
        """Let so much time pass as a plugin says that it takes."""
        if record.msg == "takes %s ms" and isinstance(record.args, tuple):
            self.ns += round(float(str(record.args[0])) * 1e6)


def loaded_modules() -> set[str]:
    """Return the modules of all plugin versions that are loaded."""
    return {name for name in sys.modules if name.startswith(f"{NAMESPACE}.")}


class ReloadDesk:
    """A desk, a folder of plugins, and the reloader between them."""

    def __init__(
        self,
        folder: Path,
        *,
        probe: Callable[[Version], Coroutine[Any, Any, None]] | None = None,
        settings: ReloadSettings | None = None,
        desk: Desk | None = None,
        **desk_settings: Any,
    ) -> None:
        self._loaded_before = loaded_modules()
        self.folder = folder
        self.plugins = folder / "plugins"
        self.plugins.mkdir(parents=True, exist_ok=True)
        self.desk = desk or Desk(folder / "journal", ScriptedVenue(), **desk_settings)
        self.stopwatch = Stopwatch()
        self.desk.clock.stopwatch_ns = self.stopwatch
        logger = logging.getLogger("tandem.strategy")
        logger.addHandler(self.stopwatch)
        logger.setLevel(logging.INFO)
        self.kept: dict[str, Version] = {}
        self.reports: list[ReloadReport] = []
        self.settings = settings or ReloadSettings(limits=ProbationLimits(seconds=2.0, events=5))
        self._probe = probe or _no_probe

    def load(self) -> "ReloadDesk":
        """Load what is in the folder, as a node does when it starts."""
        catalog = Catalog.load([self.plugins], entry_points=False)
        assert catalog.problems == []
        self.reloader = Reloader(self.desk.engine, catalog, self.settings, self._probe, self._keep)
        self.reloader.on_report = self.reports.append
        return self

    def _keep(self, version: Version) -> None:
        self.kept[version.digest] = version

    def write(self, text: str, name: str = f"{PLUGIN}.py") -> Path:
        """Save a plugin's file."""
        path = self.plugins / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def run(self, name: str, *symbols: str, plugin: str = PLUGIN, **params: object) -> Instance:
        """Create and start an instance of a plugin's strategy."""
        offer = self.reloader.catalog.strategy(plugin)
        spec = InstanceSpec(
            name=name,
            account=ACCOUNT,
            symbols=symbols or (BTC,),
            plugin=plugin,
            digest=offer.version.digest,
            params_json=b"{}",
            tolerance_bps=0.0,
        )
        strategy = make(offer, params, instance=name)
        instance = self.desk.engine.roster.add(spec, strategy, (), self.desk.feed.spawn)
        self.desk.engine.roster.start(instance)
        self.reloader.uses[name] = StrategyUse(offer, params)
        self.reloader.note_running(offer.version)
        self.desk.settle()
        return instance

    def save(self, text: str, name: str = f"{PLUGIN}.py", *, is_ordered: bool = False) -> ReloadReport:
        """Save a plugin's file and reload it."""
        self.write(text, name)
        return self.reload(is_ordered=is_ordered)

    def reload(self, plugin: str = PLUGIN, *, is_ordered: bool = False) -> ReloadReport:
        """Reload a plugin as its files are."""
        report = asyncio.run(self.reload_async(plugin, is_ordered=is_ordered))
        self.desk.settle()
        return report

    async def reload_async(self, plugin: str = PLUGIN, *, is_ordered: bool = False) -> ReloadReport:
        """Reload a plugin as its files are, on a loop that runs."""
        path = self.plugins / plugin if (self.plugins / plugin).is_dir() else self.plugins / f"{plugin}.py"

        async def read() -> Version:
            return capture(path)

        return await self.reloader.reload(plugin, read, is_ordered=is_ordered)

    def tops(self, count: int, start: float = 60_000.0, seconds: float = 0.01) -> None:
        """Let the market move `count` times."""
        for step in range(count):
            price = start + step % 7
            self.desk.top(price, price + 0.1)
            self.desk.advance(seconds)

    def close(self) -> None:
        """Give back what was loaded."""
        logging.getLogger("tandem.strategy").removeHandler(self.stopwatch)
        self.desk.journal.close()
        self.reloader.close()
        assert self.loaded() == set(), "a version is still loaded"

    def die(self) -> None:
        """Leave nothing loaded, as when the process ends, whatever it was doing."""
        logging.getLogger("tandem.strategy").removeHandler(self.stopwatch)
        for version in [*self.kept.values(), *self.reloader.catalog.versions.values()]:
            while is_loaded(version):
                unload(version)

    # -- what can be seen ------------------------------------------------------------------------

    def loaded(self) -> set[str]:
        """Return the modules of the versions loaded since this desk was made."""
        return loaded_modules() - self._loaded_before

    def offsets(self, symbol: str = BTC) -> set[float]:
        """Return how far from the latest best prices the venue's open orders rest."""
        top = self.desk.engine.top(ACCOUNT, symbol)
        assert top is not None
        return {
            round(abs(float(order.price or 0) - (top.bid if order.side == "buy" else top.ask)), 2)
            for order in self.desk.venue.open(symbol)
        }

    def moves(self, plugin: str = PLUGIN) -> list[VersionState]:
        """Return what became of the versions of a plugin, in order."""
        return [m.state for m in self.desk.entries if isinstance(m, e.VersionMoved) and m.plugin == plugin]

    def stages(self) -> list[tuple[str, str]]:
        """Return the stages journaled and how each ended."""
        return [(s.stage, s.outcome) for s in self.desk.entries if isinstance(s, e.StageReported)]


async def _no_probe(_version: Version) -> None:
    """Trust the bytes: what a child process finds out is tested with the loader."""
