"""How a certificate names a node: a URI among its alternative names.

A name of its own kind, because one CA may also sign the control API's clients: to be known to it is not enough to
be handed the journal.
"""

from collections.abc import Iterable
from typing import Final

__all__ = ["PEER_URI", "peer_named", "peer_uri"]

PEER_URI: Final = "urn:tandem:peer:"


def peer_uri(node: str) -> str:
    """Return the URI by which a certificate names `node`."""
    return f"{PEER_URI}{node}"


def peer_named(names: Iterable[str]) -> str:
    """Return the node that a certificate with these alternative names is for; empty unless it is one."""
    found = [name.removeprefix(PEER_URI) for name in names if name.startswith(PEER_URI)]
    return found[0] if len(found) == 1 else ""
