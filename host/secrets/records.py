"""One sealed secret: its value under AES-256-GCM, bound to its name, so that records cannot be swapped."""

import msgspec
from msgspec import Struct

from host.api import Secret
from host.config.secret_files import SecretProblem
from host.secrets.master_key import KeyRing, MasterKey

__all__ = ["FORMAT_VERSION", "SealedRecord", "seal", "unseal"]

FORMAT_VERSION = 1


class SealedRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """A secret as it stands in the store. All of it, and the name it stands under, is authenticated."""

    key_id: str
    """Which master key sealed it."""
    set_at: str
    """When its value was given (ISO 8601, UTC); sealing it anew leaves this as it is."""
    nonce: bytes
    sealed: bytes


def seal(key: MasterKey, name: str, secret: Secret, set_at: str) -> SealedRecord:
    """Seal a secret under `key`, with a random nonce of its own."""
    nonce, sealed = key.seal(secret.reveal().encode(), _about(name, key.id, set_at))
    return SealedRecord(key.id, set_at, nonce, sealed)


def unseal(ring: KeyRing, name: str, record: SealedRecord, origin: str) -> Secret:
    """Open the record that stands under `name` in `origin`; raise `SecretProblem`, which names both."""
    key = ring.find(record.key_id)
    if key is None:
        held = ", ".join(key.id for key in ring.keys)
        raise SecretProblem(
            f'the secret "{name}" in {origin} is sealed under the master key {_short(record.key_id)}, and '
            f"{ring.origin} holds {held}: give that key too, after the newer one, or store the secret anew with "
            f"`tandem secret set {name}`"
        )
    text = key.unseal(record.nonce, record.sealed, _about(name, record.key_id, record.set_at))
    if text is None:
        raise SecretProblem(
            f'the secret "{name}" in {origin} is not what was stored: the record was damaged, changed or moved '
            f"from another name; find out by whom, and store it anew with `tandem secret set {name}`"
        )
    return Secret(text.decode())


def _about(name: str, key_id: str, set_at: str) -> bytes:
    """Return what a seal holds besides the value: as JSON, so that no two tables read the same."""
    return msgspec.json.encode(["tandem secret", FORMAT_VERSION, name, key_id, set_at])


def _short(key_id: str) -> str:
    return key_id[:64]  # what was tampered with may be of any length
