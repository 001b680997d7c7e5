"""The audit log: what it keeps, what it survives, and that no change to it stays hidden."""

import hashlib
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.control.audit import REFUSAL_KINDS, REFUSAL_WINDOW_NS, VALUE_BYTES, AuditEvent, AuditLog
from host.control.audit_chain import (
    GENESIS,
    Anchor,
    AuditError,
    AuditLine,
    decode_line,
    read_lines,
    segments,
    verify,
)

NOW_NS = 1_754_650_000_123_456_789
METHOD = "tandem.v1.PluginService/SetParams"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "control" / "audit"


def event(**changes: Any) -> AuditEvent:
    fields: dict[str, Any] = {
        "who": "bob",
        "role": "operator",
        "via": "token",
        "peer": "10.0.0.5:40001",
        "method": METHOD,
        "request": {"instance": "mm-btc"},
        "before": {"size": "0.01"},
        "after": {"size": "0.02"},
    }
    return AuditEvent(**(fields | changes))


def refusal(**changes: Any) -> AuditEvent:
    return event(**({"before": None, "after": None, "outcome": "PERMISSION_DENIED"} | changes))


def written(folder: Path, count: int, **how: Any) -> list[Anchor]:
    """Write a log of `count` records and return its anchors."""
    anchors: list[Anchor] = []
    log = AuditLog.open(folder, on_anchor=anchors.append, **how)
    for number in range(count):
        log.append(event(request={"number": number}), NOW_NS + number)
    log.close(NOW_NS)
    return anchors


def records(folder: Path) -> list[AuditLine]:
    return [decode_line(line) for _, _, line in read_lines(folder)]


# -- what is kept ----------------------------------------------------------------------------------


def test_a_record_says_who_did_what_from_where_with_which_effect(folder: Path) -> None:
    log = AuditLog.open(folder)
    assert log.append(event(), NOW_NS) == 1
    log.close(NOW_NS)
    (path,) = segments(folder)
    line = json.loads(path.read_text())
    assert line.pop("hash") == log.head.hash
    assert line == {
        "seq": 1,
        "time": "2025-08-08T10:46:40.123456Z",
        "who": "bob",
        "role": "operator",
        "via": "token",
        "from": "10.0.0.5:40001",
        "method": METHOD,
        "request": {"instance": "mm-btc"},
        "before": {"size": "0.01"},
        "after": {"size": "0.02"},
        "outcome": "OK",
        "detail": "",
        "count": 1,
        "prev": GENESIS,
    }


def test_anybody_can_check_a_line_with_sha256sum(folder: Path) -> None:
    written(folder, 1)
    (path,) = segments(folder)
    body, _, end = path.read_bytes().rpartition(b',"hash":"')
    done = subprocess.run(["sha256sum"], input=body + b"}", capture_output=True, check=True)
    assert done.stdout[:64] == end[:64]


def test_a_record_is_in_the_file_when_append_returns(folder: Path) -> None:
    log = AuditLog.open(folder)
    log.append(event(), NOW_NS)
    assert [record.who for record in records(folder)] == ["bob"]
    log.close(NOW_NS)


def test_folder_and_files_are_private(folder: Path) -> None:
    written(folder, 1)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, *segments(folder))]
    assert modes == [0o700, 0o700, 0o600]


def test_long_values_are_cut_and_say_how_long_they_were(folder: Path) -> None:
    log = AuditLog.open(folder)
    log.append(event(request={"text": "ä" * 100_000}, detail="x" * 100_000, peer="p" * 9_999), NOW_NS)
    log.close(NOW_NS)
    (path,) = segments(folder)
    assert path.stat().st_size < 2 * VALUE_BYTES
    (record,) = records(folder)
    assert record.request["cut"] is True
    assert record.request["bytes"] > 100_000
    assert record.request["start"].startswith('{"text":"ää')


@given(text=st.text(st.characters(), max_size=50), data=st.binary(max_size=50))
def test_whatever_a_stranger_sends_is_one_line_that_verifies(text: str, data: bytes) -> None:
    log = SHARED[0]
    log.append(event(who=text, peer=text, request={"text": text.encode("utf-8", "replace").decode()}), NOW_NS)
    log.append(event(detail=text, request=data), NOW_NS)
    report = verify(log.folder)
    assert report.is_sound
    assert report.records == log.head.seq


SHARED: list[AuditLog] = []


@pytest.fixture(scope="module", autouse=True)
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    SHARED.append(AuditLog.open(tmp_path_factory.mktemp("shared") / "control" / "audit"))
    yield
    SHARED.pop().close(NOW_NS)


# -- the chain -------------------------------------------------------------------------------------


def test_a_log_nobody_touched_is_sound(folder: Path) -> None:
    anchors = written(folder, 10)
    report = verify(folder, anchors)
    assert report.is_sound
    assert (report.records, report.last_seq, report.head, report.anchors) == (10, 10, anchors[-1].hash, 10)


def rehash(line: bytes, **changes: Any) -> bytes:
    """Forge a line: change it, and give it the hash that fits."""
    fields = json.loads(line) | changes
    fields.pop("hash")
    body = json.dumps(fields, separators=(",", ":")).encode()
    return body[:-1] + b',"hash":"' + hashlib.sha256(body).hexdigest().encode() + b'"}'


def swap(lines: list[bytes]) -> list[bytes]:
    lines[3], lines[4] = lines[4], lines[3]
    return lines


@pytest.mark.parametrize(
    ("forge", "line", "says"),
    [
        pytest.param(
            lambda ls: [*ls[:4], ls[4].replace(b"bob", b"eve"), *ls[5:]], 5, "it was changed", id="changed"
        ),
        pytest.param(
            lambda ls: [*ls[:4], rehash(ls[4], who="eve"), *ls[5:]], 6, "does not follow", id="forged"
        ),
        pytest.param(lambda ls: [*ls[:4], *ls[5:]], 5, "record 5 should be here, is 6", id="left out"),
        pytest.param(lambda ls: [*ls[:5], ls[4], *ls[5:]], 6, "record 6 should be here, is 5", id="repeated"),
        pytest.param(swap, 4, "record 4 should be here, is 5", id="swapped"),
        pytest.param(
            lambda ls: [*ls[:4], b"nonsense", *ls[4:]], 5, "does not end with its hash", id="put in"
        ),
        pytest.param(
            lambda ls: [rehash(ls[0], prev="1" * 64), *ls[1:]], 1, "does not follow", id="new start"
        ),
    ],
)
def test_every_change_is_found_and_its_line_named(
    folder: Path, forge: Callable[[list[bytes]], list[bytes]], line: int, says: str
) -> None:
    written(folder, 10)
    (path,) = segments(folder)
    path.write_bytes(b"".join(one + b"\n" for one in forge(path.read_bytes().splitlines())))
    report = verify(folder)
    assert not report.is_sound
    assert report.problem.startswith(f"{path} line {line}: ")
    assert says in report.problem


@given(where=st.integers(0), bit=st.integers(0, 7))
def test_no_bit_can_be_turned(where: int, bit: int) -> None:
    log = SHARED[0]
    if log.head.seq == 0:
        log.append(event(), NOW_NS)
    (path,) = segments(log.folder)
    data = bytearray(path.read_bytes())
    data[where % len(data)] ^= 1 << bit
    copy = log.folder.parent / "copy"
    copy.mkdir(exist_ok=True)
    (copy / path.name).write_bytes(data)
    assert not verify(copy, [log.head]).is_sound


@pytest.mark.parametrize("kept", [0, 1, 9])
def test_a_tail_that_was_cut_off_is_found_by_the_anchors(folder: Path, kept: int) -> None:
    anchors = written(folder, 10)
    (path,) = segments(folder)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:kept]))
    assert verify(folder).is_sound  # the file alone cannot tell
    assert f"record 10 was written, and the log ends with record {kept}" in verify(folder, anchors).problem


def test_a_log_that_is_gone_is_found_by_the_anchors(folder: Path) -> None:
    anchors = written(folder, 3)
    for path in segments(folder):
        path.unlink()
    assert not verify(folder, anchors).is_sound
    folder.rmdir()
    assert "there is no audit log" in verify(folder, anchors).problem


def test_a_log_written_anew_is_found_by_the_anchors(folder: Path, tmp_path: Path) -> None:
    anchors = written(folder, 3)
    written(tmp_path / "other" / "audit", 0)
    log = AuditLog.open(tmp_path / "other" / "audit")
    for number in range(5):
        log.append(event(who="eve", request={"number": number}), NOW_NS)
    log.close(NOW_NS)
    assert "record 1 is another than the one that was written" in verify(log.folder, anchors).problem


def test_the_chain_goes_on_over_files_and_restarts(folder: Path) -> None:
    anchors = written(folder, 7, segment_bytes=1_000)
    log = AuditLog.open(folder, segment_bytes=1_000, on_anchor=anchors.append)
    for number in range(7):
        assert log.append(event(), NOW_NS) == 8 + number
    log.close(NOW_NS)
    assert len(segments(folder)) > 4
    report = verify(folder, anchors)
    assert report.is_sound
    assert (report.records, report.anchors) == (14, 14)


def test_old_files_may_be_moved_away_and_that_is_said(folder: Path) -> None:
    anchors = written(folder, 10, segment_bytes=1_000)
    first, *_ = segments(folder)
    first.unlink()
    report = verify(folder, anchors)
    assert report.is_sound
    assert f"starts with record {report.first_seq}: older files were moved away" in report.note


def test_a_file_missing_in_the_middle_is_found(folder: Path) -> None:
    written(folder, 10, segment_bytes=1_000)
    segments(folder)[1].unlink()
    assert "should be here" in verify(folder).problem


# -- opening ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [1, 50, -1])
def test_a_torn_last_line_is_cut_off_and_said_so(folder: Path, torn: int) -> None:
    written(folder, 3)
    (path,) = segments(folder)
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[0][:torn])
    assert verify(folder).records == 3  # what is being written is no damage
    log = AuditLog.open(folder)
    assert "an incomplete last line" in log.repaired
    assert log.append(event(), NOW_NS) == 4
    log.close(NOW_NS)
    assert verify(folder).is_sound


def test_an_empty_newest_file_goes_on_from_the_one_before(folder: Path) -> None:
    written(folder, 3)
    (folder / "audit-000000000004.jsonl").touch(0o600)
    log = AuditLog.open(folder)
    assert log.append(event(), NOW_NS) == 4
    log.close(NOW_NS)
    assert verify(folder).records == 4


def test_a_log_whose_newest_record_was_changed_is_not_written_to(folder: Path) -> None:
    written(folder, 3)
    (path,) = segments(folder)
    path.write_bytes(path.read_bytes().replace(b'"number":2', b'"number":9'))
    with pytest.raises(AuditError, match="cannot be trusted: its hash is not that of its content"):
        AuditLog.open(folder)


def test_a_killed_process_loses_no_record_that_was_answered(folder: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from host.control.audit import AuditEvent, AuditLog\n"
        "log = AuditLog.open(pathlib.Path(sys.argv[1]), segment_bytes=2000)\n"
        "for number in range(10**6):\n"
        "    print(log.append(AuditEvent(who='bob', peer='unix', method='m'), number), flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(50):
            last = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        last = max([last, *(int(line) for line in child.stdout.read().splitlines() if line)])
    log = AuditLog.open(folder, segment_bytes=2_000)
    assert log.head.seq >= last
    log.close(NOW_NS)
    assert verify(folder).is_sound


# -- the disk --------------------------------------------------------------------------------------


def test_sync_waits_for_the_disk_and_many_records_share_a_sync(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_sync, syncs = threading.Event(), []
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        may_sync.wait()
        syncs.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    log = AuditLog.open(folder)
    for _ in range(100):
        log.append(event(), NOW_NS)  # none of them waits
    may_sync.set()
    log.sync()
    assert 1 <= len(syncs) <= 3
    log.close(NOW_NS)


def test_after_a_failed_sync_nothing_more_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fdatasync(fd: int) -> None:
        raise OSError(5, "Input/output error")

    log = AuditLog.open(folder)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    log.append(event(), NOW_NS)
    with pytest.raises(AuditError, match="did not confirm the audit log: Input/output error"):
        log.sync()
    with pytest.raises(AuditError, match="did not confirm"):
        log.append(event(), NOW_NS)
    with pytest.raises(AuditError, match="did not confirm"):
        log.close(NOW_NS)
    assert verify(folder).records == 1


def test_a_full_disk_refuses_a_record_and_leaves_no_half_of_it(folder: Path) -> None:
    log = AuditLog.open(folder)
    log.append(event(), NOW_NS)
    (path,) = segments(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, limits[1]))
    try:
        with pytest.raises(AuditError, match="cannot write the audit log"):
            log.append(event(), NOW_NS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert log.append(event(), NOW_NS) == 2
    log.close(NOW_NS)
    assert verify(folder).records == 2


def test_half_a_line_that_cannot_be_taken_back_has_no_line_after_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_fd: int, _length: int) -> None:
        raise OSError(5, "Input/output error")

    log = AuditLog.open(folder)
    log.append(event(), NOW_NS)
    (path,) = segments(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, limits[1]))
    try:
        monkeypatch.setattr(os, "ftruncate", fail)
        with pytest.raises(AuditError, match="cannot write the audit log"):
            log.append(event(), NOW_NS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    monkeypatch.undo()
    assert path.read_bytes()[-1:] != b"\n"
    assert log.append(event(), NOW_NS) == 2
    log.close(NOW_NS)
    assert len(segments(folder)) == 2
    assert verify(folder).records == 2


def test_a_closed_log_takes_nothing(folder: Path) -> None:
    log = AuditLog.open(folder)
    log.close(NOW_NS)
    with pytest.raises(AuditError, match="is closed"):
        log.append(event(), NOW_NS)


# -- refusals --------------------------------------------------------------------------------------


def test_equal_refusals_within_a_minute_are_two_records(folder: Path) -> None:
    log = AuditLog.open(folder)
    for number in range(1_000):
        log.refuse(refusal(peer=f"10.0.0.5:{40_000 + number}"), NOW_NS)
    assert [record.count for record in records(folder)] == [1]
    log.tick(NOW_NS + REFUSAL_WINDOW_NS - 1)
    assert len(records(folder)) == 1
    log.tick(NOW_NS + REFUSAL_WINDOW_NS)
    assert [record.count for record in records(folder)] == [1, 999]
    assert records(folder)[1].from_ == "10.0.0.5:40999"
    log.refuse(refusal(), NOW_NS + REFUSAL_WINDOW_NS)  # a new minute
    assert len(records(folder)) == 3
    log.close(NOW_NS)
    assert sum(record.count for record in records(folder)) == 1_001


@pytest.mark.parametrize(
    "other",
    [
        {"who": "eve"},
        {"peer": "10.0.0.6:40001"},
        {"method": "tandem.v1.NodeService/Drain"},
        {"outcome": "UNAUTHENTICATED"},
        {"detail": "TOKEN_REFUSED"},
    ],
)
def test_different_refusals_are_told_apart(folder: Path, other: dict[str, str]) -> None:
    log = AuditLog.open(folder)
    log.refuse(refusal(), NOW_NS)
    log.refuse(refusal(**other), NOW_NS)
    log.close(NOW_NS)
    assert [record.count for record in records(folder)] == [1, 1]


def test_what_was_only_counted_is_written_at_the_end(folder: Path) -> None:
    log = AuditLog.open(folder)
    for _ in range(5):
        log.refuse(refusal(), NOW_NS, count=2)
    log.close(NOW_NS)
    assert [record.count for record in records(folder)] == [2, 8]


def test_a_flood_of_different_refusals_cannot_fill_the_disk(folder: Path) -> None:
    log = AuditLog.open(folder)
    for number in range(20_000):
        log.refuse(
            refusal(peer=f"10.{number >> 8 & 255}.{number & 255}.1:1", detail=f"{number}"), NOW_NS + number
        )
    log.close(NOW_NS)
    kept = records(folder)
    assert len(kept) <= 2 * (REFUSAL_KINDS + 1)
    assert sum(record.count for record in kept) == 20_000
    assert sum(path.stat().st_size for path in segments(folder)) < 100_000
    assert kept[-1].who == ""
    assert "more different refusals" in kept[-1].detail


def test_what_was_done_is_written_during_a_flood(folder: Path) -> None:
    log = AuditLog.open(folder)
    for number in range(1_000):
        log.refuse(refusal(detail=str(number)), NOW_NS)
        log.append(event(request={"number": number}), NOW_NS)
    log.close(NOW_NS)
    assert sum(record.outcome == "OK" for record in records(folder)) == 1_000
