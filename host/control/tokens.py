"""Bearer tokens: made once, shown once, kept as a hash, taken back at any time.

A token is `tandem_<id>_<secret>`. The id is public and finds the record; the secret is 256 random
bits. What is stored is SHA-256 of the whole token. A slow hash with a salt (scrypt, Argon2) protects
secrets that people choose, because those can be guessed; 2^256 random values cannot, however fast a
guess is, and a slow hash here would only let anybody keep the node busy with wrong tokens.
"""

import fcntl
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from host.api import TandemError
from host.config.private_files import PRIVATE_FILE, make_private_folder, read_private, write_private
from host.control.principal import Principal, Role, Via

__all__ = ["TOKENS_FILE", "TokenRecord", "TokenStore", "TokenStoreError"]

TOKENS_FILE: Final = Path("control") / "tokens.json"
"""Within `data_dir`; its folder has mode 0700."""

PREFIX: Final = "tandem"
"""Lets scanners for leaked secrets know one when they see it."""
_SECRET_BYTES: Final = 32
_TOKEN: Final = re.compile(rf"{PREFIX}_(?P<id>[0-9a-f]{{8}})_[A-Za-z0-9_-]{{43}}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_VERSION: Final = 1


class TokenStoreError(TandemError):
    """The tokens cannot be read or changed as asked; nobody is let in by a token meanwhile."""


class TokenRecord(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of a token: enough to know it again, not enough to use it."""

    id: str
    name: str
    role: str
    sha256: str
    created_ns: int
    """Nanoseconds since the Unix epoch, as all times here."""
    expires_ns: int | None
    """From this time on it is not taken; None: it is taken until it is revoked."""

    def is_expired(self, now_ns: int) -> bool:
        """Return whether its time is over."""
        return self.expires_ns is not None and now_ns >= self.expires_ns


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int = _VERSION
    tokens: tuple[TokenRecord, ...] = ()


class TokenStore:
    """The tokens of one node, in a file of mode 0600.

    The file is read again whenever it changed, so that what `tandem token` does to it holds for a
    node that runs: a revoked token is refused from the next call on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, ...] | None = None
        self._by_id: dict[str, TokenRecord] = {}

    @classmethod
    def open(cls, path: Path) -> "TokenStore":
        """Open the store at `path`; a file that is not there yet holds no tokens.

        Raises `TokenStoreError` or `NotPrivate` for one that cannot be trusted.
        """
        store = cls(path)
        store._refresh()
        return store

    def verify(self, token: str, now_ns: int) -> Principal | None:
        """Return whose token this is; None if it is unknown, wrong, expired or revoked.

        Raises `TokenStoreError` or `NotPrivate` where the file was damaged meanwhile: then nobody
        is known by a token.
        """
        self._refresh()
        match = _TOKEN.fullmatch(token)
        record = self._by_id.get(match["id"]) if match else None
        if record is None or not hmac.compare_digest(_digest(token), record.sha256):
            return None
        return (
            None if record.is_expired(now_ns) else Principal(record.name, Role.parse(record.role), Via.TOKEN)
        )

    def records(self) -> tuple[TokenRecord, ...]:
        """Return every token, oldest first."""
        self._refresh()
        return tuple(self._by_id.values())

    def create(self, name: str, role: Role, now_ns: int, expires_ns: int | None) -> str:
        """Make a token for `name` and return it. It is not kept, and cannot be shown again.

        Raises `TokenStoreError` for a name that is taken or that a log could not show.
        """
        if not _NAME.fullmatch(name):
            raise TokenStoreError(
                f'a token\'s name should be 1 to 64 of A-Z a-z 0-9 _ . @ -, was "{name}"; '
                "it is what the audit log calls the caller"
            )
        with self._changing() as tokens:
            if any(record.name == name and not record.is_expired(now_ns) for record in tokens):
                raise TokenStoreError(
                    f'there is a token named "{name}"; revoke it first, or take another name: '
                    "the audit log tells callers apart by it"
                )
            taken = {record.id for record in tokens}
            id_ = next(id_ for id_ in iter(lambda: secrets.token_hex(4), "") if id_ not in taken)
            token = f"{PREFIX}_{id_}_{secrets.token_urlsafe(_SECRET_BYTES)}"
            tokens.append(
                TokenRecord(
                    id=id_,
                    name=name,
                    role=str(role),
                    sha256=_digest(token),
                    created_ns=now_ns,
                    expires_ns=expires_ns,
                )
            )
        return token

    def revoke(self, id_or_name: str) -> tuple[TokenRecord, ...]:
        """Forget the tokens of this id or name and return them; raise `TokenStoreError` for none."""
        with self._changing() as tokens:
            gone = tuple(record for record in tokens if id_or_name in (record.id, record.name))
            if not gone:
                known = ", ".join(f"{record.name} ({record.id})" for record in tokens) or "none"
                raise TokenStoreError(f'no token has the id or name "{id_or_name}"; there are: {known}')
            tokens[:] = [record for record in tokens if record not in gone]
        return gone

    # -- the file ----------------------------------------------------------------------------------

    @contextmanager
    def _changing(self) -> Iterator[list[TokenRecord]]:
        """Lend the records for changing and write them after; other processes wait meanwhile."""
        make_private_folder(self.path.parent)
        lock = os.open(
            self.path.with_name(f".{self.path.name}.lock"),
            os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,
            PRIVATE_FILE,
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._refresh()
            tokens = list(self._by_id.values())
            yield tokens
            write_private(
                self.path, msgspec.json.format(msgspec.json.encode(_File(tokens=tuple(tokens)))) + b"\n"
            )
            self._refresh()
        finally:
            os.close(lock)

    def _refresh(self) -> None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._seen, self._by_id = None, {}
            return
        except OSError as error:
            raise TokenStoreError(f"cannot look at {self.path}: {error.strerror}") from error
        seen = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
        if seen == self._seen:
            return
        self._seen, self._by_id = None, {}  # whatever fails from here on, nobody is let in by the old ones
        self._by_id = {record.id: record for record in self._read()}
        self._seen = seen

    def _read(self) -> tuple[TokenRecord, ...]:
        try:
            file = msgspec.json.decode(read_private(self.path), type=_File)
            for record in file.tokens:
                Role.parse(record.role)
        except FileNotFoundError:
            return ()
        except ValueError as error:
            raise TokenStoreError(
                f"{self.path} does not hold tokens: {error}; restore it, or remove it and create new tokens"
            ) from error
        if file.version != _VERSION:
            raise TokenStoreError(
                f"{self.path} should be of version {_VERSION}, is of {file.version}; "
                "use the release of Tandem that wrote it"
            )
        return file.tokens


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
