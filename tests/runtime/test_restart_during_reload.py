"""Wherever a reload is cut off: the node comes back to the version that earned its place."""

from pathlib import Path

import pytest
from desk_tools import Desk, ScriptedVenue
from reload_tools import PLUGIN, ReloadDesk, maker

from host.core import entries as e
from host.core.entries import InstanceState, VersionState
from host.core.state import PluginRecord
from host.loader import Version
from host.runtime.reload.restart import choose_version

A, B, C = "a" * 64, "b" * 64, "c" * 64
_B = B[:12]


@pytest.mark.parametrize(
    ("record", "on_disk", "chosen", "reason"),
    [
        (PluginRecord("p"), A, A, "the first version"),
        (PluginRecord("p"), "", "", "there is no version that can be read"),
        (PluginRecord("p", permanent=A, active=A), A, A, "the permanent version is on disk"),
        (PluginRecord("p", permanent=A, active=B), A, A, "the permanent version is on disk"),
        (PluginRecord("p", permanent=A, active=A), "", A, "its file is gone or cannot be read"),
        (
            PluginRecord("p", permanent=A, active=B),
            B,
            A,
            f"{_B} on disk was on probation when the node ended",
        ),
        (PluginRecord("p", permanent=A, active=A, staged=B), B, A, f"{_B} on disk is staged"),
        (
            PluginRecord("p", permanent=A, active=A, refused={B: "bad"}),
            B,
            A,
            f"{_B} on disk was taken back: bad",
        ),
        (PluginRecord("p", permanent=A, active=A), B, A, f"{_B} on disk is new: it goes live as a reload"),
        (PluginRecord("p", permanent=A, active=C), B, A, f"{_B} on disk is new: it goes live as a reload"),
    ],
)
def test_permanent_version_wins(record: PluginRecord, on_disk: str, chosen: str, reason: str) -> None:
    choice = choose_version(record, on_disk)

    assert (choice.digest, choice.reason) == (chosen, reason)


class Crash(BaseException):
    """The process is gone."""


class CrashingDesk(Desk):
    """A desk whose process ends after the n-th write of the journal, counted from `arm` on."""

    def arm(self, writes: int) -> None:
        flush = self.journal.flush
        left = writes

        def write() -> None:
            nonlocal left
            before = self.journal.flushed_lsn
            flush()
            left -= self.journal.flushed_lsn > before
            if left == 0:
                raise Crash

        self.journal.flush = write  # type: ignore[method-assign]


UPGRADE = """
        state_version = 2
        fills_doubled: int = 0

        @classmethod
        def upgrade(cls, version, data):
            return {"books": data["books"], "fills_doubled": 2 * data["fills"]}
"""
NEWER = (
    maker(0.05)
    .replace("    fills: int = 0\n", UPGRADE.replace("\n        ", "\n    "))
    .replace("self.state.fills += 1", "self.state.fills_doubled += 2")
)


def live(rig: ReloadDesk) -> None:
    """Save a version with another shape of state, trade with it, and let it earn its place."""
    rig.save(NEWER)
    rig.tops(2)
    rig.desk.venue.trade(rig.desk.venue.open()[0], "0.25")
    rig.desk.settle()
    rig.tops(5, seconds=0.3)
    rig.desk.advance(1.5)
    rig.desk.venue.trade(rig.desk.venue.open()[0], "0.25")
    rig.desk.settle()


def started_over(rig: ReloadDesk, first: Version) -> ReloadDesk:
    """Return the rig as the next process finds it, with the version that it chooses."""
    vars(rig.desk.journal).pop("flush", None)
    again = ReloadDesk(rig.folder, desk=rig.desk.restart())
    again.load()
    record = again.desk.engine.state.plugin(PLUGIN)
    choice = choose_version(record, again.reloader.catalog.versions[PLUGIN].digest)
    if choice.digest == first.digest:
        with_permanent = again.reloader.catalog.with_version(first)
        again.reloader.catalog.close()
        again.reloader.in_use.catalog = with_permanent
    assert again.reloader.catalog.versions[PLUGIN].digest == choice.digest
    return again


def test_process_that_ends_after_any_write_comes_back_to_a_version_and_state_that_fit(tmp_path: Path) -> None:
    seen: set[tuple[str, str]] = set()
    for writes in range(1, 200):
        rig = ReloadDesk(
            tmp_path / str(writes), desk=CrashingDesk(tmp_path / str(writes) / "j", ScriptedVenue())
        )
        rig.write(maker())
        rig.load()
        rig.run("mm")
        first = rig.reloader.catalog.versions[PLUGIN]
        rig.tops(4)
        rig.desk.venue.trade(rig.desk.venue.open()[0], "0.25")
        rig.desk.settle()
        assert isinstance(rig.desk, CrashingDesk)
        rig.desk.arm(writes)
        try:
            live(rig)
        except Crash:
            pass
        else:
            rig.close()
            break
        finally:
            rig.die()
        fills = len(rig.desk.venue.fills)

        again = started_over(rig, first)
        state = again.desk.engine.state
        record = state.plugin(PLUGIN)
        was_on_probation = record.active not in ("", record.permanent)
        is_newer = record.permanent != first.digest
        assert is_newer is (VersionState.PERMANENT in again.moves()[1:])
        seen.add((again.stages()[-1][0] if again.stages() else "", "newer" if is_newer else "older"))
        instance = again.run("mm")
        again.desk.advance(3.0)  # what was in flight is out of doubt
        again.tops(1)

        assert again.desk.state_of("mm") is InstanceState.RUNNING
        assert again.offsets() == ({0.05} if is_newer else {0.02})
        told = instance.strategy.state.fills_doubled / 2 if is_newer else instance.strategy.state.fills
        assert told == fills, "each fill once"
        assert state.orders.keys() == {order.client_id for order in again.desk.venue.open()}
        if was_on_probation:
            assert again.desk.alerts("rolled_back")[0].endswith("the node ended while it was on probation")
            report = again.reload()
            assert report.reason == "these bytes were tried before: the node ended while it was on probation"
        elif not is_newer:
            assert again.reload().state is VersionState.ACTIVE, "what is on disk is tried"
        again.close()
    else:
        raise AssertionError("it never came to an end")

    stages = {"capture", "validate", "restore", "warm_up", "swap"}
    assert {stage for stage, version in seen if version == "older"} >= stages
    assert ("promote", "newer") in seen


def test_version_on_probation_at_a_clean_stop_did_nothing_wrong_and_is_tried_again(tmp_path: Path) -> None:
    rig = ReloadDesk(tmp_path)
    rig.write(maker())
    rig.load()
    rig.run("mm")
    first = rig.reloader.catalog.versions[PLUGIN]
    rig.tops(4)
    report = rig.save(maker(0.05))
    rig.tops(1)
    rig.reloader.stop("the node stops")
    rig.desk.engine.stop_trading("test")
    rig.die()

    again = started_over(rig, first)
    record = again.desk.engine.state.plugin(PLUGIN)
    assert (record.permanent, record.active, record.staged) == (first.digest, first.digest, report.digest)
    again.run("mm")
    again.tops(1)
    assert again.offsets() == {0.02}
    assert again.desk.alerts("rolled_back") == []
    assert again.reload().state is VersionState.ACTIVE
    again.close()


def test_state_in_the_journal_is_the_permanent_versions_while_another_is_on_probation(tmp_path: Path) -> None:
    rig = ReloadDesk(tmp_path)
    rig.write(maker())
    rig.load()
    rig.run("mm")
    rig.tops(4)
    rig.save(NEWER)
    rig.desk.venue.trade(rig.desk.venue.open()[0], "0.25")
    rig.desk.settle()
    assert rig.desk.engine.state.instances["mm"].state_version == 1
    rig.tops(6)
    rig.desk.advance(2.5)

    saved = [entry for entry in rig.desk.entries if isinstance(entry, e.StrategyStateSaved)]
    assert rig.moves()[-1] is VersionState.PERMANENT
    assert saved[-1].state_version == 2
    rig.close()
