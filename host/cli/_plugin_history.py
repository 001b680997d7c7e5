"""What the journal says of one plugin: its versions, what became of each, and when."""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct, field

from host.core import entries as e

__all__ = ["PluginEvent", "PluginHistory", "PluginVersion", "read_history"]


class PluginEvent(Struct, frozen=True):
    """One thing that happened to a version. `digest` is empty for what concerns all of them."""

    lsn: int
    ts_ns: int
    digest: str
    what: str
    """A stage and how it ended, a version's new state, or an instance and what it did."""
    duration_us: int | None
    """Of a stage."""
    detail: str


class PluginVersion(Struct):
    """The latest that is known of one version."""

    digest: str
    since_ns: int
    state: str = "loaded"
    reason: str = ""
    instances: list[str] = field(default_factory=list)
    """Whichever ever ran it."""


class PluginHistory(Struct):
    """Versions in the order in which they came, events in the order in which they happened."""

    plugin: str
    path: str = ""
    is_auto: bool = True
    """Whether changed files go live by themselves."""
    versions: list[PluginVersion] = field(default_factory=list)
    events: list[PluginEvent] = field(default_factory=list)


def read_history(plugin: str, records: Iterable[e.Record]) -> tuple[PluginHistory, set[str]]:
    """Return the history of `plugin`, and the names of all plugins that the records speak of."""
    story = _Story(plugin)
    for record in records:
        story.take(record)
    return story.history, story.plugins


class _Story:
    def __init__(self, plugin: str) -> None:
        self.history = PluginHistory(plugin)
        self.plugins: set[str] = set()
        self._versions: dict[str, PluginVersion] = {}
        self._runs: dict[str, tuple[str, str]] = {}
        """(Plugin, digest) of each instance."""

    def take(self, record: e.Record) -> None:
        entry: Any = record.entry
        self.plugins |= {getattr(entry, "plugin", "").partition(".")[0]} - {""}
        match entry:
            case e.PluginLoaded() if self._is_ours(entry.plugin):
                self.history.path = entry.path
                if entry.digest not in self._versions:
                    self._note(record, entry.digest, "loaded", None, f"offers {', '.join(entry.offers)}")
            case e.StageReported() if self._is_ours(entry.plugin):
                what = f"{entry.stage} {entry.outcome}"
                self._note(record, entry.digest, what, entry.duration_us, entry.detail)
            case e.VersionMoved() if self._is_ours(entry.plugin):
                self._note(record, entry.digest, entry.state, None, entry.reason)
                version = self._versions[entry.digest]
                version.state, version.reason = entry.state, entry.reason
            case e.AutoReloadSet() if self._is_ours(entry.plugin):
                self.history.is_auto = entry.is_on
                self._note(
                    record, "", f"automatic reload {'on' if entry.is_on else 'off'}", None, entry.reason
                )
            case e.InstanceAdded():
                name = entry.plugin.partition(".")[0]
                before = self._runs.get(entry.instance)
                self._runs[entry.instance] = (name, entry.digest)
                if self._is_ours(name) and before != (name, entry.digest):
                    self._run(record, entry.instance, entry.digest, "")
            case e.InstanceRevised():
                name, _ = self._runs.get(entry.instance, ("", ""))
                self._runs[entry.instance] = (name, entry.digest)
                if self._is_ours(name):
                    self._run(record, entry.instance, entry.digest, entry.reason)
            case e.InstanceChanged(state=e.InstanceState.QUARANTINED):
                name, digest = self._runs.get(entry.instance, ("", ""))
                if self._is_ours(name):
                    self._note(record, digest, f"{entry.instance} quarantined", None, entry.reason)

    def _is_ours(self, plugin: str) -> bool:
        return plugin == self.history.plugin

    def _run(self, record: e.Record, instance: str, digest: str, reason: str) -> None:
        self._note(record, digest, f"runs in {instance}", None, reason)
        instances = self._versions[digest].instances
        if instance not in instances:
            instances.append(instance)

    def _note(self, record: e.Record, digest: str, what: str, duration_us: int | None, detail: str) -> None:
        if digest and digest not in self._versions:
            version = self._versions[digest] = PluginVersion(digest, record.ts_ns)
            self.history.versions.append(version)
        self.history.events.append(PluginEvent(record.lsn, record.ts_ns, digest, what, duration_us, detail))
