"""What a configuration says instead of a credential, and the credential itself.

`secret:NAME` is the encrypted store's, or a private file's in `data_dir/secrets`; `env:VARIABLE` is a
variable's, `file:PATH` that of any file of mode 0600. The configuration holds references alone, so it can be
shown, compared, journaled and put under version control.
"""

import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from host.api import Secret
from host.config import NodeConfig
from host.config.private_files import read_private
from host.config.secret_files import SECRET_BYTES, SECRETS_FOLDER, SecretFiles, SecretProblem
from host.secrets.master_key import KeyRing, KeySource
from host.secrets.store import STORE_FILE, SecretStore

__all__ = ["SecretSources", "resolve_secrets"]


class SecretSources:
    """Finds what references lead to, for one node."""

    def __init__(self, config: NodeConfig, environ: Mapping[str, str] = os.environ) -> None:
        section, data_dir = config.secrets, config.node.data_dir
        self.environ: Final = environ
        self.key_source: Final = KeySource.parse(section.master_key)
        self.store: Final = SecretStore(section.store or data_dir / STORE_FILE, self._keys)
        self.files: Final = SecretFiles(data_dir / SECRETS_FOLDER)
        self._ring: KeyRing | None = None

    @property
    def is_encrypting(self) -> bool:
        """Return whether new secrets are sealed: there is a master key, or a store that needs one."""
        return self.key_source.is_given(self.environ) or self.store.exists()

    def get(self, name: str) -> Secret:
        """Return the secret that `tandem secret set NAME` stored. Raises `SecretProblem`, `PrivateFileError`."""
        found = self.store.get(name) if self.store.exists() else None
        if found is None and "/" not in name:
            found = self.files.find(name)
        if found is None:
            places = f"{self.store.path} or {self.files.folder}" if self.is_encrypting else self.files.folder
            raise SecretProblem(
                f'there is no secret "{name}" in {places}; store it with `tandem secret set {name}`'
            )
        return found

    def find(self, text: str) -> Secret | None:
        """Return what a parameter's text refers to, None where it is no reference. Raises like `get`.

        A process that has got one leaves no core dump from then on.
        """
        kind, colon, place = text.partition(":")
        read = self._readers().get(kind) if colon else None
        if read is None:
            return None
        secret = read(place)
        _leave_no_core_dump()
        return secret

    def _readers(self) -> dict[str, Callable[[str], Secret]]:
        return {"secret": self.get, "env": self._variable, "file": self._file}

    def _variable(self, name: str) -> Secret:
        text = self.environ.get(name, "").removesuffix("\n").removesuffix("\r")
        if not text:
            raise SecretProblem(
                f'the variable {name or "(no name)"}, which "env:{name}" refers to, is not set; export it before '
                "the node starts"
            )
        return Secret(text)

    def _file(self, place: str) -> Secret:
        try:
            data = read_private(Path(place))
        except FileNotFoundError:
            raise SecretProblem(
                f'there is no file {place}, which "file:{place}" refers to; write it with mode 0600 (umask 077)'
            ) from None
        if not data.strip() or len(data) > SECRET_BYTES:
            raise SecretProblem(
                f"the file {place} should hold one credential of 1 to {SECRET_BYTES} bytes, has {len(data)}"
            )
        try:
            return Secret(data.decode().removesuffix("\n").removesuffix("\r"))
        except UnicodeDecodeError:
            raise SecretProblem(f"the file {place} should hold a credential, and is not text") from None

    def _keys(self) -> KeyRing:
        if self._ring is None:
            self._ring = self.key_source.load(self.environ)
        return self._ring


def resolve_secrets(params: Mapping[str, Any], sources: SecretSources) -> dict[str, Any]:
    """Return `params` with every reference, however deep, replaced by its secret.

    Raises `SecretProblem` or `PrivateFileError`.
    """
    return {key: _resolve(value, sources) for key, value in params.items()}


def _resolve(value: Any, sources: SecretSources) -> Any:
    if isinstance(value, str):
        secret = sources.find(value)
        return value if secret is None else secret
    if isinstance(value, Mapping):
        return {key: _resolve(item, sources) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolve(item, sources) for item in value]
    return value


def _leave_no_core_dump() -> None:
    """Lower the limit of core dumps to nothing; whoever needs one can raise it again with prlimit(1)."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
