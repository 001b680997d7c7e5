"""The instance that stands for people: orders by hand have an owner like all others.

There is one per account, because an instance trades on one account: `hand@ACCOUNT`. The `@` keeps it
apart from every configured instance, whose names have none. No strategy runs in it, so it has no
state to start, pause or stop; its number in client order ids, its positions and its limits are as
any other's.
"""

from typing import Final

__all__ = ["hand_of", "is_hand"]

_PREFIX: Final = "hand@"


def hand_of(account: str) -> str:
    """Return the name of the instance that owns the orders by hand on `account`."""
    return _PREFIX + account


def is_hand(instance: str) -> bool:
    """Return whether an instance stands for people."""
    return instance.startswith(_PREFIX)
