"""A version's files as `importlib.resources` sees them."""

import io
from collections.abc import Iterator
from importlib.resources.abc import Traversable, TraversableResources
from typing import IO, Any

from host.loader.capture import Version

__all__ = ["CapturedPath", "CapturedResources"]


class CapturedPath(Traversable):
    """A file or folder inside a captured version; it never touches the disk."""

    def __init__(self, version: Version, path: str) -> None:
        self._version = version
        self._path = path

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self._path.rpartition("/")[2] or self._version.name

    def iterdir(self) -> Iterator["CapturedPath"]:
        """Yield what lies directly in this folder."""
        prefix = f"{self._path}/" if self._path else ""
        inside = (file[len(prefix) :] for file in self._version.sources if file.startswith(prefix))
        for name in sorted({rest.split("/")[0] for rest in inside} - {".."}):
            yield CapturedPath(self._version, prefix + name)

    def is_dir(self) -> bool:
        """Return whether files lie below this path."""
        return not self._path or any(file.startswith(f"{self._path}/") for file in self._version.sources)

    def is_file(self) -> bool:
        """Return whether this path is a captured file."""
        return self._path in self._version.sources

    def joinpath(self, *descendants: Any) -> "CapturedPath":
        """Return the path below this one; a part may hold several names with `/`."""
        parts = [part for piece in descendants for part in str(piece).split("/") if part not in ("", ".")]
        return CapturedPath(self._version, "/".join([*filter(None, [self._path]), *parts]))

    def __truediv__(self, child: Any) -> "CapturedPath":
        return self.joinpath(child)

    def read_bytes(self) -> bytes:
        """Return the content as captured; raise `FileNotFoundError` naming the plugin."""
        try:
            return self._version.sources[self._path]
        except KeyError:
            raise FileNotFoundError(f"plugin {self._version.name} has no file {self._path!r}") from None

    def read_text(self, encoding: str | None = None) -> str:
        """Return the content as text, UTF-8 unless told otherwise."""
        return self.read_bytes().decode(encoding or "utf-8")

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> IO[Any]:
        """Open for reading; the content is already in memory."""
        stream = io.BytesIO(self.read_bytes())
        return stream if "b" in mode else io.TextIOWrapper(stream, *args, **{"encoding": "utf-8", **kwargs})

    def __repr__(self) -> str:
        return f"CapturedPath({self._version.name}@{self._version.short_digest}:{self._path})"


class CapturedResources(TraversableResources):
    """Serves `importlib.resources.files(package)` for one package of a version."""

    def __init__(self, version: Version, folder: str) -> None:
        self._root = CapturedPath(version, "" if folder == "." else folder)

    def files(self) -> CapturedPath:
        """Return the package's folder."""
        return self._root
