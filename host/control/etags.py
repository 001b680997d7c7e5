"""Etags: a change that was decided on what is no longer so is refused."""

import hashlib
from typing import Any

import msgspec

from host.control.reasons import Refused

__all__ = ["check_etag", "etag_of"]

_encode = msgspec.msgpack.Encoder(enc_hook=str).encode


def etag_of(*mutable: Any) -> str:
    """Return a digest of what of a resource can change; equal states have equal etags."""
    return hashlib.blake2b(_encode(mutable), digest_size=8).hexdigest()


def check_etag(name: str, wanted: str, found: str) -> None:
    """Raise `Refused` (ABORTED) where a caller's etag is not the resource's; an empty one does not matter."""
    if wanted and wanted != found:
        text = f"{name} has changed: its etag was {found}, the call's {wanted[:40]}; read it again and decide anew"
        raise Refused("ETAG_MISMATCH", text, etag=found)
