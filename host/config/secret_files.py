"""Exchange keys and the like: one private file each, outside the configuration.

The configuration says `secret:NAME`, so that it can be shown, compared, journaled and put under
version control. The files are what Docker, Kubernetes and systemd deliver secrets as: any of them may
put `data_dir/secrets` there.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from host.api import Secret, TandemError
from host.config.private_files import make_private_folder, read_private, write_private

__all__ = ["SECRETS_FOLDER", "SecretFiles", "SecretProblem", "resolve_secrets"]

SECRETS_FOLDER: Final = "secrets"
"""Within `data_dir`."""
REFERENCE: Final = "secret:"
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
        try:
            text = read_private(self._path(name)).decode()
        except FileNotFoundError:
            raise SecretProblem(
                f'there is no secret "{name}" in {self.folder}; store it with `tandem secret set {name}`'
            ) from None
        except UnicodeDecodeError:
            raise SecretProblem(f'the secret "{name}" is not text') from None
        return Secret(text.removesuffix("\n").removesuffix("\r"))

    def remove(self, name: str) -> None:
        """Delete a secret; raise `SecretProblem` where there is none."""
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            known = ", ".join(self.names()) or "none"
            raise SecretProblem(f'there is no secret "{name}"; there are: {known}') from None

    def names(self) -> list[str]:
        """Return the names of all secrets."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise SecretProblem(f'a secret\'s name should be 1 to 64 of A-Z a-z 0-9 _ . -, was "{name}"')
        return self.folder / name


def resolve_secrets(params: Mapping[str, Any], secrets: SecretFiles) -> dict[str, Any]:
    """Return `params` with every `secret:NAME`, however deep, replaced by that secret.

    Raises `SecretProblem` or `NotPrivate`.
    """
    return {key: _resolve(value, secrets) for key, value in params.items()}


def _resolve(value: Any, secrets: SecretFiles) -> Any:
    if isinstance(value, str) and value.startswith(REFERENCE):
        return secrets.get(value.removeprefix(REFERENCE))
    if isinstance(value, Mapping):
        return {key: _resolve(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolve(item, secrets) for item in value]
    return value
