"""The writer's side: append, flush, sync, snapshot, prune."""

import logging
import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Literal, Self

import msgspec
from google_crc32c import value as crc32c

from host.core.entries import Entry
from host.journal import _snapshots
from host.journal._errors import JournalError, JournalFull, JournalTrouble, TroubleKind, is_no_room
from host.journal._format import FRAME, SegmentHeader, pack_header
from host.journal._listeners import CallSoon, Listeners, call_now
from host.journal._lock import WriterLock, acquire_lock
from host.journal._recovery import Recovered, TornTail, recover
from host.journal._segments import list_segments
from host.journal._snapshots import Snapshot
from host.journal._spare import Spare
from host.journal._sync import GroupSync
from host.journal._window import Window, is_room_promised

__all__ = ["DEFAULT_SEGMENT_BYTES", "Durability", "Journal"]

DEFAULT_SEGMENT_BYTES = 64 << 20
_SMALLEST_SEGMENT_BYTES = 4096
_HEADER_ROOM = 2048  # of a segment's bytes, so that the longest allowed entry fits after any header

# A segment has this many waypoints. At each the journal notes where it is, and looks after the
# next segment: asked for at three quarters, known to exist or not at seven eighths. So an eighth
# of a segment is left for the last entries when the node is told to stop.
_WAYPOINTS = 64
_PREPARE_AT = 48
_DECIDE_AT = 56

_log = logging.getLogger("tandem.journal")
_encode = msgspec.msgpack.Encoder().encode
_pack_frame = FRAME.pack

Durability = Literal["process", "disk", "replica"]


class Journal:
    """The append-only log of one node: one writer, any number of readers.

    Not thread-safe, except `write_snapshot` and `sync`: all else belongs to one thread. Entries
    become visible to readers, and survive this process, when `flush` returns; whether they survive
    the machine is what `durable_lsn` says. After a failed write or sync every further `append` and
    `flush` raises that failure again.
    """

    def __init__(
        self,
        folder: Path,
        recovered: Recovered,
        lock: WriterLock,
        durability: Durability,
        segment_bytes: int,
        is_mapped: bool,
    ) -> None:
        self.folder = folder
        self.durability = durability
        self.repaired: TornTail | None = recovered.repaired
        """The torn tail that `open` cut off, if there was one."""
        self.is_low = False
        """Whether the next segment cannot be created: room for the last entries only."""
        self._segment = recovered.segment
        self._window = Window(recovered.offset)
        self._first_lsn = recovered.first_lsn
        self.last_lsn = self.flushed_lsn = recovered.next_lsn - 1
        """LSN of the last entry appended, and of the last that readers see; 0 when there is none."""
        self.durable_lsn = self.flushed_lsn
        """Up to where entries are as safe as the configured durability promises."""
        self._lock = lock
        self._pending: list[bytes] = []
        self._failure: JournalError | None = None
        self._is_mapped = is_mapped
        self._began = recovered.offset
        self._bytes_before = 0
        self._max_frame = segment_bytes - _HEADER_ROOM - FRAME.size
        self._spare = Spare(folder, segment_bytes)
        self._syncs_each_flush = durability == "disk"
        self._on_flushed: tuple[Callable[[int], object], ...] = ()
        self._on_durable: Listeners[int] = Listeners()
        self._on_trouble: Listeners[JournalTrouble] = Listeners()
        self._sync = GroupSync(folder, self.flushed_lsn, self._synced, self._sync_failed)
        self._marks: list[tuple[int, int]] = [(recovered.next_lsn, recovered.offset)]
        self._waypoint = recovered.offset
        self._writing_snapshot = Lock()
        self._open_window()

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        node: str,
        cell: str = "main",
        durability: Durability = "process",
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        is_mapped: bool = True,
    ) -> Self:
        """Take up the journal in `folder`, or create it.

        A torn tail is cut off and described by `repaired`. Entries are stored into mapped memory where
        that is safe (docs/journal.md); without `is_mapped` each flush is a system call everywhere.
        Raises `JournalLocked`, `JournalCorrupt`, `JournalFull`, or `JournalError` for anything else.
        """
        if durability not in ("process", "disk", "replica"):
            raise JournalError(f"durability should be 'process', 'disk' or 'replica', was {durability!r}")
        if segment_bytes < _SMALLEST_SEGMENT_BYTES:
            raise JournalError(
                f"segment_bytes should be at least {_SMALLEST_SEGMENT_BYTES}, was {segment_bytes}"
            )
        folder = Path(folder)
        if len(pack_header(SegmentHeader(node, cell, 1 << 63))) > _HEADER_ROOM:
            raise JournalError(f"the names of node and cell are too long: {node!r}, {cell!r}", path=folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(
                "cannot create the journal's folder", path=folder, errno=error.errno
            ) from error
        lock = acquire_lock(folder)
        try:
            recovered = recover(folder, node, cell, segment_bytes)
        except BaseException:
            lock.release()
            raise
        # Not with `disk`: each sync write-protects the pages again, and orders wait for it anyway.
        is_mapped = is_mapped and durability == "process" and is_room_promised(folder)
        return cls(folder, recovered, lock, durability, segment_bytes, is_mapped)

    # -- writing ---------------------------------------------------------------------------------

    def append(self, entry: Entry, ts_ns: int) -> int:
        """Add one entry and return its LSN. It is in memory only until `flush`."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)  # else each raise would lengthen it
        lsn = self.last_lsn + 1
        # encode() and not encode_into(): the checksum takes bytes, and slicing them out of a shared
        # buffer costs more than the allocation saved (0.16 against 0.06 µs per entry).
        # A tuple and not a Record: the same bytes (tests/journal says so), one object cheaper.
        payload = _encode((lsn, ts_ns, entry))
        size = len(payload)
        if size > self._max_frame:
            raise JournalError(
                f"an entry may take {self._max_frame} bytes in segments of this size, "
                f"{type(entry).__name__} takes {size}; set a larger segment size",
                path=self.folder,
            )
        self._pending.append(_pack_frame(size, crc32c(payload)) + payload)
        self.last_lsn = lsn
        return lsn

    def append_frames(self, frames: Sequence[bytes]) -> int:
        """Add entries in the bytes of another node's journal, as `split_frames` checked them; return the last LSN.

        They keep their LSNs and times, so the first must be the next one here: the caller makes sure.
        """
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        longest = max(map(len, frames), default=0)
        if longest - FRAME.size > self._max_frame:
            raise JournalError(
                f"an entry may take {self._max_frame} bytes in segments of this size, one that was received "
                f"takes {longest - FRAME.size}; set the segment size of the node that wrote it",
                path=self.folder,
            )
        self._pending.extend(frames)
        self.last_lsn += len(frames)
        return self.last_lsn

    def flush(self) -> None:
        """Write everything appended since the last flush: into mapped memory, or with a system call.

        Raises `JournalFull` when there is no room: whole entries that fitted are written, the others
        stay pending, and another flush tries again. Raises `JournalError` for any other failure,
        after which the journal takes no more.
        """
        pending = self._pending
        if not pending:
            return
        # One store for each frame, in their order: whenever this process dies, or a reader looks, a
        # later frame is there only if the earlier ones are.
        window = self._window
        at, until, memory = window.at, window.until, window.memory
        for frame in pending:
            end = at + len(frame)
            if end > until:
                self._flush_by_system_call()  # all of them: what was stored is written once more
                return
            memory[at:end] = frame
            at = end
        window.at = at
        pending.clear()
        self.flushed_lsn = self.durable_lsn = self.last_lsn
        if self._on_flushed:
            self._tell_flushed()

    def prefault(self) -> None:
        """Have the memory ready that the next entries are stored into; for when no order waits.

        The first store to a page costs 1 to 5 µs, and 20 to 35 µs when the kernel's part of it is cold.
        """
        self._window.prefault()

    def _flush_by_system_call(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)  # else each raise would lengthen it
        data = b"".join(self._pending)
        end = self._window.offset + len(data)
        if end > self._segment.capacity:
            try:
                self._flush_across_segments()
            except JournalFull:
                self._wrote()
                raise
        else:
            self._write(data)
            self._pending.clear()
            self.flushed_lsn = self.last_lsn
            if end >= self._waypoint:
                self._pass_waypoint()
        self._wrote()
        self._open_window()

    def _wrote(self) -> None:
        if self._syncs_each_flush:
            self._sync.request(self._segment, self.flushed_lsn)
        elif self.durability == "process":
            self.durable_lsn = self.flushed_lsn
            if self._on_durable.items:
                self._on_durable.tell_now(self.flushed_lsn)
        self._tell_flushed()

    def _tell_flushed(self) -> None:
        for callback in self._on_flushed:
            callback(self.flushed_lsn)

    def _open_window(self) -> None:
        """Let `flush` store entries up to the next waypoint, unless there is somebody to tell of each."""
        if self._is_mapped and not self._on_durable.items:
            try:
                self._window.open(self._segment, self._waypoint)
            except OSError as error:
                self._is_mapped = False
                _log.warning(
                    "%s cannot be mapped, so it is written by system calls: %s", self._segment.path, error
                )
            if self._failure is not None:  # of a sync, meanwhile
                self._window.until = 0

    def _write(self, data: bytes) -> None:
        size, offset = len(data), self._window.offset
        written = 0
        try:
            written = os.pwrite(self._segment.fd, data, offset)
            while written < size:
                written += os.pwrite(self._segment.fd, data[written:], offset + written)
        except OSError as error:
            # Without room nothing is lost: the same bytes go to the same place when there is room.
            # (Only file systems that copy on write run out of room inside preallocated space.)
            kind = JournalFull if is_no_room(error) else JournalError
            failure = kind(
                f"cannot write {size} bytes",
                path=self._segment.path,
                offset=offset + written,
                errno=error.errno,
            )
            if kind is JournalError:
                self._failure = failure
            raise failure from error
        self._window.at += size

    def _flush_across_segments(self) -> None:
        """Fill the current segment with whole frames, go on in the next; repeat for a huge flush."""
        pending = self._pending
        while pending:
            room = self._segment.capacity - self._window.offset
            count = 0
            for frame in pending:
                room -= len(frame)
                if room < 0:
                    break
                count += 1
            if count:
                self._write(b"".join(pending[:count]))
                del pending[:count]
                self.flushed_lsn += count
            if pending:
                self._roll()
        self._pass_waypoint()

    def _roll(self) -> None:
        header = self._segment.header
        try:
            following = self._spare.take(SegmentHeader(header.node, header.cell, self.flushed_lsn + 1))
        except JournalFull as full:
            self._set_low(full)
            raise
        except JournalError as error:
            self._failure = error
            raise
        self._sync.request(self._segment, self.flushed_lsn, is_last=True)
        self._bytes_before = self.bytes_written
        self._segment = following
        self._began = self._waypoint = following.start
        self._window.close(following.start)
        self._marks = []
        self.is_low = False

    def _pass_waypoint(self) -> None:
        step, offset = max(self._segment.capacity // _WAYPOINTS, 1), self._window.offset
        passed = offset // step
        self._waypoint = (passed + 1) * step
        self._marks.append((self.flushed_lsn + 1, offset))
        if passed < _PREPARE_AT:
            return
        self._spare.prepare()
        if self._spare.is_settled or passed >= _DECIDE_AT:
            error = self._spare.failure()
            if error is None:
                self.is_low = False
                self._waypoint = self._segment.capacity
            else:
                self._set_low(error)

    def _set_low(self, error: JournalError) -> None:
        if self.is_low:
            return
        self.is_low = True
        room = self._segment.capacity - self._window.offset
        text = f"the journal has room for {room} more bytes: {error}"
        self._on_trouble.tell(JournalTrouble(TroubleKind.LOW_SPACE, text, error.errno or 0, room))

    # -- where it is -----------------------------------------------------------------------------

    @property
    def node(self) -> str:
        """Return the name of the node that this journal belongs to."""
        return self._segment.header.node

    @property
    def cell(self) -> str:
        """Return the cell of the node."""
        return self._segment.header.cell

    @property
    def first_lsn(self) -> int:
        """Return the LSN of the oldest entry that is not pruned (the next LSN when empty)."""
        return self._first_lsn

    @property
    def bytes_written(self) -> int:
        """Return how many bytes this journal object has written, framing included."""
        return self._bytes_before + self._window.offset - self._began

    @property
    def syncs(self) -> int:
        """Return how many times the disk was asked to sync entries."""
        return self._sync.syncs

    @property
    def written_to(self) -> tuple[int, int]:
        """Return where the last flush ended: the first LSN of the active segment, and the offset in it."""
        return self._segment.header.first_lsn, self._window.offset

    def locate(self, lsn: int) -> tuple[int, int, int] | None:
        """Return (first LSN of the segment, LSN, offset) to start reading at to reach `lsn`.

        Known for the part of the active segment that this object wrote, else None.
        """
        index = bisect_right(self._marks, (lsn, 1 << 62)) - 1
        if index < 0:
            return None
        return self._segment.header.first_lsn, *self._marks[index]

    # -- durability ------------------------------------------------------------------------------

    def on_flushed(self, callback: Callable[[int], object]) -> Callable[[], None]:
        """Call `callback(flushed_lsn)` inside `flush` whenever readers see more; return what ends this.

        Unlike `on_durable` it leaves the way through mapped memory open. It must not raise or append.
        """
        self._on_flushed = (*self._on_flushed, callback)

        def undo() -> None:
            self._on_flushed = tuple(kept for kept in self._on_flushed if kept is not callback)

        return undo

    def on_durable(
        self, callback: Callable[[int], object], *, call_soon: CallSoon = call_now
    ) -> Callable[[], None]:
        """Call `callback(durable_lsn)` whenever it has risen; return what ends this.

        With durability `disk` the callback goes through `call_soon` from the sync thread; with
        `process` it is called inside `flush`, with `replica` inside `confirm`.
        """
        undo = self._on_durable.add(callback, call_soon)
        self._window.until = 0
        return undo

    def confirm(self, lsn: int) -> None:
        """With durability `replica`: entries up to `lsn` are as safe as promised. Nothing is taken back."""
        lsn = min(lsn, self.flushed_lsn)
        if self.durability == "replica" and lsn > self.durable_lsn:
            self.durable_lsn = lsn
            self._on_durable.tell_now(lsn)

    def on_trouble(
        self, callback: Callable[[JournalTrouble], object], *, call_soon: CallSoon = call_now
    ) -> Callable[[], None]:
        """Call `callback(trouble)` through `call_soon` when something goes wrong; return what ends this.

        The callback may append and flush: low space is told while there is room for last entries.
        """
        return self._on_trouble.add(callback, call_soon)

    def request_sync(self) -> None:
        """Ask for everything flushed so far to be synced to disk, without waiting."""
        self._sync.request(self._segment, self.flushed_lsn)

    def sync(self) -> None:
        """Wait until everything flushed so far is on disk; raises `JournalError` if it cannot be."""
        # The LSN is read before the segment: from another thread, in the other order, a roll in
        # between would pair an old segment with an entry of the new one.
        lsn = self.flushed_lsn
        self._sync.wait(self._segment, lsn)

    def _synced(self, lsn: int) -> None:
        if self._syncs_each_flush:
            self.durable_lsn = lsn
            self._on_durable.tell(lsn)

    def _sync_failed(self, failure: JournalError) -> None:
        self._failure = failure
        self._window.until = 0  # the next flush meets the failure
        self._on_trouble.tell(JournalTrouble(TroubleKind.SYNC_FAILED, str(failure), failure.errno or 0, 0))

    # -- snapshots -------------------------------------------------------------------------------

    def write_snapshot(self, lsn: int, data: bytes) -> None:
        """Keep `data` as the state after entry `lsn`. Waits for the disk; may run in another thread.

        The entries up to `lsn` are made durable first, so that a snapshot is never ahead of the log. `close` waits
        for it, and it refuses a closed journal: whoever cuts one may not find a snapshot of what was cut later.
        """
        if lsn > self.flushed_lsn:
            raise JournalError(
                f"a snapshot of entry {lsn} needs that entry flushed, the last one was {self.flushed_lsn}; "
                "flush first",
                path=self.folder,
            )
        with self._writing_snapshot:
            self._check_open()
            self.sync()
            _snapshots.write_snapshot(self.folder, lsn, data)

    def latest_snapshot(self) -> Snapshot | None:
        """Return the newest whole snapshot, or None; raises `JournalError` when all are damaged."""
        return _snapshots.latest_snapshot(self.folder)

    def prune(self, before_lsn: int) -> int:
        """Delete segments that hold only entries before `before_lsn`; return how many.

        Nothing that the older kept snapshot needs is deleted, nor the segment being written.
        """
        self._check_open()
        snapshots = _snapshots.list_snapshots(self.folder)
        if not snapshots:
            return 0
        limit = min(before_lsn, snapshots[0][0] + 1)
        segments = list_segments(self.folder)
        pruned = 0
        for (_, path), (following, _) in pairwise(segments):
            if following > limit:
                break
            try:
                path.unlink()
            except OSError as error:
                raise JournalError("cannot delete a pruned segment", path=path, errno=error.errno) from error
            self._first_lsn = following
            pruned += 1
        return pruned

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Flush, sync, and let go of the files and the lock; harmless when closed already.

        Waits for a snapshot that is being written in another thread.
        """
        with self._writing_snapshot:
            self._close()

    @property
    def is_closed(self) -> bool:
        """Return whether `close` was called."""
        return not self._lock.is_held

    def _check_open(self) -> None:
        if self.is_closed:
            raise JournalError("the journal is closed", path=self.folder)

    def _close(self) -> None:
        if self.is_closed:
            return
        try:
            if self._failure is None:
                self.flush()
                self.sync()
        finally:
            self._failure = self._failure or JournalError("the journal is closed", path=self.folder)
            self._sync.close()
            self._spare.close()
            self._window.close(self._window.offset)
            self._segment.close()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
