"""A new master key for everything in the store, in steps of which each leaves a store that can be opened.

1. the key file gets the new key before the old ones;
2. the store is sealed anew, in a file beside it that takes its place;
3. the old keys go, where that was asked for.

After a kill at any moment the key file holds a key for every record, and the next rotation finishes
the work.
"""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from host.secrets.exclusive import exclusive
from host.secrets.master_key import KeyRing, KeySource, MasterKey, write_keys
from host.secrets.store import SecretStore

__all__ = ["Rotation", "rotate"]


class Rotation(Struct, frozen=True):
    """What a rotation did."""

    key_id: str
    """The key that everything is sealed under now."""
    resealed: int
    """How many secrets were sealed under another one before."""
    kept: tuple[str, ...]
    """Older keys that are still where the new one is."""


def rotate(
    store: SecretStore, source: KeySource, environ: Mapping[str, str], *, drops_old: bool = False
) -> Rotation:
    """Seal everything under a new key; raise `SecretProblem` or `PrivateFileError` and change nothing else.

    A key file gets a new key. A variable is not ours to write: what stands first in it is the new key.
    `drops_old` takes older keys out of the key file: other stores that were sealed under them cannot be opened
    with it any more.
    """
    if source.path is None:
        ring = source.load(environ)
        return Rotation(ring.newest.id, store.seal_anew(ring), tuple(key.id for key in ring.keys[1:]))
    with exclusive(source.path):
        ring = source.load(environ)
        if all(one.key_id == ring.newest.id for one in store.listed()):
            ring = _with_new_key(ring, source.path)
        # Otherwise a rotation was broken off after its first step: its key is the new one.
        resealed = store.seal_anew(ring)
        kept = () if drops_old else ring.keys[1:]
        if drops_old:
            write_keys(source.path, (ring.newest,))
    return Rotation(ring.newest.id, resealed, tuple(key.id for key in kept))


def _with_new_key(ring: KeyRing, path: Path) -> KeyRing:
    keys = (MasterKey.new(), *ring.keys)
    write_keys(path, keys)
    return KeyRing(keys, ring.origin)
