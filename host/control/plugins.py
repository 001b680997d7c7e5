"""Plugins as the API shows them, and what the journal tells of their versions."""

import asyncio
from collections.abc import Mapping
from typing import Final

from msgspec import Struct, field

from host.control.etags import etag_of
from host.control.instances import schema_of
from host.control.plain import duration, timestamp
from host.control.reasons import Refused
from host.control.recorded import recorded_plugin
from host.control.subject import Subject
from host.control.tail import SLICE
from host.core import entries as e
from host.core.entries import VersionState
from host.journal import Follower, Journal
from host.loader import Kind
from host.runtime.reload import StageResult
from tandem.v1 import plugin_pb2 as pb

__all__ = ["KINDS", "STATES", "PluginView", "VersionLog", "show_version", "stage_of"]

KINDS: Final = {
    Kind.STRATEGY: pb.PLUGIN_KIND_STRATEGY,
    Kind.EXCHANGE: pb.PLUGIN_KIND_EXCHANGE,
    Kind.MODEL: pb.PLUGIN_KIND_MODEL,
}
STATES: Final = {
    VersionState.STAGED: pb.VERSION_STATE_STAGED,
    VersionState.ACTIVE: pb.VERSION_STATE_ACTIVE,
    VersionState.PERMANENT: pb.VERSION_STATE_PERMANENT,
    VersionState.REFUSED: pb.VERSION_STATE_REFUSED,
    VersionState.ROLLED_BACK: pb.VERSION_STATE_ROLLED_BACK,
    VersionState.STUCK: pb.VERSION_STATE_STUCK,
}
_OUTCOMES: Final = {
    "passed": pb.STAGE_OUTCOME_PASSED,
    "failed": pb.STAGE_OUTCOME_FAILED,
    "skipped": pb.STAGE_OUTCOME_SKIPPED,
}
VERSIONS_KEPT: Final = 100
STAGES_KEPT: Final = 40
"""Of each plugin, and of each of its versions, so much is remembered."""


class PluginView:
    """Shows the plugins in use, with what may be done with their versions."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def names(self) -> list[str]:
        """Return the names of all plugins on offer; on a standby, of those that the journal knows."""
        reloader = self._subject.reloader
        return list(self._subject.engine.state.plugins if reloader is None else reloader.catalog.versions)

    def check(self, name: str) -> None:
        """Raise `Refused` where no plugin is named so."""
        if name not in self.names():
            known = ", ".join(sorted(self.names())) or "none"
            raise Refused("PLUGIN_NOT_FOUND", f"no plugin is named {name}; there are: {known}", name=name)

    def kinds(self, name: str) -> "set[pb.PluginKind.ValueType]":
        """Return what a plugin offers; a standby, which loads none, does not know."""
        reloader = self._subject.reloader
        return set() if reloader is None else {KINDS[one.kind] for one in reloader.catalog.offers_of(name)}

    def etag(self, name: str) -> str:
        """Return what changes when a plugin's version does, or what may become of it."""
        reloader, _ = self._subject.trading()
        record = self._subject.engine.state.plugins.get(name)
        running = reloader.catalog.versions[name].digest
        if record is None:
            return etag_of(running)
        return etag_of(running, record.permanent, record.active, record.staged, record.is_auto)

    def show(self, name: str, *, with_schemas: bool = False) -> pb.Plugin:
        """Return a plugin as it is now."""
        subject, reloader = self._subject, self._subject.reloader
        if reloader is None:
            return recorded_plugin(subject, name)
        catalog, state = reloader.catalog, subject.engine.state
        record = state.plugins.get(name)
        shown = pb.Plugin(
            name=f"plugins/{name}",
            digest=catalog.versions[name].digest,
            path=catalog.versions[name].root.name,
            auto_reload=record is None or record.is_auto,
            instances=[
                f"instances/{user}"
                for user in reloader.in_use.users(name)
                if user in subject.engine.roster.instances
            ],
            etag=self.etag(name),
        )
        if record is not None:
            shown.permanent_digest, shown.staged_digest = record.permanent, record.staged
        if name in reloader.on_probation:
            shown.probation_digest = shown.digest
        for offer in catalog.offers_of(name):
            one = shown.offers.add(name=offer.name, kind=KINDS[offer.kind])
            if with_schemas:
                one.params_schema.CopyFrom(schema_of(offer.cls.params_type))
        return shown


class _Known(Struct):
    """What became of one version."""

    digest: str
    lsn: int
    ts_ns: int
    state: VersionState | None = None
    reason: str = ""
    stages: list[tuple[int, e.StageReported]] = field(default_factory=list)


class VersionLog:
    """What the journal tells of the versions of every plugin; read on from where it was read last."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._engine = subject.engine
        self._follower = Follower(self._journal, self._journal.first_lsn)
        self._versions: dict[str, dict[str, _Known]] = {}
        self._reading = asyncio.Lock()

    @property
    def _journal(self) -> Journal:
        return self._engine.journal

    async def of(self, plugin: str) -> Mapping[str, _Known]:
        """Return the versions of a plugin by digest, oldest first, after reading what was journaled since."""
        async with self._reading:
            if self._engine is not self._subject.engine:
                # With another role the end of the journal may have become another one.
                self._engine = self._subject.engine
                self._versions.clear()
                self._begin_again()
            elif self._follower.next_lsn < self._journal.first_lsn:
                self._begin_again()
            until_lsn = self._journal.flushed_lsn
            while self._follower.next_lsn <= until_lsn and (records := self._follower.poll(SLICE)):
                for record in records:
                    self._take(record)
                await asyncio.sleep(0)
        return self._versions.get(plugin, {})

    def _begin_again(self) -> None:
        self._follower.close()
        self._follower = Follower(self._journal, self._journal.first_lsn)

    def _take(self, record: e.Record) -> None:
        entry = record.entry
        if isinstance(entry, e.StageReported) and entry.digest:
            version = self._version(entry.plugin, entry.digest, record)
            version.stages.append((record.ts_ns, entry))
            del version.stages[:-STAGES_KEPT]
        elif isinstance(entry, e.VersionMoved) and entry.digest:
            version = self._version(entry.plugin, entry.digest, record)
            version.state, version.reason, version.ts_ns = entry.state, entry.reason, record.ts_ns

    def _version(self, plugin: str, digest: str, record: e.Record) -> _Known:
        versions = self._versions.setdefault(plugin, {})
        known = versions.get(digest)
        if known is None:
            known = versions[digest] = _Known(digest, record.lsn, record.ts_ns)
            if len(versions) > VERSIONS_KEPT:
                del versions[next(iter(versions))]
        return known

    def close(self) -> None:
        """Let go of the journal's file."""
        self._follower.close()


def show_version(plugin: str, known: _Known) -> pb.PluginVersion:
    """Return a version with the reports of its stages."""
    shown = pb.PluginVersion(
        name=f"plugins/{plugin}/versions/{known.digest}",
        digest=known.digest,
        state=pb.VERSION_STATE_UNSPECIFIED if known.state is None else STATES[known.state],
        reason=known.reason,
        time=timestamp(known.ts_ns),
    )
    for ts_ns, stage in known.stages:
        shown.stages.add(
            stage=stage.stage,
            outcome=_OUTCOMES[stage.outcome],
            duration=duration(stage.duration_us * 1000),
            detail=stage.detail,
            time=timestamp(ts_ns),
        )
    return shown


def stage_of(result: StageResult) -> pb.StageReport:
    """Return what a stage came to, as the answer to a reload tells it."""
    return pb.StageReport(
        stage=result.stage,
        outcome=_OUTCOMES[result.outcome],
        duration=duration(result.duration_us * 1000),
        detail=result.detail,
    )
