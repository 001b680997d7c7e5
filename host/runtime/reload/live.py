"""Versions that have just gone live: watched, then promoted or rolled back.

Each is kept with the version that it would go back to. What happens to one instance, model or account
is in its revision; here is what happens to the plugin as a whole.
"""

import functools
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from host.api import TandemError
from host.core import entries as e
from host.core.entries import VersionState
from host.loader import Catalog, Offer, Version, import_version, unload
from host.runtime.instance import Instance
from host.runtime.reload.adapters import AdapterRevision
from host.runtime.reload.fallback import RECEIVING, SLICE_NS
from host.runtime.reload.journaling import ReloadJournal
from host.runtime.reload.leftovers import Retirement
from host.runtime.reload.settings import ReloadSettings
from host.runtime.reload.stages import ReloadReport, Stage, StageOutcome, StageResult
from host.runtime.reload.uses import Revision, Uses
from host.runtime.remote import class_of

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["LiveVersion", "LiveVersions"]

ROLLBACKS_BEFORE_STOP: Final = 3
ROLLBACK_WINDOW_NS: Final = 300 * 1_000_000_000
"""So many rollbacks within this time end automatic reload of the plugin until an operator says otherwise."""


class LiveVersion(Struct, eq=False):
    """A version that went live and is on probation, and the version that it would go back to."""

    version: Version
    revisions: list[Revision]
    before: Version
    offers_before: list[Offer]
    started_ns: int


class LiveVersions:
    """All versions on probation, by plugin. `settings()` are read anew at each look."""

    def __init__(
        self,
        engine: "Engine",
        uses: Uses,
        journal: ReloadJournal,
        settings: Callable[[], ReloadSettings],
        on_report: Callable[[ReloadReport], None],
    ) -> None:
        self._engine = engine
        self._uses = uses
        self._journal = journal
        self._settings = settings
        self._on_report = on_report
        self._live: dict[str, LiveVersion] = {}
        self._retirement = Retirement(self._retired)
        engine.upkeep.duties.append(self._watch)
        engine.roster.on_probation_fault = self.on_fault

    @property
    def plugins(self) -> frozenset[str]:
        """Return the plugins with a version that may yet be taken back."""
        return frozenset(self._live)

    def get(self, plugin: str) -> LiveVersion | None:
        """Return a plugin's version on probation, if it has one."""
        return self._live.get(plugin)

    # -- going live ------------------------------------------------------------------------------

    def check_names(self, plugin: str, offers: Iterable[Offer]) -> None:
        """Raise `TandemError` where a plugin offers what another may go back to offering."""
        wanted = {(offer.kind, offer.name) for offer in offers}
        for other, live in self._live.items():
            for offer in live.offers_before if other != plugin else ():
                if (offer.kind, offer.name) in wanted:
                    raise TandemError(
                        f'{offer.kind} "{offer.name}" is offered by the version that plugin {other} may yet '
                        "go back to; save it again when the probation of that plugin is over"
                    )

    def begin(self, version: Version, catalog: Catalog, revisions: list[Revision], now_ns: int) -> None:
        """Swap everything within one turn: no event comes between, and no await."""
        plugin, uses, journal = version.name, self._uses, self._journal
        previous = self._live.pop(plugin, None)
        old, old_offers = uses.catalog.versions[plugin], uses.catalog.offers_of(plugin)
        if previous is None:
            import_version(old)  # held until the new version has earned its place
        uses.switch(catalog)
        places = {
            (revision.name, revision.place): revision for revision in (previous.revisions if previous else ())
        }
        for revision in revisions:
            if (revision.name, revision.place) in places:
                revision.succeed(places[revision.name, revision.place])
            revision.swap(now_ns)
        journal.move(plugin, version.digest, VersionState.ACTIVE, "swapped in")
        uses.rebind(plugin)
        live = LiveVersion(version, revisions, old, old_offers, now_ns)
        if previous is not None:
            # What earned its place is still the version before: the one between goes.
            live.before, live.offers_before = previous.before, previous.offers_before
            text = f"replaced by {version.short_digest}"
            journal.stage_since(
                previous.version, previous.started_ns, Stage.PROBATION, StageOutcome.SKIPPED, text
            )
            self._retire(old, old_offers)
        self._live[plugin] = live
        if self._follow not in self._engine.upkeep.errands:
            self._engine.upkeep.errands.append(self._follow)
        self._engine.roster.rewire()

    def forget(self, instance: str, now_ns: int) -> None:
        """Have probation concern an instance no more, within a turn: it is removed."""
        for live in list(self._live.values()):
            gone = [revision for revision in live.revisions if revision.name == instance]
            for revision in gone:
                revision.settle(now_ns)  # nobody comes back to the version before: what is left of it ends
            if gone:
                kept = live.revisions[:] = [one for one in live.revisions if one not in gone]
                if not kept:
                    self.promote(live, "nothing runs it", now_ns)

    def stop(self, reason: str) -> None:
        """Note, within a turn, that all of them did nothing wrong: the node stops on purpose."""
        for live in self._live.values():
            self._ended(live, StageOutcome.SKIPPED, reason)
            self._journal.move(live.version.name, live.version.digest, VersionState.STAGED, reason)

    # -- after a restart -------------------------------------------------------------------------

    def clear_away(self, plugin: str) -> None:
        """Cancel, within a turn, what versions placed that were taken back and no longer can cancel it."""
        engine = self._engine
        record = engine.state.plugin(plugin)
        if not record.trial_until_ns or self._settings().rollback_policy == "keep":
            return
        names = {instance.instance for instance in self._uses.instances(plugin)}
        placed = [
            order
            for order in engine.state.orders.values()
            if order.instance in names
            and order.slot < 0
            and record.trial_from_ns <= order.created_ns <= record.trial_until_ns
        ]
        engine.oms.cancel_all(placed, "rolled back", engine.now_ns)

    def close_positions(self, plugin: str, reason: str) -> None:
        """Close positions, within a turn, where the policy asks for that."""
        if self._settings().rollback_policy == "flatten":
            for instance in self._uses.instances(plugin):
                self._engine.safety.flattening.begin(f"instance:{instance.instance}", reason)

    def close(self) -> None:
        """Give back the versions kept, once nothing runs any more."""
        for live in self._live.values():
            unload(live.before)
        self._live.clear()

    # -- watching --------------------------------------------------------------------------------

    def _watch(self, now_ns: int) -> None:
        """Look after versions on probation and retired ones; runs with the engine's housekeeping."""
        for live in list(self._live.values()):
            watched = [(r.name, r.probation) for r in live.revisions if r.probation is not None]
            faults = [f"{name}: {fault}" for name, probation in watched if (fault := probation.fault())]
            if faults:
                self.roll_back(live, "; ".join(faults), now_ns)
            elif self._is_over(live, now_ns):
                self.promote(live, "probation passed", now_ns)
        self._uses.close_discarded()
        self._retirement.check(now_ns)

    def _is_over(self, live: LiveVersion, now_ns: int) -> bool:
        if now_ns - live.started_ns < self._settings().limits.seconds * 1e9:
            return False
        instances = self._engine.roster.instances
        return all(
            revision.probation is None
            or revision.probation.is_over(now_ns)
            # One that is stopped meanwhile will never have seen enough.
            or (revision.name in instances and instances[revision.name].state not in RECEIVING)
            for revision in live.revisions
        )

    def _follow(self, now_ns: int) -> None:
        """Let the versions that may come back hear what happened; an errand of the engine's upkeep."""
        kept = [i.fallback for i in self._engine.roster.instances.values() if i.fallback is not None]
        for fallback in kept:
            fallback.follow(now_ns, SLICE_NS // len(kept))
        if not self._live:
            self._engine.upkeep.errands.remove(self._follow)

    def on_fault(self, instance: Instance, why: str) -> bool:
        """Have a version taken back at the end of this turn; return whether it is on probation."""
        for live in self._live.values():
            if any(revision.probation is instance.probation for revision in live.revisions):
                # The other handlers of this very event are still to run: after them, not before.
                instance.is_trading = False
                text = f"instance {instance.instance}: {why}"
                self._engine.after_turn.append(functools.partial(self.roll_back, live, text))
                return True
        return False

    def on_adapter_fault(self, revision: AdapterRevision, why: str) -> None:
        """Have the version that an account runs taken back at the end of this turn."""
        for live in self._live.values():
            if any(one is revision for one in live.revisions):
                text = f"{revision.name}: {why}"
                self._engine.after_turn.append(functools.partial(self.roll_back, live, text))

    # -- the end of it ---------------------------------------------------------------------------

    def promote(self, live: LiveVersion, reason: str, now_ns: int) -> None:
        """Make a version the one that restarts come back to, within a turn."""
        version, journal = live.version, self._journal
        del self._live[version.name]
        self._ended(live, StageOutcome.PASSED, reason)
        journal.stage(version, StageResult(Stage.PROMOTE, StageOutcome.PASSED, 0, ""))
        # Before the states that it saves: it takes over an older one, the version before none of its.
        journal.move(version.name, version.digest, VersionState.PERMANENT, reason)
        for revision in live.revisions:
            revision.settle(now_ns)
        self._keep_params(version.name)
        self._engine.roster.rewire()
        live.revisions.clear()
        unload(live.before)
        self._retire(live.before, live.offers_before)

    def roll_back(self, live: LiveVersion, reason: str, now_ns: int) -> None:
        """Go back, within a turn; no effect on a version that went already."""
        version, uses, journal = live.version, self._uses, self._journal
        plugin = version.name
        if self._live.get(plugin) is not live:
            return  # two callbacks of one event raised
        del self._live[plugin]
        started_ns = time.perf_counter_ns()
        engine = self._engine
        offers = uses.catalog.offers_of(plugin)
        for revision in live.revisions:
            revision.roll_back(reason, self._settings().rollback_policy, now_ns)
        uses.switch(uses.catalog.with_offers(live.before, live.offers_before))
        unload(live.before)
        uses.rebind(plugin)
        self._follow_up(plugin, reason)
        took_us = (time.perf_counter_ns() - started_ns) // 1000
        self._ended(live, StageOutcome.FAILED, reason)
        journal.stage(version, StageResult(Stage.ROLL_BACK, StageOutcome.PASSED, took_us, reason))
        journal.move(plugin, version.digest, VersionState.ROLLED_BACK, reason)
        engine.record_alert("rolled_back", f"plugin {plugin} {version.short_digest}: {reason}")
        self._stop_after_many(plugin, now_ns)
        engine.roster.rewire()
        names = tuple(sorted({revision.name for revision in live.revisions}))
        live.revisions.clear()
        live.offers_before.clear()
        self._retire(version, offers)
        self._on_report(ReloadReport(plugin, version.digest, VersionState.ROLLED_BACK, reason, (), names))

    def _follow_up(self, plugin: str, reason: str) -> None:
        """See to what changed around the instances while the version was on probation."""
        roster = self._engine.roster
        for instance in self._uses.instances(plugin):
            use = self._uses.strategies[instance.instance]
            if class_of(instance.strategy) is not use.offer.cls:
                # Added meanwhile: nothing is there that it could go back to.
                roster.put_in_quarantine(instance, f"its version was rolled back: {reason}")
                continue
            try:
                params = self._uses.params(instance.instance)
                if params != instance.strategy.params:
                    instance.set_params(params)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: quarantined
                roster.quarantine(instance, error, "on_params")
        self._keep_params(plugin)

    def _keep_params(self, plugin: str) -> None:
        """Journal, within a turn, the parameters that go with the version which is permanent, where they are others.

        A standby that takes over goes on with what the journal has, and the classes of two versions differ: in
        the parameters that there are, and in their defaults. On probation the journal has those of the version before.
        """
        engine = self._engine
        for instance in self._uses.instances(plugin):
            params = msgspec.json.encode(instance.strategy.params)
            if params != engine.state.instances[instance.instance].params:
                engine.record(e.ParamsChanged(instance.instance, params, "reload"), engine.now_ns)

    def _stop_after_many(self, plugin: str, now_ns: int) -> None:
        record = self._engine.state.plugin(plugin)
        recent = [ts for ts in record.rollbacks_ns if now_ns - ts < ROLLBACK_WINDOW_NS]
        if len(recent) >= ROLLBACKS_BEFORE_STOP and record.is_auto:
            text = f"{len(recent)} rollbacks within {ROLLBACK_WINDOW_NS // 1_000_000_000} s"
            self._engine.record(e.AutoReloadSet(plugin, False, text), now_ns)
            self._engine.record_alert(
                "reload_stopped", f"plugin {plugin}: {text}; reload it by hand to go on"
            )

    def _ended(self, live: LiveVersion, outcome: StageOutcome, text: str) -> None:
        self._journal.stage_since(live.version, live.started_ns, Stage.PROBATION, outcome, text)

    # -- retirement ------------------------------------------------------------------------------

    def _retire(self, version: Version, offers: list[Offer]) -> None:
        """Remember to see that an unloaded version's code goes; its offers are let go of here."""
        self._retirement.add(version, [offer.cls for offer in offers], self._engine.now_ns)
        offers.clear()

    def _retired(self, version: Version, took_ns: int, outcome: StageOutcome, text: str) -> None:
        self._journal.stage(version, StageResult(Stage.RETIRE, outcome, took_ns // 1000, text))
        if outcome is StageOutcome.FAILED:
            self._journal.move(version.name, version.digest, VersionState.STUCK, text)
            text = f"plugin {version.name} {version.short_digest}: {text}"
            self._engine.record_alert("plugin_stuck", text)
