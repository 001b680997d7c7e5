"""Wherever a reload is cut off: the node comes back to the version that earned its place."""

import asyncio
import importlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from desk_tools import Desk, ScriptedVenue
from reload_tools import PLUGIN, ReloadDesk, maker

from host.core import entries as e
from host.core.entries import InstanceState, VersionState
from host.core.state import PluginRecord
from host.loader import Catalog, Version
from host.runtime.instance import Instance
from host.runtime.reload import ProbationLimits, Reloader, ReloadSettings
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
    """A desk whose process ends with an entry of its journal, counted from `arm` on.

    What was to be written with it, and after it, is not; nor are the commands of that turn sent.
    """

    last_lsn = 0

    def arm(self, entries: int) -> None:
        self.last_lsn = self.journal.last_lsn + entries
        flush = self.journal.flush

        def write() -> None:
            flush()
            if self.journal.flushed_lsn >= self.last_lsn:
                raise Crash

        self.journal.flush = write  # type: ignore[method-assign]

    def restart(self, after_s: float = 0.0) -> Desk:
        vars(self.journal).pop("flush", None)
        self.journal.close()
        cut(self.folder, self.last_lsn)
        return super().restart(after_s)


def cut(folder: Path, last_lsn: int) -> None:
    """Have a journal of one segment end with an entry."""
    [segment] = folder.glob("*.seg")
    data = segment.read_bytes()
    at = 20 + int.from_bytes(data[12:16], "little")
    for _ in range(last_lsn):
        at += 8 + int.from_bytes(data[at : at + 4], "little")
    with segment.open("r+b") as file:
        file.truncate(at)


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
    again = ReloadDesk(rig.folder, desk=rig.desk.restart(), settings=rig.settings)
    again.load()
    record = again.desk.engine.state.plugin(PLUGIN)
    choice = choose_version(record, again.reloader.catalog.versions[PLUGIN].digest)
    if choice.digest == first.digest:
        with_permanent = again.reloader.catalog.with_version(first)
        again.reloader.catalog.close()
        again.reloader.in_use.catalog = with_permanent
    assert again.reloader.catalog.versions[PLUGIN].digest == choice.digest
    return again


class Crashed(NamedTuple):
    """A node that came back, and how its process had ended."""

    again: ReloadDesk
    first: Version
    instance: Instance
    was_on_probation: bool
    last_stage: str

    def comes_back_to(self, offset: float, kept: Collection[float] = ()) -> None:
        """Check that the version that quotes so far away trades on, beside orders `kept` so far away."""
        again = self.again
        assert again.desk.state_of("mm") is InstanceState.RUNNING
        assert again.offsets() == {offset, *kept}
        assert again.desk.engine.state.orders.keys() == {o.client_id for o in again.desk.venue.open()}
        if self.was_on_probation:
            assert again.desk.alerts("rolled_back")[0].endswith("the node ended while it was on probation")
            report = again.reload()
            assert report.reason == "these bytes were tried before: the node ended while it was on probation"


def crashes(
    folder: Path, story: Callable[[ReloadDesk], None], settings: ReloadSettings | None = None
) -> Iterator[Crashed]:
    """End the process with each entry that a story writes, in turn, and start it over."""
    for entries in range(1, 300):
        place = folder / str(entries)
        rig = ReloadDesk(place, desk=CrashingDesk(place / "j", ScriptedVenue()), settings=settings)
        rig.write(maker())
        rig.load()
        rig.run("mm")
        first = rig.reloader.catalog.versions[PLUGIN]
        rig.tops(4)
        rig.desk.venue.trade(rig.desk.venue.open()[0], "0.25")
        rig.desk.settle()
        assert isinstance(rig.desk, CrashingDesk)
        rig.desk.arm(entries)
        try:
            story(rig)
        except Crash:
            pass
        else:
            rig.close()
            return
        finally:
            rig.die()
        again = started_over(rig, first)
        record = again.desk.engine.state.plugin(PLUGIN)
        was_on_probation = record.active not in ("", record.permanent)
        stages = again.stages()
        instance = again.run("mm")
        again.desk.advance(3.0)  # what was in flight is out of doubt
        again.tops(1)
        yield Crashed(again, first, instance, was_on_probation, stages[-1][0] if stages else "")
        again.close()
    raise AssertionError("the story never came to an end")


def test_process_that_ends_with_any_entry_comes_back_to_a_version_and_state_that_fit(tmp_path: Path) -> None:
    seen: set[tuple[str, str]] = set()
    for crashed in crashes(tmp_path, live):
        again = crashed.again
        is_newer = again.desk.engine.state.plugin(PLUGIN).permanent != crashed.first.digest
        assert is_newer is (VersionState.PERMANENT in again.moves()[1:])
        seen.add((crashed.last_stage, "newer" if is_newer else "older"))
        state = crashed.instance.strategy.state
        told = state.fills_doubled / 2 if is_newer else state.fills
        assert told == len(again.desk.venue.fills), "each fill once"
        crashed.comes_back_to(0.05 if is_newer else 0.02)
        if not crashed.was_on_probation and not is_newer:
            assert again.reload().state is VersionState.ACTIVE, "what is on disk is tried"

    stages = {"capture", "validate", "restore", "warm_up", "swap"}
    assert {stage for stage, version in seen if version == "older"} >= stages
    assert ("promote", "newer") in seen


BAD = maker(
    0.05,
    at_book="""
        if self.state.books >= 5:
            self.buy_limit(book.symbol, Decimal(1), Decimal("59000"))
        if self.state.books >= 8:
            raise RuntimeError("bad")
    """,
)


def go_back(rig: ReloadDesk) -> None:
    """Save a version that places orders and then raises, and trade on with the one before it."""
    rig.save(BAD)
    rig.tops(2)
    rig.desk.venue.trade(next(o for o in rig.desk.venue.open() if o.side == "sell"), "0.25")
    rig.desk.settle()
    rig.tops(3)
    assert rig.moves()[-1] is VersionState.ROLLED_BACK


@pytest.mark.parametrize("policy", ["cancel", "keep", "flatten"])
def test_process_that_ends_with_any_entry_of_a_rollback_comes_back_as_if_it_had_been_whole(
    tmp_path: Path, policy: Literal["cancel", "keep", "flatten"]
) -> None:
    limits = ProbationLimits(seconds=2.0, events=5)
    settings = ReloadSettings(rollback_policy=policy, limits=limits)
    seen: set[str] = set()
    for crashed in crashes(tmp_path, go_back, settings):
        again = crashed.again
        record = again.desk.engine.state.plugin(PLUGIN)
        assert record.permanent == record.active == crashed.first.digest
        seen.add("active" if crashed.was_on_probation else "taken back" if record.refused else "before")
        low = [order for order in again.desk.venue.open() if order.price == 59_000]
        assert policy == "keep" or low == [], "what the bad version placed is gone"
        closes = any(isinstance(entry, e.FlattenSet) for entry in again.desk.entries)
        assert closes is (policy == "flatten" and bool(record.refused))
        assert crashed.instance.strategy.state.fills == len(again.desk.venue.fills), "each fill once"
        crashed.comes_back_to(0.02, kept={1_000.0} if low else set())
        if not crashed.was_on_probation and record.refused:
            report = again.reload()
            assert report.reason.startswith("these bytes were tried before: instance mm: on_book raised")

    assert seen == {"before", "active", "taken back"}


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


def test_plugin_of_an_installed_package_is_what_is_installed_whatever_ran_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "maker_package_of_this_test"
    site = tmp_path / "site"
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (site / f"{module}.py").write_text(maker())
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tandem.plugins]\ninstalled = {module}\n")
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    rig = ReloadDesk(tmp_path)
    rig.write(maker())
    rig.load()
    rig.reloader.close()
    rig.reloader = Reloader(rig.desk.engine, Catalog.load([rig.plugins]), rig.settings, no_probe, rig._keep)
    installed = rig.reloader.catalog.versions["installed"]
    rig.desk.engine.begin_turn(rig.desk.clock.now_ns())
    rig.desk.engine.record(e.VersionMoved("installed", A, VersionState.PERMANENT, "as of old"), 1)
    rig.desk.engine.end_turn(rig.desk.clock.now_ns(), 0)

    rig.reloader.note_running(installed)
    rig.reloader.note_running(installed)

    assert [m.digest for m in rig.desk.entries if isinstance(m, e.VersionMoved)] == [A, installed.digest]
    assert installed.digest not in rig.kept, "a restart runs what is installed then"

    async def read() -> Version:
        return Version("installed", installed.root, B, {"maker.py": b""})

    report = asyncio.run(rig.reloader.reload("installed", read))
    assert report.state is VersionState.REFUSED and "RESTART_REQUIRED" in report.reason
    rig.close()


async def no_probe(_version: Version) -> None:
    raise AssertionError("nothing of an installed package is imported anew")
