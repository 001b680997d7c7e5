"""The audit log: who did what, from where, with which outcome, in a chain that shows every change.

A record is in the file when `append` returns, so that it survives the death of the process; a
thread makes it durable, many records with one sync. A flood of refusals is counted, not written
out: what a stranger sends must not fill the disk.
"""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from host.config.private_files import PRIVATE_FILE, make_private_folder, sync_folder
from host.control.audit_chain import GENESIS, Anchor, AuditError, decode_line, encode_line, segments
from host.control.audit_sync import SyncThread

__all__ = ["Anchor", "AuditError", "AuditEvent", "AuditLog"]

_log = logging.getLogger("tandem.audit")

SEGMENT_BYTES: Final = 16 << 20
VALUE_BYTES: Final = 4096
"""A request, a before or an after that is longer as JSON is cut to its beginning."""
TEXT_CHARS: Final = 500
REFUSAL_WINDOW_NS: Final = 60_000_000_000
"""A refusal is written when it comes; equal ones within this time are one more record, with their number."""
REFUSAL_KINDS: Final = 64
"""So many different refusals are told apart within that time; further ones are counted together. At
most two records each and 700 bytes a record, refusals write 130 MB a day in the worst case."""


class AuditEvent(Struct, frozen=True, kw_only=True):
    """What happened, as the caller of `append` tells it. Never put a secret in here."""

    who: str
    """The principal's name, or empty where nobody is known."""
    role: str = ""
    via: str = ""
    peer: str
    """Where the call came from, such as `10.0.0.5:51324` or `unix`."""
    method: str
    """Such as `tandem.v1.PluginService/SetParams`."""
    request: Any = None
    """Plain data that JSON can hold, as are the next two."""
    before: Any = None
    after: Any = None
    outcome: str = "OK"
    """A gRPC status code by name."""
    detail: str = ""


class _Refusals(Struct):
    """Equal refusals since the first one was written."""

    last: AuditEvent
    until_ns: int
    count: int = 0


class AuditLog:
    """The audit log of one node; used from one thread.

    `repaired` says what was cut off at opening, where the last line was incomplete. `on_anchor` is
    told the newest record after each append: whoever keeps that elsewhere can prove later that
    nothing was cut off.
    """

    def __init__(self, folder: Path, segment_bytes: int, on_anchor: Callable[[Anchor], None] | None) -> None:
        self.folder = folder
        self.repaired = ""
        self.head = Anchor(0, GENESIS)
        self._segment_bytes = segment_bytes
        self._on_anchor = on_anchor
        self._fd = -1
        self._size = 0
        self._refusals: dict[tuple[str, ...], _Refusals] = {}
        self._syncing = SyncThread()

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        on_anchor: Callable[[Anchor], None] | None = None,
    ) -> "AuditLog":
        """Open or create the log in `folder`; an incomplete last line is cut off, and said so.

        The folder and the one that it is in are private.
        Raises `AuditError` where the newest record is damaged, and `NotPrivate`.
        """
        make_private_folder(folder.parent)
        make_private_folder(folder)
        log = cls(folder, segment_bytes, on_anchor)
        log._resume()
        return log

    def append(self, event: AuditEvent, now_ns: int) -> int:
        """Write a record and return its number. Raises `AuditError`; nothing is written then."""
        self.tick(now_ns)
        return self._write(event, now_ns, 1)

    def refuse(self, event: AuditEvent, now_ns: int, count: int = 1) -> None:
        """Write a refusal, or count it where the same was refused in the last minute.

        Two refusals are the same when who, host, method, outcome and detail are. `count` is how many it
        stands for already. Raises `AuditError`.
        """
        self.tick(now_ns)
        key: tuple[str, ...] = (
            event.who, event.via, _host(event.peer), event.method, event.outcome, event.detail
        )  # fmt: skip
        if key not in self._refusals and len(self._refusals) >= REFUSAL_KINDS:
            key = ("many",)
            event = AuditEvent(
                who="", peer="many", method="many", outcome=event.outcome,
                detail="more different refusals in a minute than are told apart; this is the latest",
                request={"who": event.who, "from": event.peer, "method": event.method},
            )  # fmt: skip
        known = self._refusals.get(key)
        if known is None:
            self._refusals[key] = _Refusals(event, now_ns + REFUSAL_WINDOW_NS)
            self._write(event, now_ns, count)
        else:
            known.last = event
            known.count += count

    def tick(self, now_ns: int) -> None:
        """Write the numbers of refusals whose minute is over; call it about once a second."""
        if self._refusals:
            for key in [key for key, one in self._refusals.items() if now_ns >= one.until_ns]:
                self._settle(self._refusals.pop(key), now_ns)

    def sync(self) -> None:
        """Return when everything written is on disk; raise `AuditError` if it cannot be."""
        self._syncing.wait(self._fd)

    def close(self, now_ns: int) -> None:
        """Write what was only counted, sync, and end the thread."""
        try:
            for one in self._refusals.values():
                self._settle(one, now_ns)
            self._refusals.clear()
        finally:
            self._syncing.close(self._fd)
            self._fd = -1

    # -- writing -----------------------------------------------------------------------------------

    def _settle(self, refusals: _Refusals, now_ns: int) -> None:
        if refusals.count:
            self._write(refusals.last, now_ns, refusals.count)

    def _write(self, event: AuditEvent, now_ns: int, count: int) -> int:
        if self._fd < 0:
            raise AuditError(f"the audit log in {self.folder} is closed")
        self._syncing.check()
        if self._size >= self._segment_bytes:
            self._start_segment()
        seq = self.head.seq + 1
        line, digest = encode_line(_fields(event, count), seq, now_ns, self.head.hash)
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                raise OSError(0, f"only {written} of {len(line)} bytes were taken")
        except OSError as error:
            self._take_back()
            raise AuditError(
                f"cannot write the audit log in {self.folder}: {error.strerror}; is the disk full?"
            ) from error
        self._size += len(line)
        self.head = Anchor(seq, digest)
        self._syncing.request(self._fd)
        if self._on_anchor is not None:
            self._on_anchor(self.head)
        return seq

    def _take_back(self) -> None:
        """Leave no half a line before the next one."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError as error:
            # A torn last line is no damage, one in the middle is: nothing more goes into this file.
            _log.error("the audit log's last line cannot be taken back: %s; going on in a new file", error)
            self._size = self._segment_bytes

    def _start_segment(self) -> None:
        path = self.folder / f"audit-{self.head.seq + 1:012d}.jsonl"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE_FILE)
            sync_folder(self.folder)
        except OSError as error:
            raise AuditError(f"cannot make {path}: {error.strerror}") from error
        if self._fd >= 0:
            self._syncing.request(self._fd, is_last=True)
        self._fd, self._size = fd, os.fstat(fd).st_size

    # -- opening -----------------------------------------------------------------------------------

    def _resume(self) -> None:
        files = segments(self.folder)
        # A crash right after a new file was made leaves it empty: the newest record is before it.
        for path in reversed(files):
            self._cut_torn_line(path)
            last = _last_line(path)
            if last:
                self.head = self._decode_head(path, last)
                break
        if not files:
            self._start_segment()
            return
        self._fd = os.open(files[-1], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._size = os.fstat(self._fd).st_size

    def _decode_head(self, path: Path, line: bytes) -> Anchor:
        try:
            record = decode_line(line)
        except ValueError as error:
            raise AuditError(
                f"{path}: the last record cannot be trusted: {error}. Keep the folder as evidence, "
                "and move it away to start a new log"
            ) from error
        return Anchor(record.seq, record.hash)

    def _cut_torn_line(self, path: Path) -> None:
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)
            self.repaired = f"{path}: an incomplete last line of {len(data) - whole} bytes was cut off"
            _log.warning("%s", self.repaired)


def _fields(event: AuditEvent, count: int) -> Mapping[str, Any]:
    return {
        "who": _text(event.who),
        "role": event.role,
        "via": event.via,
        "from": _text(event.peer),
        "method": _text(event.method),
        "request": _bounded(event.request),
        "before": _bounded(event.before),
        "after": _bounded(event.after),
        "outcome": event.outcome,
        "detail": _text(event.detail),
        "count": count,
    }


def _text(text: str) -> str:
    # What JSON cannot hold would make the line unreadable for others.
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= TEXT_CHARS else text[: TEXT_CHARS - 1] + "…"


def _bounded(value: Any) -> Any:
    data = msgspec.json.encode(value, enc_hook=str)
    if len(data) <= VALUE_BYTES:
        return msgspec.Raw(data)
    start = data[: VALUE_BYTES // 2].decode("utf-8", "ignore")
    return {"cut": True, "bytes": len(data), "start": start}


def _host(peer: str) -> str:
    """Return where a call came from without its port, which differs from call to call."""
    host, colon, port = peer.rpartition(":")
    return host if colon and port.isdigit() else peer


def _last_line(path: Path) -> bytes:
    data = path.read_bytes().rstrip(b"\n")
    return data[data.rfind(b"\n") + 1 :]
