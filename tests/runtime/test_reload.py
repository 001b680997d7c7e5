"""A saved file goes live between two events, with state, orders and positions kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from reload_tools import ReloadDesk, maker

from host.core.entries import VersionState


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ReloadDesk]:
    rig = ReloadDesk(tmp_path)
    rig.write(maker())
    rig.load()
    yield rig
    rig.close()


def test_good_edit_goes_live_with_state_and_orders_kept(rig: ReloadDesk) -> None:
    instance = rig.run("mm")
    rig.tops(10)
    before = {order.client_id for order in rig.desk.venue.open()}

    report = rig.save(maker(0.05))
    rig.tops(1)

    assert report.state is VersionState.ACTIVE, report
    assert instance.strategy.state.books == 11  # type: ignore[attr-defined]
    assert {order.client_id for order in rig.desk.venue.open()} == before
    assert rig.offsets() == {0.05}
    assert rig.stages() == [(s, "passed") for s in ("capture", "validate", "restore", "warm_up", "swap")]
    rig.tops(10, seconds=1.0)
    assert rig.moves()[-1] is VersionState.PERMANENT
