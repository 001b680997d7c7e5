"""Scopes: the node, an account, an instance or a symbol, written as in `KillSwitchSet`.

`node`, `account:NAME`, `instance:NAME` or `symbol:NAME`.
"""

from typing import TYPE_CHECKING

from host.api import TandemError

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["NotKnown", "check_scope", "is_in_scope"]


class NotKnown(TandemError):  # noqa: N818 - the answer, not a malfunction
    """There is no such account, symbol, instance or order. `kind` says which, `name` what was asked for."""

    def __init__(self, kind: str, name: str, detail: str) -> None:
        super().__init__(f"there is no {kind} {name}: {detail}")
        self.kind = kind
        self.name = name


def is_in_scope(scope: str, account: str, instance: str, symbol: str) -> bool:
    """Return whether what `instance` has in `symbol` on `account` belongs to a scope."""
    kind, _, name = scope.partition(":")
    return (
        kind == "node"
        or (kind == "account" and account == name)
        or (kind == "instance" and instance == name)
        or (kind == "symbol" and symbol == name)
    )


def check_scope(engine: "Engine", scope: str) -> None:
    """Raise `NotKnown` for a scope in which there is nothing, so that a misspelt one protects nobody by silence."""
    kind, _, name = scope.partition(":")
    state = engine.state
    known = {
        "node": {""},
        "account": {*engine.feeds, *state.instruments},
        "instance": set(state.instances),
        "symbol": {symbol for listed in state.instruments.values() for symbol in listed},
    }.get(kind)
    if known is None:
        raise NotKnown("scope", scope, "a scope is node, account:NAME, instance:NAME or symbol:NAME")
    if name not in known:
        raise NotKnown(kind, name or scope, f"there are {', '.join(sorted(known)) or 'none'}")
