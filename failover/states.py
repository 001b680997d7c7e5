"""The states of an elector and the moves between them: the table that the elector cannot leave."""

from enum import Enum
from typing import Final

__all__ = ["HOLDING", "TRANSITIONS", "Move", "State", "next_state"]


class State(Enum):
    """Where a node stands towards the lease."""

    WATCHING = "watching"
    """A standby: reads the record and claims it when it may."""
    ACQUIRING = "acquiring"
    """Its claim is on the way, or its answer was lost and is being looked up."""
    FENCING = "fencing"
    """Holds a record that it took while an earlier leader may have had a right; waits until that is over."""
    LEADING = "leading"
    """Holds the record and the right to send."""
    DRAINING = "draining"
    """Leads, starts nothing new, and waits until nothing of it is on the wire."""
    YIELDING = "yielding"
    """Its gate is closed for good; the release is on the way."""
    LAPSED = "lapsed"
    """Holds the record as far as it knows, but its right has run out: sends nothing until it has renewed."""
    RETIRED = "retired"
    """Takes no part any more."""


class Move(Enum):
    """What moves an elector."""

    CLAIM = "claim"
    WIN = "win"
    WIN_FENCED = "win fenced"
    LOSE = "lose"
    FENCE_OVER = "fence over"
    LAPSE = "lapse"
    RENEW = "renew"
    DRAIN = "drain"
    KEEP = "keep"
    YIELD = "yield"
    YIELDED = "yielded"
    RETIRE = "retire"


HOLDING: Final = frozenset({State.FENCING, State.LEADING, State.DRAINING, State.YIELDING, State.LAPSED})
"""States in which the record is this node's, as far as it knows."""

TRANSITIONS: Final[dict[State, dict[Move, State]]] = {
    State.WATCHING: {
        Move.CLAIM: State.ACQUIRING,
        Move.RETIRE: State.RETIRED,
    },
    State.ACQUIRING: {
        Move.WIN: State.LEADING,
        Move.WIN_FENCED: State.FENCING,
        Move.LOSE: State.WATCHING,
    },
    State.FENCING: {
        Move.FENCE_OVER: State.LEADING,
        Move.LOSE: State.WATCHING,
        Move.RETIRE: State.RETIRED,
    },
    State.LEADING: {
        Move.LAPSE: State.LAPSED,
        Move.DRAIN: State.DRAINING,
        Move.LOSE: State.WATCHING,
    },
    State.DRAINING: {
        Move.YIELD: State.YIELDING,
        Move.KEEP: State.LEADING,
        Move.LAPSE: State.LAPSED,
        Move.LOSE: State.WATCHING,
    },
    State.YIELDING: {
        Move.YIELDED: State.WATCHING,
        Move.LAPSE: State.LAPSED,
        Move.LOSE: State.WATCHING,
        Move.RETIRE: State.RETIRED,
    },
    State.LAPSED: {
        Move.RENEW: State.LEADING,
        Move.YIELD: State.YIELDING,
        Move.LOSE: State.WATCHING,
    },
    State.RETIRED: {},
}


def next_state(state: State, move: Move) -> State:
    """Return where `move` leads; a move that the table does not have is a mistake of this program."""
    try:
        return TRANSITIONS[state][move]
    except KeyError:
        raise AssertionError(f"elector: no move {move.value!r} from {state.value!r}") from None
