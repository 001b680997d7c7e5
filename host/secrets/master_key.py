"""Master keys: what the encrypted store is sealed under, and where they are read from.

A key is 32 random bytes, written in base64. One place may hold several, separated by white space: the
first one seals, and each opens what it sealed. So a rotation can be interrupted at any moment and
nothing is out of reach.
"""

import base64
import binascii
import hmac
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from host.config.private_files import PrivateFileError, read_private, write_private
from host.config.secret_files import SecretProblem

__all__ = ["MASTER_KEY_VARIABLE", "KeyRing", "KeySource", "MasterKey", "write_new_key"]

MASTER_KEY_VARIABLE: Final = "TANDEM_MASTER_KEY"
"""Where master keys are looked for when the configuration does not say."""
KEY_BYTES: Final = 32
"""AES-256."""
NONCE_BYTES: Final = 12
"""What GCM is specified for (NIST SP 800-38D, 8.2)."""
_ID_PURPOSE: Final = b"tandem master key id"


class MasterKey:
    """One key for AES-256-GCM. It prints as its `id`, which tells keys apart and gives nothing away."""

    __slots__ = ("_aead", "_bytes", "id")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a master key has {KEY_BYTES} bytes, was of {len(key)}")
        self._bytes = key
        self._aead = AESGCM(key)
        self.id = hmac.digest(key, _ID_PURPOSE, "sha256")[:8].hex()

    @classmethod
    def new(cls) -> "MasterKey":
        """Make a random key."""
        return cls(os.urandom(KEY_BYTES))

    def text(self) -> str:
        """Return the key itself as it is written into a key file. Show it to nobody."""
        return base64.b64encode(self._bytes).decode()

    def seal(self, text: bytes, about: bytes) -> tuple[bytes, bytes]:
        """Encrypt `text` and bind it to `about`; return a nonce of its own and the ciphertext."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce, self._aead.encrypt(nonce, text, about)

    def unseal(self, nonce: bytes, sealed: bytes, about: bytes) -> bytes | None:
        """Return what was sealed; None where a byte of it, or of `about`, is another one than it was."""
        try:
            return self._aead.decrypt(nonce, sealed, about)
        except (InvalidTag, ValueError):  # ValueError: a nonce that no seal has made
            return None

    def __repr__(self) -> str:
        return f"MasterKey({self.id})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a MasterKey is not pickled: it would leave this process as plain text")


class KeyRing(Struct, frozen=True):
    """The keys of one place: the first one seals, all of them open. `origin` names the place in messages."""

    keys: tuple[MasterKey, ...]
    origin: str

    @property
    def newest(self) -> MasterKey:
        """Return the key that seals."""
        return self.keys[0]

    def find(self, key_id: str) -> MasterKey | None:
        """Return the key of that id, None where it is not here."""
        return next((key for key in self.keys if key.id == key_id), None)


class KeySource(Struct, frozen=True):
    """Where the master keys are: a file of mode 0600, or a variable. Never a command line, which everybody sees."""

    path: Path | None = None
    variable: str = MASTER_KEY_VARIABLE

    @classmethod
    def parse(cls, reference: str | None) -> "KeySource":
        """Read `file:PATH` or `env:VARIABLE`; None is the variable `TANDEM_MASTER_KEY`."""
        if reference is None:
            return cls()
        kind, _, place = reference.partition(":")
        return cls(path=Path(place)) if kind == "file" else cls(variable=place)

    def __str__(self) -> str:
        return f"the file {self.path}" if self.path is not None else f"the variable {self.variable}"

    def is_given(self, environ: Mapping[str, str]) -> bool:
        """Return whether somebody said where a key is; it may be missing there all the same."""
        return (
            self.path is not None
            or self.variable != MASTER_KEY_VARIABLE
            or bool(environ.get(self.variable, "").strip())
        )

    def load(self, environ: Mapping[str, str]) -> KeyRing:
        """Return the keys; raise `SecretProblem` or `PrivateFileError`, which say what to do."""
        if self.path is None:
            text = environ.get(self.variable, "")
            if not text.strip():
                raise SecretProblem(
                    f"there is no master key in {self}: export it there, or name a key file with "
                    '[secrets] master_key = "file:PATH"; `tandem secret key PATH` makes one'
                )
            return KeyRing(_parse(text, str(self)), str(self))
        try:
            text = read_private(self.path).decode()
        except FileNotFoundError:
            raise SecretProblem(
                f"there is no master key: {self} does not exist; `tandem secret key {self.path}` makes one"
            ) from None
        except UnicodeDecodeError:
            raise SecretProblem(f"{self} holds something else than master keys, which are text") from None
        return KeyRing(_parse(text, str(self)), str(self))


def write_new_key(path: Path) -> MasterKey:
    """Make a master key in a file of mode 0600; raise `SecretProblem` where there is a file already."""
    if path.exists():
        raise SecretProblem(
            f"{path} exists, and what is sealed under a key is lost with it; name a new file, or make a new "
            "key for the secrets that are there with `tandem secret rotate`"
        )
    if not path.parent.is_dir():
        raise PrivateFileError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    key = MasterKey.new()
    write_keys(path, (key,))
    return key


def write_keys(path: Path, keys: Sequence[MasterKey]) -> None:
    """Put `keys`, the newest first, in the place of what the key file holds. Raises `PrivateFileError`."""
    write_private(path, "".join(f"{key.text()}\n" for key in keys).encode())


def _parse(text: str, origin: str) -> tuple[MasterKey, ...]:
    keys = []
    for number, word in enumerate(text.split(), 1):
        try:
            keys.append(MasterKey(base64.b64decode(word, validate=True)))
        except (binascii.Error, ValueError):
            # What is there may be a key with a typing error: it is not repeated.
            raise SecretProblem(
                f"{origin} should hold master keys of {KEY_BYTES} bytes in base64, and entry {number} is none; "
                "`tandem secret key PATH` makes one"
            ) from None
    if not keys:
        raise SecretProblem(f"{origin} holds no master key; `tandem secret key PATH` makes one")
    return tuple({key.id: key for key in keys}.values())
