"""`tandem audit`: what happened, and whether that is what was written."""

import json
import threading
import time
from pathlib import Path

import pytest
from cli_tools import tandem
from click.testing import CliRunner

from host.cli import main
from host.control.audit import AuditEvent, AuditLog
from host.control.audit_chain import AUDIT_FOLDER, Anchor, segments
from host.core.entries import AuditAnchored
from host.journal import Journal

FOLDER = Path("data") / AUDIT_FOLDER
JOURNAL = Path("data/journal")
HOUR_NS = 3_600 * 10**9


def audited(*events: AuditEvent, journal: bool = True, at_ns: int | None = None) -> None:
    """Do what a node does: write records, and their hashes into the journal."""
    now_ns = at_ns or time.time_ns()
    anchors: list[Anchor] = []
    log = AuditLog.open(FOLDER, on_anchor=anchors.append)
    for event in events:
        log.append(event, now_ns)
    log.close(now_ns)
    if journal:
        with Journal.open(JOURNAL, node="tandem", segment_bytes=1 << 16) as entries:
            for anchor in anchors:
                entries.append(AuditAnchored(anchor.seq, anchor.hash), now_ns)
            entries.flush()


def event(who: str = "bob", **fields: object) -> AuditEvent:
    given: dict[str, object] = {"peer": "unix", "method": "tandem.v1.NodeService/Drain"} | fields
    return AuditEvent(who=who, **given)  # type: ignore[arg-type]


def test_records_are_shown_one_a_line() -> None:
    audited(
        event(role="admin", request={"reason": "upgrade"}),
        event("eve", outcome="PERMISSION_DENIED", detail="no"),
    )
    result = tandem("audit", "show", "--data-dir", "data")
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert "OK" in first
    assert 'bob (admin) from unix tandem.v1.NodeService/Drain request={"reason":"upgrade"}' in first
    assert "PERMISSION_DENIED" in second
    assert second.endswith("- no")


def test_json_is_the_logs_own_lines() -> None:
    audited(event())
    result = tandem("audit", "show", "--data-dir", "data", "--json")
    (path,) = segments(FOLDER)
    assert result.stdout == path.read_text()


def test_only_recent_records_are_shown_when_asked_for() -> None:
    audited(event("old"), at_ns=time.time_ns() - 3 * HOUR_NS)
    audited(event("new"))
    for since, names in (
        ("2h", ["new"]),
        ("1d", ["old", "new"]),
        ("2020-01-01", ["old", "new"]),
        ("2999-01-01T00:00Z", []),
    ):
        result = tandem("audit", "show", "--data-dir", "data", "--json", "--since", since)
        assert [json.loads(line)["who"] for line in result.stdout.splitlines()] == names
    assert tandem("audit", "show", "--since", "yesterday").exit_code == 2


def test_what_a_stranger_sent_does_not_reach_the_terminal_as_it_is() -> None:
    audited(event("\x1b[2J\nfake line", detail="\r\x07"))
    result = tandem("audit", "show", "--data-dir", "data")
    assert len(result.stdout.splitlines()) == 1
    assert result.stdout.removesuffix("\n").isprintable()


def test_following_shows_what_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    audited(event("first"), journal=False)
    waits = threading.Event()

    def instead_of_waiting(_seconds: float) -> None:
        if waits.is_set():
            raise KeyboardInterrupt
        waits.set()
        audited(event("second"), journal=False)

    monkeypatch.setattr(time, "sleep", instead_of_waiting)
    result = CliRunner().invoke(main, ["audit", "show", "--data-dir", "data", "--json", "--follow"])
    assert [json.loads(line)["who"] for line in result.stdout.splitlines() if line] == ["first", "second"]


def test_there_is_nothing_to_show_before_the_first_call() -> None:
    result = tandem("audit", "show", "--data-dir", "data")
    assert result.exit_code == 3
    assert "there is no audit log" in result.output


def test_a_whole_log_is_sound() -> None:
    audited(event(), event())
    result = tandem("audit", "verify", "--data-dir", "data", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["ok"], report["records"], report["anchors"], report["problem"]) == (True, 2, 2, "")
    assert "sound" in tandem("audit", "verify", "--data-dir", "data").stdout


def test_a_changed_line_is_named_and_exits_with_1() -> None:
    audited(event(), event(), event())
    (path,) = segments(FOLDER)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"bob", b"eve")
    path.write_bytes(b"".join(lines))
    result = tandem("audit", "verify", "--data-dir", "data")
    assert result.exit_code == 1
    assert f"broken: {path} line 2: its hash is not that of its content" in result.stderr
    assert tandem("audit", "verify", "--data-dir", "data", "--json").exit_code == 1


def test_a_tail_that_was_cut_off_is_found_with_the_journal() -> None:
    audited(event(), event(), event())
    (path,) = segments(FOLDER)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    result = tandem("audit", "verify", "--data-dir", "data")
    assert result.exit_code == 1
    assert "record 3 was written, and the log ends with record 2" in result.stderr


def test_a_log_that_was_deleted_is_found_with_the_journal() -> None:
    audited(event())
    (path,) = segments(FOLDER)
    path.unlink()
    assert tandem("audit", "verify", "--data-dir", "data").exit_code == 1


def test_a_node_that_was_never_called_is_sound() -> None:
    result = tandem("audit", "verify", "--data-dir", "data")
    assert result.exit_code == 0
    assert "no audit log" in result.stderr
