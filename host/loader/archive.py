"""Keeps the bytes of versions, so that a restart can run one whose files have changed or gone.

The file on disk is what its author wrote last; the version that earned its place may be an older one.
One file per version: a CRC32C, then msgpack. Files are replaced whole, never written in place.
"""

import os
import re
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

import google_crc32c
import msgspec

from host.api import TandemError
from host.loader.capture import Version, digest_of

__all__ = ["ArchivedVersionDamaged", "ArchivedVersionMissing", "VersionArchive"]

VERSIONS_KEPT: Final = 20
"""Of each plugin, so many that were put last are kept, needed or not: what was live lately can be looked at, and one
that was put this moment is not in the journal yet."""
_ABANDONED_NS: Final = 3600 * 1_000_000_000
_SUFFIX = ".version"
_CRC_BYTES = 4
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ArchivedVersionMissing(TandemError):  # noqa: N818 - the adjective is the answer
    """The archive does not hold this version: it was never put there, or was pruned."""

    def __init__(self, name: str, digest: str, path: Path) -> None:
        super().__init__(
            f"plugin {name}: no archived version {digest[:12]} at {path};"
            " restore that file from a backup, or start with the plugin's file on disk"
        )
        self.name = name
        self.digest = digest
        self.path = path


class ArchivedVersionDamaged(TandemError):  # noqa: N818 - parallel to ArchivedVersionMissing
    """The archived file is not what was written: the disk or somebody changed it."""

    def __init__(self, name: str, digest: str, path: Path, found: str) -> None:
        super().__init__(
            f"plugin {name}: the archived version {digest[:12]} at {path} is damaged: {found};"
            " restore that file from a backup, or delete it and start with the plugin's file on disk"
        )
        self.name = name
        self.digest = digest
        self.path = path


class VersionArchive:
    """Versions by plugin name and digest, in `folder` (created when first needed).

    All methods touch the disk, and `put` waits for it: call them from a worker thread where an event
    loop runs. One writer at a time per folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, version: Version) -> None:
        """Keep a version; when this returns, it survives a power cut. No effect if it is kept already.

        Raises `OSError` when the disk refuses; the archive is then as it was.
        """
        body = msgspec.msgpack.encode(version, enc_hook=str)
        content = google_crc32c.value(body).to_bytes(_CRC_BYTES, "big") + body
        path = self._path(version.name, version.digest)
        if path.is_file() and path.read_bytes() == content:
            os.utime(path)  # it is among the newest again
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        for folder in (path.parent, self.folder, self.folder.parent):  # a name lasts once its folder does
            _sync_folder(folder)

    def get(self, name: str, digest: str) -> Version:
        """Return a kept version, equal to the one that was put; its bytes match its digest.

        Raises `ArchivedVersionMissing` or `ArchivedVersionDamaged`.
        """
        path = self._path(name, digest)
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise ArchivedVersionMissing(name, digest, path) from None
        return self._decode(name, digest, path, content)

    def _decode(self, name: str, digest: str, path: Path, content: bytes) -> Version:
        crc, body = content[:_CRC_BYTES], content[_CRC_BYTES:]
        expected, found = int.from_bytes(crc, "big"), google_crc32c.value(body)
        if len(crc) < _CRC_BYTES or expected != found:
            raise ArchivedVersionDamaged(
                name, digest, path, f"its checksum is {expected:08x}, was {found:08x}"
            )
        try:
            version = msgspec.msgpack.decode(body, type=Version, dec_hook=lambda _type, value: Path(value))
        except (msgspec.DecodeError, ValueError) as error:
            raise ArchivedVersionDamaged(name, digest, path, str(error)) from None
        actual = digest_of(version.sources)
        if (version.name, version.digest, actual) != (name, digest, digest):
            raise ArchivedVersionDamaged(
                name, digest, path, f"it holds {version.name} with digest {actual[:12]}"
            )
        return version

    def holds(self, name: str, digest: str) -> bool:
        """Return whether there is a file of that version; whether it is whole, `get` says."""
        return self._path(name, digest).is_file()

    def content(self, name: str, digest: str) -> bytes:
        """Return the file that keeps a version, for another node's archive; raises as `get` does."""
        self.get(name, digest)  # checked: damage must not spread
        return self._path(name, digest).read_bytes()

    def take(self, name: str, digest: str, content: bytes) -> Version:
        """Keep a version that came as another archive's `content`, and return it.

        Raises `ArchivedVersionDamaged` for other bytes than that, and what `put` raises.
        """
        version = self._decode(name, digest, self._path(name, digest), content)
        self.put(version)
        return version

    def prune(self, name: str, needed: Collection[str]) -> None:
        """Delete a plugin's versions but those with the digests `needed` and the newest few.

        A write that never ended goes as well, once it is so old that nobody can be at it any more.
        """
        folder = self.folder / name
        by_age = sorted(folder.glob(f"*{_SUFFIX}"), key=_written_ns, reverse=True)
        for path in by_age[VERSIONS_KEPT:]:
            if path.stem not in needed:
                path.unlink(missing_ok=True)
        for path in folder.glob("*.tmp"):
            if time.time_ns() - _written_ns(path) > _ABANDONED_NS:
                path.unlink(missing_ok=True)

    def _path(self, name: str, digest: str) -> Path:
        # Both may come from a request: neither may lead out of the folder.
        if not name or "/" in name or name.startswith(".") or not _DIGEST.fullmatch(digest):
            raise ArchivedVersionMissing(name, digest, self.folder)
        return self.folder / name / f"{digest}{_SUFFIX}"


def _written_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0  # another prune was quicker


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
