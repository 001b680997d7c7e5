"""Exchange keys and the like: one private file each, outside the configuration.

They are not encrypted; `host.secrets` has a store that is. Files are what Docker, Kubernetes and systemd
deliver secrets as: any of them may put `data_dir/secrets` there.
"""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from host.api import Secret, TandemError
from host.config.private_files import make_private_folder, read_private, write_private

__all__ = ["SECRETS_FOLDER", "SECRET_BYTES", "SecretFiles", "SecretProblem"]

SECRETS_FOLDER: Final = "secrets"
"""Within `data_dir`."""
SECRET_BYTES: Final = 64 << 10
"""Room for any key; what is longer was given by mistake."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class SecretProblem(TandemError):  # noqa: N818 - it is about a secret, and never holds one
    """A secret is missing or cannot be used; the text says what to do, and never holds its value."""


class SecretFiles:
    """The secrets of one node, in a folder of mode 0700."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def set(self, name: str, text: str) -> None:
        """Store `text` under `name`, in the place of what was there. Raises `SecretProblem`, `NotPrivate`.

        One line end at the end is taken off: editors and `echo` add it, and no key has it.
        """
        text = text.removesuffix("\n").removesuffix("\r")
        if not text:
            raise SecretProblem(f'the secret "{name}" is empty; give it on standard input')
        if len(text.encode()) > SECRET_BYTES:
            raise SecretProblem(f'the secret "{name}" is longer than {SECRET_BYTES} bytes')
        path = self._path(name)
        make_private_folder(self.folder)
        write_private(path, text.encode())

    def get(self, name: str) -> Secret:
        """Return a secret; raise `SecretProblem` where there is none, `NotPrivate` where others can read it."""
        found = self.find(name)
        if found is None:
            raise SecretProblem(
                f'there is no secret "{name}" in {self.folder}; store it with `tandem secret set {name}`'
            )
        return found

    def find(self, name: str) -> Secret | None:
        """Return a secret, None where there is none; raise like `get`."""
        try:
            text = read_private(self._path(name)).decode()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise SecretProblem(f'the secret "{name}" is not text') from None
        return Secret(text.removesuffix("\n").removesuffix("\r"))

    def remove(self, name: str) -> bool:
        """Delete a secret; return whether there was one."""
        path = self._path(name)
        is_there = path.exists() or path.is_symlink()
        path.unlink(missing_ok=True)
        return is_there

    def names(self) -> list[str]:
        """Return the names of all secrets."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def listed(self) -> list[tuple[str, str]]:
        """Return each name with the time at which its file was written (ISO 8601, UTC)."""
        return [(name, _written_at(self.folder / name)) for name in self.names()]

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            hint = (
                "; names of parts need a master key: `tandem secret key PATH` makes one"
                if "/" in name
                else ""
            )
            raise SecretProblem(
                f'a secret\'s name should be 1 to 64 of A-Z a-z 0-9 _ . -, was "{name}"{hint}'
            )
        return self.folder / name


def _written_at(path: Path) -> str:
    found = path.stat() if path.exists() else path.lstat()  # a link may lead nowhere
    return datetime.fromtimestamp(found.st_mtime, UTC).isoformat(timespec="seconds")
