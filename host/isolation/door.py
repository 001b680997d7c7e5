"""Where a stand-alone strategy attaches: its addresses, the token that it shows, and the keys of the encryption."""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zmq
from msgspec import Struct

from host.api import Secret, TandemError
from host.config import ClientSection
from host.config.client import TCP_ADDRESS
from host.config.private_files import make_private_folder, read_private, write_private

__all__ = ["Door", "DoorProblem", "door_of"]

LEAST_TOKEN: Final = 16
MOST_TOKEN: Final = 255
"""Characters of a token."""
MOST_PATH: Final = 100
"""Characters that the path of a socket may have."""


class DoorProblem(TandemError):  # noqa: N818 - the thing, in the words operators see
    """A client could not attach: its token, its keys or its address cannot be used."""


class Door(Struct, frozen=True):
    """One client's way in."""

    events: str
    turns: str
    token: bytes
    curve: tuple[bytes, bytes] | None
    """Public and secret key of the host's ends."""


def door_of(
    folder: Path, name: str, section: ClientSection, find_secret: Callable[[str], Secret | None]
) -> Door:
    """Return the door of an instance; what it needs and is not there yet is made in `folder`.

    Raises `DoorProblem`, `SecretProblem`, or `PrivateFileError` where files of `folder` can be used by others.
    """
    make_private_folder(folder)
    tcp = TCP_ADDRESS.fullmatch(section.listen)
    if tcp is not None:
        events, turns = section.listen, f"tcp://{tcp['host']}:{int(tcp['port']) + 1}"
    else:
        base = f"{folder.absolute()}/{name}"
        events, turns = f"ipc://{base}.events.sock", f"ipc://{base}.turns.sock"
        if len(f"{base}.events.sock") > MOST_PATH:
            raise DoorProblem(
                f"instance {name}: the socket {base}.events.sock has a path of more than {MOST_PATH} characters, "
                'which no socket may have; use a shorter data_dir or client = { listen = "tcp://127.0.0.1:PORT" }'
            )
    return Door(
        events,
        turns,
        _token(folder / f"{name}.token", name, section, find_secret),
        _keys(folder, name) if section.curve else None,
    )


def _token(
    path: Path, name: str, section: ClientSection, find_secret: Callable[[str], Secret | None]
) -> bytes:
    if section.token:
        found = find_secret(section.token)
        token = b"" if found is None else found.reveal().strip().encode()
        where = section.token
    else:
        try:
            token = read_private(path).strip()
        except FileNotFoundError:
            token = secrets.token_hex(16).encode()
            write_private(path, token + b"\n")
        where = str(path)
    if not (token.isascii() and token.decode().isprintable() and LEAST_TOKEN <= len(token) <= MOST_TOKEN):
        raise DoorProblem(
            f"instance {name}: the token in {where} should be {LEAST_TOKEN} to {MOST_TOKEN} printable ASCII "
            f"characters, has {len(token)} bytes; delete the file to have a new one made, or store another"
        )
    return token


def _keys(folder: Path, name: str) -> tuple[bytes, bytes]:
    path = folder / f"{name}.curve.key"
    try:
        secret = read_private(path).strip()
        public: bytes = zmq.curve_public(secret)
    except FileNotFoundError:
        public, secret = zmq.curve_keypair()
        write_private(path, secret + b"\n")
    except (ValueError, zmq.ZMQError):
        raise DoorProblem(
            f"instance {name}: {path} holds no CURVE key; delete it to have a new one made"
        ) from None
    (folder / f"{name}.curve.pub").write_bytes(public + b"\n")
    return public, secret
