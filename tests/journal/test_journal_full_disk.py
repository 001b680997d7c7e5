"""A disk without room, and a disk that fails: the kernel's own errors, not simulated ones."""

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from journal_tools import SMALL, TS, alert, fill, frame_spans, segments

from host.core.entries import KillSwitchSet, Record
from host.journal import Journal, JournalError, JournalFull, JournalTrouble, TroubleKind, read


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own with 512 KiB of room."""
    with tempfile.TemporaryDirectory() as name:
        command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tandem-test", name]
        try:
            mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if mounted.returncode != 0:
            pytest.skip(f"this user may not mount a file system: {mounted.stderr.strip()}")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", name], check=True)


def fill_disk(folder: Path) -> Path:
    """Take all room that is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return ballast


def test_a_full_disk_is_told_while_there_is_room_for_the_last_entries(small_disk: Path) -> None:
    troubles: list[JournalTrouble] = []
    journal = Journal.open(small_disk / "j", node="a", segment_bytes=SMALL)

    def stop_trading(trouble: JournalTrouble) -> None:
        troubles.append(trouble)
        journal.append(KillSwitchSet("node", is_on=True, reason="journal low"), TS)
        journal.flush()

    journal.on_trouble(stop_trading)
    fill(journal, 10)
    fill_disk(small_disk)
    while not journal.is_low:
        fill(journal, 1, size=200)
    (trouble,) = troubles
    assert (trouble.kind, trouble.errno) == (TroubleKind.LOW_SPACE, errno.ENOSPC)
    assert SMALL // 10 < trouble.room_bytes <= SMALL // 4
    assert "next.blank" in trouble.text
    assert "ENOSPC" in trouble.text
    assert isinstance(list(read(journal))[-1].entry, KillSwitchSet)
    last = journal.last_lsn
    fill(journal, 10, size=200)
    assert len(troubles) == 1
    assert [record.lsn for record in read(journal)] == list(range(1, last + 11))
    journal.close()


def test_without_room_flush_refuses_and_readers_see_whole_entries_alone(small_disk: Path) -> None:
    journal = Journal.open(small_disk / "j", node="a", segment_bytes=SMALL)
    troubles: list[JournalTrouble] = []
    journal.on_trouble(troubles.append)
    ballast = fill_disk(small_disk)
    with pytest.raises(JournalFull) as caught:
        fill(journal, 1000, size=200)
    assert caught.value.errno == errno.ENOSPC
    assert len(troubles) == 1
    refused = journal.last_lsn
    assert journal.durable_lsn == refused - 1
    assert [record.lsn for record in read(journal)] == list(range(1, refused))
    assert frame_spans(segments(small_disk / "j")[0])[-1][1] <= SMALL
    with pytest.raises(JournalFull):  # the entry is still pending, and there is still no room
        journal.flush()
    ballast.unlink()
    journal.flush()
    assert not journal.is_low
    fill(journal, 10)
    assert [record.lsn for record in read(journal)] == list(range(1, refused + 11))
    journal.close()


def test_low_space_is_over_when_there_is_room_again(small_disk: Path) -> None:
    with Journal.open(small_disk / "j", node="a", segment_bytes=SMALL) as journal:
        ballast = fill_disk(small_disk)
        while not journal.is_low:
            fill(journal, 1, size=200)
        ballast.unlink()
        while journal.is_low:
            fill(journal, 1, size=200)
        assert len(segments(small_disk / "j")) <= 2
        records = fill(journal, 500, size=200)
        assert list(read(journal))[-500:] == records


def test_a_journal_cannot_be_created_on_a_full_disk(small_disk: Path) -> None:
    fill_disk(small_disk)
    (small_disk / "ballast").open("r+b").truncate(SMALL // 2)
    with pytest.raises(JournalFull, match="free disk space"):
        Journal.open(small_disk / "j", node="a", segment_bytes=1 << 20)
    assert not segments(small_disk / "j")
    assert not (small_disk / "j" / "next.blank").exists()


def test_a_journal_is_taken_up_on_a_full_disk(small_disk: Path) -> None:
    with Journal.open(small_disk / "j", node="a", segment_bytes=SMALL) as journal:
        records = fill(journal, 10)
    fill_disk(small_disk)
    with Journal.open(small_disk / "j", node="a", segment_bytes=SMALL) as journal:
        records += fill(journal, 10)
        assert list(read(journal)) == records


FILE_SIZE_LIMIT = """
import resource, sys
sys.path[:0] = [{tests!r}]
from journal_tools import SMALL, fill
from host.journal import Journal, JournalFull, read
# The kernel holds system calls to this limit, not stores into what is mapped already.
journal = Journal.open({folder!r}, node="a", segment_bytes=SMALL, is_mapped=False)
journal.on_trouble(lambda trouble: print(trouble.kind, trouble.errno))
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL - 1000, hard))
try:
    fill(journal, 1000, size=200)
except JournalFull as full:
    print("full", full.errno, journal.last_lsn - journal.durable_lsn)
assert [record.lsn for record in read(journal)] == list(range(1, journal.durable_lsn + 1))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
fill(journal, 1000, size=200)
journal.close()
print(sum(1 for _ in read({folder!r})) == journal.last_lsn)
"""


def test_a_file_size_limit_is_met_like_a_full_disk(tmp_path: Path) -> None:
    script = FILE_SIZE_LIMIT.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "j"))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert child.stderr == ""
    assert child.stdout.splitlines() == [f"low_space {errno.EFBIG}", f"full {errno.EFBIG} 1", "True"]


def descriptor_of(path: Path) -> int:
    for link in Path("/proc/self/fd").iterdir():
        if link.is_symlink() and link.readlink() == path:
            return int(link.name)
    raise AssertionError(f"{path} is not open")


def test_after_a_failed_write_the_journal_takes_no_more(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, node="a", segment_bytes=SMALL, is_mapped=False)
    records = fill(journal, 3)
    path = segments(tmp_path)[0]
    end = frame_spans(path)[-1][1]
    read_only = os.open(path, os.O_RDONLY)
    os.dup2(read_only, descriptor_of(path))
    os.close(read_only)
    journal.append(alert(4), TS)
    with pytest.raises(JournalError) as caught:
        journal.flush()
    assert (caught.value.path, caught.value.offset, caught.value.errno) == (path, end, errno.EBADF)
    assert not isinstance(caught.value, JournalFull)
    for again in (lambda: journal.append(alert(5), TS), journal.flush):
        with pytest.raises(JournalError, match="EBADF"):
            again()
    journal.close()
    assert list(read(tmp_path)) == records


@pytest.mark.parametrize("is_mapped", [True, False])
def test_after_a_failed_sync_the_journal_takes_no_more(tmp_path: Path, is_mapped: bool) -> None:
    journal = Journal.open(tmp_path, node="a", segment_bytes=SMALL, is_mapped=is_mapped)
    troubles: list[JournalTrouble] = []
    journal.on_trouble(troubles.append)
    records: list[Record] = fill(journal, 3)
    reading_end, writing_end = os.pipe()
    os.dup2(writing_end, descriptor_of(segments(tmp_path)[0]))  # a pipe cannot be synced
    journal.append(alert(4), TS)
    with pytest.raises(JournalError, match="did not confirm a sync"):
        journal.sync()
    assert [(trouble.kind, trouble.errno) for trouble in troubles] == [
        (TroubleKind.SYNC_FAILED, errno.EINVAL)
    ]
    for again in (journal.flush, lambda: journal.append(alert(5), TS)):
        with pytest.raises(JournalError, match="did not confirm a sync"):
            again()
    journal.close()
    os.close(reading_end)
    os.close(writing_end)
    assert list(read(tmp_path)) == records
