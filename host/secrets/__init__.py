"""Credentials at rest: an encrypted store under a master key, and what a configuration's references lead to."""

from host.secrets.master_key import KeyRing, KeySource, MasterKey, write_new_key
from host.secrets.references import SecretSources, resolve_secrets
from host.secrets.rotation import Rotation, rotate
from host.secrets.store import SecretStore, StoredSecret

__all__ = [
    "KeyRing",
    "KeySource",
    "MasterKey",
    "Rotation",
    "SecretSources",
    "SecretStore",
    "StoredSecret",
    "resolve_secrets",
    "rotate",
    "write_new_key",
]
