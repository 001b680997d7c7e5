"""How a node of a cell is: what it tells the elector, its peers and people of itself."""

from collections.abc import Callable
from typing import Final

from failover.replication.events import MarketSeen
from failover.signals import Health
from host.comparing import MarketComparison
from host.config import NodeConfig
from host.runtime.blocking import Blocks
from host.runtime.engine import Engine
from host.runtime.facts import EngineFacts
from host.runtime.progress import Condition, Progress, ProgressSettings
from host.runtime.shadowing import Shadowing

__all__ = ["NodeHealth"]

SEGMENTS_OF_ROOM: Final = 2
"""A disk with room for fewer journal segments is an ailment."""


class NodeHealth:
    """Judges one engine at a time by its progress; `on_alert(code, text)` is told what people should know."""

    def __init__(
        self,
        config: NodeConfig,
        engine: Engine,
        on_alert: Callable[[str, str], None],
        certificate_warning: Callable[[], str] = lambda: "",
    ) -> None:
        self._certificate_warning: Final = certificate_warning
        self._warned = ""
        self.blocks: Final = Blocks(config.watchdog, config.node.data_dir)
        self._config: Final = config
        self._on_alert: Final = on_alert
        self.look_at(engine)

    def look_at(self, engine: Engine) -> None:
        """Judge another engine from here on."""
        self._engine = engine
        self.blocks.look_at(engine)
        self._facts = EngineFacts(engine)
        self._comparison = MarketComparison(engine)
        room = SEGMENTS_OF_ROOM * self._config.node.journal_segment_kb << 10
        self._progress = Progress(ProgressSettings(least_disk_bytes=room))

    def of_leader(self) -> Health:
        """Return how a leading node is."""
        condition = self._condition()
        return Health(ailments=condition.ailments, reason=condition.reason)

    def of_standby(
        self, faults: list[str], why_not_current: str, shadows: Shadowing | None, skipped_accounts: list[str]
    ) -> Health:
        """Return how a standby is: `faults` are why it could not lead, each in words."""
        condition = self._condition()
        ailments = condition.ailments | self._comparison.ailments
        ailments |= {f"venue:{account}" for account in skipped_accounts}
        if shadows is not None:
            faults = [*faults, *shadows.faults.values()]
            ailments |= {f"plugin:{name}" for name in shadows.stumbles}
        reason = "; ".join(faults) or why_not_current or condition.reason
        return Health(not faults, not why_not_current, ailments, reason)

    def on_market(self, seen: MarketSeen) -> None:
        """Compare what the primary sees of its markets with what this standby sees."""
        for text in self._comparison.take(seen):
            self._on_alert("market_differs", text)

    def _condition(self) -> Condition:
        """Look at the node's progress; tell of code that blocked the event loop."""
        self.blocks.tell(self._on_alert)
        warning = self._certificate_warning()
        if warning and warning != self._warned:
            self._on_alert("peer_tls_warning", warning)
        self._warned = warning
        facts = self._facts.now(self.blocks.watchdog.longest_ns())
        return self._progress.look(facts, self._engine.clock.now_ns())
