"""What the terminal view says of reloads: one short line a plugin, from the journal's entries."""

from typing import Final

from msgspec import Struct

from host.core import entries as e
from host.core.entries import VersionState
from host.runtime.reload import Stage
from host.terminal import ReloadLine

__all__ = ["ReloadLines"]

_S: Final = 1_000_000_000
SHOWN_S: Final = 30
"""How long a good end is shown."""
BAD_SHOWN_S: Final = 300
"""How long a bad one is."""
_BEFORE_LIVE: Final = (Stage.CAPTURE, Stage.VALIDATE, Stage.RESTORE, Stage.WARM_UP)
"""The swap is not among them: its report comes after the version's being active."""
_LEVELS: Final = {
    VersionState.ROLLED_BACK: "error",
    VersionState.REFUSED: "warning",
    VersionState.STUCK: "warning",
}


class _Latest(Struct, frozen=True):
    line: ReloadLine
    ts_ns: int
    is_live: bool = False
    """Whether it is on probation: the time since then is shown."""
    waits: bool = False
    """Whether an operator has to do something about it."""

    def is_over(self, now_ns: int) -> bool:
        if self.is_live or self.waits:
            return False
        return now_ns - self.ts_ns > (SHOWN_S if self.line.level == "info" else BAD_SHOWN_S) * _S


class ReloadLines:
    """Keeps the latest that is to be said of each plugin's reload."""

    def __init__(self) -> None:
        self._latest: dict[str, _Latest] = {}

    def take(self, record: e.Record) -> None:
        """Take note of an entry, of whichever kind."""
        match record.entry:
            case e.StageReported() as entry if entry.stage in _BEFORE_LIVE:
                self._say(record, entry.plugin, entry.digest, f"{entry.stage} {entry.outcome}")
            case e.VersionMoved(state=VersionState.ACTIVE) as entry:
                self._say(record, entry.plugin, entry.digest, "probation", is_live=True)
            case e.VersionMoved(state=VersionState.PERMANENT) as entry:
                # What runs since the node started never was on its way.
                if entry.plugin in self._latest:
                    self._say(record, entry.plugin, entry.digest, "permanent")
            case e.VersionMoved(state=VersionState.STAGED) as entry:
                self._say(record, entry.plugin, entry.digest, f"staged: {entry.reason}", waits=True)
            case e.VersionMoved() as entry:
                text = f"{entry.state.replace('_', ' ')}: {entry.reason}"
                self._say(record, entry.plugin, entry.digest, text, _LEVELS.get(entry.state, "info"))

    def lines(self, now_ns: int) -> tuple[ReloadLine, ...]:
        """Return what is worth showing, the newest first."""
        self._latest = {name: one for name, one in self._latest.items() if not one.is_over(now_ns)}
        newest = sorted(self._latest.values(), key=lambda one: one.ts_ns, reverse=True)
        return tuple(_timed(one, now_ns) for one in newest)

    def _say(
        self,
        record: e.Record,
        plugin: str,
        digest: str,
        text: str,
        level: str = "info",
        *,
        is_live: bool = False,
        waits: bool = False,
    ) -> None:
        line = ReloadLine(plugin=plugin, digest=digest, text=text, level=level)
        self._latest[plugin] = _Latest(line, record.ts_ns, is_live, waits)


def _timed(one: _Latest, now_ns: int) -> ReloadLine:
    if not one.is_live:
        return one.line
    line = one.line
    text = f"{line.text} {max(now_ns - one.ts_ns, 0) // _S} s"
    return ReloadLine(plugin=line.plugin, digest=line.digest, text=text, level=line.level)
