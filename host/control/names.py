"""Resource names: `instances/mm-btc`, `plugins/two_sided`, and the scopes of what is done to many."""

import re
from typing import Final

from host.control.reasons import Refused

__all__ = ["child_of", "id_of", "read_scope", "scope_name"]

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,127}")
_KINDS: Final = {"account": "accounts", "instance": "instances", "symbol": "symbols"}
"""The core's word for a scope, and the collection that names it here."""


def id_of(field: str, name: str, collection: str) -> str:
    """Return NAME of `collection/NAME`; raise `Refused` where `field` holds something else."""
    head, _, rest = name.partition("/")
    if head != collection or not _ID.fullmatch(rest):
        raise Refused.field(field, f'expected {collection}/NAME, was "{name[:200]}"')
    return rest


def child_of(field: str, name: str, collection: str, children: str) -> tuple[str, str]:
    """Return both names of `collection/NAME/children/NAME`; raise `Refused`."""
    parts = name.split("/")
    is_good = len(parts) == 4 and (parts[0], parts[2]) == (collection, children)
    if not is_good or not _ID.fullmatch(parts[1]) or not _ID.fullmatch(parts[3]):
        raise Refused.field(field, f'expected {collection}/NAME/{children}/NAME, was "{name[:200]}"')
    return parts[1], parts[3]


def read_scope(field: str, name: str) -> str:
    """Return a scope as the core writes it, `node` or `instance:mm-btc`; raise `Refused`."""
    if name == "node":
        return name
    head, _, rest = name.partition("/")
    for kind, collection in _KINDS.items():
        if head == collection and _ID.fullmatch(rest):
            return f"{kind}:{rest}"
    raise Refused.field(
        field, f'expected node, accounts/NAME, instances/NAME or symbols/NAME, was "{name[:200]}"'
    )


def scope_name(scope: str) -> str:
    """Return a scope of the core as a resource name."""
    kind, _, rest = scope.partition(":")
    return f"{_KINDS[kind]}/{rest}" if rest else scope
