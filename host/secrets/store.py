"""The encrypted store: one private file of sealed records, replaced as a whole by each change.

Names, times and key ids can be read without a key, values cannot. What the file as a whole was before
is not in it: whoever can write it can put an older copy back, or leave records out, but not make one.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from host.api import Secret
from host.config.private_files import read_private, write_private
from host.config.secret_files import SECRET_BYTES, SecretProblem
from host.secrets.exclusive import exclusive
from host.secrets.master_key import KeyRing
from host.secrets.records import FORMAT_VERSION, SealedRecord, seal, unseal

__all__ = ["STORE_FILE", "SecretStore", "StoredSecret"]

STORE_FILE: Final = "secrets.json"
"""Within `data_dir`."""
_FORMAT: Final = "tandem secrets"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,63}){0,3}")


class StoredSecret(Struct, frozen=True):
    """What may be shown of a secret. `set_at` is ISO 8601, UTC."""

    name: str
    set_at: str
    key_id: str


class _Contents(Struct, forbid_unknown_fields=True):
    format: str
    version: int
    records: dict[str, SealedRecord]


class SecretStore:
    """The sealed secrets of one node. `keys()` is called when a value is sealed or opened, not before."""

    def __init__(self, path: Path, keys: Callable[[], KeyRing]) -> None:
        self.path: Final = path
        self._keys: Final = keys

    def exists(self) -> bool:
        """Return whether there is a store."""
        return self.path.exists()

    def listed(self) -> list[StoredSecret]:
        """Return every secret without its value, by name; needs no key. Raises like `get`."""
        records = self.records()
        return [StoredSecret(name, records[name].set_at, records[name].key_id) for name in sorted(records)]

    def get(self, name: str) -> Secret | None:
        """Return a secret, None where there is none of that name.

        Raises `SecretProblem` for a wrong key and for tampering, `PrivateFileError` for a file that others
        can use.
        """
        record = self.records().get(name)
        return None if record is None else unseal(self._keys(), name, record, str(self.path))

    def set(self, name: str, text: str) -> None:
        """Store `text` under `name`, in the place of what was there; without the line end that editors add.

        Raises `SecretProblem` or `PrivateFileError`.
        """
        if not _NAME.fullmatch(name):
            raise SecretProblem(
                'a secret\'s name should be up to 4 parts of 1 to 64 of A-Z a-z 0-9 _ . -, with "/" between them, '
                f'was "{name}"'
            )
        text = text.removesuffix("\n").removesuffix("\r")
        if not text:
            raise SecretProblem(f'the secret "{name}" is empty; give it on standard input')
        if len(text.encode()) > SECRET_BYTES:
            raise SecretProblem(f'the secret "{name}" is longer than {SECRET_BYTES} bytes')
        key = self._keys().newest
        set_at = datetime.now(UTC).isoformat(timespec="seconds")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(self.path):
            self._write(self.records() | {name: seal(key, name, Secret(text), set_at)})

    def remove(self, name: str) -> bool:
        """Delete a secret; return whether there was one."""
        if not self.exists():
            return False
        with exclusive(self.path):
            records = self.records()
            is_there = records.pop(name, None) is not None
            if is_there:
                self._write(records)
            return is_there

    def seal_anew(self, ring: KeyRing) -> int:
        """Seal under the ring's newest key whatever is not, all or nothing; return how many that were."""
        with exclusive(self.path):
            records = self.records()
            old = [name for name, record in records.items() if record.key_id != ring.newest.id]
            for name in old:
                record = records[name]
                secret = unseal(ring, name, record, str(self.path))
                records[name] = seal(ring.newest, name, secret, record.set_at)
            if old:
                self._write(records)
            return len(old)

    def records(self) -> dict[str, SealedRecord]:
        """Return the sealed records by name. Raises `SecretProblem` or `PrivateFileError`."""
        try:
            data = read_private(self.path)
        except FileNotFoundError:
            return {}
        try:
            contents = _DECODER.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SecretProblem(
                f"{self.path} is damaged: {error}; put a copy back, or move it away and store its secrets anew"
            ) from None
        if contents.format != _FORMAT or contents.version != FORMAT_VERSION:
            raise SecretProblem(
                f'{self.path} should be "{_FORMAT}" of version {FORMAT_VERSION}, is "{contents.format[:64]}" of '
                f"version {contents.version}; a newer Tandem wrote it, or it is another file"
            )
        return contents.records

    def _write(self, records: Mapping[str, SealedRecord]) -> None:
        contents = _Contents(_FORMAT, FORMAT_VERSION, dict(sorted(records.items())))
        write_private(self.path, msgspec.json.format(msgspec.json.encode(contents)) + b"\n")


_DECODER: Final = msgspec.json.Decoder(_Contents)
