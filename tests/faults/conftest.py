import errno
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import conclusion
from tests.faults.pair_judge import Verdict
from tests.faults.pair_tools import Cell

MountDisk = Callable[[int], Path]
_HERE = Path(__file__).parent


@pytest.fixture
def mount_disk() -> Iterator[MountDisk]:
    """Return a function that mounts a file system of its own with so many bytes of room."""
    with tempfile.TemporaryDirectory() as folder:
        mounted: list[Path] = []

        def mount(room_bytes: int) -> Path:
            path = Path(folder) / str(len(mounted))
            path.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={room_bytes}", "tandem-test", str(path)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except FileNotFoundError:
                pytest.skip("there is no mount command")
            if done.returncode != 0:
                pytest.skip(f"this user may not mount a file system: {done.stderr.strip()}")
            mounted.append(path)
            return path

        yield mount
        for path in mounted:
            subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def fill_disk() -> Callable[[Path], Path]:
    """Return a function that takes all the room that is left and returns the file that holds it."""

    def fill(folder: Path) -> Path:
        ballast = folder / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC
        return ballast

    return fill


@pytest.fixture
def conclude(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Callable[[Cell], Verdict]:
    """Return `conclusion.conclude`; the switches it saw go into the table that the test run ends with."""

    def conclude_and_note(cell: Cell) -> Verdict:
        verdict = conclusion.conclude(cell)
        for switch in verdict.switches:
            who = f"{switch.old_leader} → {switch.new_leader}"
            record_property("switch", f"{switch.gap_ms:8.0f} ms  {who}  {request.node.name}")
        return verdict

    return conclude_and_note


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have these tests run one after the other where tests run in several processes.

    Their nodes are several processes each, and their networks and disks are the machine's.
    """
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("faults"))
