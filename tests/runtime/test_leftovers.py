"""Retired code is gone, or the node says what holds it."""

import gc
import sys
import threading
import types
import weakref
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from reload_tools import PLUGIN, ReloadDesk, maker

from host.core.entries import VersionState


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ReloadDesk]:
    rig = ReloadDesk(tmp_path)
    rig.write(maker())
    rig.load()
    yield rig
    rig.close()


@pytest.fixture
def elsewhere() -> Iterator[types.ModuleType]:
    """A module that is no plugin and that plugins can reach."""
    module = types.ModuleType("elsewhere")
    sys.modules["elsewhere"] = module
    yield module
    del sys.modules["elsewhere"]


class Unseen(msgspec.Struct, gc=False):
    """Holds something, and the collector does not look into it."""

    what: object


def pass_probation(rig: ReloadDesk) -> None:
    rig.tops(6)
    rig.desk.advance(3.0)
    assert rig.moves()[-1] is VersionState.PERMANENT


def test_old_version_is_gone_after_the_new_one_has_earned_its_place(rig: ReloadDesk) -> None:
    instance = rig.run("mm")
    rig.tops(5)
    old = weakref.ref(type(instance.strategy))
    rig.save(maker(0.05))
    pass_probation(rig)
    rig.desk.advance(40.0)

    assert old() is None
    assert rig.stages()[-1] == ("retire", "passed")
    assert rig.desk.alerts("plugin_stuck") == []
    assert len(rig.loaded()) == 2


def test_version_that_only_another_ones_garbage_holds_is_not_called_stuck(rig: ReloadDesk) -> None:
    """The collector does not look into every object: what such a one holds is found a collection later."""
    instance = rig.run("mm")
    rig.tops(5)
    gc.disable()  # it is called when a version is overdue, and not by chance before
    try:
        garbage = types.SimpleNamespace(holds=Unseen(type(instance.strategy)))
        garbage.itself = garbage
        del garbage
        rig.save(maker(0.05))
        pass_probation(rig)
        rig.desk.advance(40.0)
    finally:
        gc.enable()

    assert rig.stages()[-1] == ("retire", "passed")
    assert rig.desk.alerts("plugin_stuck") == []


def test_version_that_was_rolled_back_is_gone(rig: ReloadDesk) -> None:
    instance = rig.run("mm")
    rig.tops(5)
    rig.save(maker(0.05, at_book="if self.state.books >= 6:\n    raise RuntimeError('bad')"))
    bad = weakref.ref(type(instance.strategy))
    rig.tops(1)
    rig.desk.advance(40.0)

    assert bad() is None
    assert rig.stages()[-1] == ("retire", "passed")


def test_version_that_is_refused_leaves_nothing_behind(rig: ReloadDesk) -> None:
    rig.run("mm")
    rig.tops(5)
    before, report = (
        rig.loaded(),
        rig.save(maker(0.05, more="def on_start(self):\n    raise RuntimeError('bad')\n")),
    )
    gc.collect()

    assert rig.loaded() == before
    modules = {
        cls.__module__ for cls in gc.get_objects() if isinstance(cls, type) and cls.__name__ == "Maker"
    }
    assert before & modules and not any(report.digest[:12] in module for module in modules)


def test_thread_of_a_retired_version_is_named(rig: ReloadDesk, elsewhere: types.ModuleType) -> None:
    elsewhere.stop = stop = threading.Event()  # type: ignore[attr-defined]
    head = "import elsewhere, threading\n\ndef wait():\n    elsewhere.stop.wait(60.0)\n"
    more = "def on_start(self):\n    threading.Thread(target=wait, name='leaky', daemon=True).start()\n"
    rig.write(maker(head=head, more=more))
    rig.reloader.close()
    rig.load()
    rig.run("mm")
    rig.tops(5)
    rig.save(maker(0.05))
    pass_probation(rig)
    rig.desk.advance(40.0)
    stop.set()

    [alert] = rig.desk.alerts("plugin_stuck")
    assert alert.endswith("held by the thread 'leaky', which runs maker.py:4")
    assert rig.moves()[-1] is VersionState.STUCK


def test_module_that_keeps_a_retired_strategy_is_named(rig: ReloadDesk, elsewhere: types.ModuleType) -> None:
    elsewhere.registry = []  # type: ignore[attr-defined]
    more = "def on_start(self):\n    elsewhere.registry.append(self.on_book)\n"
    rig.write(maker(head="import elsewhere\n", more=more))
    rig.reloader.close()
    rig.load()
    rig.run("mm")
    rig.tops(5)
    rig.save(maker(0.05))
    pass_probation(rig)
    rig.desk.advance(40.0)

    [alert] = rig.desk.alerts("plugin_stuck")
    assert alert.startswith(f"plugin {PLUGIN} ")
    assert alert.endswith("held by elsewhere.registry")
    assert rig.desk.engine.state.plugin(PLUGIN).permanent == rig.reports[-1].digest


def test_history_and_journal_do_not_hold_retired_code(rig: ReloadDesk) -> None:
    """Fills, orders and candles that strategies were handed stay in the history: they are the host's."""
    instance = rig.run("mm")
    rig.tops(5)
    classes = []
    for edit in range(20):
        classes.append(weakref.ref(type(instance.strategy)))
        rig.save(maker(0.03 + edit / 1000))
        rig.tops(1)
        rig.desk.venue.trade(rig.desk.venue.open()[0], "0.1")
        rig.desk.settle()
    pass_probation(rig)
    rig.desk.advance(40.0)

    assert [ref() for ref in classes] == [None] * 20


def test_version_made_before_the_collectors_freeze_is_not_called_stuck(rig: ReloadDesk) -> None:
    rig.run("mm")
    rig.tops(5)
    gc.freeze()
    try:
        rig.save(maker(0.05))
        pass_probation(rig)
        rig.save(maker(0.06))
        pass_probation(rig)
        rig.desk.advance(40.0)
    finally:
        gc.unfreeze()

    assert rig.desk.alerts("plugin_stuck") == []
    assert {outcome for stage, outcome in rig.stages() if stage == "retire"} == {"skipped", "passed"}
